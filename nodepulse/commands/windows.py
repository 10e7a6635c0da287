"""`admin window`: maintenance windows. How much may be opened is engine/core/maintenance.py's."""

from __future__ import annotations

import click

from engine.core.records import Window
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at
from nodepulse.commands.output import print_ids, print_json, show_all
from nodepulse.commands.reading import ID, TIME

DAY_MS = 86_400_000


@click.group()
def window() -> None:
    """Maintenance windows."""


@window.command(name="open")
@click.argument("node_id")
@click.option("--workload", "workload_id", help="Of this workload only; else of the whole node.")
@click.option("--from", "from_ms", type=TIME, required=True, metavar="TIME", help="RFC 3339, ahead of now.")
@click.option("--minutes", type=click.IntRange(1, 60), required=True)
@click.option("--own", is_flag=True, help="The operator's own: not paid.")
@click.option("--update", is_flag=True, help="For an ordered update: at most 10 minutes.")
@admin_options
def window_open(
    *,
    node_id: str,
    workload_id: str | None,
    from_ms: int,
    minutes: int,
    own: bool,
    update: bool,
    asked: Asked,
) -> None:
    """Open a maintenance window: at most 60 minutes per workload and UTC day."""

    async def work(desk: Desk) -> Window:
        return await desk.stores.directory.open_window(
            node_id,
            workload_id,
            from_ms=from_ms,
            to_ms=from_ms + minutes * 60_000,
            own=own,
            update=update,
            now_ms=desk.act.now_ms,
            act=desk.act,
        )

    made = asked.run(work)
    described = {"window_id": made.window_id, "from_ms": made.from_ms, "to_ms": made.to_ms, "own": made.own}
    if asked.ids_only:
        print_ids([described])
    else:
        asked.show({"node_id": node_id, "workload_id": workload_id, **described})


@window.command(name="list")
@click.argument("node_id", type=ID)
@click.option("--from", "from_ms", type=TIME, metavar="TIME", help="RFC 3339; a day ago if left out.")
@click.option("--to", "to_ms", type=TIME, metavar="TIME", help="RFC 3339; a year ahead if left out.")
@admin_options
def window_list(*, node_id: str, from_ms: int | None, to_ms: int | None, asked: Asked) -> None:
    """List windows of a node, and of the workloads that live on it, by their beginning."""

    async def work(desk: Desk) -> list[Window]:
        begin_ms = desk.act.now_ms - DAY_MS if from_ms is None else from_ms
        end_ms = desk.act.now_ms + 365 * DAY_MS if to_ms is None else to_ms
        found: dict[str, Window] = {}
        for workload_id in (await desk.node(node_id)).workload_ids:
            for one in await desk.stores.history.windows(workload_id, begin_ms, end_ms):
                found[one.window_id] = one
        return sorted(found.values(), key=lambda one: (one.from_ms, one.window_id))

    rows: list[Row] = [
        {
            "window_id": one.window_id,
            "workload_id": one.workload_id,
            "from": at(one.from_ms),
            "to": at(one.to_ms),
            "own": one.own,
        }
        for one in asked.run(work)
    ]
    if asked.ids_only:
        print_ids(rows)
    elif asked.as_json:
        print_json({"node_id": node_id, "windows": rows})
    else:
        show_all("windows", rows, as_json=False)
