"""WIRE.md, "The same over HTTP", sentence by sentence: beats. Pings and pushes: test_http_pings.py."""

from __future__ import annotations

import json

import pytest

import engine.http_connection
from engine.core.keys import MasterSecrets
from engine.door import GONE
from np1.codec import FLAG_STOPPING, Code
from tests.engine.http_world import (
    NOW_MS,
    SECRETS,
    FakeDoor,
    ack_of,
    capability,
    frame,
    frames_request,
    json_request,
    on_loop,
    request,
    serving,
    token,
)

ALL_UP = b'{"workloads": {"w-zero": "healthy", "w-one": "healthy", "w-last": "healthy"}}'


# -- JSON ---------------------------------------------------------------------------------------------------


@on_loop
async def test_a_json_beat_says_of_each_slot_what_the_body_says_of_its_workload():
    body = (
        b'{"workloads": {"w-zero": "healthy", "w-one": "unhealthy", "w-last": "updating"}, "stopping": false}'
    )
    async with serving() as world:
        response = await world.ask(json_request(body))
    assert response.status == 200
    (beat,) = world.door.plain
    assert (beat.row, beat.generation, beat.capability) == (4, 7, False)
    assert beat.plane0 == 1 << 0 | 1 << 63
    assert beat.plane1 == 1 << 1 | 1 << 63
    assert (beat.flags, beat.unknown_ids, beat.t_ms) == (0, False, NOW_MS)


@on_loop
async def test_a_workload_left_out_is_absent():
    async with serving() as world:
        await world.ask(json_request(b'{"workloads": {"w-one": "healthy"}}'))
        await world.ask(json_request(b'{"workloads": {}}'))
    assert [(beat.plane0, beat.plane1) for beat in world.door.plain] == [(2, 0), (0, 0)]


@on_loop
async def test_an_unknown_id_is_ignored_and_reported_to_the_door():
    async with serving() as world:
        await world.ask(json_request(b'{"workloads": {"w-one": "healthy", "stranger": "healthy"}}'))
    (beat,) = world.door.plain
    assert (beat.plane0, beat.unknown_ids) == (2, True)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (Code.OK, "ok"),
        (Code.EARLY, "early"),
        (Code.RESYNC, "resync"),
        (Code.REKEY, "rekey"),
        (Code.STANDBY, "standby"),
    ],
)
@on_loop
async def test_every_crediting_code_is_a_200_with_its_name_and_three_numbers(code, name):
    async with serving() as world:
        world.door.code = code
        response = await world.ask(json_request(ALL_UP))
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body) == {
        "code": name,
        "next_ms": 60_000,
        "ttl_ms": 90_000,
        "server_ms": NOW_MS,
    }


def without_token(bearer):
    headers = [("Content-Type", "application/json"), *([("Authorization", bearer)] if bearer else [])]
    return request("POST", "/v1/beats", ALL_UP, headers)


FOREIGN = MasterSecrets(secrets={1: bytes(32)})


@pytest.mark.parametrize(
    "bearer",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {token()}",
        f"Bearer {token()}x",
        f"Bearer {token(secrets=FOREIGN)}",
        "Bearer " + "A" * 5_000,
        f"Bearer {token(expires_ms=NOW_MS)}",
    ],
)
@on_loop
async def test_a_missing_bad_or_expired_token_is_a_401_and_nothing_is_taken(bearer):
    async with serving() as world:
        response = await world.ask(without_token(bearer))
    assert response.status == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == "Bearer"
    assert json.loads(response.body)["code"] == "unauthorized"
    assert world.door.plain == []


@on_loop
async def test_the_scheme_of_a_token_may_be_written_in_any_case():
    async with serving() as world:
        assert (await world.ask(without_token(f"bearer {token()}"))).status == 200


@on_loop
async def test_a_token_that_was_good_is_a_401_from_the_moment_it_expires():
    async with serving() as world:
        beat = json_request(ALL_UP, bearer=token(expires_ms=NOW_MS + 1))
        assert (await world.ask(beat)).status == 200
        assert world.door.refused_tokens == []
        world.door.clock_ms += 1
        assert (await world.ask(beat)).status == 401
        assert world.door.refused_tokens == [(4, NOW_MS + 1)], "counted for its row"


