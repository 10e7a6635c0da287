"""`admin project policy`: what holds for a project's uptime and rewards, from which UTC day on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
import msgspec

from engine.core.catalog import PolicyRecord, RewardRule, UptimeSource, policy_at
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at
from nodepulse.commands.output import print_json, show_all
from nodepulse.commands.reading import DAY, SLUG


@click.group()
def policy() -> None:
    """What holds for a project from which day on."""


@policy.command(name="list")
@click.argument("slug", type=SLUG)
@admin_options
def policy_list(*, slug: str, asked: Asked) -> None:
    """List all that was ever decided, by day and revision, and which of it is in force."""

    async def work(desk: Desk) -> tuple[list[PolicyRecord], PolicyRecord]:
        project = await desk.project(slug)
        found = await desk.stores.projects.policies(project.project_id)
        return found, policy_at(found, _today(desk))

    found, holding = asked.run(work)
    rows = [_described(one, in_force=one == holding) for one in found]
    if asked.as_json:
        print_json({"policies": rows})
    else:
        show_all("policies: native uptime, claims are paid", rows, as_json=False)


@policy.command(name="add")
@click.argument("slug", type=SLUG)
@click.option("--from", "day", type=DAY, help="UTC day, not begun; tomorrow if left out.")
@click.option("--uptime-source", type=click.Choice(["native", "datagram"]), default="native")
@click.option("--pay-claims/--no-pay-claims", default=True, help="Pay time that was claimed afterwards.")
@click.option("--micro-points-per-paid-s", type=int, default=0, help="For each paid second.")
@click.option("--daily-cap-micro-points", type=int, help="Of one workload and UTC day; none if left out.")
@click.option("--floor-paid-ms", type=int, default=0, help="A day with less paid time earns nothing.")
@click.option(
    "--kind-weight", "weights", multiple=True, metavar="KIND=PPM", help="In millionths; repeatable."
)
@click.option(
    "--licensed-only/--licensed-or-not",
    default=None,
    help="Count only paid time under a licence, or all; if left out: only that, if the project has licences.",
)
@admin_options
def policy_add(
    *, slug: str, day: date | None, uptime_source: UptimeSource, pay_claims: bool, asked: Asked, **reward: Any
) -> None:
    """Decide what shall hold from a day to come; the first of a project may begin today."""
    rule = _rule(reward)

    async def work(desk: Desk) -> tuple[PolicyRecord, bool]:
        project_id, today = (await desk.project(slug)).project_id, _today(desk)
        made = await desk.stores.projects.add_policy(
            desk.act,
            project_id,
            effective_from=day or today + timedelta(days=1),
            today=today,
            uptime_source=uptime_source,
            pay_claims=pay_claims,
            reward=rule,
        )
        return made, made == await desk.stores.projects.policy_at(project_id, today)

    made, in_force = asked.run(work)
    asked.show(_described(made, in_force=in_force))


def _rule(reward: dict[str, Any]) -> RewardRule:
    """As the API would take it. UsageError."""
    from web.project_policies import RewardBody  # its bounds are the API's; the web server comes with it

    weights = [text.partition("=") for text in reward.pop("weights")]
    try:
        reward["kind_weights_ppm"] = {kind: int(ppm) for kind, _, ppm in weights}
    except ValueError as error:
        raise click.UsageError("--kind-weight is KIND=PPM, such as gateway=1500000") from error
    try:
        body = msgspec.convert(reward, RewardBody)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error
    return RewardRule(**msgspec.structs.asdict(body))


def _today(desk: Desk) -> date:
    return datetime.fromtimestamp(desk.act.now_ms / 1000, UTC).date()


def _described(policy: PolicyRecord, *, in_force: bool) -> Row:
    return {
        "effective_from": policy.effective_from.isoformat(),
        "revision": policy.revision,
        "uptime_source": policy.uptime_source,
        "pay_claims": policy.pay_claims,
        "reward": msgspec.structs.asdict(policy.reward),
        "in_force": in_force,
        "decided_at": at(policy.created_ms),
        "decided_by": policy.actor,
    }
