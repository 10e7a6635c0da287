"""A real manager becomes another one: published, tried, kept or taken back, while its workloads run on.

Releases are built from this checkout, the broken ones with one file that is another. Intervals are five
seconds: what a beat vouches for outlasts a hand-over, so a good one leaves no hole at all, unless the machine
is so busy that a process takes longer than the rest of a ttl to start; then the hole is no longer than that.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from node.update.release import Manifest, public_key_of, sign
from nodepulse.manager_archive import Built, build, write
from tests.e2e.api import now_ms
from tests.e2e.machine import Machine, Owner
from tests.e2e.system import TOP, System, eventually, new_folder
from tests.e2e.system import running as system_running
from tests.e2e.test_manager import NAMES, sleeper

pytestmark = pytest.mark.slow
SEED = bytes(range(32))
INTERVAL_MS = 5_000
TTL_MS = INTERVAL_MS * 3 // 2
SLACK_MS = 1_000  # from a credited beat to the hand-over, and to the line in the log
WITHIN_S = 30  # a new manager has beaten by then
BUSY_S = 60.0  # where starting a process takes ten seconds, as it does on a machine that is tested on
Publish = Callable[..., Built]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = new_folder(tmp_path_factory.mktemp("update"))
    with system_running(System(folder, sets={"web.releases_dir": folder.with_name("releases")})) as started:
        yield started


@pytest.fixture(scope="module")
def owner(system: System) -> Owner:
    owner = Owner(system, "machines")
    owner.kind("sleeper")
    owner.offer("sleeper", "1.0.0", sleeper("hello"))
    return owner


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
def machine(owner: Owner, tmp_path: Path, releases: Path) -> Iterator[Machine]:
    """Three workloads, seen up; releases are looked for in a folder, when told."""
    releases.mkdir()
    with running(owner, tmp_path, update_url=(releases / "latest.release").as_uri()) as machine:
        yield machine


@contextmanager
def running(owner: Owner, tmp_path: Path, **settings: Any) -> Iterator[Machine]:
    made = owner.register(dict.fromkeys(NAMES, "sleeper"), interval_ms=INTERVAL_MS)
    machine = Machine(
        tmp_path / "machine",
        owner,
        made,
        update_key=public_key_of(SEED),
        update_beats_within_s=WITHIN_S,
        **{"update_every_s": 0, **settings},
    )
    try:
        machine.start()
        eventually(
            lambda: all(machine.seen(name) == "up" for name in NAMES),
            within_s=BUSY_S,
            why=machine.log,
            every_s=0.2,
        )
        yield machine
    finally:
        machine.close()


@pytest.fixture
def publish(releases: Path, tmp_path: Path) -> Publish:
    """Publish a version; `replaced`: files of it that are others, by name."""

    def at(version: str, *, replaced: dict[str, str] | None = None, **more: Any) -> Built:
        folder = None
        if replaced is not None:
            folder = tmp_path / f"sources-{version}"
            for package in ("np1", "node"):
                shutil.copytree(TOP / package, folder / package, ignore=shutil.ignore_patterns("*.pyc"))
            for name, text in replaced.items():
                (folder / name).write_text(text)
        built = build(version=version, seed=SEED, published_ms=now_ms(), folder=folder, **more)
        write(built, releases)
        return built

    return at


def tell(machine: Machine) -> None:
    assert machine.ask("POST", "/update") == (200, {"asked": True})


def runs(machine: Machine, version: str) -> bool:
    """Whether that version runs for good, and beats."""
    assert machine.process is not None
    assert machine.process.poll() is None, machine.log()
    try:
        status = machine.status()
    except (OSError, HTTPException):
        return False  # it is becoming another one
    told = (status["version"], status["state"], status["update"]["on_trial"])
    return told == (f"nodepulse/{version}", "beating", False)


def lost(machine: Machine, from_ms: int) -> dict[str, int]:
    """What was not up since then, of all workloads, until a second ago; and nothing waits to be handed in."""
    eventually(lambda: machine.status()["backlog"]["beats"] == 0, within_s=30, why=machine.status)
    assert not any(machine.status()["backlog"]["ignored"].values())
    spent: dict[str, int] = {}
    for name in NAMES:
        answer = machine.owner.api.uptime(machine.workloads[name], from_ms, now_ms() - 1_000)
        answer.check_sum()
        for kind, ms in answer.ms.items():
            if ms and kind not in ("up", "claimed_up"):
                spent[kind] = max(spent.get(kind, 0), ms)
    return spent


def holes_are_those_of_hand_overs(machine: Machine, from_ms: int) -> None:
    spent, cost = lost(machine, from_ms), cost_ms(machine)
    assert spent.keys() <= {"silent"}, spent
    assert spent.get("silent", 0) <= cost, (spent, cost, machine.log())


def cost_ms(machine: Machine) -> int:
    """The longest hole that hand-overs may leave: each begins right after a credited beat, and the first beat
    of the next manager comes within an interval after its session.
    """
    cost, left_ms = 0, None
    for line in machine.log().splitlines():
        if "hands over to" in line or "has beaten and stays" in line:
            left_ms = logged_ms(line)
        elif "session of generation" in line and left_ms is not None:
            cost += max(0, logged_ms(line) - left_ms + INTERVAL_MS - TTL_MS)
            left_ms = None
    return cost + SLACK_MS if cost else 0


def logged_ms(line: str) -> int:
    """When a line was logged, in ms of the day."""
    hours, minutes, seconds = line.split()[1].replace(",", ".").split(":")
    return round((int(hours) * 60 + int(minutes)) * 60_000 + float(seconds) * 1_000)


def pids(machine: Machine) -> dict[str, list[int]]:
    return {name: machine.of(name) for name in NAMES}


def taken_back(machine: Machine, version: str) -> dict[str, Any] | None:
    try:
        told = machine.status()["update"]["taken_back"]
    except (OSError, HTTPException):
        return None
    return next((one for one in told if one["version"] == version), None)


def test_a_published_manager_takes_over_and_not_a_beat_is_lost(machine: Machine, publish: Publish):
    before, from_ms = pids(machine), now_ms()
    assert machine.process is not None
    publish("0.2.0")
    tell(machine)
    eventually(lambda: runs(machine, "0.2.0"), within_s=BUSY_S, why=machine.log)
    assert machine.status()["pid"] == machine.process.pid  # which a service manager watches
    assert pids(machine) == before
    # And the next from the one that was installed so, by which the first is not kept.
    publish("0.3.0")
    tell(machine)
    eventually(lambda: runs(machine, "0.3.0"), within_s=BUSY_S, why=machine.log)
    assert pids(machine) == before
    holes_are_those_of_hand_overs(machine, from_ms)
    node = machine.owner.api.get(f"/v1/nodes/{machine.node_id}")
    assert node["manager_version"] == "nodepulse/0.3.0"
    kept = machine.config.data_path / "versions"
    assert sorted(path.name for path in kept.iterdir() if path.is_dir()) == ["0.2.0", "0.3.0", "current"]
    # Killed, begun again, told to begin anew: it is that one.
    machine.kill()
    machine.start()
    eventually(lambda: runs(machine, "0.3.0"), within_s=BUSY_S, why=machine.log)
    machine.process.send_signal(signal.SIGHUP)
    eventually(lambda: machine.log().count("hands over to") == 3, within_s=BUSY_S, why=machine.log)
    eventually(lambda: runs(machine, "0.3.0"), within_s=BUSY_S, why=machine.log)
    assert pids(machine) == before
    assert machine.stop() == 0
    assert machine.processes() == []


BROKEN = {
    "crashes": ({"node/manager/main.py": "raise RuntimeError('broken')\n"}, "ended with code 1"),
    "hangs at once": (
        {"node/commands/main.py": "import time\ntime.sleep(9999)\n"},
        f"no beat of it was credited within {WITHIN_S} s",
    ),
    "does not beat": (
        {"node/client.py": "import trio\nraise SystemExit(trio.run(trio.sleep_forever))\n"},
        f"no beat of it was credited within {WITHIN_S} s",
    ),
    "leaves": ({"node/manager/main.py": "raise SystemExit(0)\n"}, "ended with code 0"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_manager_is_taken_back(machine: Machine, publish: Publish, how: str):
    replaced, why = BROKEN[how]
    before, from_ms = pids(machine), now_ms()
    publish("0.2.0", replaced=replaced)
    tell(machine)
    found = eventually(
        lambda: (told := taken_back(machine, "0.2.0")) and not told["again"] and told,
        within_s=WITHIN_S + BUSY_S,
        why=machine.log,
    )
    assert why in found["why"]
    eventually(lambda: runs(machine, "0.1.0"), within_s=BUSY_S, why=machine.log)
    assert pids(machine) == before
    # Nobody vouched for the time in which the broken one said nothing; a quick end costs nothing at all.
    holes_are_those_of_hand_overs(machine, from_ms)
    # It is not tried again, until a newer one is published.
    told = machine.log().count("is on trial")
    tell(machine)
    eventually(lambda: "was tried here and taken back" in machine.status()["update"]["why"], within_s=BUSY_S)
    assert machine.log().count("is on trial") == told
    publish("0.2.1")
    tell(machine)
    eventually(lambda: runs(machine, "0.2.1"), within_s=BUSY_S, why=machine.log)
    assert pids(machine) == before


def test_a_trial_that_is_killed_is_taken_back(machine: Machine, publish: Publish):
    before = pids(machine)
    publish("0.2.0", replaced={"node/commands/main.py": "import time\ntime.sleep(9999)\n"})
    tell(machine)
    eventually(lambda: "is on trial" in machine.log(), within_s=BUSY_S, why=machine.log)
    assert machine.process is not None
    guard = machine.process.pid
    (child,) = eventually(
        lambda: children(guard) - {pid for one in before.values() for pid in one}, within_s=BUSY_S
    )
    os.kill(child, signal.SIGKILL)
    eventually(lambda: taken_back(machine, "0.2.0"), within_s=BUSY_S, why=machine.log)
    assert "by signal 9" in taken_back(machine, "0.2.0")["why"]
    eventually(lambda: runs(machine, "0.1.0"), within_s=BUSY_S, why=machine.log)
    # Both are killed, as when the machine loses power.
    publish("0.2.1", replaced={"node/commands/main.py": "import time\ntime.sleep(9999)\n"})
    tell(machine)
    eventually(lambda: "0.2.1 is on trial" in machine.log(), within_s=BUSY_S, why=machine.log)
    time.sleep(0.5)
    machine.kill()
    eventually(
        lambda: len(machine.processes()) == len(NAMES), within_s=BUSY_S
    )  # the one on trial went with it
    machine.start()
    eventually(lambda: runs(machine, "0.1.0"), within_s=BUSY_S, why=machine.log)
    assert "was killed" in taken_back(machine, "0.2.1")["why"]
    assert pids(machine) == before


def children(pid: int) -> set[int]:
    return {
        int(one)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for one in (task / "children").read_text().split()
    }


def test_what_is_not_as_it_was_signed_is_refused_and_nothing_happens(
    machine: Machine, publish: Publish, releases: Path
):
    assert machine.process is not None
    generation = machine.status()["session"]["generation"]

    def refused(why: str) -> None:
        tell(machine)
        eventually(
            lambda: why in machine.status()["update"]["why"],
            within_s=BUSY_S,
            why=lambda: machine.status()["update"],
        )

    built = publish("0.2.0")
    foreign = sign(built.manifest, bytes(32))
    (releases / "latest.release").write_text(foreign)
    refused("signature is not that of update_key")
    write(built, releases)
    archive = releases / built.manifest.file
    archive.write_bytes(built.archive[:-1] + bytes([built.archive[-1] ^ 1]))
    refused("checksum is not that of the release")
    archive.write_bytes(built.archive[:-1])
    refused("bytes long instead of")
    archive.write_bytes(built.archive + b"more")
    refused("longer than")
    archive.unlink()
    refused("No such file")
    publish("0.0.9")
    refused("0.0.9 is older than 0.1.0")
    publish("0.2.0", needs=("python>=3.99", "no-such-package>=1", "trio>=0.30"))
    refused("needs python>=3.99")
    assert "needs no-such-package>=1, which is not installed" in machine.status()["update"]["why"]
    publish("0.9.0", minimum_version="0.5.0")
    refused("can only follow 0.5.0 or newer")
    assert machine.status()["session"]["generation"] == generation
    assert not (machine.config.data_path / "versions" / "current").exists()

    # One that was published before what is known here is a replay, newer than what runs or not.
    old: Manifest = build(version="0.1.5", seed=SEED, published_ms=now_ms() - 60_000).manifest
    publish("0.2.0")
    tell(machine)
    eventually(lambda: runs(machine, "0.2.0"), within_s=BUSY_S, why=machine.log)
    replayed = build(version="0.3.0", seed=SEED, published_ms=old.published_ms)
    write(replayed, releases)
    refused("published before a release that is known here")


def test_a_manager_on_trial_stops_in_order_when_told(machine: Machine, publish: Publish):
    asking = "        sent_ms = _now_ms()\n        outcome"
    late = (TOP / "node/client.py").read_text().replace(asking, f"        await trio.sleep(8)\n{asking}", 1)
    assert "sleep(8)" in late
    publish("0.2.0", replaced={"node/client.py": late})
    tell(machine)
    eventually(lambda: "is on trial" in machine.log(), within_s=BUSY_S, why=machine.log)
    eventually(machine.answers, within_s=BUSY_S)
    assert machine.status()["update"]["on_trial"]
    assert machine.stop() in (0, 1)
    assert machine.processes() == []
    # It has neither proved itself nor failed: it is tried by the next one.
    machine.start()
    eventually(lambda: runs(machine, "0.2.0"), within_s=BUSY_S, why=machine.log)


def test_an_installation_publishes_by_itself_and_managers_look_by_themselves(
    system: System, owner: Owner, tmp_path: Path
):
    folder = Path(system.config["web"]["releases_dir"])
    with running(owner, tmp_path, update_every_s=5) as machine:
        before, from_ms = pids(machine), now_ms()
        built = build(version="0.2.0", seed=SEED, published_ms=now_ms())
        write(built, folder)
        url = f"{system.web_url}/v1/manager/releases/{built.manifest.file}"
        more = ("--sha256", built.manifest.sha256, "--signature", built.text, "--rollout", "100")
        system.admin("release", "publish", "0.2.0", "--url", url, *more)
        eventually(lambda: runs(machine, "0.2.0"), within_s=BUSY_S, why=machine.log)
        assert machine.status()["update"]["from"] == "backend"
        assert pids(machine) == before
        holes_are_those_of_hand_overs(machine, from_ms)
        # Rolled back there, it is not here: what is older is not believed.
        system.admin("release", "withdraw", "0.2.0", "--yes")
        tell(machine)
        eventually(lambda: machine.status()["update"]["published"] is None, within_s=BUSY_S)
        assert runs(machine, "0.2.0")
