"""The schedule: jobs that run by the clock, each exactly once per due time; as records, a plan and a port.

Pure. Due times come from a function that is handed in (a cron expression read by worker/cron.py). What the
jobs do is the worker's; a job is handed its due time, and doing it twice for one due time changes nothing.

A due time that has come becomes a run, a row of its own. A run is claimed with a lease; it is done once, and
who lost the lease cannot say that it is done. So a run whose worker is killed is begun again by another, and
one that was missed in an outage runs late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import msgspec

CatchUp = Literal["every", "newest"]
RunState = Literal["due", "done"]
RUNS_PLANNED_MAX = 100  # of one job at a time; the rest at the next look
FAILED_WAIT_MS_MIN, FAILED_WAIT_MS_MAX = 30_000, 3_600_000
NOTE_CHARS_MAX = 300


class JobState(msgspec.Struct, frozen=True):
    """A job as it is stored. `next_ms`: the first due time that is no run yet. `oldest_ms`: of the runs that
    are not done; None: all are."""

    job: str
    cron: str
    catch_up: CatchUp
    planned_ms: int
    next_ms: int
    oldest_ms: int | None


class DueTimes(NamedTuple):
    """When a job is due. `after`: the first due time later than a moment; `until`: the newest not later."""

    after: Callable[[int], int]
    until: Callable[[int], int]


class Plan(NamedTuple):
    """Due times that become runs now, and the next one that is none yet."""

    due_ms: tuple[int, ...]
    next_ms: int


def plan(state: JobState, due: DueTimes, now_ms: int) -> Plan | None:
    """What has become due; None: nothing.

    A job that catches up `every` due time gets a run for each that was missed. One that needs only the
    `newest` gets one run however many were missed, and none before the run it has is done: its runs do not
    pile up while it fails.
    """
    if now_ms < state.next_ms:
        return None
    if state.catch_up == "newest":
        if state.oldest_ms is not None:
            return None
        newest = max(state.next_ms, due.until(now_ms))
        return Plan((newest,), due.after(newest))
    found: list[int] = []
    following = state.next_ms
    while following <= now_ms and len(found) < RUNS_PLANNED_MAX:
        found.append(following)
        following = due.after(following)
    return Plan(tuple(found), following)


def first_due(state: JobState | None, due: DueTimes, now_ms: int) -> int:
    """The next due time of a job that is new, or whose cron expression has changed.

    What had come by the old expression stays due; nothing that was planned comes again.
    """
    if state is None:
        return due.after(now_ms)
    return state.next_ms if state.next_ms <= now_ms else due.after(max(now_ms, state.planned_ms))


def lag_ms(state: JobState, now_ms: int) -> int:
    """How long ago the oldest due time came that is not done."""
    oldest = state.next_ms if state.oldest_ms is None else state.oldest_ms
    return max(0, now_ms - oldest)


def failed_wait_ms(failures: int) -> int:
    """How long to leave a run alone after so many failures in a row (1 = the first)."""
    assert failures >= 1
    return int(min(FAILED_WAIT_MS_MAX, FAILED_WAIT_MS_MIN * 2 ** min(failures - 1, 16)))


class Run(msgspec.Struct, frozen=True):
    """A run in hand. `claims`: which claim of it this is; only the newest can settle it. `first_ms`: when it
    was begun for the first time."""

    job: str
    due_ms: int
    claims: int
    failures: int
    first_ms: int


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its newest run, as people are shown it.

    `cron` is empty for what runs by conditions and not by the clock. `last_*`: of the newest run that was
    begun, None before the first. `outcome`: never | running | lost | waiting | failed | done. `oldest_due_ms`
    is that of the runs that are not done.
    """

    job: str
    cron: str = ""
    catch_up: str = ""
    next_ms: int | None = None
    oldest_due_ms: int | None = None
    last_due_ms: int | None = None
    last_begun_ms: int | None = None
    last_ended_ms: int | None = None
    outcome: str = "never"
    note: str = ""
    worker: str = ""


class Schedule(Protocol):
    """Jobs and their runs, as all workers share them. StoreUnavailableError."""

    async def jobs(self) -> list[JobState]: ...

    async def know(self, job: str, *, cron: str, catch_up: CatchUp, now_ms: int, next_ms: int) -> None:
        """Write down a job that is new or was changed; of two who do this at once, one wins."""
        ...

    async def advance(self, state: JobState, plan: Plan) -> bool:
        """Make the runs of a plan; False, with nothing done, if another has moved the job on meanwhile."""
        ...

    async def claim(
        self, jobs: list[str], *, limit: int, now_ms: int, lease_ms: int, worker: str
    ) -> list[Run]:
        """Take free runs of these jobs (skip locked), the oldest due first, until the lease ends."""
        ...

    async def renew(self, run: Run, *, now_ms: int, lease_ms: int) -> bool:
        """Keep it for longer; False when it is another's by now."""
        ...

    async def finish(self, run: Run, *, now_ms: int, note: str) -> bool:
        """It is done; False when it is another's by now."""
        ...

    async def put_back(self, run: Run, *, now_ms: int, free_ms: int, note: str, failed: bool) -> bool:
        """It is to be tried again from `free_ms` on; False when it is another's by now."""
        ...

    async def lines(self, *, now_ms: int) -> list[Line]:
        """All jobs by name, and what runs by conditions: seals and full passes of ownership."""
        ...

    async def prune(self, *, now_ms: int, kept_ms: int, limit: int) -> int:
        """Delete runs that were done longer ago, but of each job the newest; how many."""
        ...
