"""`/v1/projects/{slug}/policies`: what holds for a project's uptime and rewards, from which day on.

A policy begins with a UTC day that has not begun, and nothing of it is ever changed: whoever wants something
else for a day to come decides anew. What was decided once for a day that is over stays as it was.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from quart import Response

from engine.core.catalog import CatalogRefusedError, PolicyRecord, RewardRule, UptimeSource, policy_at
from engine.core.people import Principal
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import SLUG
from web.problems import Fault, RefusedError
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339, parse_day

# A day's paid seconds times the highest rate and weight fit the ledger's 64 bits.
_RATE_MAX, _WEIGHT_PPM_MAX = 1_000_000_000_000, 100_000_000
_JSON_INTEGER_MAX = 9_007_199_254_740_991  # what every reader of JSON can tell from its neighbours
_DAY_MS = 86_400_000
_WEIGHTS_MAX = 1_000

Rate = Annotated[int, msgspec.Meta(ge=0, le=_RATE_MAX)]
Cap = Annotated[int, msgspec.Meta(ge=0, le=_JSON_INTEGER_MAX)]
Floor = Annotated[int, msgspec.Meta(ge=0, le=_DAY_MS)]
Weight = Annotated[int, msgspec.Meta(ge=0, le=_WEIGHT_PPM_MAX)]
KindSlug = Annotated[str, msgspec.Meta(pattern=f"^{SLUG.pattern}$", max_length=63)]
Day = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$", max_length=10)]


class RewardBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How paid time becomes points, where they are taken from the project's rule.

    `micro_points_per_paid_s`: for each paid second. `daily_cap_micro_points`: of one workload and UTC day,
    null = none. `floor_paid_ms`: a day with less paid time earns nothing. `kind_weights_ppm`: by the slug of
    the kind, in millionths; a kind that is not named has 1,000,000. `licensed_only`: true counts only paid
    time that fell under a licence, false all of it, null: only that, if the project has licences.
    """

    micro_points_per_paid_s: Rate = 0
    daily_cap_micro_points: Cap | None = None
    floor_paid_ms: Floor = 0
    kind_weights_ppm: Annotated[dict[KindSlug, Weight], msgspec.Meta(max_length=_WEIGHTS_MAX)] = {}
    licensed_only: bool | None = None


class NewPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What shall hold from a UTC day on: tomorrow or later; a project's first policy today or later.

    `pay_claims`: whether time that was only claimed afterwards (backfill) is paid.
    """

    effective_from: Day
    uptime_source: UptimeSource = "native"
    pay_claims: bool = True
    reward: RewardBody = RewardBody()


class PolicyAnswer(msgspec.Struct, frozen=True):
    """Of revisions for the same day the highest holds. `in_force`: it holds today (UTC)."""

    effective_from: str
    revision: int
    uptime_source: UptimeSource
    pay_claims: bool
    reward: RewardBody
    in_force: bool
    decided_at: str
    decided_by: str


class PoliciesAnswer(msgspec.Struct, frozen=True):
    """All revisions, by day and revision. Before the first day: native uptime, claims are paid."""

    items: list[PolicyAnswer]


def _today(backend: Backend) -> date:
    return datetime.fromtimestamp(backend.clock() / 1000, UTC).date()


def _answer(policy: PolicyRecord, holding: PolicyRecord) -> PolicyAnswer:
    reward = policy.reward
    return PolicyAnswer(
        effective_from=policy.effective_from.isoformat(),
        revision=policy.revision,
        uptime_source=policy.uptime_source,
        pay_claims=policy.pay_claims,
        reward=RewardBody(**msgspec.structs.asdict(reward)),
        in_force=policy == holding,
        decided_at=format_rfc3339(policy.created_ms),
        decided_by=policy.actor,
    )


async def list_policies(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.public_project(backend, caller, slug)
    found = await backend.stores.projects.policies(project.project_id)
    holding = policy_at(found, _today(backend))
    return reply(PoliciesAnswer(items=[_answer(policy, holding) for policy in found]))


async def decide_policy(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    asked, _ = await read_body(NewPolicy)
    begins, port, today = _day(asked.effective_from), backend.stores.projects, _today(backend)
    try:
        made = await port.add_policy(
            act_of(backend, caller),
            project.project_id,
            effective_from=begins,
            today=today,
            uptime_source=asked.uptime_source,
            pay_claims=asked.pay_claims,
            reward=RewardRule(**msgspec.structs.asdict(asked.reward)),
        )
    except CatalogRefusedError as error:
        raise _bad_day(str(error)) from error
    return reply(_answer(made, await port.policy_at(project.project_id, today)), 201)


def _day(text: str) -> date:
    try:
        return datetime.fromtimestamp(parse_day(text) / 1000, UTC).date()
    except ValueError as error:
        raise _bad_day(str(error)) from error


def _bad_day(detail: str) -> RefusedError:
    return RefusedError(422, "bad_day", detail, errors=(Fault(detail, "/effective_from"),))


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/policies",
        handler=list_policies,
        summary="What holds for a project from which day on",
        tag="projects",
        answers={200: Answer(description="All policies", type=PoliciesAnswer)},
        refusals=(404,),
    ),
    Route(
        method="POST",
        path="/v1/projects/{slug}/policies",
        handler=decide_policy,
        summary="Decide what shall hold from a day to come",
        tag="projects",
        creates=True,
        body=NewPolicy,
        answers={201: Answer(description="The policy", type=PolicyAnswer)},
        refusals=(404, 422),
    ),
)
