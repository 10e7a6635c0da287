"""How a process of ours lives: signals, the parent's death, the line it says, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

HEAD = """
import sys, trio
from nodepulse.child import run_process
from storage.observe import configure_logging
configure_logging("child")
parent, ready = (int(text) or None for text in sys.argv[1:])
"""
ORDERLY = (
    HEAD
    + """
async def serve(stop, listening):
    listening("here")
    await stop.wait()
    await trio.sleep(0.05)  # a last flush
    print("flushed", flush=True)
raise SystemExit(run_process(serve, parent_fd=parent, ready_fd=ready))
"""
)
CRASHING = (
    HEAD
    + """
async def serve(stop, listening):
    raise RuntimeError("bad luck")
raise SystemExit(run_process(serve))
"""
)
STUBBORN = (
    HEAD
    + """
async def serve(stop, listening):
    listening("here")
    await trio.sleep_forever()
raise SystemExit(run_process(serve, ready_fd=ready))
"""
)


class Child:
    def __init__(self, source: str) -> None:
        self.parent, self._held = os.pipe()
        self._said, ready = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, str(self.parent), str(ready)],
            pass_fds=(self.parent, ready),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(ready)

    def listening(self) -> bytes:
        return os.read(self._said, 100)

    def parent_dies(self) -> None:
        os.close(self._held)
        self._held = -1

    def end(self) -> tuple[int, str, list[dict]]:
        out, err = self.process.communicate(timeout=60)
        for fd in (self.parent, self._held, self._said):
            if fd >= 0:
                os.close(fd)
        return self.process.returncode, out.decode(), [json.loads(line) for line in err.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order_with_exit_code_0(number):
    child = Child(ORDERLY)
    assert child.listening() == b"here\n"
    child.process.send_signal(number)
    code, out, lines = child.end()
    assert (code, out) == (0, "flushed\n")
    assert [line["event"] for line in lines] == ["listening", "stopping", "stopped"]


def test_the_death_of_its_parent_stops_it_in_order():
    child = Child(ORDERLY)
    child.listening()
    child.parent_dies()
    code, out, lines = child.end()
    assert (code, out) == (0, "flushed\n")
    assert "parent_died" in [line["event"] for line in lines]


def test_a_parent_that_was_dead_from_the_start_stops_it_too():
    child = Child(ORDERLY)
    child.parent_dies()
    assert child.end()[0] == 0


def test_a_crash_is_told_in_one_line_and_by_the_exit_code():
    code, _, lines = Child(CRASHING).end()
    assert code == 1
    crash = lines[-1]
    assert (crash["event"], crash["level"]) == ("crashed", "critical")
    assert "bad luck" in crash["exception"]


def test_a_second_signal_ends_what_will_not_stop():
    child = Child(STUBBORN)
    child.listening()
    child.process.send_signal(signal.SIGTERM)
    while b'"stopping"' not in child.process.stderr.readline():
        pass
    child.process.send_signal(signal.SIGTERM)
    child.process.wait(60)
    child.end()
    assert child.process.returncode == 0
