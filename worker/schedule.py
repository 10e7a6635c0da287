"""The schedule's actor: sees what is due, claims it, runs it, and says that it is done.

Any number of workers do this side by side. What is due when is engine/core/schedule.py's, that each due time
runs once storage/postgres_schedule.py's, what the jobs do stands in worker/jobs.py. A run is kept by a lease
that is renewed while it goes on: a worker that is killed loses it, and another begins the run again. So a
job's effects must be the same however often it is run for one due time: the due time is handed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog
import trio

from engine.core.ports import StoreUnavailableError
from engine.core.schedule import CatchUp, JobState, Run, Schedule, failed_wait_ms, first_due, lag_ms, plan
from worker.cron import due_times
from worker.outage import OUTAGE_POLL_S, Outage

TICK_S = 5.0  # how often it is asked what is due
LEASE_MS = 120_000  # how long a killed worker's run waits, and how far clocks of workers may disagree
RENEW_S = 30.0
RUNS_MAX = 4  # in hand at a time; further ones wait, or another worker takes them
RUN_S_MAX = 3_600.0  # one that hangs is cut, counts as failed, and is begun again
GIVE_BACK_S_MAX = 1.0  # at the end of the process

log = structlog.get_logger()


class Later(msgspec.Struct, frozen=True):
    """What it needs is not there yet: run it again from `at_ms` on. No failure."""

    at_ms: int
    note: str


class JobRun(Protocol):
    """Does what is to be done for one due time, from the beginning; what came of it, in a few words.

    `first_ms`: when that was begun for the first time.
    """

    async def __call__(self, *, due_ms: int, first_ms: int, now_ms: int) -> str | Later: ...


class Job(msgspec.Struct, frozen=True):
    """`catch_up`: whether each due time that was missed is run, or only the newest of them."""

    name: str
    cron: str
    catch_up: CatchUp
    run: JobRun


class ScheduleStatistics(msgspec.Struct, frozen=True):
    """`lag_seconds`: since the oldest due time came that is not done, of all jobs."""

    lag_seconds: float
    running: int
    done_total: dict[str, int]
    failed_total: dict[str, int]
    waited_total: dict[str, int]
    lost_total: int
    store_away: int


class Scheduler:
    def __init__(
        self,
        *,
        schedule: Schedule,
        jobs: Sequence[Job],
        worker: str,
        now_ms: Callable[[], int],
        crashed: Callable[[Exception, str], None],
        tick_s: float = TICK_S,
        lease_ms: int = LEASE_MS,
        renew_s: float = RENEW_S,
    ) -> None:
        """`worker`: what this process is called in the listing. `crashed` hears of bugs in a job, by name.

        ValueError: a cron expression that is none.
        """
        self._schedule = schedule
        self._jobs = {job.name: job for job in jobs}
        self._due = {job.name: due_times(job.cron) for job in jobs}
        self._worker = worker
        self._now_ms = now_ms
        self._crashed = crashed
        self._tick_s, self._lease_ms, self._renew_s = tick_s, lease_ms, renew_s
        self._states: list[JobState] = []
        self._running: set[str] = set()
        self._outage = Outage("schedule")
        self._done = dict.fromkeys(self._jobs, 0)
        self._failed = dict.fromkeys(self._jobs, 0)
        self._waited = dict.fromkeys(self._jobs, 0)
        self._lost = 0

    async def run(self) -> None:
        """Until cancelled. Postgres being away is waited for; no job waits for another one's end."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await self._begin(nursery)
                    self._outage.over()
                except StoreUnavailableError as error:
                    self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S if self._outage.away else self._tick_s)

    async def run_once(self) -> None:
        """Run what is due and free, and wait for all of it. StoreUnavailableError."""
        async with trio.open_nursery() as nursery:
            await self._begin(nursery)

    def statistics(self) -> ScheduleStatistics:
        now_ms = self._now_ms()
        return ScheduleStatistics(
            lag_seconds=max((lag_ms(state, now_ms) for state in self._states), default=0) / 1000,
            running=len(self._running),
            done_total=dict(self._done),
            failed_total=dict(self._failed),
            waited_total=dict(self._waited),
            lost_total=self._lost,
            store_away=int(self._outage.away),
        )

    async def _begin(self, nursery: trio.Nursery) -> None:
        """Plan what has become due, and begin as many runs as there are places for."""
        await self._plan()
        free = [name for name in self._jobs if name not in self._running]
        places = RUNS_MAX - len(self._running)
        if not free or places <= 0:
            return
        claimed = await self._schedule.claim(
            free, limit=places, now_ms=self._now_ms(), lease_ms=self._lease_ms, worker=self._worker
        )
        by_job: dict[str, list[Run]] = {}
        for run in claimed:  # several of one job: one after the other, the oldest first
            by_job.setdefault(run.job, []).append(run)
        self._running |= by_job.keys()
        for runs in by_job.values():
            nursery.start_soon(self._run_in_turn, runs)

    async def _plan(self) -> None:
        stored = {state.job: state for state in await self._schedule.jobs()}
        for name, job in self._jobs.items():
            state, now_ms = stored.get(name), self._now_ms()
            if state is None or (state.cron, state.catch_up) != (job.cron, job.catch_up):
                next_ms = first_due(state, self._due[name], now_ms)
                await self._schedule.know(
                    name, cron=job.cron, catch_up=job.catch_up, now_ms=now_ms, next_ms=next_ms
                )
            elif (planned := plan(state, self._due[name], now_ms)) is not None:
                await self._schedule.advance(state, planned)
        self._states = [state for name, state in stored.items() if name in self._jobs]

    async def _run_in_turn(self, runs: list[Run]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                kept = set(runs)
                nursery.start_soon(self._keep, kept, nursery.cancel_scope)
                for run in runs:
                    if run in kept:
                        await self._run_one(run)
                        kept.discard(run)
                nursery.cancel_scope.cancel()
        finally:
            self._running.discard(runs[0].job)

    async def _keep(self, kept: set[Run], scope: trio.CancelScope) -> None:
        """Renew the leases; a run that is another's by now is dropped, and the one in hand is cut short."""
        while True:
            await trio.sleep(self._renew_s)
            for run in sorted(kept, key=lambda run: run.due_ms):
                try:
                    if await self._schedule.renew(run, now_ms=self._now_ms(), lease_ms=self._lease_ms):
                        continue
                except StoreUnavailableError as error:
                    self._outage.began(error)
                    break  # nobody else can claim it either
                if run in kept:  # not settled meanwhile
                    self._lost += 1
                    log.warning("schedule.lost", job=run.job, due_ms=run.due_ms)
                    scope.cancel()

    async def _run_one(self, run: Run) -> None:
        began_ms = self._now_ms()
        try:
            with trio.fail_after(RUN_S_MAX):
                came = await self._jobs[run.job].run(
                    due_ms=run.due_ms, first_ms=run.first_ms, now_ms=began_ms
                )
        except trio.Cancelled:
            with trio.move_on_after(GIVE_BACK_S_MAX, shield=True):
                await self._put_back(run, Later(began_ms, "given back by a worker that stopped"))
            raise
        except StoreUnavailableError as error:
            await self._settle(run, error)
        except Exception as error:  # noqa: BLE001 - one job's bug must not stop the others; reported
            self._crashed(error, run.job)
            await self._settle(run, error)
        else:
            await self._settle(run, came)

    async def _settle(self, run: Run, came: str | Later | Exception) -> None:
        """Write what came of it, again and again while Postgres is away."""
        while True:
            try:
                mine = await self._write(run, came)
                break
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
        if not mine:
            self._lost += 1
            log.warning("schedule.lost", job=run.job, due_ms=run.due_ms)

    async def _write(self, run: Run, came: str | Later | Exception) -> bool:
        now_ms, told = self._now_ms(), {"job": run.job, "due_ms": run.due_ms}
        if isinstance(came, Later):
            mine = await self._put_back(run, came)
            self._waited[run.job] += mine
            log.info("schedule.waits", **told, note=came.note, again_ms=came.at_ms)
            return mine
        if isinstance(came, Exception):
            wait_ms = failed_wait_ms(run.failures + 1)
            note = f"{type(came).__name__}: {came}"
            mine = await self._schedule.put_back(
                run, now_ms=now_ms, free_ms=now_ms + wait_ms, note=note, failed=True
            )
            self._failed[run.job] += 1
            log.warning("schedule.failed", **told, error=note, again_in_ms=wait_ms)
            return mine
        mine = await self._schedule.finish(run, now_ms=now_ms, note=came)
        if mine:
            self._done[run.job] += 1
            log.info("schedule.done", **told, note=came)
        return mine

    async def _put_back(self, run: Run, later: Later) -> bool:
        return await self._schedule.put_back(
            run, now_ms=self._now_ms(), free_ms=later.at_ms, note=later.note, failed=False
        )
