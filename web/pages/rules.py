"""What a project's paid time is worth: its rules by the day from which they hold, and deciding on a new one.

Nothing of a rule is ever changed: whoever wants something else decides anew, for days to come. People fill in
points, minutes and factors; the API takes micro-points, milliseconds and millionths.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from quart import Response, request

from engine.core.amounts import micro_of_points, points_of_micro
from web.pages import words
from web.pages.asking import ApiError
from web.pages.clock import utc_today
from web.pages.forms import NONE, Attempt, Given, fault, submit
from web.pages.links import segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

KINDS_SHOWN = 100
MINUTE_MS, PPM = 60_000, 1_000_000
SOURCES = {"native": "NodePulse's own beats", "datagram": "Datagram"}
COUNTED = {
    "": "time under a licence, if the project has licences; else all of it",
    "true": "only time under a licence",
    "false": "all paid time",
}


async def show_rules(visitor: Visitor, *, slug: str, attempt: Attempt = NONE) -> Response:
    path = f"/v1/projects/{segment(slug)}"
    project = await visitor.api.get(path)
    policies = (await visitor.api.get(f"{path}/policies"))["items"]
    kinds = (await visitor.api.get(f"{path}/kinds", limit=KINDS_SHOWN))["items"]
    newest = policies[-1] if policies else None
    return render(
        "rules.html",
        attempt.status,
        visitor=visitor,
        project=project,
        policies=list(reversed(policies)),
        kinds=[each["slug"] for each in kinds],
        filled=_filled(newest),
        # A project's first rule may hold from today on, every other one from tomorrow.
        earliest=str(utc_today() + timedelta(days=1 if policies else 0)),
        sources=SOURCES,
        counted=COUNTED,
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


def _filled(policy: dict[str, Any] | None) -> dict[str, str]:
    """The fields of the form as the newest rule has them."""
    if policy is None:
        return {"licensed_only": "", "uptime_source": "native", "pay_claims": "on"}
    reward = policy["reward"]
    cap, licensed = reward["daily_cap_micro_points"], reward["licensed_only"]
    return {
        "micro_points_per_paid_s": points_of_micro(reward["micro_points_per_paid_s"]),
        "daily_cap_micro_points": "" if cap is None else points_of_micro(cap),
        "floor_paid_ms": f"{Decimal(reward['floor_paid_ms']) / MINUTE_MS:f}",
        "licensed_only": "" if licensed is None else str(licensed).lower(),
        "uptime_source": policy["uptime_source"],
        "pay_claims": "on" if policy["pay_claims"] else "",
        **{f"weight {kind}": points_of_micro(ppm) for kind, ppm in reward["kind_weights_ppm"].items()},
    }


async def decide_rule(visitor: Visitor, *, slug: str) -> Response:
    path = f"/v1/projects/{segment(slug)}/policies"

    async def send(given: Given) -> str:
        try:
            body = _body(given, (await visitor.api.get(path))["items"])
            await visitor.api.send("POST", path, body, key=given.get("once", ""))
        except ApiError as error:
            raise _at_fields(error) from error
        return f"/projects/{segment(slug)}/rules?told=decided"

    async def again(attempt: Attempt) -> Response:
        return await show_rules(visitor, slug=slug, attempt=attempt)

    return await submit("rule", send, again=again)


def _body(given: Given, policies: list[dict[str, Any]]) -> dict[str, Any]:
    """ApiError 422 for what is no amount."""
    # Weights of kinds that the form does not show stay as they are.
    weights = dict(policies[-1]["reward"]["kind_weights_ppm"]) if policies else {}
    for name, text in given.items():
        if name.startswith("weight "):
            kind = name.removeprefix("weight ")
            weights.pop(kind, None)
            if text not in ("", "1"):
                weights[kind] = _micro(text, "kind_weights_ppm")
    cap = given.get("daily_cap_micro_points", "")
    return {
        "effective_from": given.get("effective_from", ""),
        "uptime_source": given.get("uptime_source", "native"),
        "pay_claims": "pay_claims" in given,
        "reward": {
            "micro_points_per_paid_s": _micro(
                given.get("micro_points_per_paid_s", ""), "micro_points_per_paid_s"
            ),
            "daily_cap_micro_points": _micro(cap, "daily_cap_micro_points") if cap else None,
            "floor_paid_ms": _micro(given.get("floor_paid_ms") or "0", "floor_paid_ms") * MINUTE_MS // PPM,
            "kind_weights_ppm": weights,
            "licensed_only": {"true": True, "false": False}.get(given.get("licensed_only", "")),
        },
    }


def _micro(text: str, field: str) -> int:
    try:
        return micro_of_points(text)
    except ValueError as error:
        raise fault("write a number with at most 6 places, such as 0.0001", field) from error


def _at_fields(error: ApiError) -> ApiError:
    """With its faults at the fields of the form, which has the rule's beside the rest."""
    errors = [
        {**each, "pointer": str(each.get("pointer") or "").replace("/reward/", "/")}
        for each in error.problem.get("errors") or ()
    ]
    return ApiError(error.status, {**error.problem, "errors": errors})


PAGES = (
    Page(path="/projects/{slug}/rules", handler=show_rules),
    Page(path="/projects/{slug}/rules", handler=decide_rule, method="POST"),
)
