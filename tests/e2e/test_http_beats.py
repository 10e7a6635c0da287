"""Beats over HTTP to a running engine: frames, JSON, and what is refused (WIRE.md, the same over HTTP)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from np1.codec import FRAME_BYTES, REFUSED, Code, State, decode_ack
from tests.e2e.api import Api, Reply
from tests.e2e.node import Node
from tests.e2e.system import System, eventually

SLUG = "http-beats"
BINARY = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def pair(system: System) -> Iterator[SimpleNamespace]:
    """Two nodes of two workloads, the API and the beats' port."""
    made = system.provision(SLUG, nodes=2, workloads=2, interval_ms=1_000)
    with Node(system.api, made["nodes"][0]) as one, Node(system.api, made["nodes"][1]) as other:
        beats = Api(*system.beats)
        yield SimpleNamespace(api=system.api_for(made["api_key"]), one=one, other=other, beats=beats)


def post_frames(beats: Api, frames: bytes) -> Reply:
    return beats.request("POST", "/v1/beats", body=frames, headers=BINARY)


def post_json(beats: Api, node: Node, body: object, *, token: str | None = None) -> Reply:
    bearer = {"authorization": f"Bearer {node.grant.token if token is None else token}"}
    return beats.post("/v1/beats", body, headers=bearer)


def acks_of(reply: Reply) -> list[bytes]:
    return [reply.body[at : at + FRAME_BYTES] for at in range(0, len(reply.body), FRAME_BYTES)]


def test_frames_are_answered_in_their_order_and_count_like_datagrams(pair):
    frames = pair.one.frame() + pair.other.frame({0: State.UNHEALTHY, 1: State.UPDATING})
    reply = post_frames(pair.beats, frames)
    assert (reply.status, len(reply.body)) == (200, 2 * FRAME_BYTES)
    first, second = acks_of(reply)
    assert decode_ack(first, pair.one.grant.key).code in (Code.OK, Code.EARLY)
    assert decode_ack(second, pair.other.grant.key).row == pair.other.grant.row
    assert [pair.api.workload_state(each) for each in pair.one.workloads] == ["up", "up"]
    assert [pair.api.workload_state(each) for each in pair.other.workloads] == ["unhealthy", "updating"]


def test_a_frame_that_udp_would_drop_gets_48_zero_bytes_and_a_copy_is_stale(pair):
    good = pair.one.frame()
    forged = bytearray(pair.one.frame())
    forged[-1] ^= 1
    reply = post_frames(pair.beats, good + bytes(forged) + good)
    first, second, third = acks_of(reply)
    assert decode_ack(first, pair.one.grant.key).code in (Code.OK, Code.EARLY)
    assert second == REFUSED
    assert decode_ack(third, pair.one.grant.key).code is Code.STALE


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (bytes(47), 400), (bytes(49), 400)])
def test_a_body_that_is_no_multiple_of_a_frame_is_refused_whole(pair, body, status):
    assert post_frames(pair.beats, body).status == status


def test_more_than_1024_frames_are_refused_whole(pair):
    assert post_frames(pair.beats, pair.one.frame() * 1_025).status == 413
    assert len(post_frames(pair.beats, pair.one.frame() * 1_024).body) == 1_024 * FRAME_BYTES


def test_json_names_workloads_and_what_is_left_out_is_absent(pair):
    first, second = pair.one.workloads
    reply = post_json(pair.beats, pair.one, {"workloads": {first: "updating"}, "stopping": False})
    assert reply.status == 200, reply
    assert reply.json["code"] in ("ok", "early")
    assert reply.json["ttl_ms"] == 1_500
    assert pair.api.workload_state(first) == "updating"
    assert pair.api.workload_state(second) == "unhealthy"


def test_json_beats_are_durable_before_their_answer_and_read_at_once(pair):
    first, _ = pair.other.workloads
    reply = post_json(pair.beats, pair.other, {"workloads": {first: "healthy"}, "stopping": False})
    started = [start for start, _ in pair.api.uptime(first).of("up")]
    assert reply.json["server_ms"] in started


def test_an_unknown_workload_is_told_by_resync(pair):
    said = {pair.one.workloads[0]: "healthy", "01900000-0000-7000-8000-000000000000": "healthy"}
    reply = post_json(pair.beats, pair.one, {"workloads": said})
    assert (reply.status, reply.json["code"]) == (200, "resync")


@pytest.mark.parametrize(
    "body", [{}, {"workloads": 1}, {"workloads": {"x": "fine"}}, {"workloads": {}, "stopping": 1}, []]
)
def test_json_of_another_shape_is_refused(pair, body):
    assert post_json(pair.beats, pair.one, body).status == 400


@pytest.mark.parametrize("token", ["", "x", "np_none", "0" * 80])
def test_json_with_a_token_that_is_none_is_unauthorized(pair, token):
    assert post_json(pair.beats, pair.one, {"workloads": {}}, token=token).status == 401


def test_a_token_of_another_row_does_not_speak_for_this_one(pair):
    before = pair.api.uptime(pair.one.workloads[0]).of("unhealthy")
    said = {"workloads": {pair.one.workloads[0]: "unhealthy"}}
    assert post_json(pair.beats, pair.other, said).json["code"] == "resync"
    assert pair.api.uptime(pair.one.workloads[0]).of("unhealthy") == before


def test_stopping_needs_no_workloads(pair):
    reply = post_json(pair.beats, pair.other, {"stopping": True})
    assert (reply.status, reply.json["ttl_ms"]) == (200, 0)
    eventually(lambda: pair.api.node_state(pair.other.node_id) == "stopped", within_s=5)


def test_what_is_not_http_ends_its_own_connection_only(pair):
    answer = pair.beats.request("GET", "/no/such/path")
    assert answer.status == 404
    assert json.loads(post_json(pair.beats, pair.one, {"workloads": {}}).body)["code"]
