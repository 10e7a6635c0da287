"""What a project's own rule gives for a sealed day: to look at, to change and post, or to commit in one call.

The rule is the one in force on that day (project_policies.py); the arithmetic is engine/core/rewards.py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import closing

from quart import Response

from engine.core.amounts import points_of_micro
from engine.core.catalog import Projects
from engine.core.inventory import Inventory
from engine.core.ledger import Ledger, PaidRow, SealRef
from engine.core.people import Principal
from engine.core.ports import Project
from engine.core.rewards import RuleOfDay, reward_of
from web import sight
from web.backend import Backend
from web.bulk import format_of_query
from web.days import DAY_SCHEMA, day_parameter
from web.idempotency import key_of_request
from web.points import KEY_PARAMETER, commit_given, digest_of, rule_in_force, seal_for, stored_answer
from web.points_answers import CommitAnswer
from web.points_body import Given, PointsHeader, header_of
from web.points_packed import Packed
from web.points_streams import FORMAT, OTHER_TYPES, PAGE, Head, RowItem, stream_rows
from web.problems import RefusedError, bad_parameter
from web.routing import Answer, Parameter, Route, read_body

Suggested = tuple[PaidRow, int]  # a sealed row, and its micro-points


class SuggestedPoints(PointsHeader, frozen=True, kw_only=True):
    """A day's points by the project's rule. `revision`, `root`: of its seal; `total`: what they must sum to.

    The newest seal is what is reckoned from, so none of them is needed.
    """

    rows: list[RowItem]


async def suggest_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    day, form = day_parameter("day"), format_of_query()
    if day is None:
        raise bad_parameter("day", "is missing")
    seal = await _newest(backend, project, PointsHeader(day=day))
    rule = await rule_of(backend.stores.projects, backend.stores.inventory, project, day)
    ledger = backend.stores.ledger
    total = 0
    async for page in suggested(ledger, seal, rule):
        total += sum(micro for _, micro in page)
    head = Head(day, seal.revision, seal.root.hex(), points_of_micro(total))
    return await stream_rows(backend, form, head, _items(ledger, seal, rule))


async def commit_suggested_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    key = key_of_request()
    asked, raw = await read_body(PointsHeader)
    header = header_of({name: getattr(asked, name) for name in PointsHeader.__struct_fields__})
    digest = digest_of("suggested", hashlib.sha256(raw).digest())
    if (stored := await stored_answer(backend, project, key, digest)) is not None:
        return stored
    seal = await _newest(backend, project, header)
    rule = await rule_of(backend.stores.projects, backend.stores.inventory, project, header.day)
    with closing(await packed_suggestion(backend.stores.ledger, seal, rule)) as packed:
        given = Given(header, packed, "json")
        return await commit_given(backend, caller, project, given, seal, key=key, digest=digest)


async def _newest(backend: Backend, project: Project, header: PointsHeader) -> SealRef:
    """The newest seal, which nobody has to name here; who names one must name it. RefusedError 400, 409."""
    return await seal_for(backend, project, header, may_be_left_out=True)


async def rule_of(projects: Projects, inventory: Inventory, project: Project, day: str) -> RuleOfDay:
    """The project's rule of that day. RefusedError 409 when it pays nothing."""
    rule = await rule_in_force(projects, inventory, project, day)
    if not rule.rule.micro_points_per_paid_s:
        detail = f"no rule that pays anything is in force on {day}: decide on one, or post your own rows"
        raise RefusedError(409, "no_reward_rule", detail)
    return rule


async def suggested(ledger: Ledger, seal: SealRef, rule: RuleOfDay) -> AsyncIterator[Sequence[Suggested]]:
    """What the rule gives to all rows of a seal, in its order, by pages."""
    after = -1
    while page := await ledger.paid(seal.seal_no, after_place=after, limit=PAGE):
        yield [
            (row, reward_of(rule, kind=row.kind, paid_ms=row.paid_ms, held_paid_ms=row.held_paid_ms))
            for row in page
        ]
        after = page[-1].place


async def packed_suggestion(ledger: Ledger, seal: SealRef, rule: RuleOfDay) -> Packed:
    """All of it, as it is committed; to be closed."""
    packed = Packed()
    try:
        async for page in suggested(ledger, seal, rule):
            for row, micro in page:
                packed.add_micro(row.place, row.workload_id, micro)
        packed.end()
    except BaseException:
        packed.close()
        raise
    return packed


async def _items(ledger: Ledger, seal: SealRef, rule: RuleOfDay) -> AsyncIterator[list[RowItem]]:
    async for page in suggested(ledger, seal, rule):
        yield [RowItem(row.workload_id, points_of_micro(micro)) for row, micro in page]


_PATH = "/v1/projects/{slug}/points/suggested"
ROUTES = (
    Route(
        method="GET",
        path=_PATH,
        handler=suggest_points,
        summary="What the project's rule gives for a sealed day, as it can be posted",
        tag="points",
        parameters=(
            Parameter(name="day", description="A sealed UTC day", required=True, schema=DAY_SCHEMA),
            FORMAT,
        ),
        answers={200: Answer(description="All rows", type=SuggestedPoints, other_content_types=OTHER_TYPES)},
        refusals=(400, 404, 409, 503),
    ),
    Route(
        method="POST",
        path=_PATH,
        handler=commit_suggested_points,
        summary="Commit what the project's rule gives for a sealed day; with a reason, as a correction",
        tag="points",
        body=PointsHeader,
        parameters=(KEY_PARAMETER,),
        answers={201: Answer(description="The commit", type=CommitAnswer)},
        refusals=(400, 404, 409, 422, 503),
    ),
)
