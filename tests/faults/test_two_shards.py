"""Two engine processes share the rows, and one of them is killed (WIRE.md, Steering; LIVENESS.md 3).

Promises kept: each row's datagrams reach its own shard; over HTTP a frame that reaches the wrong shard is
forwarded and answered by its owner; shards share no state, so a shard that dies takes no beat and no verdict
from the rows of the other, and finds its own rows when it returns.
"""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from np1.codec import FRAME_BYTES, Code, decode_ack
from tests.e2e.api import Api, now_ms
from tests.e2e.load import Load
from tests.e2e.node import Node
from tests.e2e.system import System, eventually
from tests.faults.promise import check_acknowledged, vouched

TTL_MS = 1_500
BINARY = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def system(start_system) -> System:
    return start_system(shards=2)


@pytest.fixture(scope="module")
def pair(system):
    """One node of each shard, by shard."""
    made = system.provision("pair", nodes=2, workloads=2)
    nodes = [Node(system.api, one) for one in made["nodes"]]
    nodes.sort(key=lambda node: node.grant.row % 2)
    assert [node.grant.row % 2 for node in nodes] == [0, 1]
    yield system.api_for(made["api_key"]), nodes
    for node in nodes:
        node.close()


def taken(system: System, shard: int) -> float:
    return system.metrics(shard)["nodepulse_intake_taken"]


def test_datagrams_reach_the_shard_of_their_row(system, pair):
    api, nodes = pair
    before = [taken(system, shard) for shard in (0, 1)]
    for _ in range(5):
        assert nodes[0].beat().code in (Code.OK, Code.EARLY)
    assert [taken(system, shard) for shard in (0, 1)] == [before[0] + 5, before[1]]
    assert nodes[1].beat().code in (Code.OK, Code.EARLY)
    assert taken(system, 1) == before[1] + 1
    assert [api.node_state(node.node_id) for node in nodes] == ["up", "up"]


def test_over_http_frames_are_answered_in_order_whichever_shard_they_reach(system, pair):
    _, nodes = pair
    beats = Api(*system.beats)
    for _ in range(6):  # connections land on either shard
        frames = [nodes[number].frame() for number in (0, 1, 1, 0)]
        reply = beats.request("POST", "/v1/beats", body=b"".join(frames), headers=BINARY)
        assert reply.status == 200
        acks = [reply.body[at : at + FRAME_BYTES] for at in range(0, 4 * FRAME_BYTES, FRAME_BYTES)]
        for number, frame, ack in zip((0, 1, 1, 0), frames, acks, strict=True):
            told = decode_ack(ack, nodes[number].grant.key)
            assert (told.code in (Code.OK, Code.EARLY), told.seq) == (
                True,
                int.from_bytes(frame[8:16], "big"),
            )


def test_json_and_pings_reach_their_row_whichever_shard_takes_them(system, pair):
    api, nodes = pair
    beats = Api(*system.beats)
    check = system.admin("check", "create", "--project", "pair", "--name", "job")
    ping = check["ping_url"].removeprefix(system.beats_url)
    for _ in range(6):
        for node in nodes:
            bearer = {"authorization": f"Bearer {node.grant.token}"}
            said = {"workloads": dict.fromkeys(node.workloads, "healthy")}
            reply = beats.post("/v1/beats", said, headers=bearer)
            assert (reply.status, reply.json["code"] in ("ok", "early")) == (200, True)
        assert beats.request("GET", ping).body == b"OK"
    assert api.workload_state(check["workload_id"]) == "up"


def test_a_killed_shard_takes_nothing_from_the_rows_of_the_other(system):
    made = system.provision("half", nodes=40, workloads=3)
    api = system.api_for(made["api_key"])
    load = Load(system, made["nodes"], per_s=400)
    load.take_sessions()
    load.start()
    eventually(lambda: len(np.unique(load.credited()["node"])) == 40, within_s=10, why=load.figures)
    from_ms, killed = now_ms(), system.child("engine-0")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: system.child("engine-0") not in (None, killed), within_s=30)
    returned_ms = now_ms()
    eventually(lambda: len(np.unique(since(load, returned_ms)["node"])) == 40, within_s=30, why=load.figures)
    time.sleep(0.5)
    load.stop()
    until_ms = int(load.credited()["t_ms"].max()) + TTL_MS
    time.sleep(max(0.0, (until_ms - now_ms()) / 1000))
    check_acknowledged(api, load, to_ms=until_ms)
    for node, row in enumerate(load.rows.tolist()):
        credited = load.credited()
        spans = vouched(credited["t_ms"][credited["node"] == node], TTL_MS)
        answer = api.uptime(load.nodes[node]["workloads"][0])
        causes = {gap["cause"] for gap in answer.raw["gaps"]}
        if row % 2:
            assert any(start <= from_ms and returned_ms <= end for start, end in spans), (row, spans)
            assert answer.ms["unobserved"] == 0
            assert "crash" not in causes
        else:
            assert "crash" in causes
    assert [one for one in api.events("half") if one["kind"].startswith("node.")] == []


def since(load: Load, t_ms: int) -> np.ndarray:
    credited = load.credited()
    return credited[credited["t_ms"] >= t_ms]


def test_while_a_shard_is_gone_its_rows_are_busy_over_http_and_the_others_are_not(system, pair):
    _, nodes = pair
    beats = Api(*system.beats)
    os.kill(system.child("engine-1"), signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 15
        while True:  # a connection that the kernel hands to the stopped shard is never answered
            try:
                reply = Api(*system.beats, timeout_s=7).request(
                    "POST", "/v1/beats", body=nodes[0].frame() + nodes[1].frame(), headers=BINARY
                )
                break
            except TimeoutError:
                assert time.monotonic() < deadline
        assert decode_ack(reply.body[:FRAME_BYTES], nodes[0].grant.key).code in (Code.OK, Code.EARLY)
        assert reply.body[FRAME_BYTES + 1] == Code.BUSY
    finally:
        os.kill(system.child("engine-1"), signal.SIGCONT)
    eventually(lambda: beats.try_status("/nothing") == 404, within_s=10)
    assert nodes[1].beat().code in (Code.OK, Code.EARLY)
