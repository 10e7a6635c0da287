"""Pages of other origins: those that were configured may call, others learn nothing."""

from __future__ import annotations

import msgspec

from tests.web.control import Answered, Control
from web.cors import Cors
from web.settings import WebSettings

APP, EVIL = "https://app.example.org", "https://evil.example.org"


def with_origins(control: Control, origins: str) -> None:
    control.settings = msgspec.structs.replace(control.settings, cors_origins=origins)
    control.client = control.new_app().test_client()


async def preflight(control: Control, origin: str, path: str = "/v1/keys") -> Answered:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, idempotency-key",
    }
    return await control.ask("OPTIONS", path, by=None, headers=headers)


def allowed(answer: Answered) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def test_a_page_of_a_configured_origin_may_ask_and_is_told_what_it_may_send(control: Control):
    with_origins(control, f"https://other.example.org {APP}")
    answer = await preflight(control, APP)
    assert (answer.status, answer.body) == (204, b"")
    told = allowed(answer)
    assert told["access-control-allow-origin"] == APP
    assert {"GET", "POST", "PATCH", "PUT", "DELETE"} <= set(told["access-control-allow-methods"].split(", "))
    assert {"authorization", "content-type", "idempotency-key", "if-none-match"} <= set(
        told["access-control-allow-headers"].split(", ")
    )
    assert answer.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in told


async def test_its_requests_are_answered_readably_refusals_as_well(control: Control):
    with_origins(control, APP)
    for by, path, status in (("olga", "/v1/me", 200), (None, "/v1/me", 401), ("olga", "/nowhere", 404)):
        answer = await control.ask("GET", path, by=by, headers={"origin": APP})
        assert answer.status == status
        assert allowed(answer)["access-control-allow-origin"] == APP
        assert "retry-after" in allowed(answer)["access-control-expose-headers"]


async def test_pages_of_other_origins_get_no_leave(control: Control):
    with_origins(control, APP)
    for origin in (
        EVIL,
        "null",
        APP + ".evil.org",
        APP.upper(),
        "http://app.example.org",
        f"{APP} {EVIL}",
        "*",
    ):
        answer = await preflight(control, origin)
        assert allowed(answer) == {}, origin
        assert answer.status != 204
        assert allowed(await control.ask("GET", "/v1/me", by="olga", headers={"origin": origin})) == {}


async def test_without_configuration_no_origin_may_and_nothing_is_said_of_it(control: Control):
    answer = await control.ask("GET", "/v1/me", by="olga", headers={"origin": APP})
    assert (answer.status, allowed(answer)) == (200, {})
    assert "vary" not in answer.headers
    assert allowed(await preflight(control, APP)) == {}
    assert WebSettings().cors_origins == ""


async def test_a_preflight_for_a_path_that_is_not_there_is_answered_like_any(control: Control):
    with_origins(control, APP)
    assert (await preflight(control, APP, "/nowhere")).status == 204


def test_two_origins_in_one_request_are_nobodys():
    scope = {"method": "GET", "headers": [(b"origin", APP.encode()), (b"Origin", EVIL.encode())]}
    assert Cors(APP).headers(scope) == [(b"vary", b"origin")]
