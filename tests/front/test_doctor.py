"""What the doctor calls a problem, a note, or well."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import trio

from nodepulse.checkup.clock import clock_findings
from nodepulse.checkup.disk import disk_findings
from nodepulse.checkup.finding import Finding
from nodepulse.checkup.kernel import held, kernel_findings
from nodepulse.checkup.services import port_findings, store_findings, version_findings
from nodepulse.config import Config, load_config
from nodepulse.readiness import get, is_ready
from nodepulse.systemd import environment_of_children, notify, watchdog_period_s
from tests.conftest import as_owner
from tests.front.served import nodepulse

SHM = Path("/dev/shm")


def configured(folder: Path, **sets: object) -> Config:
    words = [f"{key.replace('__', '.')}={value}" for key, value in sets.items()]
    return load_config(file=None, environ={}, sets=[f"data_dir={folder}", *words])


def by_name(findings) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_a_buffer_is_told_by_the_beats_that_it_holds():
    assert held(832 * 512).startswith("0.4 MiB: 512 beats per socket, 15 ms")


def test_what_the_kernel_grants_is_told_and_a_smaller_buffer_than_wanted_is_noted(tmp_path):
    found = by_name(kernel_findings(configured(tmp_path, ingest__receive_buffer_bytes=65_536)))
    assert found["UDP receive buffer"].level == "ok"
    assert "512 beats per socket" in found["buffer limit"].found


def test_too_few_descriptors_are_noted(tmp_path):
    found = by_name(kernel_findings(configured(tmp_path, ingest__http_connections_max=1_000_000)))
    assert found["open files"].level == "note"
    assert "1000200" in found["open files"].advice


def test_the_clock_is_looked_at_and_its_date_is_plausible():
    found = by_name(clock_findings())
    assert found["date"].level == "ok"
    assert set(found) >= {"date", "synchronised", "boot time"}


def test_a_data_folder_that_others_can_look_into_is_a_problem(tmp_path):
    secrets = tmp_path / "secrets.json"
    secrets.write_text("{}")
    tmp_path.chmod(0o700)
    secrets.chmod(0o640)
    found = by_name(disk_findings(configured(tmp_path)))["modes"]
    assert (found.level, found.found) == ("problem", f"others may look into {secrets}")
    secrets.chmod(0o600)
    assert by_name(disk_findings(configured(tmp_path)))["modes"].level == "ok"


def test_less_room_than_the_reserve_is_a_problem(tmp_path):
    found = by_name(disk_findings(configured(tmp_path, journal__reserve_bytes=1024**4)))
    assert found["room"].level == "problem"
    assert "BUSY" in found["room"].advice


def test_a_folder_that_is_yet_to_be_made_is_judged_by_the_one_above_it(tmp_path):
    found = by_name(disk_findings(configured(tmp_path / "a" / "b")))
    assert str(tmp_path) in found["room"].found
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="no memory file system here")
def test_a_disk_that_forgets_is_a_problem():
    assert by_name(disk_findings(configured(SHM)))["file system"].level == "problem"


async def test_free_ports_are_well_and_taken_ones_a_problem(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = configured(tmp_path, web__port=port, ingest__port=0)
        found = by_name([finding async for finding in port_findings(config)])
    assert found["beats"].level == "ok"
    assert found["web"].level == "problem"
    assert str(port) in found["web"].found


async def test_the_embedded_servers_are_found_with_their_versions(tmp_path):
    found = by_name([finding async for finding in store_findings(configured(tmp_path))])
    assert found["embedded postgres"].found.startswith("postgres (PostgreSQL) 18")
    assert found["embedded valkey"].found.startswith("Valkey server v=")
    assert {finding.level for finding in found.values()} == {"ok"}


async def test_a_folder_without_the_programs_is_a_problem(tmp_path):
    config = configured(tmp_path, database__binaries=tmp_path, redis__binaries=tmp_path)
    found = [finding async for finding in store_findings(config)]
    assert [finding.level for finding in found] == ["problem", "problem"]


def test_a_store_that_is_away_is_a_problem_and_fails_the_command(tmp_path):
    urls = [
        "--set",
        "database.url=postgresql://nobody@127.0.0.1:9/x",
        "--set",
        "redis.url=redis://127.0.0.1:9",
    ]
    done = nodepulse("doctor", "--data-dir", str(tmp_path), "--web", ":0", "--beats", ":0", *urls, "--json")
    told = json.loads(done.stdout)
    stores = [finding["level"] for finding in told["findings"] if finding["area"] == "stores"]
    assert stores == ["problem", "problem", "problem"]
    assert done.returncode == 1
    assert told["problems"] >= 3


async def test_a_role_that_could_change_what_is_sealed_is_noted(
    tmp_path, on_uvloop, postgres_url, valkey_url
):
    async def finding_of(url: str):
        config = configured(tmp_path, database__url=url, redis__url=valkey_url)
        return by_name([finding async for finding in store_findings(config)])["role"]

    found = await finding_of(as_owner(postgres_url))
    assert found.level == "note"
    assert "nodepulse is mighty" in found.found
    assert "sealed_row" in found.found
    assert "Two roles" in found.advice
    assert (await finding_of(postgres_url)).level == "ok"


def test_versions_name_everything_that_a_report_of_a_bug_needs():
    found = by_name(version_findings())
    assert "Python 3." in found["nodepulse"].found
    assert "trio " in found["libraries"].found


async def answer_with(nursery: trio.Nursery, answer: bytes) -> int:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async def serve(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners)

    return await nursery.start(serve)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 503 Not\r\n\r\n", 503, ""),
        (b"nonsense", 0, ""),
        (b"", 0, ""),
    ],
)
async def test_a_health_endpoint_is_read_whatever_it_answers(nursery, answer, status, body):
    port = await answer_with(nursery, answer)
    assert await get("127.0.0.1", port, "/readyz") == (status, body)
    assert await is_ready("0.0.0.0", port) is (status == 200)
    nursery.cancel_scope.cancel()


def test_systemd_is_told_by_datagram_and_children_do_not_speak_for_the_unit(tmp_path, monkeypatch):
    path = tmp_path / "notify"
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
    assert watchdog_period_s() == 2.0
    assert "PATH" in environment_of_children()
    assert environment_of_children().keys().isdisjoint({"NOTIFY_SOCKET", "WATCHDOG_USEC"})


def test_without_systemd_nothing_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notify("READY=1")
    assert watchdog_period_s() == 0
