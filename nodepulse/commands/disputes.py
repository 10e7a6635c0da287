"""`admin dispute`: what operators hold against sealed days. Both sides speak over the API, by their names."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from engine.core.disputes import STATES, Dispute, DisputeFilter
from engine.core.fleet import Sight
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, page_options, there
from nodepulse.commands.reading import ID, SLUG


def described(dispute: Dispute) -> Row:
    kept = ("dispute_id", "project", "state", "day", "revision", "workload_id", "opener_id")
    row: Row = {name: getattr(dispute, name) for name in kept}
    return row | {"opened_at": at(dispute.opened_ms), "changed_at": at(dispute.changed_ms)}


@click.group()
def dispute() -> None:
    """What operators hold against sealed days."""


@dispute.command(name="list")
@click.option("--project", type=SLUG, help="Only of this project.")
@click.option("--workload", "workload_id", type=ID, help="Only of this workload.")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@page_options()
@admin_options
def dispute_list(
    *, project: str | None, workload_id: str | None, state: Any, after: str | None, limit: int, asked: Asked
) -> None:
    """List disputes, the oldest first."""

    async def work(desk: Desk) -> list[Dispute]:
        project_id = None if project is None else (await desk.project(project)).project_id
        which = DisputeFilter(project_id=project_id, workload_id=workload_id, state=state)
        return await desk.stores.disputes.disputes(
            Sight(everything=True), which, after=after, limit=limit + 1
        )

    asked.show_page("disputes", asked.run(work), limit, described, lambda one: one.dispute_id)


@dispute.command(name="show")
@click.argument("dispute_id", type=ID)
@admin_options
def dispute_show(*, dispute_id: str, asked: Asked) -> None:
    """Show a dispute with all that was said in it."""

    async def work(desk: Desk) -> Dispute:
        return there(await desk.stores.disputes.dispute(dispute_id), f"dispute {dispute_id}", "dispute list")

    found = asked.run(work)
    entries: list[Row] = [{**msgspec.structs.asdict(entry), "at": at(entry.at_ms)} for entry in found.entries]
    for entry in entries:
        del entry["at_ms"]
    if not asked.as_json:
        asked.show(described(found) | {"entries": [_line(entry) for entry in entries]})
    else:
        asked.show(described(found) | {"entries": entries})


def _line(entry: Row) -> str:
    text = entry["text"] if entry["text"].isprintable() else ascii(entry["text"])
    evidence = f" [{', '.join(entry['evidence'])}]" if entry["evidence"] else ""
    return f"{entry['at']} {entry['what']} by the {entry['side']} ({entry['actor']}): {text}{evidence}"
