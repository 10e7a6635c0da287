"""Pings and pushes: what stock clients of hosted services send must work by changing only the base URL."""

from __future__ import annotations

import json

import pytest

from engine.core.keys import MasterSecrets
from engine.door import GONE
from np1.codec import Code
from tests.engine.http_world import NOW_MS, capability, json_request, on_loop, request, serving

UUID = capability(row=4, generation=3)
HEALTHY, UNHEALTHY, UPDATING = (1, 0), (0, 1), (1, 1)
FOREIGN = MasterSecrets(secrets={1: bytes(32)})
UNKNOWN = [
    "",
    "x",
    "0" * 32,
    "00000000-0000-0000-0000-000000000000",
    capability(secrets=FOREIGN),
    UUID[:-1],
    UUID + "0",
    "%ff" * 16,
    "A" * 5_000,
]


# -- pings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "planes"),
    [
        (f"/ping/{UUID}", HEALTHY),
        (f"/ping/{UUID}/", HEALTHY),
        (f"/ping/{UUID}?rid=123&create=1", HEALTHY),
        (f"/ping/{UUID.upper()}", HEALTHY),
        (f"/ping/{UUID.replace('-', '')}", HEALTHY),
        (f"/pin%67/{UUID}", HEALTHY),
        (f"http://beats/ping/{UUID}", HEALTHY),
        (f"/ping/{UUID}/fail", UNHEALTHY),
        (f"/ping/{UUID}/start", UPDATING),
        (f"/ping/{UUID}/0", HEALTHY),
        (f"/ping/{UUID}/00", HEALTHY),
        (f"/ping/{UUID}/1", UNHEALTHY),
        (f"/ping/{UUID}/255", UNHEALTHY),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@on_loop
async def test_a_ping_is_a_beat_that_speaks_of_slot_0(method, path, planes):
    async with serving() as world:
        response = await world.ask(request(method, path))
    assert response.status == 200
    assert response.headers["content-length"] == "2"
    assert response.body == (b"" if method == "HEAD" else b"OK")
    (beat,) = world.door.plain
    assert (beat.row, beat.generation, beat.capability) == (4, 3, True)
    assert (beat.plane0, beat.plane1) == planes
    assert (beat.flags, beat.t_ms, beat.unknown_ids) == (0, NOW_MS, False)


@pytest.mark.parametrize("path", [f"/ping/{UUID}/256", f"/ping/{UUID}/-1", f"/ping/{UUID}/" + "9" * 4_000])
@on_loop
async def test_an_exit_status_outside_0_to_255_is_a_400(path):
    async with serving() as world:
        response = await world.ask(request("GET", path))
    assert response.status == 400
    assert world.door.plain == []


@pytest.mark.parametrize("action", ["no", "fail/", "0/1", "1.5", "-", "--1", "0x1"])
@on_loop
async def test_a_ping_of_another_shape_is_a_404(action):
    async with serving() as world:
        response = await world.ask(request("GET", f"/ping/{UUID}/{action}"))
    assert response.status == 404
    assert world.door.plain == []


@on_loop
async def test_a_log_ping_is_ok_and_no_beat():
    async with serving() as world:
        response = await world.ask(request("POST", f"/ping/{UUID}/log", b"a line of output"))
    assert (response.status, response.body) == (200, b"OK")
    assert world.door.plain == []


@on_loop
async def test_a_log_ping_under_a_rotated_capability_is_a_404():
    async with serving() as world:
        world.door.capabilities[4] = 4
        assert (await world.ask(request("POST", f"/ping/{UUID}/log"))).status == 404


@pytest.mark.parametrize("text", UNKNOWN)
@on_loop
async def test_a_ping_with_a_wrong_capability_is_a_404_problem(text):
    async with serving() as world:
        response = await world.ask(request("GET", f"/ping/{text}"))
    assert response.status == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert world.door.plain == []


@pytest.mark.parametrize("code", [GONE, Code.MOVED])
@on_loop
async def test_a_rotated_or_moved_capability_is_a_404(code):
    async with serving() as world:
        world.door.code = code
        assert (await world.ask(request("GET", f"/ping/{UUID}"))).status == 404
        assert (await world.ask(request("GET", f"/api/push/{UUID}"))).status == 404


@on_loop
async def test_a_busy_ping_is_a_503_with_retry_after():
    async with serving() as world:
        world.door.code, world.door.next_ms = Code.BUSY, 2_500
        response = await world.ask(request("GET", f"/ping/{UUID}"))
    assert (response.status, response.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize("code", [Code.OK, Code.EARLY, Code.RESYNC, Code.REKEY, Code.STANDBY])
@on_loop
async def test_every_crediting_code_is_ok_to_a_ping_and_to_a_push(code):
    async with serving() as world:
        world.door.code = code
        assert (await world.ask(request("GET", f"/ping/{UUID}"))).body == b"OK"
        assert (await world.ask(request("GET", f"/api/push/{UUID}"))).body == b'{"ok":true}'


@on_loop
async def test_the_output_of_a_job_may_be_sent_along_beyond_what_a_beat_may_weigh():
    async with serving(http_body_bytes_max=48) as world:
        assert (await world.ask(request("POST", f"/ping/{UUID}", b"x" * 100_000))).status == 200
        assert (await world.ask(request("POST", f"/ping/{UUID}", b"x" * (1024 * 1024 + 1)))).status == 413
    assert len(world.door.plain) == 1


@on_loop
async def test_a_ping_may_be_repeated_on_one_connection_and_each_is_judged_anew():
    async with serving() as world:
        client = await world.client()
        for code, status in [(Code.OK, 200), (Code.OK, 200), (GONE, 404), (Code.OK, 200)]:
            world.door.code = code
            assert (await client.ask(request("GET", f"/ping/{UUID}"))).status == status
    assert len(world.door.plain) == 4


@pytest.mark.parametrize("path", [f"/ping/{UUID}", f"/api/push/{UUID}"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
@on_loop
async def test_pings_and_pushes_know_three_methods(path, method):
    async with serving() as world:
        response = await world.ask(request(method, path))
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, POST")
    assert world.door.plain == []


# -- pushes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "planes"),
    [
        ("", HEALTHY),
        ("?", HEALTHY),
        ("?status=up", HEALTHY),
        ("?status=up&msg=OK&ping=", HEALTHY),
        ("?msg=all%20fine&ping=12.5&status=up", HEALTHY),
        ("?st%61tus=%75p", HEALTHY),
        ("?msg=%ff%00", HEALTHY),
        ("?status=down&msg=broken", UNHEALTHY),
        ("?status=UP", UNHEALTHY),
        ("?status=", UNHEALTHY),
        ("?status=anything", UNHEALTHY),
        ("?status=up&status=down", UNHEALTHY),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@on_loop
async def test_a_push_is_a_beat_of_slot_0_and_anything_but_up_is_unhealthy(method, query, planes):
    async with serving() as world:
        response = await world.ask(request(method, f"/api/push/{UUID}{query}"))
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    assert response.body == (b"" if method == "HEAD" else b'{"ok":true}')
    (beat,) = world.door.plain
    assert (beat.row, beat.generation, beat.capability) == (4, 3, True)
    assert (beat.plane0, beat.plane1) == planes


@pytest.mark.parametrize("text", UNKNOWN)
@on_loop
async def test_a_push_with_a_wrong_token_is_a_404_in_the_form_of_pushes(text):
    async with serving() as world:
        response = await world.ask(request("GET", f"/api/push/{text}?status=up"))
    assert response.status == 404
    said = json.loads(response.body)
    assert said["ok"] is False
    assert isinstance(said["msg"], str)
    assert world.door.plain == []


@on_loop
async def test_a_busy_push_is_a_503_with_retry_after_in_the_form_of_pushes():
    async with serving() as world:
        world.door.code, world.door.next_ms = Code.BUSY, 1_000
        response = await world.ask(request("GET", f"/api/push/{UUID}"))
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert json.loads(response.body)["ok"] is False


@on_loop
async def test_a_push_with_more_fields_than_anyone_needs_is_a_400():
    async with serving() as world:
        response = await world.ask(request("GET", f"/api/push/{UUID}?" + "&".join(["a=b"] * 17)))
    assert response.status == 400
    assert world.door.plain == []


@on_loop
async def test_a_session_token_is_no_capability_and_a_capability_no_session_token():
    async with serving() as world:
        assert (await world.ask(json_request(b'{"workloads": {}}', bearer=UUID))).status == 401
    assert world.door.plain == []
