"""`admin audit`: who changed what, and whether the log is as it was written."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from engine.core.audit import AuditEntry
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, page_options
from nodepulse.commands.reading import SLUG

SEQ_MAX = (1 << 63) - 1


def described(entry: AuditEntry) -> Row:
    return {
        "seq": entry.seq,
        "at": at(entry.at_ms),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "project_id": entry.project_id,
        "request_id": entry.request_id,
        "detail": msgspec.json.decode(entry.detail, type=dict[str, Any]),
        "previous": entry.previous.hex(),
        "hash": entry.hash.hex(),
    }


@click.group()
def audit() -> None:
    """Who changed what; and whether the log is as it was written."""


@audit.command(name="list")
@click.option("--project", type=SLUG, help="Only what was done in this project.")
@page_options(click.IntRange(1, SEQ_MAX))
@admin_options
def audit_list(*, project: str | None, after: int | None, limit: int, asked: Asked) -> None:
    """List entries, newest first."""

    async def work(desk: Desk) -> list[AuditEntry]:
        project_id = None if project is None else (await desk.project(project)).project_id
        return await desk.stores.audit.entries(
            project_id=project_id, after=after or 0, limit=limit + 1, newest_first=True
        )

    def row(entry: AuditEntry) -> Row:
        if asked.as_json:
            return described(entry)
        kept = ("seq", "at", "actor", "action", "subject", "request_id")
        return {name: value for name, value in described(entry).items() if name in kept}

    asked.show_page("entries", asked.run(work), limit, row, lambda entry: str(entry.seq))


@audit.command(name="verify")
@admin_options
def audit_verify(*, asked: Asked) -> None:
    """Walk the whole chain of hashes; exit code 1 names the first entry that does not hold."""

    async def work(desk: Desk) -> tuple[int | None, list[AuditEntry]]:
        broken = await desk.stores.audit.first_broken()
        return broken, await desk.stores.audit.entries(project_id=None, after=0, limit=1, newest_first=True)

    broken, newest = asked.run(work)
    asked.show(
        {
            "holds": broken is None,
            "first_broken": broken,
            "newest": newest[0].seq if newest else None,
            "hash": newest[0].hash.hex() if newest else None,
        }
    )
    if broken is not None:
        raise click.ClickException(
            f"entry {broken} is not as it was written: compare it with a backup; all after it are in doubt"
        )
