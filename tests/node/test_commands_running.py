"""start, status, stop, manager: real managers in the background, against a small real backend."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from node.config import load, save
from tests.e2e.machine import free_port
from tests.e2e.system import eventually, signal_to
from tests.node.backend import NODE_ID, SEED, Backend
from tests.node.commanding import COMMANDS, Shell

RSS_MIB_MAX = 60


@pytest.fixture
def backend():
    with Backend() as made:
        yield made


@pytest.fixture
def shell(tmp_path):
    made = Shell(tmp_path)
    yield made
    made.close()


def join(shell, web_url):
    """A node that was registered elsewhere, and whose key came with it."""
    words = ("init", "--web-url", web_url, "--data-dir", str(shell.data), "--private-key-file", "-")
    assert shell.quick(*words, stdin=SEED.hex()).code == 0
    config = load(shell.config, {})
    save(shell.config, replace(config, health_port=free_port()))


def rss_mib(pid):
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def test_a_node_proves_its_key_starts_beats_is_asked_and_stops(shell, backend):
    join(shell, backend.url)
    assert shell.fine("register", "--node-id", NODE_ID)["node_id"] == NODE_ID
    started = shell.fine("start", "--wait", "20")
    assert (started["state"], started["already_running"]) == ("beating", False)
    assert shell.fine("start") == {"pid": started["pid"], "state": "beating", "already_running": True}
    assert rss_mib(started["pid"]) < RSS_MIB_MAX

    status = shell.fine("status")
    assert (status["pid"], status["node_id"]) == (started["pid"], NODE_ID)
    told = shell.quick("status").out
    assert all(word in told for word in ("beating", NODE_ID, "OK at"))
    assert "the manager that runs" in shell.quick("version").out
    assert shell.fine("info")["manager"] == "beating"
    changed = shell.quick("config", "set", "health_ttl_s", "40")
    assert f"kill -HUP {started['pid']}" in changed.err

    assert shell("manager").code == 5
    assert shell.fine("stop") == {"stopped": True, "pid": started["pid"]}
    assert shell.quick("status").code == 3
    assert "stopping; the server knows" in shell.log()
    assert shell.processes() == []


def test_a_manager_that_is_not_heard_runs_on_and_status_is_4_and_says_why(shell):
    join(shell, f"http://127.0.0.1:{free_port()}")
    assert shell.fine("config", "set", "node_id", NODE_ID) == {"node_id": NODE_ID}
    done = shell("start", "--wait", "0.5")
    assert (done.code, "Connection refused" in done.err) == (4, True)
    done = shell.quick("status")
    assert (done.code, "Connection refused" in done.out) == (4, True)
    pid = shell.quick("status", "--json").json["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: shell.quick("status").code == 3, within_s=5)
    assert shell("start").code == 0
    assert shell.quick("stop").code == 0


def test_a_key_that_is_not_this_nodes_is_refused_and_what_to_do_is_told(shell, backend):
    join(shell, backend.url)
    shell.quick("init", "--force", "--web-url", backend.url, "--data-dir", str(shell.data))
    done = shell.quick("register", "--node-id", NODE_ID)
    assert (done.code, "unauthorized" in done.err, "public key" in done.err) == (1, True, True)
    assert load(shell.config, {}).node_id == ""


def test_a_manager_that_cannot_begin_is_told_with_the_end_of_its_log(shell, backend):
    join(shell, backend.url)
    shell.fine("register", "--node-id", NODE_ID)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shell.fine("config", "set", "health_port", str(taken.getsockname()[1]))
        done = shell("start")
    assert (done.code, "in use" in done.err, str(shell.data / "manager.log") in done.err) == (1, True, True)
    assert "health_port" in done.err


def test_systemd_is_told_when_the_manager_listens_and_its_ear_is_no_workloads(shell, backend, tmp_path):
    join(shell, backend.url)
    shell.fine("register", "--node-id", NODE_ID)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(20)
        manager = subprocess.Popen(
            [*COMMANDS, "manager"],
            env={**shell.environment, "NOTIFY_SOCKET": str(tmp_path / "notify"), "NODEPULSE_API_KEY": "np_x"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert ear.recv(100) == b"READY=1"
            assert shell.fine("info")["manager"] in ("connecting", "beating")
            # In order, too: what serves the socket is what was told of.
            assert shell.fine("stop")["pid"] == manager.pid
            assert manager.wait(10) == 0
        finally:
            manager.kill()
            manager.wait()


@pytest.mark.slow
def test_stopping_waits_for_no_longer_than_it_was_told_to(shell, backend):
    join(shell, backend.url)
    shell.fine("register", "--node-id", NODE_ID)
    pid = shell.fine("start")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = shell.quick("stop", "--timeout", "0.5")
        assert (done.code, "does not answer" in done.err) == (1, True)
        assert time.monotonic() - began < 20
    finally:
        signal_to(pid, signal.SIGCONT)
    assert shell.quick("stop").code == 0
