"""`GET /v1/schedule`: the worker's jobs, when each is due, and what came of the last run."""

from __future__ import annotations

import msgspec
from quart import Response

from engine.core.people import Principal
from engine.core.schedule import Line
from web.backend import Backend
from web.routing import Answer, Route, reply_polled
from web.times import format_rfc3339


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`cron`: in UTC; null: by conditions, not by the clock. `catch_up`: every | newest of the due times that
    an outage missed. `last_*`: of the newest run that was begun; `outcome`: never | running | lost |
    waiting | failed | done. `oldest_due_at`: of what is not done. `worker`: who has
    the run in hand, or did it."""

    job: str
    cron: str | None
    catch_up: str | None
    next_due_at: str | None
    oldest_due_at: str | None
    last_due_at: str | None
    last_run_at: str | None
    took_ms: int | None
    outcome: str
    note: str
    worker: str | None


class ScheduleAnswer(msgspec.Struct, frozen=True):
    """All jobs. `next_cursor` is always null."""

    items: list[JobAnswer]
    next_cursor: str | None


def job_answer(line: Line) -> JobAnswer:
    """A job as it is told."""

    def at(ms: int | None) -> str | None:
        return None if ms is None else format_rfc3339(ms)

    took_ms = None
    if line.cron and line.last_begun_ms is not None and line.last_ended_ms is not None:
        took_ms = line.last_ended_ms - line.last_begun_ms
    return JobAnswer(
        job=line.job,
        cron=line.cron or None,
        catch_up=line.catch_up or None,
        next_due_at=at(line.next_ms),
        oldest_due_at=at(line.oldest_due_ms),
        last_due_at=at(line.last_due_ms),
        last_run_at=at(line.last_begun_ms),
        took_ms=None if took_ms is None or took_ms < 0 else took_ms,  # begun again since it ended
        outcome=line.outcome,
        note=line.note,
        worker=line.worker or None,
    )


async def get_schedule(backend: Backend, caller: Principal) -> Response:
    lines = await backend.stores.schedule.lines(now_ms=backend.clock())
    return reply_polled(ScheduleAnswer(items=[job_answer(line) for line in lines], next_cursor=None))


ROUTES = (
    Route(
        method="GET",
        path="/v1/schedule",
        handler=get_schedule,
        summary="The worker's jobs: when each is due, and what came of the last run",
        tag="operation",
        answers={200: Answer(description="The jobs", type=ScheduleAnswer)},
    ),
)
