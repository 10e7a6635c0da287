"""`update`, and stopping in the middle of one: real managers that become others, by releases in a folder."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import pytest

from node.config import load, save
from node.update.release import public_key_of
from node.version import VERSION
from nodepulse.manager_archive import build, write
from tests.e2e.machine import free_port
from tests.e2e.system import TOP, eventually
from tests.node.backend import NODE_ID, Backend
from tests.node.backend import SEED as NODE_SEED
from tests.node.commanding import Shell

SEED = bytes(range(32))
BEGUN = time.time_ns() // 1_000_000


@pytest.fixture
def shell(tmp_path):
    """A registered node that looks for releases in a folder when it is told to."""
    with Backend() as backend:
        made = Shell(tmp_path)
        words = ("init", "--web-url", backend.url, "--data-dir", str(made.data), "--private-key-file", "-")
        assert made.quick(*words, stdin=NODE_SEED.hex()).code == 0
        releases = tmp_path / "releases"
        releases.mkdir()
        config = replace(
            load(made.config, {}),
            node_id=NODE_ID,
            health_port=free_port(),
            update_key=public_key_of(SEED),
            update_url=(releases / "latest.release").as_uri(),
            update_every_s=0,
            update_beats_within_s=20,
        )
        save(made.config, config)
        yield made
        made.close()


def publish(shell, version, *, at=0, **replaced):
    """A release `at` seconds after the first; `replaced`: files of it that are others."""
    folder = shell.folder / f"sources-{version}"
    for package in ("np1", "node"):
        shutil.copytree(TOP / package, folder / package, ignore=shutil.ignore_patterns("*.pyc"))
    for name, text in replaced.items():
        (folder / "node" / f"{name}.py").write_text(text)
    made = build(version=version, seed=SEED, published_ms=BEGUN + at * 1_000, folder=folder)
    write(made, shell.folder / "releases")


def test_an_update_is_looked_for_refused_with_the_reason_or_put_beside_for_the_next_start(shell):
    done = shell.quick("update", "--check")
    assert (done.code, "latest.release" in done.err) == (1, True)
    publish(shell, VERSION)
    assert shell.fine("update") == {"version": VERSION, "release": None}
    publish(shell, "0.0.9", at=1)
    done = shell.quick("update")
    assert (done.code, "0.0.9" in done.err) == (1, True)
    assert shell.fine("update", "--check", "--anyway")["release"] == "0.0.9"
    publish(shell, "0.2.0", at=2)
    assert shell.fine("update", "--check") == {"version": VERSION, "release": "0.2.0"}
    assert shell.fine("update")["applied"] == "at the next start"
    assert shell.quick("config", "set", "update_key", "").code == 0
    done = shell.quick("update")
    assert (done.code, "config set update_key" in done.err) == (1, True)


@pytest.mark.slow
def test_a_running_manager_becomes_the_release_and_what_crashes_is_taken_back(shell):
    pid = shell.fine("start", "--wait", "20")["pid"]
    publish(shell, "0.2.0")
    assert shell.fine("update", "--wait", "40")["outcome"] == "runs"
    eventually(lambda: "0.2.0" in shell.quick("version").out, within_s=10)
    assert shell.fine("start", "--wait", "20")["pid"] == pid
    publish(shell, "0.3.0", at=1, client="raise SystemExit(7)")
    done = shell.quick("update", "--wait", "60")
    assert (done.code, "taken back" in done.err) == (1, True)
    eventually(lambda: "0.2.0" in shell.quick("version").out, within_s=20)
    assert shell.quick("stop").code == 0
    assert shell.processes() == []
    # Begun anew it is the one that has proved itself, under the same words.
    shell.fine("start", "--wait", "20")
    assert "0.2.0" in shell.quick("version").out
    assert shell("manager").code == 5
    assert shell.quick("stop").code == 0


@pytest.mark.slow
def test_a_stop_in_the_middle_of_a_trial_stops_and_blames_nobody(shell):
    shell.fine("start", "--wait", "20")
    asking = "        sent_ms = _now_ms()\n        outcome"
    late = (TOP / "node/client.py").read_text().replace(asking, f"        await trio.sleep(8)\n{asking}", 1)
    assert "sleep(8)" in late
    publish(shell, "0.2.0", client=late)
    shell.fine("update")
    eventually(lambda: "is on trial" in shell.log(), within_s=20)
    done = shell.quick("stop")
    assert (done.code, "is stopped" in done.out) == (0, True), done
    eventually(lambda: shell.processes() == [], within_s=5, why=shell.log)
    assert "taken back" not in shell.log()
    assert os.path.lexists(shell.data / "versions" / "0.2.0")
