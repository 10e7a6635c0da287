"""Rules of a project: what paid time is worth, by the day from which it holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.pages.test_forms import alert

PATH = "/projects/alpha/rules"


def day(ahead: int) -> str:
    return str((datetime.now(UTC) + timedelta(days=ahead)).date())


async def test_a_rule_is_decided_in_points_minutes_and_factors(control: Control) -> None:
    assert (await control.ask("POST", "/v1/projects/alpha/kinds", json={"slug": "gpu"})).status == 201
    paul = Browser(control, "paul")
    empty = await paul.look(PATH)
    is_whole(empty)
    assert 'class="empty"' in empty.text
    fields = {
        "micro_points_per_paid_s": "0.0001",
        "daily_cap_micro_points": "8.5",
        "floor_paid_ms": "90.5",
        "weight gpu": "2.25",
        "licensed_only": "false",
    }
    sent = await paul.fill(PATH, PATH, **fields)
    assert sent.headers["location"] == f"{PATH}?told=decided", sent.words
    [policy] = (await control.ask("GET", "/v1/projects/alpha/policies", by="paul")).json["items"]
    assert policy["effective_from"] == day(0), "the first rule may hold from today on"
    assert (policy["pay_claims"], policy["reward"]) == (
        True,
        {
            "micro_points_per_paid_s": 100,
            "daily_cap_micro_points": 8_500_000,
            "floor_paid_ms": 5_430_000,
            "kind_weights_ppm": {"gpu": 2_250_000},
            "licensed_only": False,
        },
    )
    shown = await paul.look(PATH)
    is_whole(shown)
    assert "in force 0.0001 8.64 in 24 hours 8.5 1 h 30 min gpu × 2.25 all paid time" in shown.words
    again = await paul.fill(PATH, PATH)
    assert again.status == 303, "the next one starts from the newest"
    first, second = (await control.ask("GET", "/v1/projects/alpha/policies", by="paul")).json["items"]
    assert (second["effective_from"], second["reward"]) == (day(1), first["reward"])


async def test_a_wrong_rule_is_told_at_its_field_and_stays_filled_in(control: Control) -> None:
    paul = Browser(control, "paul")
    for fields, said in (
        ({"micro_points_per_paid_s": "much"}, "write a number with at most 6 places"),
        ({"micro_points_per_paid_s": "1", "daily_cap_micro_points": "-1"}, "write a number"),
        ({"micro_points_per_paid_s": "0.1", "effective_from": day(-1)}, "day"),
        ({"micro_points_per_paid_s": "0.1", "effective_from": "x"}, "Expected `str` matching"),
        ({"micro_points_per_paid_s": "99999999"}, "Expected `int` &lt;= 1000000000000"),
        ({"micro_points_per_paid_s": "0.1", "uptime_source": "guess"}, "Invalid enum value"),
    ):
        refused = await paul.fill(PATH, PATH, **fields)
        assert refused.status in (400, 422), (fields, refused.words)
        assert said in alert(refused), alert(refused)
        assert 'class="wrong-at"' in refused.text or "uptime_source" in fields
        for value in fields.values():
            assert f'value="{value}"' in refused.text or value == "guess", fields
    assert (await control.ask("GET", "/v1/projects/alpha/policies")).json["items"] == []


async def test_only_whoever_runs_a_project_decides(control: Control) -> None:
    for by in ("olga", "sam", "foreign"):
        fields = {"micro_points_per_paid_s": "1", "effective_from": day(1)}
        sent = await Browser(control, by).send(PATH, fields)
        assert sent.status in (403, 404), (by, sent.words)
    assert (await control.ask("GET", "/v1/projects/alpha/policies")).json["items"] == []
