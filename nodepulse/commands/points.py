"""`admin points`: commit a sealed day's points from a file or by the project's rule, and see them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from engine.core.amounts import points_of_micro
from engine.core.ledger import (
    AlreadyCommittedError,
    Commit,
    KeyReusedError,
    NothingToCorrectError,
    RowsRefusedError,
    SealMovedError,
    SealRef,
    StillRunningError,
)
from engine.core.ports import Project
from nodepulse.commands.acting import LIMIT_MAX, Asked, Desk, Row, admin_options, at, page_options
from nodepulse.commands.output import print_json, show_all
from nodepulse.commands.reading import DAY, SLUG

if TYPE_CHECKING:  # the reading of bodies brings the web server with it
    from web.points_body import Form, Given

FAULTS_TOLD = 20
_REFUSED: dict[type[Exception], str] = {
    KeyReusedError: "choose another --key",
    StillRunningError: "try again",
    AlreadyCommittedError: "give --reason to correct it",
    NothingToCorrectError: "leave --reason out",
    SealMovedError: "reckon anew",
}


@click.group()
def points() -> None:
    """Points of sealed days."""


@points.command(name="commit")
@click.argument("slug", type=SLUG)
@click.argument(
    "rows", metavar="[FILE]", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False
)
@click.option("--suggested", is_flag=True, help="What the project's own rule gives, instead of a file.")
@click.option("--day", type=DAY, help="UTC day; needed for CSV and with --suggested.")
@click.option("--revision", type=click.IntRange(1), help="Of the seal that the file was reckoned from.")
@click.option("--root", metavar="HEX", help="Of that seal; either will do.")
@click.option("--total", metavar="POINTS", help="What all rows must sum to; needed for CSV.")
@click.option("--reason", help="Why an earlier commit of the day is corrected.")
@click.option("--key", help="Idempotency key; made of the contents if left out.")
@admin_options
def points_commit(
    *, slug: str, rows: Path | None, suggested: bool, key: str | None, asked: Asked, **told: Any
) -> None:
    """Commit a day: a file of JSON (.json), NDJSON (.ndjson, .jsonl) or CSV (.csv), or --suggested."""
    if (rows is None) != suggested:
        raise click.UsageError("give either a FILE or --suggested")
    if suggested and told["day"] is None:
        raise click.UsageError("--suggested needs --day")

    async def work(desk: Desk) -> Commit:
        with ExitStack() as closing:
            project = await desk.project(slug)
            return await _committed(desk, project, closing, rows, told, key)

    commit = _refusing(asked, work)
    asked.show(_described(commit))


def _refusing(asked: Asked, work: Callable[[Desk], Awaitable[Commit]]) -> Commit:
    """What is refused, in the API's words."""
    from web.problems import RefusedError

    try:
        return asked.run(work)
    except RefusedError as error:
        told = [fault for fault in error.errors if fault.detail != error.detail]
        lines = [f"{fault.pointer}: {fault.detail}" for fault in told[:FAULTS_TOLD]]
        raise click.ClickException("\n".join([f"{error.code}: {error.detail}", *lines])) from error
    except tuple(_REFUSED) as error:
        raise click.ClickException(f"{error}; {_REFUSED[type(error)]}") from error


async def _committed(
    desk: Desk, project: Project, closing: ExitStack, path: Path | None, told: dict[str, Any], key: str | None
) -> Commit:
    from web.points import check_total, must_name, new_commit, refusal_of, rule_in_force

    ledger = desk.stores.ledger
    given, digest = await _given(desk, project, path, told)
    closing.callback(given.packed.close)
    header, packed = given.header, given.packed
    seal = await _seal(desk, project, header.day)
    must_name(seal, header, may_be_left_out=path is None)
    rule = await rule_in_force(desk.stores.projects, desk.stores.inventory, project, header.day)
    new = new_commit(project, given, seal, rule, key=key or f"cli-{digest.hex()[:32]}", digest=digest)
    try:
        if packed.fault_count:
            await ledger.check(new, packed.file)
            raise refusal_of(given, (), 0)
        check_total(header, packed.total_micro_points)
        commit, _ = await ledger.commit(desk.act, new, packed.file)
    except RowsRefusedError as error:
        raise refusal_of(given, error.faults, error.count) from error
    return commit


async def _given(
    desk: Desk, project: Project, path: Path | None, told: dict[str, Any]
) -> tuple[Given, bytes]:
    """The rows, and what tells the same ones again."""
    from web.points_body import Given, header_of, read_given
    from web.points_suggested import packed_suggestion, rule_of

    said = {name: str(value) for name, value in told.items() if value is not None}
    digest = hashlib.sha256(msgspec.json.encode(["cli", project.slug, said], order="sorted"))
    if path is None:
        header = header_of({**said, **({"revision": told["revision"]} if told["revision"] else {})})
        seal = await _seal(desk, project, header.day)
        rule = await rule_of(desk.stores.projects, desk.stores.inventory, project, header.day)
        packed = await packed_suggestion(desk.stores.ledger, seal, rule)
        return Given(header, packed, "json"), digest.digest()
    with path.open("rb") as file:
        form = _form(path)
        given = read_given(file, form, said)
        file.seek(0)
        _hash_all(file, digest)
    if form != "csv":  # what was said on the command line goes before what the file says
        changes = {**said, **({"revision": told["revision"]} if told["revision"] else {})}
        plain = {name: getattr(given.header, name) for name in type(given.header).__struct_fields__}
        given = msgspec.structs.replace(given, header=header_of({**plain, **changes}))
    return given, digest.digest()


