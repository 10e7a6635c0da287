"""Two source addresses that take turns with one key are told of once; nobody else is."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from engine import mmsg
from engine.core.clones import source_of
from engine.core.records import Event
from engine.door import PlainBeat
from engine.http_connection import source_of_peer
from engine.http_frames import submit_frames
from engine.sources import WATCHED_MAX, Sources
from tests.engine.http_world import NOW_MS, FakeDoor
from tests.engine.rows_world import T0, frame, packed, spec
from tests.engine.shard_world import Bench, events_in

HERE, THERE, ELSEWHERE = (source_of(f"192.0.2.{number}") for number in (1, 2, 3))
MINUTE_MS = 60_000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.learn(*(spec(row) for row in range(3)), spec(3, kind="canary"))
    made.commit()
    return made


def receive(bench: Bench, minute: float, *beats: tuple[int, int], forged: bool = False) -> None:
    """One datagram of each (row, source)."""
    at_ms = T0 + round(minute * MINUTE_MS)
    options: dict[str, Any] = {"with_key": bytes(16)} if forged else {}
    frames = [frame(row, at_ms, counter=place, **options) for place, (row, _) in enumerate(beats)]
    raw, lengths = packed(*frames)
    names = np.zeros((len(beats), 28), np.uint8)
    names[:, :8] = np.array([[source] for _, source in beats], "<u8").view(np.uint8)
    bench.now_ms = at_ms
    bench.intake.take_datagrams(
        raw,
        lengths,
        names,
        at_ms,
        send=lambda frames, _names: len(frames),
        foreign=lambda *_: None,
        sources=lambda kept: np.ascontiguousarray(kept[:, :8]).view("<u8")[:, 0],
    )
    bench.commit()
    bench.decisions.drain(bench.journal, at_ms)
    bench.commit()


def clones(bench: Bench) -> list[Event]:
    return [event for event in events_in(bench.directory) if event.kind == "node.clone"]


def test_two_addresses_that_take_turns_are_one_event_with_both_named(bench: Bench) -> None:
    for minute, source in enumerate((HERE, THERE, HERE, THERE, HERE, THERE)):
        receive(bench, minute, (1, source), (2, HERE))
    (event,) = clones(bench)
    assert event.node_id == spec(1).node_id
    assert event.since_ms == T0 + MINUTE_MS
    assert event.at_ms == T0 + 3 * MINUTE_MS
    assert event.detail == "beats of one key take turns between 192.0.2.1 and 192.0.2.2"
    assert len(event.workloads) == 2


def test_a_machine_that_moves_is_no_clone(bench: Bench) -> None:
    for minute, source in enumerate((HERE, THERE, ELSEWHERE, HERE, THERE, ELSEWHERE)):
        receive(bench, minute, (1, source))
    assert clones(bench) == []


def test_what_did_not_authenticate_moves_nobody(bench: Bench) -> None:
    for minute in range(6):
        receive(bench, minute, (1, HERE))
        receive(bench, minute + 0.5, (1, THERE), forged=True)
    assert clones(bench) == []


def test_turns_within_one_reading_count_too(bench: Bench) -> None:
    receive(bench, 0, (1, HERE))
    receive(bench, 1, (1, THERE), (0, HERE), (1, HERE), (1, THERE), (2, HERE))
    (event,) = clones(bench)
    assert event.node_id == spec(1).node_id


def test_canaries_may_beat_from_where_they_like(bench: Bench) -> None:
    for minute in range(6):
        receive(bench, minute, (3, HERE if minute % 2 else THERE))
    assert clones(bench) == []


def test_beats_over_http_count_where_the_peer_is_known(bench: Bench) -> None:
    answers: list[Any] = []
    for minute, source in enumerate((HERE, 0, THERE, 0, HERE, THERE)):
        at_ms = bench.now_ms = T0 + minute * MINUTE_MS
        bench.intake.submit_frames(frame(0, at_ms), at_ms, answers.append, source=source)
        bench.intake.submit_plain(PlainBeat(1, 1, False, 0, 1, 0, at_ms, False, source), answers.append)
        bench.commit()
    bench.decisions.drain(bench.journal, bench.now_ms)
    bench.commit()
    assert {event.node_id for event in clones(bench)} == {spec(0).node_id, spec(1).node_id}


def test_a_relay_of_many_beats_is_no_source_and_a_single_beat_has_one() -> None:
    door = FakeDoor()
    door.hold = True
    for frames in (frame(1), frame(1) + frame(2)):
        submit_frames(
            frames, NOW_MS, door=door, forwarder=None, busy_retry_ms=1, reply=lambda _: None, source=HERE
        )
    assert door.sources == [HERE, 0]


def test_a_peer_in_our_own_network_is_taken_for_a_proxy() -> None:
    for peer in (("127.0.0.1", 1), ("10.1.2.3", 1), ("::1", 1, 0, 0), ("fe80::1%eth0", 1, 0, 2), "", None):
        assert source_of_peer(peer) == 0
    assert source_of_peer(("8.8.8.8", 53)) == source_of("8.8.8.8")
    assert source_of_peer(("::ffff:8.8.8.8", 53, 0, 0)) == source_of("8.8.8.8")
    assert source_of_peer(("2606:4700::1111", 53, 0, 0)) == source_of("2606:4700::1")


def test_what_is_remembered_of_turns_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WATCHED_MAX >= 1_024
    monkeypatch.setattr("engine.sources.WATCHED_MAX", 2)
    told: list[int] = []
    sources = Sources(bench.table, cloned=lambda row, *_: told.append(row))
    every = np.arange(3)
    for minute, source in enumerate((HERE, THERE, HERE, THERE)):
        sources.watch(every, np.full(3, source, np.uint64), T0 + minute * MINUTE_MS)
    assert sources.statistics().watched == 2
    assert told == [], "three rows in turns forget each other"
    sources.watch(every[:1], np.array([HERE], np.uint64), T0 + 4 * MINUTE_MS)
    assert sources.statistics().moves == 10


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize("kind", [mmsg.SystemBatches, mmsg.PlainSocketBatches])
async def test_an_address_from_the_socket_is_that_of_its_text(family: int, host: str, kind: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as ours, socket.socket(family, socket.SOCK_DGRAM) as theirs:
        ours.bind((host, 0))
        ours.setblocking(False)
        theirs.sendto(bytes(48), ours.getsockname())
        batches = kind(ours, batch_max=8)
        with trio.fail_after(5):
            names = np.empty((0, 28), np.uint8)
            while not len(names):
                _, _, names = batches.take()
                await trio.sleep(0.01)
        assert batches.sources(names).tolist() == [source_of(host)]
