"""Deletes what has expired, portion by portion, as a job of the schedule (jobs.py).

Any number of workers could do this at once. What is history (intervals, events, points) is never pruned.
"""

from __future__ import annotations

from typing import Protocol

from worker.schedule import JobRun

PRUNE_ROWS_MAX = 10_000  # rows per transaction: more would hold locks for long


class Prune(Protocol):
    """Deletes one portion of what has expired of one kind; how many went."""

    async def __call__(self, *, now_ms: int, limit: int) -> int: ...


def pruning(prune: Prune) -> JobRun:
    """The job that prunes until nothing is left. It goes by the present, whatever it was due for."""

    async def run(*, due_ms: int, first_ms: int, now_ms: int) -> str:
        total = 0
        while gone := await prune(now_ms=now_ms, limit=PRUNE_ROWS_MAX):
            total += gone
        return f"{total} rows"

    return run
