"""Points: a project's owner commits a day's points, all or nothing, and reads what was committed.

Amounts are decimal strings outside and integer micro-points inside; no float ever touches them. The ledger
(storage) holds what was committed and recognises a repeated key; here a commit is checked and refused with a
pointer to every row that is wrong.
"""

from __future__ import annotations

import hashlib
import re

import msgspec
import trio
from quart import Response, request

from engine.core.ledger import AlreadyCommittedError, Commit, KeyReusedError, PointsRow
from engine.core.people import Principal
from engine.core.ports import Project
from web import sight
from web.backend import Backend
from web.ids import canonical_uuid
from web.problems import Fault, RefusedError, bad_parameter
from web.routing import Answer, Parameter, Route, read_body, reply
from web.times import DAY_MS, format_rfc3339, parse_day

MICRO = 1_000_000
_POINTS = re.compile(
    r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,6}))?", re.ASCII
)  # below 10^12: fits 64 bits as micro
_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)


class PointsEntry(msgspec.Struct, frozen=True):
    workload_id: str
    points: str


class PointsRequest(msgspec.Struct, frozen=True):
    day: str
    rows: list[PointsEntry]


class CommitAnswer(msgspec.Struct, frozen=True):
    commit_id: str
    project: str
    day: str
    rows: int
    total_points: str
    committed_at: str


class UserPoints(msgspec.Struct, frozen=True):
    """`user`: whom the points belong to; a node without a user stands for itself."""

    user: str
    points: str


class TotalsAnswer(msgspec.Struct, frozen=True):
    project: str
    day: str | None
    total_points: str
    items: list[UserPoints]


def micro_of_points(text: str) -> int:
    """Micro-points of a decimal string with at most 6 places, not negative. ValueError."""
    match = _POINTS.fullmatch(text)
    if match is None:
        raise ValueError("must be a decimal string with at most 6 places, from 0 to below 10^12")
    return int(match[1]) * MICRO + int((match[2] or "").ljust(6, "0"))


def points_of_micro(micro: int) -> str:
    """The shortest decimal string of an amount."""
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


async def commit_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    key = request.headers.get("idempotency-key", "")
    if not _KEY.fullmatch(key):
        raise bad_parameter("Idempotency-Key", "is required: 1 to 255 visible ASCII characters")
    asked, raw = await read_body(PointsRequest)
    rows = await _checked_rows(backend, project, asked)
    try:
        commit, _made_now = await backend.ledger.commit(
            project.project_id,
            asked.day,
            rows,
            idempotency_key=key,
            body_sha256=hashlib.sha256(raw).digest(),
            now_ms=backend.heads.recorded_now_ms(),
        )
    except KeyReusedError as error:
        raise RefusedError(422, "idempotency_key_reused", "this key was used with another body") from error
    except AlreadyCommittedError as error:
        raise RefusedError(409, "already_committed", f"the points of {asked.day} are committed") from error
    return reply(_commit_answer(project, commit), 201)


async def _checked_rows(backend: Backend, project: Project, asked: PointsRequest) -> list[PointsRow]:
    """The rows as the ledger takes them. RefusedError 400, 409 or 422 with everything that is wrong."""
    try:
        day_ms = parse_day(asked.day)
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error), errors=[Fault(str(error), "/day")]) from error
    if backend.heads.recorded_now_ms() < day_ms + DAY_MS:
        raise RefusedError(409, "day_not_over", f"{asked.day} is not over (UTC)")
    # A million rows take seconds: in a thread, so that everybody else is still served.
    rows, faults = await trio.to_thread.run_sync(_read_rows, asked.rows)
    known = await backend.directory.workloads_of_project(
        project.project_id, [row.workload_id for row in rows.values()]
    )
    faults += [
        Fault("no such workload in this project", f"/rows/{index}/workload_id")
        for index, row in rows.items()
        if row.workload_id not in known
    ]
    if faults:
        raise RefusedError(422, "rows_refused", "nothing was committed", errors=faults)
    return list(rows.values())


def _read_rows(entries: list[PointsEntry]) -> tuple[dict[int, PointsRow], list[Fault]]:
    """Rows by their place in the request, and what is wrong with the others."""
    if not entries:
        return {}, [Fault("must not be empty: it would close the day", "/rows")]
    rows: dict[int, PointsRow] = {}
    faults: list[Fault] = []
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        workload_id = canonical_uuid(entry.workload_id)
        if workload_id is None:
            faults.append(Fault("not an id", f"/rows/{index}/workload_id"))
            continue
        if workload_id in seen:
            faults.append(Fault("is in the list twice", f"/rows/{index}/workload_id"))
        seen.add(workload_id)
        try:
            rows[index] = PointsRow(workload_id=workload_id, micro_points=micro_of_points(entry.points))
        except ValueError as error:
            faults.append(Fault(str(error), f"/rows/{index}/points"))
    return rows, faults


async def read_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    day = request.args.get("day")
    if day is not None:
        try:
            parse_day(day)
        except ValueError as error:
            raise bad_parameter("day", str(error)) from error
    totals = await backend.ledger.totals(project.project_id, day=day)
    return reply(
        TotalsAnswer(
            project=project.slug,
            day=day,
            total_points=points_of_micro(sum(micro for _, micro in totals)),
            items=[UserPoints(user=user, points=points_of_micro(micro)) for user, micro in totals],
        )
    )


def _commit_answer(project: Project, commit: Commit) -> CommitAnswer:
    return CommitAnswer(
        commit_id=commit.commit_id,
        project=project.slug,
        day=commit.day,
        rows=commit.rows,
        total_points=points_of_micro(commit.total_micro_points),
        committed_at=format_rfc3339(commit.committed_ms),
    )


_PATH = "/v1/projects/{slug}/points"
ROUTES = (
    Route(
        method="POST",
        path=_PATH,
        handler=commit_points,
        summary="Commit the points of a day that is over, all or nothing",
        tag="points",
        body=PointsRequest,
        body_bytes_max=0,  # as long as web.body_bytes_max lets it be
        parameters=(
            Parameter(
                name="Idempotency-Key",
                description="The same key and body again get the stored answer; another body 422",
                where="header",
                required=True,
            ),
        ),
        answers={201: Answer(description="The commit", type=CommitAnswer)},
        refusals=(400, 401, 404, 409, 413, 422, 503),
    ),
    Route(
        method="GET",
        path=_PATH,
        handler=read_points,
        summary="Committed points, summed per user",
        tag="points",
        parameters=(Parameter(name="day", description="YYYY-MM-DD; without it all days"),),
        answers={200: Answer(description="Totals, most first", type=TotalsAnswer)},
        refusals=(400, 401, 404, 503),
    ),
)
