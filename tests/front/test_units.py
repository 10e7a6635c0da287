"""The systemd units in docs/operations/systemd: systemd takes them, and what they start exists."""

from __future__ import annotations

import configparser
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from trio.testing import MockClock

from nodepulse.cli import nodepulse
from nodepulse.systemd import feed_watchdog

TOP = Path(__file__).parents[2]
UNITS = sorted((TOP / "docs" / "operations" / "systemd").glob("*.service"))
PROGRAM = "/opt/nodepulse/run"


def read(unit: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=True, allow_no_value=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit.read_text())
    return parsed


def test_there_is_a_unit_for_the_whole_and_one_for_each_process():
    names = {unit.stem for unit in UNITS}
    assert names == {
        "nodepulse",
        "nodepulse-engine@",
        "nodepulse-migrate",
        "nodepulse-web",
        "nodepulse-worker",
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_a_unit_starts_is_a_command_with_these_options(unit: Path):
    program, *words = read(unit)["Service"]["ExecStart"].replace("%i", "0").split()
    assert program == PROGRAM
    options = [word for word in words if word.startswith("--")]
    command = words[: words.index(options[0])]
    told = CliRunner().invoke(nodepulse, [*command, "--help"])
    assert told.exit_code == 0, told.output
    assert [option for option in options if option not in told.output] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_that_serves_tells_systemd_and_may_do_nothing_it_need_not(unit: Path):
    service = read(unit)["Service"]
    assert service["NoNewPrivileges"] == service["ProtectHome"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    if service["Type"] != "oneshot":
        assert service["Type"] == "notify"
        assert int(service["WatchdogSec"]) > 0
        assert int(service["TimeoutStopSec"]) > 20


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path):
    program = tmp_path / "run"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copies = []
    for unit in UNITS:
        name = unit.name.replace("@.", "@0.")
        copies.append(tmp_path / name)
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, str(program)))
        (tmp_path / name).write_text((tmp_path / unit.name).read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, copies)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_process_with_a_unit_of_its_own_feeds_the_watchdog_twice_a_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        theirs.bind(str(tmp_path / "notify"))
        theirs.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        with trio.move_on_after(50):
            await feed_watchdog()
        assert [theirs.recv(100) for _ in range(4)] == [b"WATCHDOG=1"] * 4
        with pytest.raises(BlockingIOError):
            theirs.recv(100)


async def test_nobody_is_told_where_systemd_asked_for_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with trio.fail_after(1):
        await feed_watchdog()
