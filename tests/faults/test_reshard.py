"""Stopped, and killed, and started with another number of shards (WIRE.md, Steering; DESIGN.md, decision 6).

Promises kept: sessions go on and what was sent before is not taken again; uptime of before and after is one
whole; the time in which nobody listened is our own fault and the only time that is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from np1.codec import CREDITING, Code
from tests.e2e.api import Uptime, now_ms, unix_ms
from tests.e2e.load import Load
from tests.e2e.node import Node
from tests.e2e.system import System, new_folder, running, signal_to
from tests.faults.promise import check_acknowledged
from tests.faults.test_killed import check_nobody_blamed, settle

NODES = 6  # rows of every shard, for any count used here


class Resharding(System):
    """A system that can be started with another number of shards."""

    def restart(self, *, shards: int, kill: bool) -> None:
        if kill:
            self._kill_all()
        else:
            assert self.stop() == 0
        self._shards = shards
        self.start()

    def _kill_all(self) -> None:
        """SIGKILL to serve and all its engines, which would stop in order if they saw it die first."""
        engines = [self.child(f"engine-{shard}") for shard in range(self._shards)]
        assert self._process is not None
        signal_to(self._process.pid, signal.SIGSTOP)  # nor may it start others in their place
        for pid in engines:
            assert pid is not None
            signal_to(pid, signal.SIGKILL)
        self.kill()

    def journals(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "journal").iterdir())


@pytest.fixture
def system(tmp_path) -> Iterator[Resharding]:
    with running(Resharding(new_folder(tmp_path))) as started:
        yield started


def check_told(answer: Uptime, causes: list[str]) -> None:
    """Up but for one time of our own fault for each restart."""
    answer.check_sum()
    begun, ended = answer.of("up")[0][0], answer.of("up")[-1][1]
    assert answer.of("up", "unobserved") == [(begun, ended)]
    gaps = [(unix_ms(gap["from"]), unix_ms(gap["to"]), gap["cause"]) for gap in answer.raw["gaps"]]
    assert [cause for _, _, cause in gaps if cause in ("restart", "crash")] == causes
    for start, end in answer.of("unobserved"):
        assert any(from_ms <= start < to_ms <= end for from_ms, to_ms, _ in gaps), (start, end, gaps)


def test_sessions_and_uptime_go_on_with_another_number_of_shards(system):
    quick = system.provision("quick", nodes=NODES, workloads=1)  # its coverage ends within each restart
    slow = system.provision("slow", nodes=NODES, workloads=2, interval_ms=60_000)  # its does not
    load = Load(system, quick["nodes"], per_s=8 * NODES)
    load.open_sessions()
    load.start()
    nodes = [Node(system.api, made) for made in slow["nodes"]]
    first_ms = [node.beat().server_ms for node in nodes]
    causes = []
    for shards, kill in ((2, False), (3, True), (1, True)):
        time.sleep(1.0)
        sent = [node.frame() for node in nodes]
        for node, frame in zip(nodes, sent, strict=True):
            assert node.exchange(frame).code in CREDITING
        system.restart(shards=shards, kill=kill)
        causes.append("crash" if kill else "restart")
        assert system.journals() == [str(shards)]
        for node, frame in zip(nodes, sent, strict=True):
            assert node.exchange(frame).code == Code.STALE
            assert node.beat().code in CREDITING
    until_ms = settle(system, load)
    assert check_acknowledged(system.api_for(quick["api_key"]), load, to_ms=until_ms) > 0
    check_nobody_blamed(system, "quick", quick["api_key"], load)
    told = {(one["shards"], one["shard"]) for one in system.logged("shard.resharded")}
    assert told == {(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (1, 0)}
    last_ms = int(load.credited()["t_ms"].max())
    for made in quick["nodes"]:
        check_told(system.api_for(quick["api_key"]).uptime(made["workloads"][0], 0, last_ms), causes)
    to_ms = now_ms()
    for node, begun_ms in zip(nodes, first_ms, strict=True):
        for workload in node.workloads:
            answer = system.api_for(slow["api_key"]).uptime(workload, begun_ms, to_ms)
            assert answer.ms["up"] == to_ms - begun_ms, answer.raw
        node.close()