@on_loop
async def test_a_generation_that_does_not_live_is_a_401():
    async with serving() as world:
        world.door.slots = None
        assert (await world.ask(json_request(ALL_UP))).status == 401
    assert world.door.plain == []
    assert world.door.refused_tokens == [(4, NOW_MS)]


@on_loop
async def test_a_revoked_token_is_a_401_at_its_next_beat_and_is_not_remembered():
    async with serving() as world:
        assert (await world.ask(json_request(ALL_UP))).status == 200
        assert world.listener.statistics().credentials_cached["bearers_cached"] == 1
        world.door.code = GONE
        assert (await world.ask(json_request(ALL_UP))).status == 401
        assert world.listener.statistics().credentials_cached["bearers_cached"] == 0


@on_loop
async def test_the_mac_of_a_token_is_computed_once_and_the_generation_asked_each_time():
    class Counting:
        reads = 0

        def read_token(self, text):
            self.reads += 1
            return SECRETS.read_token(text)

    counting = Counting()
    async with serving(secrets=counting) as world:
        for _ in range(3):
            assert (await world.ask(json_request(ALL_UP))).status == 200
    assert counting.reads == 1
    assert len(world.door.plain) == 3


@on_loop
async def test_a_row_that_moved_is_a_404():
    async with serving() as world:
        world.door.code = Code.MOVED
        response = await world.ask(json_request(ALL_UP))
    assert response.status == 404
    assert json.loads(response.body)["code"] == "moved"


@pytest.mark.parametrize(("next_ms", "seconds"), [(1, "1"), (1_000, "1"), (1_001, "2"), (0, "1")])
@on_loop
async def test_busy_is_a_503_with_retry_after_in_whole_seconds(next_ms, seconds):
    async with serving() as world:
        world.door.code, world.door.next_ms = Code.BUSY, next_ms
        response = await world.ask(json_request(ALL_UP))
    assert (response.status, response.headers["retry-after"]) == (503, seconds)
    assert json.loads(response.body)["code"] == "busy"


@on_loop
async def test_workloads_may_be_missing_only_with_stopping_true():
    async with serving() as world:
        assert (await world.ask(json_request(b"{}"))).status == 400
        assert (await world.ask(json_request(b'{"stopping": false}'))).status == 400
        assert world.door.plain == []
        assert (await world.ask(json_request(b'{"stopping": true}'))).status == 200
        assert (await world.ask(json_request(b'{"stopping": true, "workloads": {}}'))).status == 200
    assert [beat.flags for beat in world.door.plain] == [FLAG_STOPPING] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'"workloads"',
        b'{"workloads": null}',
        b'{"workloads": []}',
        b'{"workloads": "healthy"}',
        b'{"workloads": {"w-one": "absent"}}',
        b'{"workloads": {"w-one": "Healthy"}}',
        b'{"workloads": {"w-one": 1}}',
        b'{"workloads": {"w-one": null}}',
        b'{"workloads": {"stranger": "odd"}}',
        b'{"workloads": {}, "stopping": 1}',
        b'{"workloads": {}, "stopping": "true"}',
        b'{"workloads": {}, "stopping": null}',
        b'{"workloads": {"w-one": "healthy"}} trailing',
        b'{"workloads": {"w-one": "healthy"}',
        b'{"workloads": {"\xff": "healthy"}}',
        b'{"workloads": {"\\ud800": "healthy"}}',
        b'{"workloads": {}, "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
@on_loop
async def test_other_values_and_types_are_a_400_and_nothing_is_taken(body):
    async with serving() as world:
        response = await world.ask(json_request(body))
    assert response.status == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["code"] == "malformed"
    assert world.door.plain == []


@on_loop
async def test_the_receive_time_is_when_the_last_byte_of_the_body_was_read():
    async with serving() as world:
        client = await world.client()
        beat = json_request(ALL_UP)
        client.writer.write(beat[:-1])
        await client.writer.drain()
        await world.ask(request("GET", "/livez"))  # by now the first part has been read
        world.door.clock_ms += 5_000
        response = await client.ask(beat[-1:])
    assert world.door.plain[0].t_ms == NOW_MS + 5_000
    assert json.loads(response.body)["server_ms"] == NOW_MS + 5_000


