"""The process driver with real processes: restarts, ends, what a later driver finds, what groups leave."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.drivers.pids import identity
from node.drivers.port import DriverError, ManifestError, Order, Origin, Phase
from node.drivers.process import ProcessDriver, backoff_s, starts_again
from node.drivers.process_manifest import ProcessManifest, parse_manifest
from node.drivers.rotation import rotate

SLEEPS = "import time; time.sleep(999)"


def python(code, **more):
    return {"command": [sys.executable, "-c", code], "stop_timeout_s": 5, **more}


def order(manifest, *, name="a", version="1.0.0", restarts=0):
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    return Order(
        workload_id=name, name=name, version=version, digest=version, manifest=text, restarts=restarts
    )


@asynccontextmanager
async def driving(folder):
    """A driver; what it ran runs on after it, as after a kill of the manager."""
    driver = ProcessDriver(folder, environment=dict(os.environ), log_bytes_max=1_000_000, log_files=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run)
        yield driver
        nursery.cancel_scope.cancel()


async def until(look):
    with trio.fail_after(10):
        while not (found := look()):  # noqa: ASYNC110 - processes tell nobody
            await trio.sleep(0.01)
    return found


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path):
    yield
    for path in tmp_path.rglob("pid"):
        pid = int(path.read_text() or 0)
        if pid and identity(pid) is not None:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


async def test_a_command_runs_with_its_environment_and_its_output_is_kept(tmp_path):
    code = (
        "import os, sys; print(os.environ['WORD'], os.environ['NODEPULSE_WORKLOAD'], os.getcwd());"
        "print('bad', file=sys.stderr)"
    )
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(code, env={"WORD": "hello"}, restart="never")))
        await until(lambda: driver.running()["a"].phase is Phase.COMPLETED)
    folder = tmp_path / "workloads" / "a"
    assert (folder / "stdout.log").read_text() == f"hello a {folder / 'work'}\n"
    assert (folder / "stderr.log").read_text() == "bad\n"


async def test_what_crashes_is_begun_again_and_says_so(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS)))
        first = await until(lambda: driver.running()["a"].pid)
        assert driver.running()["a"].origin is Origin.ORDERED
        os.kill(first, signal.SIGKILL)
        await until(lambda: driver.running()["a"].phase is Phase.FAILED)
        assert driver.running()["a"].detail == "killed by signal 9; begun again after 1 s"
        second = await until(lambda: driver.running()["a"].pid)
        assert second != first
        found = driver.running()["a"]
        assert (found.phase, found.origin, found.crashes) == (Phase.RUNNING, Origin.CRASHED, 1)
        await driver.stop_all()
        assert identity(second) is None


async def test_a_later_driver_adopts_what_runs_and_sees_it_end(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS), restarts=3))
        pid = await until(lambda: driver.running()["a"].pid)
    assert identity(pid) is not None
    async with driving(tmp_path) as later:
        found = later.running()["a"]
        assert (found.pid, found.origin, found.restarts) == (pid, Origin.ADOPTED, 3)
        os.kill(pid, signal.SIGTERM)
        await until(lambda: later.running()["a"].phase is Phase.FAILED)
        await until(lambda: later.running()["a"].phase is Phase.RUNNING)
        await later.stop_all()


async def test_a_run_that_was_not_written_down_to_the_end_is_found_by_its_name(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS)))
        pid = await until(lambda: driver.running()["a"].pid)
        await until((tmp_path / "workloads" / "a" / "pid").exists)
    record = tmp_path / "workloads" / "a" / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "who": ""}))
    async with driving(tmp_path) as later:
        assert later.running()["a"].pid == pid
        await later.stop_all()


async def test_a_strangers_process_under_our_number_is_neither_adopted_nor_ended(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS)))
        await until(lambda: driver.running()["a"].pid)
        await driver.stop_all()
    (tmp_path / "workloads" / "a" / "pid").write_text(str(os.getpid()))
    async with driving(tmp_path) as later:
        assert later.running()["a"].pid != os.getpid()
        await until(lambda: later.running()["a"].pid)
        await later.stop_all()


async def test_a_record_that_cannot_be_read_leaves_no_second_process(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS)))
        pid = await until(lambda: driver.running()["a"].pid)
        await until((tmp_path / "workloads" / "a" / "pid").exists)
    (tmp_path / "workloads" / "a" / "record.json").write_text("{")
    async with driving(tmp_path) as later:
        assert later.running() == {}
        assert identity(pid) is None
        await later.apply(order(python(SLEEPS)))
        await until(lambda: later.running()["a"].pid)
        await later.stop_all()


async def test_what_has_ended_for_good_is_not_begun_by_a_later_driver(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python("raise SystemExit(3)", restart="never")))
        await until(lambda: driver.running()["a"].detail == "ended with code 3")
    async with driving(tmp_path) as later:
        assert (later.running()["a"].phase, later.running()["a"].detail) == (
            Phase.FAILED,
            "ended with code 3",
        )
        assert later.running()["a"].pid is None


async def test_an_update_ends_the_whole_group_even_if_it_does_not_want_to(tmp_path):
    stubborn = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"print(subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]).pid, flush=True); signal.pause()"
    )
    output = tmp_path / "workloads" / "a" / "stdout.log"
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(stubborn, stop_timeout_s=0)))
        inner = int(await until(lambda: output.exists() and output.read_text()))
        leader = driver.running()["a"].pid
        await driver.apply(order(python(SLEEPS), version="2.0.0"))
        assert identity(leader) is None
        await until(lambda: identity(inner) is None)
        await until(lambda: driver.running()["a"].pid)
        assert driver.running()["a"].version == "2.0.0"
        await driver.stop_all()


async def test_children_of_a_leader_that_died_are_ended_with_it(tmp_path):
    leaves = (
        f"import subprocess, sys;print(subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]).pid, flush=True)"
    )
    output = tmp_path / "workloads" / "a" / "stdout.log"
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(leaves, restart="never")))
        await until(lambda: driver.running()["a"].phase is Phase.COMPLETED)
        await until(lambda: identity(int(output.read_text())) is None)


async def test_removed_is_forgotten_and_its_files_are_put_away(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS)))
        pid = await until(lambda: driver.running()["a"].pid)
        await driver.remove("a")
        await driver.remove("a")
        assert identity(pid) is None
        assert driver.running() == {}
    assert [path.name.partition("-")[2] for path in (tmp_path / "removed").iterdir()] == ["a"]
    async with driving(tmp_path) as later:
        assert later.running() == {}


async def test_what_cannot_be_run_here_leaves_what_runs(tmp_path):
    async with driving(tmp_path) as driver:
        await driver.apply(order(python(SLEEPS)))
        pid = await until(lambda: driver.running()["a"].pid)
        for bad in ("{", "[]", {"command": ["no-such-program"]}, {"command": ["/no/such"]}, {}):
            with pytest.raises(ManifestError):
                await driver.apply(order(bad))
        with pytest.raises(ManifestError):
            await driver.apply(replace(order(python(SLEEPS)), workload_id="../a"))
        with pytest.raises(DriverError):
            await driver.restart("b", restarts=1)
        assert driver.running()["a"].pid == pid
        await driver.stop_all()


def test_waiting_after_crashes_doubles_up_to_a_minute():
    assert [backoff_s(n) for n in (1, 2, 3, 6, 7, 8, 10_000)] == [1, 2, 4, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("policy", "again"),
    [
        ("always", {0: True, 1: True, -9: True, None: True}),
        ("on-failure", {0: False, 1: True, -9: True, None: True}),
        ("never", {0: False, 1: False, -9: False, None: False}),
    ],
)
def test_the_restart_policy(policy, again):
    manifest = ProcessManifest(command=("a",), restart=policy)
    assert {code: starts_again(manifest, code) for code in again} == again


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"image": "x"}, "image"),
        ({"command": "a b"}, "command"),
        ({"command": [""]}, "command"),
        ({"env": {"A=B": "c"}}, "env"),
        ({"env": {"A": 1}}, "env"),
        ({"env": {"A": "\0"}}, "env"),
        ({"cwd": 1}, "cwd"),
        ({"restart": "sometimes"}, "restart"),
        ({"restart": []}, "restart"),
        ({"stop_timeout_s": 301}, "stop_timeout_s"),
        ({"stop_timeout_s": "1"}, "stop_timeout_s"),
        ({"health": {"http": "x"}}, "health.http"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(more, where):
    with pytest.raises(ManifestError, match=where):
        parse_manifest(json.dumps({"command": ["true"], **more}))


def test_a_long_file_is_rotated_under_the_hand_of_who_writes_it(tmp_path):
    log = tmp_path / "log"
    with log.open("a") as writer:
        for word in "abcd":
            writer.write(word * 100)
            writer.flush()
            assert rotate(log, bytes_max=50, files=2)
        writer.write("e")
        writer.flush()
        assert not rotate(log, bytes_max=50, files=2)
    found = {path.name: path.read_text()[:1] for path in Path(tmp_path).iterdir()}
    assert found == {"log": "e", "log.1": "d", "log.2": "c"}
    assert not rotate(tmp_path / "none", bytes_max=1, files=1)
