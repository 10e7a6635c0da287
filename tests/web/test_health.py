"""Alive, ready, and the figures: what an operator and a load balancer are told."""

from __future__ import annotations

import structlog.testing
import trio
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.web.fakes import World
from web.settings import WebSettings


async def ready(world: World, query: str = "") -> tuple[int, str]:
    response = await world.client.get(f"/readyz?{query}")
    return response.status_code, await response.get_data(as_text=True)


async def test_ready_when_postgres_answers_and_every_watermark_is_fresh(world: World) -> None:
    await trio.sleep(0.5)
    assert await ready(world) == (200, "ok\n")
    status, text = await ready(world, "verbose")
    assert status == 200
    assert text.splitlines() == ["[+]serving ok", "[+]postgres ok", "[+]shard_0 ok", "ok"]


async def test_not_ready_before_every_shard_was_heard_of(jumping: None, nursery: trio.Nursery) -> None:
    world = World(shards=2)
    world.live.shards = 1
    nursery.start_soon(world.app.backend.run)
    await trio.sleep(1)
    status, text = await ready(world)
    assert status == 503
    assert "[-]shard_0 was never heard of" in text, "a view for another number of shards is no view"
    world.live.shards = 2
    await trio.sleep(0.5)
    assert (await ready(world))[0] == 200


async def test_not_ready_when_a_watermark_is_two_seconds_old(world: World) -> None:
    await trio.sleep(1)
    world.live.lag_ms = 1_900
    await trio.sleep(0.3)
    assert (await ready(world))[0] == 200
    world.live.lag_ms = 2_100
    await trio.sleep(0.3)
    assert (await ready(world))[0] == 503
    assert (await ready(world, "exclude=shard_0"))[0] == 200


async def test_not_ready_while_a_shard_cannot_take_beats(world: World) -> None:
    await trio.sleep(1)
    world.live.provisional_from_ms = world.now_ms()
    await trio.sleep(0.3)
    status, text = await ready(world)
    assert status == 503
    assert "[-]shard_0 takes no beats" in text
    world.live.provisional_from_ms = None
    await trio.sleep(0.3)
    assert (await ready(world))[0] == 200


async def test_not_ready_when_the_engine_is_dead_even_if_its_headers_remain(world: World) -> None:
    await trio.sleep(1)
    world.live.frozen_at_ms = world.now_ms()
    await trio.sleep(1)
    assert (await ready(world))[0] == 200
    await trio.sleep(1.5)
    assert (await ready(world))[0] == 503


async def test_headers_of_a_long_dead_engine_make_nobody_ready(jumping: None, nursery: trio.Nursery) -> None:
    world = World()
    world.live.frozen_at_ms = world.now_ms() - 3_600_000
    nursery.start_soon(world.app.backend.run)
    await trio.sleep(5)
    assert (await ready(world))[0] == 503


async def test_ready_although_the_system_clock_was_stepped(world: World) -> None:
    await trio.sleep(1)
    for offset_ms in (3_600_000, -3_600_000):
        world.system_offset_ms = offset_ms
        assert (await ready(world))[0] == 200


async def test_not_ready_when_postgres_does_not_answer(world: World) -> None:
    await trio.sleep(0.5)
    world.history.away = True
    status, text = await ready(world, "verbose")
    assert status == 503
    assert "[-]postgres does not answer" in text
    assert (await ready(world, "exclude=postgres"))[0] == 200


async def test_not_ready_when_the_process_is_ending(world: World) -> None:
    await trio.sleep(0.5)
    world.app.backend.draining = True
    assert (await ready(world))[0] == 503
    assert (await world.client.get("/livez")).status_code == 200


