"""Disputes: an operator holds something against a sealed day; the project answers, corrects or rejects it.

Both sides see the same record. Who may do what when is a table in engine/core/disputes.py.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from quart import Response, request

from engine.core.disputes import (
    EVIDENCE_CHARS_MAX,
    EVIDENCE_MAX,
    STATES,
    TEXT_CHARS_MAX,
    AlreadyOpenError,
    Dispute,
    DisputeFilter,
    DisputeRefusedError,
    DisputeState,
    NewDispute,
    Side,
    What,
    check_open,
)
from engine.core.people import Principal, Role
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.lists import PROJECT, choice_parameter, id_parameter, project_parameter
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, bad_parameter
from web.routing import Answer, Parameter, Route, boolean_parameter, read_body, reply, reply_polled
from web.times import DAY_MS, format_rfc3339, parse_day

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
Evidence = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=EVIDENCE_CHARS_MAX)]],
    msgspec.Meta(max_length=EVIDENCE_MAX),
]
Day = Annotated[str, msgspec.Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class OpenedDispute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`day`: sealed, YYYY-MM-DD in UTC. `evidence`: ids of events or gaps, hashes of receipts or proofs."""

    day: Day
    text: Text
    evidence: Evidence = []
    EXAMPLES: ClassVar[dict[str, object]] = {"day": "2026-01-31"}


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one says to it, and what one points to."""

    text: Text
    evidence: Evidence = []


class Correction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`revision`: of the day's seal, newer than the disputed one, that puts it right."""

    revision: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    text: Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)] = ""
    evidence: Evidence = []


class Rejection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the seal stands."""

    reason: Text
    evidence: Evidence = []


class EntryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`what`: open | comment | answer | correct | reject. `side`: operator | project | installation."""

    entry_id: str
    what: What
    side: Side
    actor: str
    text: str
    evidence: list[str]
    revision: int | None
    at: str


class DisputeItem(msgspec.Struct, frozen=True, kw_only=True):
    """`revision`: of the day's seal when the dispute was opened. `opener_id`: the user who opened it."""

    dispute_id: str
    project: str
    node_id: str
    workload_id: str
    day: str
    revision: int
    opener_id: str
    state: DisputeState
    opened_at: str
    changed_at: str


class DisputeAnswer(DisputeItem, frozen=True, kw_only=True):
    """With all that was said, by time: the same for both sides."""

    entries: list[EntryAnswer]


class DisputesAnswer(msgspec.Struct, frozen=True):
    """A page of disputes, by id: the oldest first."""

    items: list[DisputeItem]
    next_cursor: str | None


def _item(dispute: Dispute) -> DisputeItem:
    return DisputeItem(
        dispute_id=dispute.dispute_id,
        project=dispute.project,
        node_id=dispute.node_id,
        workload_id=dispute.workload_id,
        day=dispute.day,
        revision=dispute.revision,
        opener_id=dispute.opener_id,
        state=dispute.state,
        opened_at=format_rfc3339(dispute.opened_ms),
        changed_at=format_rfc3339(dispute.changed_ms),
    )


def _answer(dispute: Dispute) -> DisputeAnswer:
    entries = [
        EntryAnswer(
            entry_id=each.entry_id,
            what=each.what,
            side=each.side,
            actor=each.actor,
            text=each.text,
            evidence=list(each.evidence),
            revision=each.revision,
            at=format_rfc3339(each.at_ms),
        )
        for each in dispute.entries
    ]
    return DisputeAnswer(**msgspec.structs.asdict(_item(dispute)), entries=entries)


