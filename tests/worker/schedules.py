"""Jobs that leave a trace in the database, for tests of the schedule; and a worker that can be killed.

Run as a program it is a worker with one job that writes down each due time, waits, and says that it is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import trio

from storage.bridge import run_on_uvloop
from storage.open import open_stores
from storage.pool import Connection, Postgres
from storage.settings import DatabaseSettings, RedisSettings
from worker.schedule import Job, Later, Scheduler

TABLES = """
create table if not exists begun (job text, due_ms bigint, worker text);
create table if not exists recorded (job text, due_ms bigint, worker text, primary key (job, due_ms));
"""


async def _begin(connection: Connection, job: str, due_ms: int, worker: str) -> None:
    await connection.execute("insert into begun values ($1, $2, $3)", job, due_ms, worker)


async def _record(connection: Connection, job: str, due_ms: int, worker: str) -> None:
    await connection.execute(
        "insert into recorded values ($1, $2, $3) on conflict do nothing", job, due_ms, worker
    )


def recording(db: Postgres, name: str, *, worker: str, takes_s: float = 0.0, hook=None):
    """A job's `run` that writes down that it began, and then, once per due time, that it was done.

    `hook(where, due_ms)` is called at both places: it may raise, or return what the job is to return.
    """

    async def run(*, due_ms: int, first_ms: int, now_ms: int) -> str | Later:
        await db.run(_begin, name, due_ms, worker)
        if hook is not None and (came := hook("begun", due_ms)) is not None:
            return came
        await trio.sleep(takes_s)
        await db.run(_record, name, due_ms, worker)
        if hook is not None:
            hook("recorded", due_ms)
        return "recorded"

    return run


def scheduler(stores, *jobs: Job, worker: str = "w", now_ms: Callable[[], int], **options) -> Scheduler:
    crashes: list[tuple[Exception, str]] = []
    made = Scheduler(
        schedule=stores.schedule,
        jobs=jobs,
        worker=worker,
        now_ms=now_ms,
        crashed=lambda error, job: crashes.append((error, job)),
        **{"tick_s": 0.05, **options},
    )
    made.crashes = crashes
    return made


def main(postgres_url: str, redis_url: str, worker: str, now_ms: str, takes_s: str, lease_ms: str) -> int:
    async def work() -> int:
        settings = DatabaseSettings(url=postgres_url)
        async with open_stores(settings, RedisSettings(url=redis_url)) as stores:
            db = Postgres(settings)
            await db.open()
            started = trio.current_time()

            def clock() -> int:
                return int(now_ms) + int((trio.current_time() - started) * 1000)

            run = recording(db, "slow", worker=worker, takes_s=float(takes_s))
            job = Job("slow", "* * * * *", "every", run)
            made = scheduler(
                stores, job, worker=worker, now_ms=clock, lease_ms=int(lease_ms), renew_s=int(lease_ms) / 4000
            )
            await made.run()
        return 0

    return run_on_uvloop(work)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
