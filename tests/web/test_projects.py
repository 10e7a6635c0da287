"""Projects, their owners, and what holds for them from which day on, over real stores."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from engine.core.catalog import DEFAULT_POLICY, RewardRule
from tests.web.control import Control
from web.main import system_ms


def day(ahead: int) -> str:
    return (datetime.fromtimestamp(system_ms() / 1000, UTC).date() + timedelta(days=ahead)).isoformat()


async def audited(control: Control, action: str) -> list[Any]:
    return await control.sql(
        "select actor, subject, project_id::text, detail from audit where action = $1", action
    )


async def test_an_admin_makes_a_project_once_and_everybody_who_signed_in_sees_it(control: Control):
    body = {"slug": "gamma", "name": "Gamma"}
    made = await control.ask("POST", "/v1/projects", json=body, key="one")
    assert made.status == 201
    assert made.headers["location"] == "/v1/projects/gamma"
    assert (await control.ask("POST", "/v1/projects", json=body, key="one")).json == made.json
    again = await control.ask("POST", "/v1/projects", json=body, key="two")
    assert (again.status, again.json["code"]) == (409, "taken")
    assert (await control.ask("GET", "/v1/projects/gamma", by="olga")).json == made.json
    assert len(await audited(control, "project.create")) == 1


async def test_who_is_no_admin_makes_no_project(control: Control):
    for by in ("owner", "paul", "olga", "manager"):
        assert (await control.ask("POST", "/v1/projects", by=by, json={"slug": "x"})).status == 403


async def test_a_slug_that_is_none_is_refused(control: Control):
    for slug in ("", "A", "-a", "a" * 64, "a\n", "a/b", "a b", "a\u0000"):
        assert (await control.ask("POST", "/v1/projects", json={"slug": slug})).status == 400


async def test_projects_are_listed_page_by_page_and_a_projects_key_sees_its_own_only(control: Control):
    first = await control.ask("GET", "/v1/projects?limit=1", by="sam")
    assert [one["slug"] for one in first.json["items"]] == ["alpha"]
    assert first.headers["link"].endswith('>; rel="next"')
    rest = await control.ask("GET", f"/v1/projects?after={first.json['next_cursor']}", by="sam")
    assert [one["slug"] for one in rest.json["items"]] == ["beta"]
    assert rest.json["next_cursor"] is None
    own = await control.ask("GET", "/v1/projects", by="foreign")
    assert [one["slug"] for one in own.json["items"]] == ["beta"]
    assert (await control.ask("GET", "/v1/projects/alpha", by="foreign")).status == 404


async def test_who_runs_a_project_names_it_and_only_an_admin_retires_it(control: Control):
    named = await control.ask("PATCH", "/v1/projects/alpha", by="paul", json={"name": "Alpha"})
    assert named.json["name"] == "Alpha"
    assert (await control.ask("PATCH", "/v1/projects/alpha", by="foreign", json={"name": "x"})).status == 404
    assert (
        await control.ask("PATCH", "/v1/projects/alpha", by="owner", json={"retired": True})
    ).status == 403
    retired = await control.ask("PATCH", "/v1/projects/beta", json={"retired": True})
    assert retired.json["retired_at"] is not None
    assert (await control.ask("PATCH", "/v1/projects/beta", json={"retired": False})).json[
        "retired_at"
    ] is None
    assert [one["detail"] for one in await audited(control, "project.change")] == [
        '{"name":"Alpha"}',
        '{"retired":true}',
        '{"retired":false}',
    ]


async def test_an_admin_says_who_owns_a_project(control: Control):
    path, sam = "/v1/projects/beta/owners", control.users["sam"]
    assert (await control.ask("PUT", f"{path}/{sam}", by="foreign")).status == 403
    added = await control.ask("PUT", f"{path}/{sam}")
    assert added.status == 200
    assert (await control.ask("PUT", f"{path}/{sam}")).json == added.json
    assert (await control.ask("GET", path, by="foreign")).json["items"] == [added.json]
    assert (await control.ask("DELETE", f"{path}/{sam}")).status == 204
    assert (await control.ask("DELETE", f"{path}/{sam}")).status == 404
    assert (await control.ask("GET", path)).json["items"] == []
    assert len(await audited(control, "project.add_owner")) == len(
        await audited(control, "project.remove_owner")
    )


async def test_an_owner_must_be_somebody(control: Control):
    for nobody in ("0192f3a4-5b6c-7d8e-9f01-23456789abcd", "nobody"):
        assert (await control.ask("PUT", f"/v1/projects/beta/owners/{nobody}")).status == 404
        assert (await control.ask("DELETE", f"/v1/projects/beta/owners/{nobody}")).status == 404


async def test_the_owners_of_a_project_are_its_own_affair(control: Control):
    for by, status in (("owner", 200), ("paul", 200), ("foreign", 404), ("olga", 403), ("sam", 403)):
        assert (await control.ask("GET", "/v1/projects/alpha/owners", by=by)).status == status


# -- policies ---------------------------------------------------------------------------------------------

POLICIES = "/v1/projects/alpha/policies"


async def test_before_anybody_decides_uptime_is_native_and_claims_are_paid(control: Control):
    assert (await control.ask("GET", POLICIES, by="sam")).json == {"items": []}
    found = await control.stores.projects.policy_at(control.alpha.project_id, date(2026, 1, 1))
    assert found == DEFAULT_POLICY
    assert (found.uptime_source, found.pay_claims) == ("native", True)


async def test_the_first_policy_may_begin_today_and_a_later_one_tomorrow(control: Control):
    reward = {
        "micro_points_per_paid_s": 12,
        "daily_cap_micro_points": 1_000_000,
        "floor_paid_ms": 3_600_000,
        "kind_weights_ppm": {"gateway": 1_500_000},
        "licensed_only": True,
    }
    first = await control.ask("POST", POLICIES, by="owner", json={"effective_from": day(0), "reward": reward})
    assert first.status == 201
    assert first.json["in_force"] is True
    assert first.json["reward"] == reward
    assert first.json["decided_by"] == f"key:{control.key_ids['owner']}"
    second = {"effective_from": day(0), "pay_claims": False}
    late = await control.ask("POST", POLICIES, by="owner", json=second)
    assert (late.status, late.json["errors"][0]["pointer"]) == (422, "/effective_from")
    second["effective_from"] = day(1)
    made = await control.ask("POST", POLICIES, by="paul", json=second)
    assert (made.status, made.json["in_force"], made.json["revision"]) == (201, False, 1)

    port, of = control.stores.projects, control.alpha.project_id
    today, tomorrow, yesterday = (date.fromisoformat(day(ahead)) for ahead in (0, 1, -1))
    assert (await port.policy_at(of, today)).reward == RewardRule(**reward)
    assert (await port.policy_at(of, tomorrow)).pay_claims is False
    assert await port.policy_at(of, yesterday) == DEFAULT_POLICY


async def test_the_past_is_not_decided_anew(control: Control):
    for begins in (day(-1), "1999-12-31"):
        refused = await control.ask("POST", POLICIES, by="owner", json={"effective_from": begins})
        assert (refused.status, refused.json["code"]) == (422, "bad_day")


async def test_a_later_decision_for_a_day_replaces_the_one_before_and_both_stay_written(
    control: Control,
):
    for source in ("datagram", "native", "native"):
        body = {"effective_from": day(2), "uptime_source": source}
        assert (await control.ask("POST", POLICIES, by="owner", json=body)).status == 201
    items = (await control.ask("GET", POLICIES, by="owner")).json["items"]
    assert [(one["revision"], one["uptime_source"]) for one in items] == [(1, "datagram"), (2, "native")]
    held = await control.stores.projects.policy_at(control.alpha.project_id, date.fromisoformat(day(5)))
    assert (held.revision, held.uptime_source) == (2, "native")
    assert len(await audited(control, "project.decide_policy")) == 2


WRONG: tuple[dict[str, Any], ...] = (
    {"effective_from": "2026-13-01"},
    {"effective_from": "2026-01-01\n"},
    {"effective_from": "soon"},
    {"uptime_source": "hearsay"},
    {"pay_claims": "yes"},
    {"reward": {"micro_points_per_paid_s": -1}},
    {"reward": {"micro_points_per_paid_s": 1.5}},
    {"reward": {"daily_cap_micro_points": 2**63}},
    {"reward": {"floor_paid_ms": 86_400_001}},
    {"reward": {"kind_weights_ppm": {"Not A Slug": 1}}},
    {"reward": {"bonus": 1}},
    {"reward": {"licensed_only": "yes"}},
    {"surprise": 1},
)


async def test_a_policy_that_is_none_is_refused(control: Control):
    for wrong in WRONG:
        answer = await control.ask("POST", POLICIES, by="owner", json={"effective_from": day(1), **wrong})
        assert answer.status in (400, 422)
    assert (await control.ask("GET", POLICIES, by="owner")).json == {"items": []}


async def test_only_who_runs_a_project_decides(control: Control):
    body = {"effective_from": day(1)}
    for by, status in (("foreign", 404), ("olga", 403), ("sam", 403), ("manager", 403)):
        assert (await control.ask("POST", POLICIES, by=by, json=body)).status == status
