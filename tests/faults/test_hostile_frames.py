"""Forged, truncated, oversized, replayed, cross-row and wrong-generation frames (WIRE.md, rules 1, 2, 4).

Promises kept: none is accepted, nothing that did not authenticate is answered, memory does not grow, and the
counters add up. Old frames that do authenticate are refused, over UDP at most once per second and row.
Against a running system the kernel's filter drops what is no 48 bytes beginning 0x11 before the engine sees
it: both kinds are sent.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.intake import Intake
from engine.pace import Pace
from engine.settings import IngestSettings
from np1.codec import BEAT_BYTE, FRAME_BYTES, Code
from tests.e2e.node import Node
from tests.e2e.system import System, eventually
from tests.engine.rows_world import T0, table
from tests.faults.hostile import KINDS, Hostile

ROWS = 64
MIB = 1024 * 1024


class Door:
    """An intake that keeps what it sends and would journal."""

    def __init__(self, rows: int) -> None:
        self.woken = 0
        self.sent: Counter[int] = Counter()
        self.intake = Intake(
            table(rows),
            Pace(rate_max=1e9, jitter=0.1, seed=1),
            IngestSettings(),
            now_ms=lambda: T0,
            wake=self._wake,
            cloned=self._no_clone,
        )

    def _wake(self) -> None:
        self.woken += 1

    def _no_clone(self, *_: object) -> None:
        raise AssertionError("nobody beats here")

    def receive(self, raw: np.ndarray, lengths: np.ndarray, t_ms: int) -> None:
        names = np.zeros((len(raw), 28), np.uint8)
        self.intake.take_datagrams(raw, lengths, names, t_ms, send=self._send, foreign=self._foreign)

    def _send(self, frames: np.ndarray, _names: np.ndarray) -> int:
        self.sent.update(frames[:, 1].tolist())
        return len(frames)

    def _foreign(self, *_: object) -> None:
        raise AssertionError("one shard has no foreign rows")


def run_hostile(total: int) -> None:
    door, hostile = Door(ROWS), Hostile(rows=ROWS, t_ms=T0, seed=7)
    seen: Counter[str] = Counter()
    batches = hostile.batches(total)
    for _ in KINDS:  # the first of each kind makes what is made once
        kind, raw, lengths = next(batches)
        door.receive(raw, lengths, T0)
        seen[kind] += len(raw)
    before = resident_bytes(os.getpid())
    for kind, raw, lengths in batches:
        door.receive(raw, lengths, T0)
        seen[kind] += len(raw)
    assert resident_bytes(os.getpid()) - before < 16 * MIB
    statistics = door.intake.statistics()
    assert statistics.taken == statistics.waiting == door.woken == 0
    assert set(statistics.answered) == {int(Code.CLOCK)}
    assert sum(statistics.rejected.values()) + statistics.answered[int(Code.CLOCK)] == sum(seen.values())
    # All at one time: each row is told once, whatever came. Only frames that authenticated get that far.
    assert statistics.answered[int(Code.CLOCK)] == seen["replayed"]
    assert door.sent == {int(Code.CLOCK): ROWS}
    assert statistics.rejected["length"] >= seen["resized"]
    assert statistics.rejected["tag"] >= seen["plausible"] // 2
    assert set(seen) == set(KINDS)


def test_no_hostile_frame_is_accepted_or_answered_and_memory_does_not_grow():
    run_hostile(300_000)


@pytest.mark.slow
def test_ten_million_hostile_frames_are_neither_accepted_nor_answered():
    run_hostile(10_000_000)


def test_each_frame_is_accepted_once_however_often_it_comes():
    door, hostile = Door(ROWS), Hostile(rows=ROWS, t_ms=T0, seed=8)
    frames = np.zeros((4_096, 64), np.uint8)
    frames[:, :FRAME_BYTES] = hostile.right(4_096)
    lengths = np.full(4_096, FRAME_BYTES, np.uint32)
    door.receive(frames, lengths, T0)
    assert door.intake.waiting_beats == 4_096
    for second in range(3):
        for _ in range(10):
            door.receive(frames, lengths, T0 + 1_000 * second)
    assert door.intake.waiting_beats == 4_096
    assert door.intake.statistics().answered == {int(Code.STALE): 30 * 4_096}
    assert door.sent == {int(Code.STALE): 3 * ROWS}


# -- a real socket --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system(start_system) -> System:
    return start_system()


def rejected(system: System) -> dict[str, float]:
    return {name: value for name, value in system.metrics().items() if "intake_rejected" in name}


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def flood(system: System, datagrams: list[bytes], *, per_s: float) -> socket.socket:
    """Send all, at a steady rate; the socket, to look for answers."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(system.beats)
    began = time.monotonic()
    for number, datagram in enumerate(datagrams):
        sender.send(datagram)
        if number % 100 == 0:
            time.sleep(max(0.0, began + number / per_s - time.monotonic()))
    return sender


def test_a_flood_from_the_network_gets_no_answer_and_costs_nobody_a_beat(system):
    made = system.provision("flooded", nodes=1, workloads=2)
    chance = np.random.default_rng(9)
    with Node(system.api, made["nodes"][0]) as node:
        node.beat()
        good = node.frame()
        plausible = [bytes([BEAT_BYTE, 0]) + good[2:8] + chance.bytes(FRAME_BYTES - 8) for _ in range(25_000)]
        noise = [chance.bytes(int(length)) for length in chance.integers(0, 200, 25_000)]
        noise = [one for one in noise if len(one) != FRAME_BYTES or one[0] != BEAT_BYTE]
        mixed = [one for pair in zip(plausible, noise, strict=False) for one in pair]
        counted, memory = sum(rejected(system).values()), resident_bytes(system.child("engine-0"))
        sender = flood(system, mixed, per_s=20_000)
        try:
            assert node.beat().code in (Code.OK, Code.EARLY)  # behind all of them
            eventually(
                lambda: sum(rejected(system).values()) - counted == len(mixed) // 2,
                within_s=10,
                why=lambda: (rejected(system), counted, len(mixed)),
            )
            assert select.select([sender], [], [], 0.5)[0] == []
        finally:
            sender.close()
        assert resident_bytes(system.child("engine-0")) - memory < 32 * MIB
        # What the filter refuses raises the socket's drop counter; it is no loss of ours, so no gap.
        assert system.logged("kernel.dropped") == []
        assert "drops" not in {
            gap["cause"] for gap in system.api_for(made["api_key"]).uptime(node.workloads[0]).raw["gaps"]
        }