async def test_metrics_are_openmetrics_and_count_by_route(world: World) -> None:
    for path in ("/v1/nodes/a", "/v1/nodes/b", "/nowhere/1", "/nowhere/2"):
        await world.client.get(path)
    await world.client.open("/nowhere", method="BREW")
    response = await world.client.get("/metrics")
    text = await response.get_data(as_text=True)
    assert response.content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert 'requests_total{method="GET",route="/v1/nodes/{node_id}",status="401"} 2.0' in text
    assert 'requests_total{method="GET",route="none",status="404"} 2.0' in text
    assert 'method="other"' in text
    for part in ("web_heads_waiters", "web_streams_open", "web_keys_remembered", "web_bodies_bodies_bytes"):
        assert f"nodepulse_{part}" in text


async def test_the_description_is_valid_openapi_and_names_every_route(world: World) -> None:
    response = await world.client.get("/openapi.json")
    described = await response.get_json()
    OpenAPIV31SpecValidator(described).validate()
    rules = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in world.app.url_map.iter_rules()
        if not rule.endpoint.startswith("page ")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert rules == {(path, method) for path, methods in described["paths"].items() for method in methods}
    uptime = described["components"]["schemas"]["UptimeAnswer"]["properties"]
    assert {"from", "to", "as_of", "ms", "intervals"} <= set(uptime)


async def test_refusals_of_routing_are_problems_too(world: World) -> None:
    missing = await world.client.get("/v2/nothing")
    wrong = await world.client.delete("/v1/nodes")
    for response, status, code in ((missing, 404, "not_found"), (wrong, 405, "method_not_allowed")):
        problem = await response.get_json(force=True)
        assert response.content_type == "application/problem+json"
        assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
        assert problem["request_id"] == response.headers["x-request-id"]
    assert "GET" in wrong.headers["allow"]


async def test_a_double_slash_is_no_redirect(world: World) -> None:
    assert (await world.client.get("//v1//nodes")).status_code == 404


async def test_a_bug_is_a_problem_without_details_and_reaches_the_log(world: World, caplog: object) -> None:
    async def broken(node_id: str) -> None:
        raise ZeroDivisionError(f"secret {node_id}")

    world.directory.node = broken  # type: ignore[method-assign, assignment]
    response = await world.client.get(
        f"/v1/nodes/{world.node.node_id}", headers={"authorization": "Bearer admin-key"}
    )
    text = await response.get_data(as_text=True)
    assert response.status_code == 500
    assert "internal" in text
    assert "secret" not in text
    assert "ZeroDivisionError" in caplog.text  # type: ignore[attr-defined]


async def test_every_answer_has_an_id_and_the_headers_of_caution(world: World) -> None:
    response = await world.client.get("/livez", headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in response.headers
    forged = await world.client.get("/livez", headers={"x-request-id": "no spaces; please"})
    assert len(forged.headers["x-request-id"]) == 16
    secure = await world.client.get("/livez", scheme="https")
    assert "strict-transport-security" in secure.headers


async def test_what_is_logged_names_the_request_and_its_trace(world: World) -> None:
    world.directory.away = True
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {
        "authorization": "Bearer x",
        "x-request-id": "mine-2",
        "traceparent": f"00-{trace}-00f067aa0ba902b7-01",
    }
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        assert (await world.client.get("/v1/nodes", headers=headers)).status_code == 503
        await world.client.get("/v1/nodes", headers={**headers, "traceparent": "nonsense"})
    told = [(line["event"], line["request_id"], line.get("trace_id")) for line in lines]
    assert told == [
        (event, "mine-2", of) for of in (trace, None) for event in ("store_unavailable", "request")
    ]


async def test_longer_bodies_are_taken_only_where_they_are_needed(
    jumping: None, nursery: trio.Nursery
) -> None:
    world = World(settings=WebSettings(body_bytes_max=200_000))
    nursery.start_soon(world.app.backend.run)
    long = b"x" * 100_000
    assert (await world.client.post("/v1/sessions", data=long)).status_code == 413
    assert (await world.client.post("/v1/nodes", data=long)).status_code == 413
    versions = "/v1/projects/alpha/kinds/gpu/versions"
    assert (await world.client.post(versions, data=long)).status_code == 401
    assert (await world.client.post(versions, data=long * 3)).status_code == 413
    assert (await world.client.post("/v1/projects/alpha/points", data=long * 3)).status_code == 401
