"""The backend is away for five real minutes while managers go on: not a second is lost.

Two machines see the same outage: one manager lives through it, the other is killed in the middle of it and
begun again. How the backend went is not theirs to know: it is stopped in order, and killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import now_ms
from tests.e2e.machine import Machine, Owner
from tests.e2e.system import System, eventually, new_folder
from tests.e2e.system import running as system_running
from tests.e2e.test_manager import sleeper

pytestmark = pytest.mark.slow
OUTAGE_S = 300
INTERVAL_MS = 2_000
SPARE_S = 30  # beats to begin with, and the kill
TTL_MS = INTERVAL_MS * 3 // 2
# How late the first credited beat may come after what the last claim vouches for: it may be a third try,
# which by the protocol's waits leaves later than a ttl after the beat before where intervals are short.
LATE_MS = INTERVAL_MS + 1.2 * (INTERVAL_MS / 3 + TTL_MS / 4) - TTL_MS + 200


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with system_running(System(new_folder(tmp_path))) as started:
        yield started


@pytest.fixture
def machines(system: System, tmp_path: Path) -> Iterator[list[Machine]]:
    owner = Owner(system, "machines")
    owner.kind("sleeper")
    owner.offer("sleeper", "1.0.0", sleeper("hello"))
    made = [owner.register({"one": "sleeper"}, interval_ms=INTERVAL_MS) for _ in range(2)]
    machines = [Machine(tmp_path / f"machine-{at}", owner, one) for at, one in enumerate(made)]
    try:
        for machine in machines:
            machine.start()
        eventually(lambda: all(one.seen("one") == "up" for one in machines), within_s=40, every_s=0.2)
        yield machines
    finally:
        for machine in machines:
            machine.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_every_second_of_five_minutes_is_vouched_for_or_claimed(
    system: System, machines: list[Machine], how: str
):
    steady, killed = machines
    from_ms = now_ms()
    if how == "stop":
        assert system.stop() == 0
    else:
        system.kill()
    away_ms = now_ms()
    wanted = OUTAGE_S * 1_000 // INTERVAL_MS // 2
    eventually(lambda: steady.status()["backlog"]["beats"] >= wanted, within_s=OUTAGE_S, every_s=2)
    kept = killed.status()["backlog"]["beats"]
    killed.kill()
    dead_ms = now_ms()
    killed.start()
    assert killed.status()["backlog"]["beats"] >= kept
    eventually(lambda: killed.status()["frames_sent"] > 0, within_s=20)
    dead_ms = now_ms() - dead_ms
    eventually(lambda: now_ms() - away_ms >= OUTAGE_S * 1_000, within_s=OUTAGE_S, every_s=0.5)
    buffered = [one.status()["backlog"]["beats"] for one in machines]
    system.start()
    back_ms = now_ms()
    assert back_ms - away_ms >= OUTAGE_S * 1_000
    for machine, beats, lost_ms in zip(machines, buffered, (0, dead_ms), strict=True):
        eventually(lambda one=machine: one.status()["state"] == "beating", within_s=60, why=machine.log)
        eventually(lambda one=machine: one.status()["backlog"]["beats"] == 0, within_s=60, why=machine.status)
        backlog = machine.status()["backlog"]
        assert backlog["taken"] >= beats >= (OUTAGE_S - SPARE_S) * 1_000 // INTERVAL_MS - 5, backlog
        assert not any(backlog["ignored"].values()), backlog
        assert backlog["dropped"] == 0
        whole(machine, from_ms, back_ms, lost_ms)


def whole(machine: Machine, from_ms: int, back_ms: int, lost_ms: int) -> None:
    """Nothing but vouched and claimed time, but for the moments in which nobody was there to say anything."""
    answer = machine.owner.api.uptime(machine.workloads["one"], from_ms, now_ms() - 1_000)
    answer.check_sum()
    spent: dict[str, Any] = {kind: ms for kind, ms in answer.ms.items() if ms}
    assert spent.pop("unobserved", 0) <= lost_ms + LATE_MS, (spent, answer.intervals)
    assert set(spent) == {"up", "claimed_up"}, (spent, answer.intervals)
    # Claimed is the outage, less what the last beat before it vouched for, and nothing after it.
    assert answer.of("claimed_up")[-1][1] <= back_ms + 5_000
    assert spent["claimed_up"] >= OUTAGE_S * 1_000 - lost_ms - LATE_MS - TTL_MS - 1_000
