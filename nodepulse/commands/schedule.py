"""`admin schedule`: the worker's jobs, when each is due, and what came of the last run."""

from __future__ import annotations

import click
import msgspec

from engine.core.schedule import Line
from nodepulse.commands.acting import Asked, Desk, Row, admin_options
from nodepulse.commands.output import print_ids, print_json, show_all
from web.schedule import job_answer


@click.command()
@admin_options
def schedule(*, asked: Asked) -> None:
    """The worker's jobs: when each is due, and what came of the last run."""

    async def work(desk: Desk) -> list[Line]:
        return await desk.stores.schedule.lines(now_ms=desk.act.now_ms)

    rows: list[Row] = [msgspec.structs.asdict(job_answer(line)) for line in asked.run(work)]
    if asked.ids_only:
        print_ids(rows)
    elif asked.as_json:
        print_json({"jobs": rows, "next_cursor": None})
    else:
        kept = ("job", "cron", "next_due_at", "last_due_at", "last_run_at", "took_ms", "outcome", "note")
        show_all("jobs", [{name: row[name] for name in kept} for row in rows], as_json=False)
