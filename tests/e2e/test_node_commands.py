"""The node's commands against a real `serve`: an operator's machine from nothing to workloads that are up.

Everything is typed as an operator would: with a person's API key, a folder, and nothing else.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.config import load
from tests.e2e.machine import Owner
from tests.e2e.system import System, eventually, new_folder
from tests.e2e.system import running as system_running
from tests.node.commanding import Shell

CODE = "import time; print('hello', flush=True); time.sleep(9999)"
SLEEPER = {"command": [sys.executable, "-c", CODE]}
# It takes longer to end than the manager's own server waits for a request.
SLOW_CODE = "import signal, time; signal.signal(15, lambda *_: time.sleep(7) or exit()); time.sleep(9999)"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system_running(System(new_folder(tmp_path_factory.mktemp("commands")))) as started:
        yield started


@pytest.fixture(scope="module")
def owner(system: System) -> Owner:
    owner = Owner(system, "mine")
    owner.kind("sleeper")
    owner.offer("sleeper", "1.0.0", SLEEPER)
    return owner


@pytest.fixture(scope="module")
def key(system: System, owner: Owner) -> str:
    """An operator's: a person who neither runs the project nor the installation."""
    user = system.admin("user", "create", "--name", "Olga", "--email", "olga@example.org")
    made: str = system.admin("key", "create", "--user", user["user_id"])["api_key"]
    return made


@pytest.fixture
def shell(tmp_path: Path, system: System) -> Iterator[Shell]:
    made = Shell(tmp_path)
    made.init(system.web_url)
    yield made
    made.close()


def register(shell: Shell, key: str, *words: str) -> Any:
    return shell.fine("register", "--key-file", "-", *words, stdin=key)


def test_a_machine_goes_from_nothing_to_a_workload_that_is_seen_up_and_away_again(
    shell: Shell, owner: Owner, key: str
):
    made = register(shell, key, "--project", "mine", "--interval-ms", "1000", "--workload", "sleeper:first")
    found = owner.api.get(f"/v1/nodes/{made['node_id']}")
    assert [one["name"] for one in found["workloads"]] == ["first"]
    assert load(shell.config, {}).project == "mine"
    assert shell.fine("start", "--wait", "20")["state"] == "beating"
    first = made["workloads"][0]["workload_id"]
    eventually(lambda: owner.api.workload_state(first) == "up", within_s=20, why=shell.log)
    assert shell.quick("workload", "status", "first").code == 0

    added = shell.fine("workload", "add", "sleeper:second", "--key-file", "-", stdin=key)
    eventually(lambda: owner.api.workload_state(added["workload_id"]) == "up", within_s=20, why=shell.log)
    assert [one["name"] for one in shell.fine("workload", "list")["workloads"]] == ["first", "second"]
    told = shell.quick("workload", "list").out
    assert all(word in told for word in ("first", "second", "healthy", "1.0.0"))

    pid = shell.fine("workload", "status", "first")["pid"]
    assert shell.fine("workload", "restart", "first")["restarted"] is True
    eventually(lambda: shell.fine("workload", "status", "first")["pid"] not in (None, pid), within_s=10)

    done = shell.quick("workload", "remove", "second", "--yes", "--key-file", "-", stdin=key)
    assert done.code == 0, done
    eventually(lambda: len(shell.fine("workload", "list")["workloads"]) == 1, within_s=10)
    assert owner.api.get(f"/v1/workloads/{added['workload_id']}")["retired_at"] is not None
    assert shell.quick("workload", "status", "second").code == 1

    assert shell.quick("stop").code == 0
    assert owner.api.node_state(made["node_id"]) == "stopped"
    assert shell.processes() == []


def test_registering_again_after_a_lost_answer_makes_no_second_node(shell: Shell, owner: Owner, key: str):
    name = uuid.uuid4().hex
    made = register(shell, key, "--project", "mine", "--name", name)
    assert shell.quick("register", "--project", "mine", "--key-file", "-", stdin=key).code == 1
    # As if the answer had never come.
    shell.fine("config", "set", "node_id", "")
    assert register(shell, key, "--project", "mine", "--name", name)["node_id"] == made["node_id"]
    shell.fine("config", "set", "node_id", "")
    other = shell.quick("register", "--project", "mine", "--name", "another", "--key-file", "-", stdin=key)
    assert (other.code, "--node-id" in other.err) == (1, True)
    # Nobody's credential but the machine's own.
    assert shell.fine("register", "--node-id", made["node_id"])["node_id"] == made["node_id"]
    nodes = owner.api.get("/v1/nodes", project="mine")["items"]
    assert [one["node_id"] for one in nodes if one["name"] == name] == [made["node_id"]]


def test_what_the_api_refuses_is_told_with_what_to_do(shell: Shell, owner: Owner, key: str):
    def refused(stdin: str, *words: str) -> str:
        done = shell.quick("register", *words, "--key-file", "-", stdin=stdin)
        assert (done.code, done.out) == (1, ""), done
        assert load(shell.config, {}).node_id == ""
        return done.err

    assert "API key is not known" in refused("np_" + "0" * 43, "--project", "mine")
    assert "project" in refused(key, "--project", "nobodys").splitlines()[0]
    assert "kinds" in refused(key, "--project", "mine", "--workload", "unheard-of")
    assert "60000 ms" in refused(key, "--project", "mine", "--interval-ms", "120000")
    made = register(shell, key, "--project", "mine")
    done = shell.quick("workload", "add", "unheard-of", "--key-file", "-", stdin=key)
    assert (done.code, "kinds" in done.err) == (1, True)
    stranger = owner.system.admin("user", "create", "--email", "stranger@example.org")["user_id"]
    theirs = owner.system.admin("key", "create", "--user", stranger)["api_key"]
    done = shell.quick("workload", "add", "sleeper", "--key-file", "-", stdin=theirs)
    assert (done.code, made["node_id"] in done.out) == (1, False)


@pytest.mark.slow
def test_a_restart_by_hand_waits_for_a_workload_that_takes_long_to_end(shell: Shell, owner: Owner, key: str):
    owner.kind("slow")
    owner.offer("slow", "1.0.0", {"command": [sys.executable, "-c", SLOW_CODE], "stop_timeout_s": 20})
    register(shell, key, "--project", "mine", "--interval-ms", "1000", "--workload", "slow")
    shell.fine("start", "--wait", "20")
    eventually(lambda: shell.quick("workload", "status", "slow").code == 0, within_s=20)
    pid = shell.fine("workload", "status", "slow")["pid"]
    assert shell.fine("workload", "restart", "slow")["restarted"] is True
    after = eventually(lambda: shell.fine("workload", "status", "slow")["pid"], within_s=10)
    assert after != pid
    assert len([one for one in shell.processes() if one == after]) == 1
