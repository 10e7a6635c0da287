"""PostgreSQL and Valkey stopped, started and flushed under load (DESIGN.md; LIVENESS.md 2 and 4).

Promises kept: beats and ACKs go on whatever the stores do; intervals and events wait on disk and are all
there within a minute of the return, each event once; a live view that was lost is rebuilt from the table; a
read without it is older, never wrong.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from engine.core.records import event_id
from tests.e2e.api import now_ms, unix_ms
from tests.e2e.load import Load
from tests.e2e.node import Node
from tests.e2e.system import System, all_pids, eventually, folder_of, new_folder, running, signal_to
from tests.faults.promise import check_acknowledged, vouched
from tests.faults.stores import OwnStores, own_stores

TTL_MS = 1_500
BACK_S = 60.0  # the promise: everything is there within a minute of the return


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Iterator[OwnStores]:
    with own_stores(new_folder(tmp_path_factory.mktemp("stores"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def system(stores, tmp_path_factory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("served") / "data"
    folder.mkdir()
    with running(System(folder, sets=stores.sets)) as started:
        yield started


def beating(system: System, slug: str, *, nodes: int, per_s: float) -> SimpleNamespace:
    made = system.provision(slug, nodes=nodes, workloads=3)
    load = Load(system, made["nodes"], per_s=per_s)
    load.open_sessions()
    load.start()
    eventually(lambda: len(set(load.credited()["node"].tolist())) == nodes, within_s=10, why=load.figures)
    return SimpleNamespace(load=load, api=system.api_for(made["api_key"]), slug=slug)


def finish(beats: SimpleNamespace) -> int:
    """Stop beating; a time up to which all coverage has ended."""
    beats.load.stop()
    until_ms = int(beats.load.credited()["t_ms"].max()) + TTL_MS
    time.sleep(max(0.0, (until_ms - now_ms()) / 1000))
    return until_ms


def check_never_silent(load: Load, nodes: list[int], from_ms: int, to_ms: int) -> None:
    """Each of these nodes was acknowledged without a break: time vouched for covers [from_ms, to_ms)."""
    credited = load.credited()
    for node in nodes:
        spans = vouched(credited["t_ms"][credited["node"] == node], TTL_MS)
        assert any(start <= from_ms and to_ms <= end for start, end in spans), (node, spans)


def run_postgres_outage(system: System, stores: OwnStores, slug: str, *, seconds: float) -> None:
    beats = beating(system, slug, nodes=40, per_s=200)
    falls, stays = list(range(8)), list(range(8, 40))
    away_ms = now_ms()
    stores.stop_postgres()
    try:
        time.sleep(0.5)
        beats.load.silence(falls)  # their silence is noticed, and their rows end, while nobody can be told
        time.sleep(seconds - 0.5)
        assert system.api.try_status("/readyz") == 503
        acknowledged_ms = int(beats.load.credited()["t_ms"].max())
        assert acknowledged_ms > now_ms() - 1_000
    finally:
        stores.start_postgres()
    back = time.monotonic()
    check_never_silent(beats.load, stays, away_ms, acknowledged_ms)

    def downs() -> list[dict]:
        if system.api.try_status("/readyz") != 200:
            return []
        found = [one for one in beats.api.events(slug) if one["kind"] == "node.down"]
        return found if len(found) >= len(falls) else []

    found = eventually(downs, within_s=BACK_S, why=lambda: beats.api.events(slug))
    until_ms = finish(beats)
    check_acknowledged(beats.api, beats.load, to_ms=until_ms)
    assert time.monotonic() - back < BACK_S
    check_events_of_silence(beats, falls, found)


def check_events_of_silence(beats: SimpleNamespace, falls: list[int], found: list[dict]) -> None:
    """Each node that fell silent has one event, since the end of its own coverage; nobody else has one."""
    credited = beats.load.credited()
    wanted = set()
    for node in falls:
        node_id = beats.load.nodes[node]["node_id"]
        since_ms = int(credited["t_ms"][credited["node"] == node].max()) + TTL_MS
        wanted.add((event_id("node.down", node_id, since_ms), node_id, since_ms))
    assert {(one["event_id"], one["node_id"], unix_ms(one["since"])) for one in found} == wanted
    assert len(found) == len(falls)


def test_beats_go_on_without_postgres_and_nothing_is_lost_when_it_returns(system, stores):
    run_postgres_outage(system, stores, "no-postgres", seconds=5)


@pytest.mark.slow
def test_beats_go_on_a_minute_without_postgres_and_all_is_there_within_another(system, stores):
    run_postgres_outage(system, stores, "no-postgres-long", seconds=60)


def test_an_engine_killed_while_postgres_is_away_takes_beats_again_from_its_journal(system, stores):
    beats = beating(system, "no-postgres-killed", nodes=10, per_s=50)
    stores.stop_postgres()
    try:
        killed = system.child("engine-0")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: system.child("engine-0") not in (None, killed), within_s=20)
        started_ms = now_ms()
        eventually(
            lambda: len(set(later(beats.load, started_ms)["node"].tolist())) == 10,
            within_s=20,
            why=lambda: system.log()[-2_000:],
        )
    finally:
        stores.start_postgres()
    eventually(lambda: system.api.try_status("/readyz") == 200, within_s=20, why=system.log)
    until_ms = finish(beats)
    check_acknowledged(beats.api, beats.load, to_ms=until_ms)
    assert [one for one in beats.api.events(beats.slug) if one["kind"].startswith("node.")] == []


def later(load: Load, from_ms: int) -> np.ndarray:
    credited = load.credited()
    return credited[credited["t_ms"] >= from_ms]


def test_a_postgres_that_hangs_holds_up_nobody_but_its_readers(system, stores):
    beats = beating(system, "hanging", nodes=10, per_s=50)
    hanging = [pid for pid in all_pids() if folder_of(pid) == stores.postgres.folder]
    assert len(hanging) > 3
    from_ms = now_ms()
    for pid in hanging:
        signal_to(pid, signal.SIGSTOP)
    try:
        time.sleep(3)
        acknowledged_ms = int(beats.load.credited()["t_ms"].max())
        assert acknowledged_ms > now_ms() - 1_000
    finally:
        for pid in hanging:
            signal_to(pid, signal.SIGCONT)
    check_never_silent(beats.load, list(range(10)), from_ms, acknowledged_ms)
    until_ms = finish(beats)
    eventually(lambda: system.api.try_status("/readyz") == 200, within_s=15, why=system.log)
    check_acknowledged(beats.api, beats.load, to_ms=until_ms)


def test_beats_go_on_without_valkey_and_the_live_view_is_rebuilt(system, stores):
    beats = beating(system, "no-valkey", nodes=10, per_s=50)
    away_ms = now_ms()
    stores.stop_valkey()
    try:
        time.sleep(2.5)
        answer = beats.api.uptime(beats.load.nodes[0]["workloads"][0])
        answer.check_sum()
        assert answer.as_of <= now_ms()
        acknowledged_ms = int(beats.load.credited()["t_ms"].max())
        assert acknowledged_ms > now_ms() - 1_000
    finally:
        stores.start_valkey()
    check_never_silent(beats.load, list(range(10)), away_ms, acknowledged_ms)
    eventually(lambda: system.api.try_status("/readyz") == 200, within_s=15, why=system.log)
    assert beats.api.workload_state(beats.load.nodes[0]["workloads"][0]) == "up"
    until_ms = finish(beats)
    check_acknowledged(beats.api, beats.load, to_ms=until_ms)


def test_a_flushed_valkey_is_rebuilt_from_the_table(system, stores):
    made = system.provision("flushed", nodes=1, workloads=2, interval_ms=60_000)
    api = system.api_for(made["api_key"])
    with Node(system.api, made["nodes"][0]) as node:
        ack = node.beat()
        before = api.uptime(node.workloads[0]).of("up")
        stores.flush_valkey()
        # Nothing is said by the node after the flush: what is told now comes from the table.
        eventually(lambda: api.try_status("/readyz") == 200, within_s=10)
        assert [api.workload_state(each) for each in node.workloads] == ["up", "up"]
        (after,) = api.uptime(node.workloads[0]).of("up")
        assert before[0][0] == after[0] == ack.server_ms
        assert api.node_state(node.node_id) == "up"


def test_readers_never_see_more_or_less_than_was_acknowledged_while_valkey_is_flushed(system, stores):
    beats = beating(system, "flushed-often", nodes=5, per_s=50)
    workload = beats.load.nodes[0]["workloads"][0]
    for _ in range(8):
        stores.flush_valkey()
        answer = beats.api.uptime(workload)
        answer.check_sum()
        credited = beats.load.credited()
        mine = np.sort(credited["t_ms"][credited["node"] == 0])
        up = answer.of("up")
        assert len(up) <= 1
        assert all(start == mine[0] and end <= answer.as_of for start, end in up)
        time.sleep(0.1)
    until_ms = finish(beats)
    check_acknowledged(beats.api, beats.load, to_ms=until_ms)