def _hash_all(file: IO[bytes], digest: Any) -> None:
    while piece := file.read(1 << 20):
        digest.update(piece)


def _form(path: Path) -> Form:
    forms: dict[str, Form] = {".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}
    if path.suffix not in forms:
        raise click.UsageError(f"{path.name} must end in one of {', '.join(forms)}")
    return forms[path.suffix]


async def _seal(desk: Desk, project: Project, day: str) -> SealRef:
    try:
        date.fromisoformat(day)
    except ValueError as error:
        raise click.ClickException(f"not a day: {day}") from error
    seal = await desk.stores.ledger.newest_seal(project.project_id, day)
    if seal is None:
        raise click.ClickException(f"{day} is not sealed in {project.slug}")
    return seal


@points.command(name="history")
@click.argument("slug", type=SLUG)
@click.option("--day", type=DAY, help="Only of this UTC day.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=100, show_default=True)
@admin_options
def points_history(*, slug: str, day: date | None, limit: int, asked: Asked) -> None:
    """List commits and corrections, newest first."""
    first, last = _window(day, None, None)

    async def work(desk: Desk) -> list[Commit]:
        project = await desk.project(slug)
        return await desk.stores.ledger.commits(
            project.project_id, from_day=first, to_day=last, before=None, limit=limit
        )

    _print(asked, "commits", [_described(commit) for commit in asked.run(work)])


@points.command(name="totals")
@click.argument("slug", type=SLUG)
@click.option("--by", type=click.Choice(["user", "licence", "workload", "day"]), default="user")
@click.option("--day", type=DAY, help="Only this UTC day.")
@click.option("--from", "first", type=DAY, help="The first UTC day.")
@click.option("--to", "last", type=DAY, help="The day after the last one.")
@page_options()
@admin_options
def points_totals(
    *,
    slug: str,
    by: str,
    day: date | None,
    first: date | None,
    last: date | None,
    after: str | None,
    limit: int,
    asked: Asked,
) -> None:
    """Sum up what counts, by user (most first), licence, workload or day. --after goes by ids."""
    window = _window(day, first, last)
    if after is not None and by not in ("licence", "workload"):
        raise click.UsageError("--after is for --by licence and workload")

    async def work(desk: Desk) -> list[Row]:
        ledger, project = desk.stores.ledger, await desk.project(slug)
        of = (project.project_id, *window)
        match by:
            case "licence":
                found = await ledger.by_licence(*of, after=after, limit=limit)
                return [{"licence_id": each, "points": points_of_micro(micro)} for each, micro in found]
            case "workload":
                found = await ledger.by_workload(*of, after=after, limit=limit)
                return [{"workload_id": each, "points": points_of_micro(micro)} for each, micro in found]
            case "day":
                commits = await ledger.by_day(*of, after=None, limit=limit)
                return [
                    {"day": each.day, "points": points_of_micro(each.total_micro_points)} for each in commits
                ]
        people = await ledger.by_beneficiary(*of, after=None, limit=limit)
        return [
            {
                "user": each.beneficiary,
                "kind": each.kind,
                "wallet": each.wallet,
                "points": points_of_micro(each.micro_points),
            }
            for each in people
        ]

    _print(asked, "totals", asked.run(work))


def _window(day: date | None, first: date | None, last: date | None) -> tuple[str | None, str | None]:
    if day is not None:
        if first is not None or last is not None:
            raise click.UsageError("either --day, or --from and --to")
        first, last = day, day + timedelta(days=1)
    return (
        None if first is None else first.isoformat(),
        None if last is None else last.isoformat(),
    )


def _print(asked: Asked, name: str, rows: list[Row]) -> None:
    if asked.as_json:
        print_json({name: rows})
    else:
        show_all(name, rows, as_json=False)


def _described(commit: Commit) -> Row:
    difference = commit.difference
    return {
        "commit_id": commit.commit_id,
        "day": commit.day,
        "revision": commit.revision,
        "seal_revision": commit.seal_revision,
        "rows": commit.rows,
        "total_points": points_of_micro(commit.total_micro_points),
        "total_before": None if difference is None else points_of_micro(difference.total_before),
        "rows_changed": None if difference is None else difference.rows_changed,
        "reason": commit.reason,
        "committed_by": commit.actor,
        "committed_at": at(commit.committed_ms),
    }
