"""`POST /v1/sessions`: what is granted, what is refused, in which order, and when the reply leaves."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from np1.session import parse_session_answer
from tests.web.fakes import Ingest, World
from web.heads import POLL_S

LOCAL = {"client": ("127.0.0.1", 40_000)}


async def ask(world: World, body: Any, *, client: tuple[str, int] = ("127.0.0.1", 1), **more: Any) -> Any:
    return await world.client.post("/v1/sessions", json=body, scope_base={"client": client}, **more)


async def refused(world: World, body: Any, **more: Any) -> tuple[int, str]:
    response = await ask(world, body, **more)
    assert response.content_type == "application/problem+json"
    return response.status_code, (await response.get_json(force=True))["code"]


async def test_a_signed_request_gets_what_the_client_library_reads(world: World) -> None:
    other = world.add_workload(world.node, slot=5)
    response = await ask(world, world.session_body())
    assert response.status_code == 201
    answer = parse_session_answer(await response.get_data())
    grant = answer.grant
    assert (grant.row, grant.generation, grant.interval_ms, grant.ttl_ms) == (0, 1, 60_000, 90_000)
    assert grant.slots == ((0, world.workload.workload_id), (5, other.workload_id))
    assert grant.key == world.secrets.session_key(secret_id=1, row=0, generation=1, salt=b"saltsalt")
    assert world.secrets.read_token(grant.token).expires_ms == grant.expires_ms
    assert grant.expires_ms == answer.server_ms + 86_400_000


async def test_a_retired_workload_has_no_slot_in_the_map(world: World) -> None:
    import msgspec

    world.directory.workloads[world.workload.workload_id] = msgspec.structs.replace(
        world.workload, retired_ms=world.now_ms()
    )
    response = await ask(world, world.session_body())
    assert (await response.get_json())["sessions"][0]["slots"] == []


async def test_plain_http_from_elsewhere_is_refused_before_anything_is_looked_at(world: World) -> None:
    assert await refused(world, {"not": "even a request"}, client=("192.0.2.7", 1)) == (403, "tls_required")


async def test_plain_http_from_elsewhere_is_taken_where_it_is_allowed(
    jumping: None, nursery: trio.Nursery
) -> None:
    world = World(ingest=Ingest(allow_plaintext=True))
    nursery.start_soon(world.app.backend.run)
    assert (await ask(world, world.session_body(), client=("192.0.2.7", 1))).status_code == 201


async def test_tls_from_elsewhere_is_taken(world: World) -> None:
    response = await ask(world, world.session_body(), client=("192.0.2.7", 1), scheme="https")
    assert response.status_code == 201


async def test_a_forged_remote_addr_header_makes_nobody_local(world: World) -> None:
    headers = {"remote-addr": "127.0.0.1", "x-forwarded-for": "127.0.0.1"}
    body = world.session_body()
    assert await refused(world, body, client=("192.0.2.7", 1), headers=headers) == (403, "tls_required")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nonce", "ab" * 15),
        ("nonce", "ab" * 65),
        ("nonce", "AB" * 16),
        ("nonce", "ab" * 16 + "\n"),
        ("signature", "0" * 127),
        ("signature", "A" * 128),
        ("sent_at", "yesterday"),
        ("sent_at", "2026-05-28"),
        ("manager_version", ""),
        ("manager_version", "a b"),
        ("manager_version", "x" * 129),
        ("node_id", "é"),
        ("node_id", 7),
        ("nonce", None),
    ],
)
async def test_a_field_of_the_wrong_shape_is_malformed_and_pointed_at(
    world: World, field: str, value: Any
) -> None:
    response = await ask(world, {**world.session_body(), field: value})
    problem = await response.get_json(force=True)
    assert (response.status_code, problem["code"]) == (400, "malformed")
    assert f"/{field}" in [fault["pointer"] for fault in problem["errors"]]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"node_id": "x"}', "\x00"])
async def test_a_body_that_is_no_request_is_malformed(world: World, body: str) -> None:
    response = await world.client.post("/v1/sessions", data=body, scope_base=LOCAL)
    assert response.status_code == 400
    assert (await response.get_json(force=True))["code"] == "malformed"


async def test_an_unknown_node_and_a_wrong_signature_get_the_same_answer(world: World) -> None:
    stranger = Ed25519PrivateKey.generate()
    answers = []
    for body in (
        world.session_body(key=stranger),
        world.session_body(key=stranger, node_id="00000000-0000-7000-8000-000000000000"),
        world.session_body(key=stranger, node_id="not-a-uuid"),
    ):
        response = await ask(world, body, headers={"x-request-id": "same"})
        answers.append((response.status_code, await response.get_data()))
    assert answers[0][0] == 401
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("change", [{"revoked": True}, {"kind": "check"}, {"public_key": None}])
async def test_a_row_that_may_not_open_sessions_is_unauthorized(world: World, change: dict[str, Any]) -> None:
    import msgspec

    world.directory.nodes[world.node.node_id] = msgspec.structs.replace(world.node, **change)
    assert await refused(world, world.session_body()) == (401, "unauthorized")


async def test_a_node_that_is_gone_when_it_comes_to_commit_is_unauthorized(world: World) -> None:
    world.directory.gone.add(world.node.node_id)
    assert await refused(world, world.session_body()) == (401, "unauthorized")


async def test_a_clock_that_is_off_is_told_the_server_time(world: World) -> None:
    for off_ms in (-301_000, 301_000):
        response = await ask(world, world.session_body(sent_ms=world.now_ms() + off_ms))
        problem = await response.get_json(force=True)
        assert (response.status_code, problem["code"]) == (401, "clock_skew")
        assert 0 <= world.now_ms() - problem["server_time"] < 100
    assert (await ask(world, world.session_body(sent_ms=world.now_ms() + 299_000))).status_code == 201


async def test_a_wrong_signature_is_told_before_a_wrong_clock(world: World) -> None:
    body = world.session_body(key=Ed25519PrivateKey.generate(), sent_ms=0)
    assert await refused(world, body) == (401, "unauthorized")


async def test_the_eleventh_request_in_a_minute_is_too_many(world: World) -> None:
    for _ in range(10):
        assert (await ask(world, world.session_body())).status_code == 201
    response = await ask(world, world.session_body())
    assert response.status_code == 429
    assert response.headers["retry-after"] == "60"
    assert response.headers["ratelimit-policy"] == '"node";q=10;w=60'
    assert response.headers["ratelimit"] == '"node";r=0;t=60'


async def test_a_nonce_works_once(world: World) -> None:
    body = world.session_body()
    assert (await ask(world, body)).status_code == 201
    assert await refused(world, body) == (409, "nonce_seen")


async def test_the_reply_waits_until_the_shard_has_applied_it(world: World, nursery: trio.Nursery) -> None:
    world.live.applied = 0
    answered: list[float] = []

    async def asking() -> None:
        response = await ask(world, world.session_body())
        assert response.status_code == 201
        answered.append(trio.current_time())

    began = trio.current_time()
    nursery.start_soon(asking)
    await trio.sleep(1.0)
    assert answered == []
    world.live.applied = 1
    await trio.sleep(0.1)
    assert 1.0 <= answered[0] - began <= 1.05


async def test_a_shard_that_does_not_apply_it_within_two_seconds_is_unavailable(world: World) -> None:
    world.live.applied = 0
    began = trio.current_time()
    response = await ask(world, world.session_body())
    assert response.status_code == 503
    assert (await response.get_json(force=True))["code"] == "unavailable"
    assert int(response.headers["retry-after"]) >= 1
    assert 2.0 <= trio.current_time() - began < 2.1


async def test_a_store_that_is_away_is_unavailable(world: World) -> None:
    world.directory.away = True
    response = await ask(world, world.session_body())
    assert response.status_code == 503
    assert (await response.get_json(force=True))["code"] == "unavailable"
    assert response.headers["retry-after"] == "1"


async def test_five_hundred_openings_at_once_share_the_polling(world: World, nursery: trio.Nursery) -> None:
    keys = [Ed25519PrivateKey.generate() for _ in range(500)]
    nodes = [world.add_node(world.project, row=row, key=key) for row, key in enumerate(keys, start=1)]
    world.live.applied = 0
    statuses: list[int] = []

    async def asking(node_id: str, key: Ed25519PrivateKey) -> None:
        statuses.append((await ask(world, world.session_body(node_id=node_id, key=key))).status_code)

    reads = world.live.head_reads
    async with trio.open_nursery() as openings:
        for node, key in zip(nodes, keys, strict=True):
            openings.start_soon(asking, node.node_id, key)
        await trio.sleep(0.5)
        world.live.applied = 500
    assert statuses == [201] * 500
    assert world.live.head_reads - reads < 0.5 / POLL_S + 15, "not one poll for each"


@pytest.mark.parametrize(
    ("host", "udp"),
    [
        ("np.example.org", "np.example.org:7900"),
        ("np.example.org:8443", "np.example.org:7900"),
        ("192.0.2.1:80", "192.0.2.1:7900"),
        ("[2001:db8::1]:80", "[2001:db8::1]:7900"),
        ("0.0.0.0:8080", "198.51.100.9:7900"),
        ("[::]:8080", "198.51.100.9:7900"),
        ("0:8080", "198.51.100.9:7900"),
        ("0x0", "198.51.100.9:7900"),
        ("beef.example", "beef.example:7900"),
        ('evil"><', "198.51.100.9:7900"),
    ],
)
async def test_endpoints_follow_the_host_the_client_used(world: World, host: str, udp: str) -> None:
    scope = {"client": ("127.0.0.1", 1), "server": ("198.51.100.9", 8080)}
    response = await world.client.post(
        "/v1/sessions", json=world.session_body(), scope_base=scope, headers={"host": host}
    )
    endpoints = (await response.get_json())["sessions"][0]["endpoints"]
    assert endpoints == {"udp": udp, "http": f"http://{udp}"}


async def test_endpoints_are_the_configured_ones_where_there_are_any(
    jumping: None, nursery: trio.Nursery
) -> None:
    world = World(ingest=Ingest(public_udp="[2001:db8::2]:7", public_http="https://beats.example.org"))
    nursery.start_soon(world.app.backend.run)
    response = await ask(world, world.session_body())
    assert (await response.get_json())["sessions"][0]["endpoints"] == {
        "udp": "[2001:db8::2]:7",
        "http": "https://beats.example.org",
    }


async def test_times_are_the_engines_where_the_two_clocks_differ(world: World) -> None:
    """After a step of the system clock a node must still be told the time that its beats are judged by."""
    await trio.sleep(1)  # headers were seen to change
    world.system_offset_ms = 3_600_000
    response = await ask(world, world.session_body())
    assert response.status_code == 201
    assert abs((await response.get_json())["server_ms"] - world.now_ms()) < 300


async def test_refusals_are_counted_by_code(world: World) -> None:
    await ask(world, {})
    await ask(world, world.session_body())
    metrics = await (await world.client.get("/metrics")).get_data(as_text=True)
    assert 'nodepulse_web_sessions_refused_total{of="malformed"} 1' in metrics
    assert "nodepulse_web_sessions_opened_total 1" in metrics


async def test_who_opened_a_session_is_remembered_as_evidence(jumping: None, nursery: trio.Nursery) -> None:
    world = World(ingest=Ingest(allow_plaintext=True))
    nursery.start_soon(world.app.backend.run)
    assert (await ask(world, world.session_body(), client=("192.0.2.7", 1))).status_code == 201
    ((address, version),) = world.directory.clients
    assert address == "192.0.2.7"
    assert version
