"""`serve` and `admin` as a stranger meets them: real processes, real stores, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.identity import NodeIdentity
from tests.front.served import Served, alive, nodepulse, until

CANARY = ("--set", "canary.count=1", "--set", "canary.interval_ms=1000")


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("served") / "data", "--shards", "2", *CANARY)
    yield running
    running.end()


@pytest.fixture
def own(tmp_path) -> Iterator[list[Served]]:
    started: list[Served] = []
    yield started
    for one in started:
        one.end()


def provisioned(served: Served, **options: object) -> dict:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = nodepulse("admin", "provision", "--data-dir", str(served.folder), *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_provision_prints_a_project_with_a_key_and_nodes_that_can_sign(served):
    made = provisioned(served, project="alpha", nodes=3, workloads=2)
    assert set(made) == {"project", "api_key", "nodes"}
    assert made["project"] == "alpha"
    assert made["api_key"].startswith("np_")
    assert [len(node["workloads"]) for node in made["nodes"]] == [2, 2, 2]
    for node in made["nodes"]:
        assert set(node) == {"node_id", "private_key", "workloads"}
        NodeIdentity(node["node_id"], node["private_key"])  # refuses what is no seed of 32 bytes


def test_what_was_provisioned_is_answered_as_new_to_its_key_and_to_no_other(served):
    one = provisioned(served, project="beta", nodes=1, workloads=1)
    other = provisioned(served, project="gamma", nodes=1, workloads=1)
    node, workload = one["nodes"][0]["node_id"], one["nodes"][0]["workloads"][0]
    status, body = served.get(f"/v1/nodes/{node}", one["api_key"])
    assert (status, json.loads(body)["state"]) == (200, "new")
    status, body = served.get(f"/v1/workloads/{workload}", one["api_key"])
    assert (status, json.loads(body)["state"]) == (200, "new")
    assert served.get(f"/v1/nodes/{node}", other["api_key"])[0] == 404
    assert served.get(f"/v1/nodes/{node}")[0] == 401


def test_ten_thousand_nodes_are_provisioned_within_thirty_seconds(served):
    began = time.monotonic()
    made = provisioned(served, project="many", nodes=10_000, workloads=1)
    assert time.monotonic() - began < 30
    assert len({node["node_id"] for node in made["nodes"]}) == 10_000


def test_a_check_beats_by_the_url_that_was_printed(served):
    nodepulse("admin", "project", "create", "checks", "--data-dir", str(served.folder))
    done = nodepulse(
        "admin",
        "check",
        "create",
        "--project",
        "checks",
        "--name",
        "cron",
        "--data-dir",
        str(served.folder),
        "--json",
    )
    made = json.loads(done.stdout)
    from urllib.request import urlopen

    def answers() -> bool:
        with urlopen(made["ping_url"], timeout=10) as answer:
            return answer.read() == b"OK"

    until(answers, "the engine knows the capability", 2.0)
    with urlopen(made["push_url"] + "?status=up", timeout=10) as answer:
        assert json.loads(answer.read()) == {"ok": True}


def test_a_canary_beats_through_the_front_door(served):
    key = json.loads(
        nodepulse("admin", "key", "create", "--admin", "--json", "--data-dir", str(served.folder)).stdout
    )["api_key"]
    canary = json.loads((served.folder / "canary.json").read_text())[0]["node_id"]
    until(lambda: json.loads(served.get(f"/v1/nodes/{canary}", key)[1]).get("state") == "up", "canary up", 20)


def test_a_second_serve_on_the_same_folder_is_refused_and_names_the_first(served):
    done = nodepulse(
        "serve", "--data-dir", str(served.folder), "--web", "127.0.0.1:0", "--beats", "127.0.0.1:0"
    )
    assert done.returncode == 1
    assert f"is served already by process {served.process.pid}" in done.stderr


def test_only_the_owner_can_read_secrets_and_configuration(served):
    for path in ("secrets.json", "run/config.json", "run/child-web.json"):
        assert (served.folder / path).stat().st_mode & 0o777 == 0o600
    for path in (".", "run"):
        assert (served.folder / path).stat().st_mode & 0o777 == 0o700


def test_every_process_tells_its_metrics(served):
    port = served.config["serve"]["metrics_port"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        body = connection.makefile("rb").read()
    assert b'nodepulse_serve_restarts_total{of="engine-1"} 0.0' in body


def test_doctor_finds_the_running_serve_and_calls_it_well(served):
    done = nodepulse("doctor", "--data-dir", str(served.folder), "--json")
    told = json.loads(done.stdout)
    found = {(finding["area"], finding["what"]): finding for finding in told["findings"]}
    assert found["ports", "serving"]["level"] == "ok"
    assert done.returncode == (1 if told["problems"] else 0)


def test_the_demo_shows_a_fleet_and_leaves_nobody_behind_who_could_be_missed(served):
    done = nodepulse("demo", "--data-dir", str(served.folder), "--nodes", "5", "--seconds", "8", "--json")
    told = json.loads(done.stdout)
    assert told["fleet"]["beats"] > 0, done.stderr
    assert told["states"].get("up", 0) > 0
    listed = nodepulse(
        "admin", "node", "list", "--project", "demo", "--data-dir", str(served.folder), "--json"
    )
    assert {node["revoked"] for node in json.loads(listed.stdout)["nodes"]} == {True}


@pytest.mark.parametrize("child", ["engine-1", "web", "worker"])
def test_a_child_that_is_killed_is_started_again(served, child):
    before = until(lambda: served.pid_of(child), f"{child} runs")
    os.kill(before, signal.SIGKILL)
    until(
        lambda: not alive(before) and served.is_ready() and served.pid_of(child) not in (None, before),
        f"{child} is back",
    )
    assert served.process.poll() is None


def test_the_embedded_database_is_started_again_when_it_is_killed(served):
    before = served.pids()["postgres/postmaster.pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: served.pids().get("postgres/postmaster.pid", before) != before, "another postmaster")
    until(served.is_ready, "ready again")
    assert provisioned(served, project="after", nodes=1, workloads=1)["project"] == "after"


def test_sigterm_stops_everything_in_order_within_fifteen_seconds(served):
    """The last one on this serve."""
    pids = served.pids()
    assert len(pids) == 7
    assert served.stop() == 0
    assert [name for name, pid in pids.items() if alive(pid)] == []
    stopped = [
        json.loads(line)["child"] for line in served.log.read_text().splitlines() if '"child.stopped"' in line
    ]
    assert set(stopped[:3]) == {"web", "worker", "canary"}
    assert set(stopped[3:5]) == {"engine-0", "engine-1"}
    assert set(stopped[5:7]) == {"postgres", "valkey"}
    assert stopped[7:] == ["guard"]
    assert not (served.folder / "run" / "config.json").exists()


def test_after_a_kill_nothing_is_left_and_the_next_start_goes_on_with_the_same_data(tmp_path, own):
    own.append(first := Served(tmp_path / "data"))
    made = provisioned(first, project="kept", nodes=1, workloads=1)
    pids = first.pids()
    assert len(pids) == 5
    first.process.kill()
    first.process.wait()
    until(lambda: not any(alive(pid) for pid in pids.values()), "children and stores end by themselves")
    own.append(second := Served(tmp_path / "data"))
    assert second.get(f"/v1/nodes/{made['nodes'][0]['node_id']}", made["api_key"])[0] == 200
    assert second.stop() == 0


@pytest.mark.slow
def test_a_child_that_can_never_listen_makes_serve_give_up_and_say_so(tmp_path, own):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own.append(one := Served(tmp_path / "data", "--set", f"worker.metrics_port={port}", wait=False))
        assert one.process.wait(120) == 1
    assert "nodepulse gave up: worker died 5 times in a row before it listened" in one.log.read_text()
    assert one.pids() == {}


def test_a_signal_during_the_start_stops_what_was_started(tmp_path, own):
    own.append(one := Served(tmp_path / "data", wait=False))
    until((tmp_path / "data" / "postgres" / "postmaster.pid").exists, "the database begins")
    pids = one.pids()
    assert one.stop() == 0
    assert [name for name, pid in pids.items() if alive(pid)] == []


def test_a_taken_beat_port_is_told_and_nothing_stays_behind(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = nodepulse(
            "serve",
            "--data-dir",
            str(tmp_path / "data"),
            "--web",
            "127.0.0.1:0",
            "--beats",
            f"127.0.0.1:{port}",
        )
    assert done.returncode == 1
    assert f"UDP port {port} on 127.0.0.1 is taken" in done.stderr


def test_admin_without_a_serve_says_what_to_start(tmp_path: Path):
    done = nodepulse("admin", "project", "create", "x", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"./run serve --data-dir {tmp_path}" in done.stderr
