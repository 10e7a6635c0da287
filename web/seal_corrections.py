"""Corrections of sealed days: asked for by whoever runs the project, carried out by the worker.

What was sealed stays as it is: a correction is a further revision, composed afresh from the records. So one
either changes nothing but the records (late ones are then in), or grants maintenance of the project's own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Response

from engine.core.people import Principal, Role
from engine.core.records import Gap
from engine.core.sealing import GRANTS_MAX, Correction, CorrectionRefusedError, Grant
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.node_registration import Id, form_of_id
from web.problems import Fault, RefusedError, not_found
from web.routing import Answer, Route, read_body, reply, reply_polled
from web.seals import sealed_day
from web.times import DAY_MS, format_rfc3339, parse_day, parse_rfc3339

BODY_BYTES_MAX = 2 * 1024 * 1024  # GRANTS_MAX of them are about 1.5 MB
DECLARED = "declared"  # the cause of a gap that a person wrote down
_STATUS = {"not_sealed": 404, "too_many": 409, "unknown_reference": 422}
Time = Annotated[str, msgspec.Meta(max_length=40)]


class GrantedMaintenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Maintenance ordered by the project, within the day (RFC 3339, half-open): it is paid."""

    workload_id: Id
    from_: Time = msgspec.field(name="from")
    to: Time


class DeclaredGap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time within the day in which this shard did not listen, not on record yet; an admin's to give."""

    shard: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    from_: Time = msgspec.field(name="from")
    to: Time


class NewCorrection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason` is published with the new revision. Nothing granted: the records of now are composed again."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    maintenances: Annotated[list[GrantedMaintenance], msgspec.Meta(max_length=GRANTS_MAX)] = []
    gap: DeclaredGap | None = None


class ChangedRowAnswer(msgspec.Struct, frozen=True):
    """null: the row was not there before, or is no more."""

    workload_id: str
    paid_before_ms: int | None
    paid_after_ms: int | None


class CorrectionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`done_at` null: the worker has not sealed the day once more yet. `changed`: the first 1,000 rows that
    differ from the revision before, where one correction is looked at; in lists it is empty."""

    correction_id: str
    project: str
    day: str
    reason: str
    actor: str
    maintenances: int
    asked_at: str
    done_at: str | None
    revision: int | None
    rows_changed: int | None
    paid_before_ms: int | None
    paid_after_ms: int | None
    changed: list[ChangedRowAnswer]


class CorrectionsAnswer(msgspec.Struct, frozen=True):
    """All corrections of a day, in order. There are at most 100, so `next_cursor` is always null."""

    items: list[CorrectionAnswer]
    next_cursor: str | None


def _answer(project: str, one: Correction) -> CorrectionAnswer:
    return CorrectionAnswer(
        correction_id=one.correction_id,
        project=project,
        day=one.day,
        reason=one.reason,
        actor=one.actor,
        maintenances=one.grants,
        asked_at=format_rfc3339(one.asked_ms),
        done_at=None if one.done_ms is None else format_rfc3339(one.done_ms),
        revision=one.revision,
        rows_changed=one.rows_changed,
        paid_before_ms=one.paid_before_ms,
        paid_after_ms=one.paid_after_ms,
        changed=[
            ChangedRowAnswer(row.workload_id, row.paid_before_ms, row.paid_after_ms) for row in one.changed
        ],
    )


async def create_correction(backend: Backend, caller: Principal, *, slug: str, day: str) -> Response:
    asked, _ = await read_body(NewCorrection)
    project = await sight.project(backend, caller, slug)
    day_ms = _day(day)
    grants = _grants(asked, day_ms)
    gap = None if asked.gap is None else _gap(backend, caller, asked.gap, day_ms)
    try:
        made = await backend.stores.corrections.correct(
            project.project_id,
            day,
            reason=asked.reason,
            grants=grants,
            gap=gap,
            act=act_of(backend, caller),
        )
    except CorrectionRefusedError as error:
        raise RefusedError(_STATUS[error.code], error.code, str(error)) from error
    return reply(_answer(project.slug, made), 202)


def _day(day: str) -> int:
    try:
        return parse_day(day)
    except ValueError as error:
        raise not_found("seal") from error


def _grants(asked: NewCorrection, day_ms: int) -> list[Grant]:
    """RefusedError 422 with everything that is wrong."""
    grants: list[Grant] = []
    faults: list[Fault] = []
    for number, one in enumerate(asked.maintenances):
        pointer = f"/maintenances/{number}"
        workload_id = form_of_id(one.workload_id, f"{pointer}/workload_id")
        try:
            grants.append(Grant(workload_id, *_span(one.from_, one.to, day_ms)))
        except ValueError as error:
            faults.append(Fault(str(error), pointer))
    if faults:
        raise RefusedError(422, "invalid", faults[0].detail, errors=faults)
    return grants


def _gap(backend: Backend, caller: Principal, asked: DeclaredGap, day_ms: int) -> Gap:
    if Role.ADMIN not in caller.roles:
        raise RefusedError(403, "forbidden", "a gap concerns all projects: only an admin writes one down")
    try:
        if asked.shard >= backend.shards:
            raise ValueError(f"there are {backend.shards} shards")
        return Gap(asked.shard, *_span(asked.from_, asked.to, day_ms), DECLARED, backend.shards)
    except ValueError as error:
        raise RefusedError(422, "invalid", str(error), errors=[Fault(str(error), "/gap")]) from error


def _span(from_: str, to: str, day_ms: int) -> tuple[int, int]:
    """ValueError for what is no time within the day."""
    from_ms, to_ms = parse_rfc3339(from_), parse_rfc3339(to)
    if not day_ms <= from_ms < to_ms <= day_ms + DAY_MS:
        raise ValueError("must begin before it ends, within the day")
    return from_ms, to_ms


async def list_corrections(backend: Backend, caller: Principal, *, slug: str, day: str) -> Response:
    project = await sight.project(backend, caller, slug)
    await sealed_day(backend, project.project_id, day)
    found = await backend.stores.corrections.corrections(project.project_id, day)
    return reply_polled(
        CorrectionsAnswer(items=[_answer(project.slug, one) for one in found], next_cursor=None)
    )


async def get_correction(
    backend: Backend, caller: Principal, *, slug: str, day: str, correction_id: str
) -> Response:
    project = await sight.project(backend, caller, slug)
    _day(day)
    found = await backend.stores.corrections.correction(project.project_id, day, correction_id.lower())
    if found is None:
        raise not_found("correction")
    return reply_polled(_answer(project.slug, found))


_PATH = "/v1/projects/{slug}/seals/{day}/corrections"
ROUTES = (
    Route(
        method="POST",
        path=_PATH,
        handler=create_correction,
        summary="Have a sealed day sealed once more, with a reason; what was sealed stays",
        tag="seals",
        body=NewCorrection,
        body_bytes_max=BODY_BYTES_MAX,
        creates=True,
        answers={202: Answer(description="The correction, to be carried out soon", type=CorrectionAnswer)},
        refusals=(400, 403, 404, 409, 413, 422, 503),
    ),
    Route(
        method="GET",
        path=_PATH,
        handler=list_corrections,
        summary="Corrections of a sealed day, and what they came to",
        tag="seals",
        answers={200: Answer(description="The corrections, in order", type=CorrectionsAnswer)},
        refusals=(404,),
    ),
    Route(
        method="GET",
        path=_PATH + "/{correction_id}",
        handler=get_correction,
        summary="A correction with the rows that it changed",
        tag="seals",
        answers={200: Answer(description="The correction", type=CorrectionAnswer)},
        refusals=(404,),
    ),
)
