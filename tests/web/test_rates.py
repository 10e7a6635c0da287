"""How many requests one may send: told in each answer, refused above, and forgotten again."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from tests.web.control import Control
from web import rates
from web.problems import RefusedError
from web.rates import Rate


def reconfigure(control: Control, **settings: object) -> None:
    control.settings = msgspec.structs.replace(control.settings, **settings)
    control.app = control.new_app()
    control.client = control.app.test_client()


async def test_the_rate_is_told_and_counts_down(autojump_clock: trio.testing.MockClock):
    rate = Rate("key", per_min=3)
    told = [rate.take("a")["ratelimit"] for _ in range(3)]
    assert told == ['"key";r=2;t=20', '"key";r=1;t=40', '"key";r=0;t=60']
    assert rate.take("b") == {"ratelimit-policy": '"key";q=3;w=60', "ratelimit": '"key";r=2;t=20'}


async def test_above_it_one_is_told_when_to_come_back_and_then_may(autojump_clock: trio.testing.MockClock):
    rate = Rate("key", per_min=3)
    for _ in range(3):
        rate.take("a")
    with pytest.raises(RefusedError) as refused:
        rate.take("a")
    assert refused.value.status == 429
    assert refused.value.headers["retry-after"] == "20"
    assert refused.value.headers["ratelimit"] == '"key";r=0;t=20'
    await trio.sleep(19.9)
    with pytest.raises(RefusedError):
        rate.take("a")
    await trio.sleep(0.2)  # being refused costs nothing
    rate.take("a")
    await trio.sleep(3_600)
    assert rate.take("a")["ratelimit"] == '"key";r=2;t=20'  # never more than a minute's worth
    assert rate.statistics() == {"callers": 1, "refused_total": 2}


async def test_more_callers_than_are_remembered_do_not_free_one_who_is_busy(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rates, "BUCKETS_MAX", 10)
    rate = Rate("key", per_min=2)
    rate.take("busy")
    rate.take("busy")
    for number in range(100):
        rate.take(f"caller {number}")
        with pytest.raises(RefusedError):
            rate.take("busy")
        assert rate.statistics()["callers"] <= 11


async def test_each_key_has_a_rate_of_its_own(control: Control):
    reconfigure(control, key_requests_per_min_max=2)
    first = await control.ask("GET", "/v1/me", by="olga")
    assert (first.status, first.headers["ratelimit-policy"]) == (200, '"key";q=2;w=60')
    assert first.headers["ratelimit"].startswith('"key";r=1;')
    assert (await control.ask("GET", "/v1/me", by="olga")).status == 200
    above = await control.ask("GET", "/v1/me", by="olga")
    assert (above.status, above.json["code"]) == (429, "rate")
    assert int(above.headers["retry-after"]) > 0
    assert [name for name in above.headers if name == "ratelimit"] == ["ratelimit"]
    assert (await control.ask("GET", "/v1/me", by="sam")).status == 200
    refused = await control.ask("GET", "/v1/users", by="owner")  # a refusal tells it, too
    assert (refused.status, refused.headers["ratelimit"][:10]) == (403, '"key";r=1;')


async def test_whoever_guesses_keys_is_told_to_slow_down(control: Control):
    reconfigure(control, address_requests_per_min_max=3)
    control.bearers["guess"] = "np_guess"
    statuses = [(await control.ask("GET", "/v1/me", by="guess")).status for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await control.ask("GET", "/v1/me", by="olga")).status == 200
    assert (await control.ask("POST", "/v1/sign-in/wallet/nonce", by=None, key=None)).status == 429


async def test_machines_are_not_limited(control: Control):
    reconfigure(control, address_requests_per_min_max=1, key_requests_per_min_max=1)
    for path in ("/livez", "/metrics", "/openapi.json"):
        for _ in range(3):
            answer = await control.ask("GET", path, by=None)
            assert (answer.status, "ratelimit" in answer.headers) == (200, False), path
    for path in ("/v1/sessions", "/v1/beats/backfill"):
        for _ in range(3):
            answer = await control.ask("POST", path, by=None, body=b"{}")
            assert (answer.status in (400, 403), "ratelimit" in answer.headers) == (True, False), path
