"""The schedule in PostgreSQL: a row per job and due time, claimed with a lease.

That a due time becomes a run once is a compare-and-set on `schedule_job.next_ms`; that a run is settled once,
one on its number of claims. Workers never wait for one another (skip locked).
"""

from __future__ import annotations

from engine.core.schedule import NOTE_CHARS_MAX, CatchUp, JobState, Line, Plan, Run
from storage.pool import Connection, Postgres


class PostgresSchedule:
    """engine.core.schedule.Schedule on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def jobs(self) -> list[JobState]:
        return await self._db.run(_jobs)

    async def know(self, job: str, *, cron: str, catch_up: CatchUp, now_ms: int, next_ms: int) -> None:
        await self._db.run(_know, job, cron, catch_up, min(now_ms, next_ms - 1), next_ms)

    async def advance(self, state: JobState, plan: Plan) -> bool:
        return await self._db.run(_advance, state, plan)

    async def claim(
        self, jobs: list[str], *, limit: int, now_ms: int, lease_ms: int, worker: str
    ) -> list[Run]:
        return await self._db.run(_claim, jobs, limit, now_ms, lease_ms, worker)

    async def renew(self, run: Run, *, now_ms: int, lease_ms: int) -> bool:
        return await self._db.run(_settle, run, "free_ms = $4", now_ms + lease_ms)

    async def finish(self, run: Run, *, now_ms: int, note: str) -> bool:
        changes = "state = 'done', ended_ms = $4, note = $5"  # `worker` stays: it says who did it
        return await self._db.run(_settle, run, changes, now_ms, note[:NOTE_CHARS_MAX])

    async def put_back(self, run: Run, *, now_ms: int, free_ms: int, note: str, failed: bool) -> bool:
        changes = "worker = '', ended_ms = $4, note = $5, free_ms = $6, failures = $7"
        failures = run.failures + 1 if failed else 0
        return await self._db.run(
            _settle, run, changes, now_ms, note[:NOTE_CHARS_MAX], max(free_ms, now_ms), failures
        )

    async def lines(self, *, now_ms: int) -> list[Line]:
        return await self._db.run(_lines, now_ms)

    async def prune(self, *, now_ms: int, kept_ms: int, limit: int) -> int:
        return await self._db.run(_prune, now_ms - kept_ms, limit)


async def _jobs(connection: Connection) -> list[JobState]:
    records = await connection.fetch(
        """
        select job, cron, catch_up, planned_ms, next_ms,
          (select min(due_ms) from schedule_run r where r.job = j.job and r.state = 'due') as oldest_ms
        from schedule_job j order by job
        """
    )
    return [JobState(*record) for record in records]


async def _know(
    connection: Connection, job: str, cron: str, catch_up: str, planned_ms: int, next_ms: int
) -> None:
    await connection.execute(
        """
        insert into schedule_job as j (job, cron, catch_up, planned_ms, next_ms) values ($1, $2, $3, $4, $5)
        on conflict (job) do update set cron = $2, catch_up = $3, next_ms = greatest($5, j.planned_ms + 1)
        where (j.cron, j.catch_up) <> ($2, $3)
        """,
        job,
        cron,
        catch_up,
        planned_ms,
        next_ms,
    )


async def _advance(connection: Connection, state: JobState, plan: Plan) -> bool:
    moved = await connection.fetchval(
        """
        with moved as (
          update schedule_job set planned_ms = $3, next_ms = $4 where job = $1 and next_ms = $2
          returning job),
        made as (
          insert into schedule_run (job, due_ms, free_ms)
          select moved.job, due_ms, due_ms from moved, unnest($5::bigint[]) as due_ms
          on conflict (job, due_ms) do nothing)
        select count(*) from moved
        """,
        state.job,
        state.next_ms,
        plan.due_ms[-1],
        plan.next_ms,
        list(plan.due_ms),
    )
    return bool(moved)


async def _claim(
    connection: Connection, jobs: list[str], limit: int, now_ms: int, lease_ms: int, worker: str
) -> list[Run]:
    records = await connection.fetch(
        """
        with free as (
          select job, due_ms from schedule_run
          where state = 'due' and free_ms <= $3 and job = any($1)
          order by due_ms, job limit $2 for update skip locked),
        claimed as (
          update schedule_run r set free_ms = $4, first_ms = coalesce(r.first_ms, $3), begun_ms = $3,
            worker = $5, claims = r.claims + 1
          from free where (r.job, r.due_ms) = (free.job, free.due_ms)
          returning r.job, r.due_ms, r.claims, r.failures, r.first_ms)
        select * from claimed order by due_ms, job
        """,
        jobs,
        limit,
        now_ms,
        now_ms + lease_ms,
        worker,
    )
    return [Run(*record) for record in records]


async def _settle(connection: Connection, run: Run, changes: str, *values: object) -> bool:
    settled = await connection.fetchval(
        f"""
        update schedule_run set {changes}
        where job = $1 and due_ms = $2 and claims = $3 and state = 'due' returning true
        """,
        run.job,
        run.due_ms,
        run.claims,
        *values,
    )
    return bool(settled)


async def _lines(connection: Connection, now_ms: int) -> list[Line]:
    records = await connection.fetch(
        """
        select j.job, j.cron, j.catch_up, j.next_ms, o.oldest_due_ms, l.due_ms as last_due_ms,
          l.begun_ms as last_begun_ms, l.ended_ms as last_ended_ms,
          case when l.due_ms is null then 'never' when l.state = 'done' then 'done'
            when l.worker <> '' and l.free_ms > $1 then 'running'
            when l.worker <> '' then 'lost' -- its worker has gone: it will be claimed again
            when l.failures > 0 then 'failed' else 'waiting' end as outcome,
          coalesce(l.note, '') as note, coalesce(l.worker, '') as worker
        from schedule_job j
        left join lateral (
          select min(due_ms) as oldest_due_ms from schedule_run r where r.job = j.job and r.state = 'due'
        ) o on true
        left join lateral (
          select * from schedule_run r where r.job = j.job and r.claims > 0 order by r.due_ms desc limit 1
        ) l on true
        order by j.job
        """,
        now_ms,
    )
    lines = [Line(**record) for record in records]
    by_conditions = await connection.fetchrow(
        """
        select (select max(sealed_ms) from seal) as sealed_ms,
          (select max(swept_ms) from collection) as swept_ms
        """
    )
    for job, last_ms, note in (
        ("seals", by_conditions["sealed_ms"], "when every shard is past the day and nothing is undecided"),
        ("ownership", by_conditions["swept_ms"], "each collection every poll_s, and whole once a night"),
    ):
        outcome = "never" if last_ms is None else "done"
        lines.append(Line(job=job, last_begun_ms=last_ms, last_ended_ms=last_ms, outcome=outcome, note=note))
    return lines


async def _prune(connection: Connection, before_ms: int, limit: int) -> int:
    return int(
        await connection.fetchval(
            """
            with gone as (delete from schedule_run where ctid = any(array(
              select r.ctid from schedule_run r
              where r.state = 'done' and r.ended_ms < $1 and exists (
                select from schedule_run newer where newer.job = r.job and newer.due_ms > r.due_ms)
              limit $2)) returning 1)
            select count(*) from gone
            """,
            before_ms,
            limit,
        )
    )