async def open_dispute(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    asked, _ = await read_body(OpenedDispute)
    day = _day(asked.day)
    workload, seal, sealed = await sight.sealed_workload(backend, caller, workload_id, day)
    act = act_of(backend, caller)
    if seal is None:
        raise RefusedError(409, "not_sealed", f"{day} is not sealed yet: there is nothing to dispute")
    if not sealed:
        raise RefusedError(409, "refused", f"the seal of {day} says nothing of this workload")
    try:
        check_open(
            sealed_ms=seal.sealed_ms,
            now_ms=act.now_ms,
            open_ms=backend.settings.dispute_days * DAY_MS,
        )
        assert caller.user_id is not None, "operators are people"
        made = await backend.stores.disputes.open(
            NewDispute(
                project_id=workload.project_id,
                node_id=workload.node_id,
                workload_id=workload.workload_id,
                day=day,
                revision=seal.revision,
                opener_id=caller.user_id,
                text=asked.text,
                evidence=tuple(asked.evidence),
            ),
            act=act,
        )
    except DisputeRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    except AlreadyOpenError as error:
        raise RefusedError(409, "already_open", str(error)) from error
    return reply(_answer(made), 201)


async def list_disputes(backend: Backend, caller: Principal) -> Response:
    limit, after = limit_parameter(), id_cursor()
    mine = boolean_parameter("mine")
    if mine and caller.user_id is None:
        raise bad_parameter("mine", "this key is no person's")
    day = request.args.get("day")
    which = DisputeFilter(
        project_id=await project_parameter(backend, caller),
        workload_id=id_parameter("workload_id"),
        opener_id=caller.user_id if mine else None,
        day=None if day is None else _day_parameter(day),
        state=choice_parameter("state", STATES),  # type: ignore[arg-type]
    )
    found = await backend.stores.disputes.disputes(
        sight.sight_of(caller), which, after=after, limit=limit + 1
    )
    page, cursor = cut(found, limit, lambda one: one.dispute_id)
    answer = DisputesAnswer(items=[_item(one) for one in page], next_cursor=cursor)
    return reply(answer, headers=link_headers(cursor))


async def get_dispute(backend: Backend, caller: Principal, *, dispute_id: str) -> Response:
    return reply_polled(_answer(await sight.dispute(backend, caller, dispute_id)))


async def comment(backend: Backend, caller: Principal, *, dispute_id: str) -> Response:
    asked, _ = await read_body(Said)
    return await _say(backend, caller, dispute_id, "comment", asked.text, asked.evidence)


async def answer(backend: Backend, caller: Principal, *, dispute_id: str) -> Response:
    asked, _ = await read_body(Said)
    return await _say(backend, caller, dispute_id, "answer", asked.text, asked.evidence)


async def correct(backend: Backend, caller: Principal, *, dispute_id: str) -> Response:
    asked, _ = await read_body(Correction)
    return await _say(
        backend, caller, dispute_id, "correct", asked.text, asked.evidence, revision=asked.revision
    )


async def reject(backend: Backend, caller: Principal, *, dispute_id: str) -> Response:
    asked, _ = await read_body(Rejection)
    return await _say(backend, caller, dispute_id, "reject", asked.reason, asked.evidence)


async def _say(
    backend: Backend,
    caller: Principal,
    dispute_id: str,
    what: What,
    text: str,
    evidence: list[str],
    *,
    revision: int | None = None,
) -> Response:
    found = await sight.dispute(backend, caller, dispute_id)
    try:
        said = await backend.stores.disputes.say(
            found.dispute_id,
            what,
            _side(caller, found, what),
            text=text,
            evidence=tuple(evidence),
            revision=revision,
            act=act_of(backend, caller),
        )
    except DisputeRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    assert said is not None, "disputes are never deleted"
    return reply(_answer(said), 201)


def _side(caller: Principal, dispute: Dispute, what: What) -> Side:
    """For whom one speaks who has both sides: who opened it comments as such, and decides as the project."""
    if what == "comment" and caller.user_id == dispute.opener_id:
        return "operator"
    roles = sight.roles_over(caller, project_id=dispute.project_id)
    return "project" if Role.OWNER in roles else "installation"


def _day(text: str) -> str:
    try:
        parse_day(text)
    except ValueError as error:
        raise RefusedError(422, "invalid", str(error), errors=[Fault(str(error), "/day")]) from error
    return text


def _day_parameter(text: str) -> str:
    try:
        parse_day(text)
    except ValueError as error:
        raise bad_parameter("day", str(error)) from error
    return text


def _saying(word: str, handler: object, summary: str, body: type) -> Route:
    return Route(
        method="POST",
        path=f"/v1/disputes/{{dispute_id}}/{word}",
        handler=handler,  # type: ignore[arg-type]
        summary=summary,
        tag="disputes",
        body=body,
        creates=True,
        answers={201: Answer(description="The dispute with what was said", type=DisputeAnswer)},
        refusals=(400, 404, 409, 422),
    )


ROUTES = (
    Route(
        method="POST",
        path="/v1/workloads/{workload_id}/disputes",
        handler=open_dispute,
        summary="Hold something against a sealed day: its operator, or who owned its licence that day",
        tag="disputes",
        body=OpenedDispute,
        creates=True,
        answers={201: Answer(description="The dispute", type=DisputeAnswer)},
        refusals=(400, 404, 409, 422),
    ),
    Route(
        method="GET",
        path="/v1/disputes",
        handler=list_disputes,
        summary="Disputes that one opened, and those of one's projects",
        tag="disputes",
        parameters=(
            *PARAMETERS,
            PROJECT,
            Parameter(name="workload_id", description="Only of this workload"),
            Parameter(name="day", description="Only of this day, YYYY-MM-DD"),
            Parameter(
                name="state",
                description="Only those in this state",
                schema={"type": "string", "enum": list(STATES)},
            ),
            Parameter(name="mine", description="Only those I opened", schema={"type": "boolean"}),
        ),
        answers={200: Answer(description="A page of disputes", type=DisputesAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/disputes/{dispute_id}",
        handler=get_dispute,
        summary="A dispute with all that was said",
        tag="disputes",
        answers={200: Answer(description="The dispute", type=DisputeAnswer)},
        refusals=(404,),
    ),
    _saying("comments", comment, "Say something to a dispute that is not settled", Said),
    _saying("answer", answer, "Answer a dispute, as the project", Said),
    _saying("correct", correct, "Settle a dispute: a newer seal of the day puts it right", Correction),
    _saying("reject", reject, "Settle a dispute: the seal stands", Rejection),
)