# -- frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 1024])
@on_loop
async def test_frames_get_as_many_acks_in_the_same_order(count):
    frames = [frame(row=seq % 5, seq=seq) for seq in range(count)]
    async with serving() as world:
        response = await world.ask(frames_request(b"".join(frames)))
    assert (response.status, response.headers["content-type"]) == (200, "application/octet-stream")
    assert response.body == b"".join(ack_of(beat, 0) for beat in frames)
    assert world.door.frames == [(b"".join(frames), NOW_MS)]


@pytest.mark.parametrize("length", [0, 1, 47, 49, 95])
@on_loop
async def test_an_empty_body_or_one_that_is_no_multiple_of_48_is_a_400_and_nothing_is_taken(length):
    async with serving() as world:
        response = await world.ask(frames_request((frame(1) * 2)[:length]))
    assert response.status == 400
    assert world.door.frames == []


@on_loop
async def test_over_1024_frames_are_a_413_and_nothing_is_taken():
    async with serving() as world:
        response = await world.ask(frames_request(frame(1) * 1025))
    assert response.status == 413
    assert world.door.frames == []


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/x-www-form-urlencoded")],
        [("Content-Type", "application/jsonp")],
        [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
        [("Content-Type", "application/octet-stream"), ("Content-Encoding", "br")],
    ],
)
@on_loop
async def test_any_other_content_type_is_a_415(headers):
    async with serving() as world:
        response = await world.ask(request("POST", "/v1/beats", frame(1), headers))
    assert response.status == 415
    assert world.door.frames == world.door.plain == []


@pytest.mark.parametrize(
    "content_type", ["Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8"]
)
@on_loop
async def test_a_content_type_may_have_parameters_and_any_case(content_type):
    headers = [("Content-Type", content_type), ("Authorization", f"Bearer {token()}")]
    async with serving() as world:
        assert (await world.ask(request("POST", "/v1/beats", ALL_UP, headers))).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@on_loop
async def test_beats_are_posted(method):
    async with serving() as world:
        response = await world.ask(request(method, "/v1/beats"))
    assert (response.status, response.headers["allow"]) == (405, "POST")


# -- who may speak plainly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (json_request(ALL_UP), 403),
        (request("GET", f"/ping/{capability()}"), 403),
        (request("GET", f"/api/push/{capability()}"), 403),
        (frames_request(frame(1)), 200),
        (request("GET", "/livez"), 200),
    ],
)
@on_loop
async def test_tokens_and_capabilities_travel_in_the_clear_from_loopback_only(monkeypatch, data, status):
    monkeypatch.setattr(engine.http_connection, "is_local", lambda peer: False)
    async with serving() as world:
        response = await world.ask(data)
    assert response.status == status
    assert world.door.plain == []
    if status == 403:
        assert json.loads(response.body)["code"] == "tls_required"


@on_loop
async def test_plain_http_from_elsewhere_can_be_allowed(monkeypatch):
    monkeypatch.setattr(engine.http_connection, "is_local", lambda peer: False)
    async with serving(allow_plaintext=True) as world:
        assert (await world.ask(json_request(ALL_UP))).status == 200


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.0.1", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:10.0.0.1", 1, 0, 0), False),
        (("10.0.0.1", 1), False),
        (("fe80::1%eth0", 1, 0, 0), False),
        ("", True),
        (None, False),
    ],
)
def test_local_is_loopback_in_all_its_spellings(peer, local):
    assert engine.http_connection.is_local(peer) is local


@on_loop
async def test_a_path_that_is_not_ours_is_a_404_problem():
    async with serving() as world:
        for target in ("/", "/v1/beatss", "/ping", "/v1/beats/", "*", "http://beats"):
            response = await world.ask(request("GET", target))
            assert response.status == 404, target
            assert response.headers["content-type"] == "application/problem+json"


@on_loop
async def test_requests_are_counted_by_route_and_status():
    async with serving(door=FakeDoor()) as world:
        await world.ask(json_request(ALL_UP))
        await world.ask(json_request(b"{}"))
        await world.ask(frames_request(frame(1)))
        await world.ask(request("GET", "/nowhere"))
        counted = world.listener.statistics().requests
    assert counted == {("json", 200): 1, ("json", 400): 1, ("frames", 200): 1, ("none", 404): 1}
