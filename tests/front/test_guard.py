"""The guard: what it ends when its input ends, and what it leaves alone. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import trio

from nodepulse.guarding import SCRIPT, Guard
from nodepulse.supervise import Death

SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
)


@pytest.fixture
def sleeper():
    started: list[subprocess.Popen[bytes]] = []

    def start(source: str = SLEEP) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", source], stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def guard() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", str(SCRIPT)], stdin=subprocess.PIPE)


def test_a_store_is_stopped_when_the_input_ends(sleeper):
    store, watching = sleeper(), guard()
    watching.communicate(f"stop {store.pid} SIGTERM:5 SIGKILL:5\n".encode(), timeout=30)
    assert store.wait(5) == -signal.SIGTERM
    assert watching.returncode == 0


def test_a_store_that_ignores_a_signal_gets_the_next(sleeper):
    store, watching = sleeper(STUBBORN), guard()
    store.stdout.readline()
    watching.communicate(f"stop {store.pid} SIGINT:0.2 SIGQUIT:5\n".encode(), timeout=30)
    assert store.wait(5) == -signal.SIGQUIT


def test_stores_are_stopped_only_after_the_children_have_ended(sleeper):
    child, store, watching = sleeper(), sleeper(), guard()
    watching.stdin.write(f"wait {child.pid}\nstop {store.pid} SIGTERM:5\n".encode())
    watching.stdin.close()
    time.sleep(0.3)
    assert store.poll() is None
    child.kill()
    assert store.wait(10) == -signal.SIGTERM
    assert watching.wait(10) == 0


def test_a_process_that_ended_before_is_forgotten(sleeper):
    ended, watching = sleeper(), guard()
    ended.kill()
    ended.wait()
    watching.communicate(f"stop {ended.pid} SIGTERM:60\nwait {ended.pid}\n".encode(), timeout=30)
    assert watching.returncode == 0


def test_a_signal_ends_it_without_touching_anything(sleeper):
    store, watching = sleeper(), guard()
    watching.stdin.write(f"stop {store.pid} SIGTERM:5\n".encode())
    watching.stdin.flush()
    watching.terminate()
    watching.wait(10)
    watching.stdin.close()
    assert store.poll() is None


async def test_a_guard_that_died_is_told_everything_anew(sleeper):
    store, gone = sleeper(), sleeper()
    held = Guard()
    await held.start()
    held.watch_store(store.pid, [(signal.SIGTERM, 5.0)])
    held.watch(gone.pid)
    gone.kill()
    gone.wait()
    held.forget(gone.pid)
    held.process.kill()
    assert await held.wait() == Death("killed by SIGKILL", by_force=True)
    await held.start()
    second = held.process
    os.close(held._input)  # as if this process had died
    held._input = None
    with trio.fail_after(20):
        await second.wait()
    assert store.wait(5) == -signal.SIGTERM


async def test_a_guard_that_is_stopped_leaves_the_stores_to_us(sleeper):
    store = sleeper()
    held = Guard()
    await held.start()
    held.watch_store(store.pid, [(signal.SIGTERM, 5.0)])
    assert await held.stop(within_s=10)
    assert store.poll() is None
