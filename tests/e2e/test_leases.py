"""One licence, one live run (LIVENESS.md 5), on a real system with two shards, over UDP and over JSON.

Each test has two nodes of different shards whose workloads are bound to one licence over the API.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from np1.codec import FLAG_STOPPING, Code, State
from tests.e2e.api import Api, now_ms, rfc3339, unix_ms
from tests.e2e.node import Node
from tests.e2e.system import System, eventually, new_folder, running

TOLD_MS = 2_000  # WIRE.md: code 8 may lag this much
BUSY_MS = 2_000  # and what two busy cores may add
PATCH = {"content-type": "application/json"}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(System(new_folder(tmp_path_factory.mktemp("leases")), shards=2)) as started:
        yield started


class Rivals:
    """Two nodes, of shard 0 and of shard 1, with one workload each, under one licence."""

    def __init__(self, system: System) -> None:
        name = f"rivals-{next(_numbers)}"
        made = system.provision(name, nodes=2)
        self.system, self.project = system, name
        self.api: Api = system.api_for(made["api_key"])
        self.licence_id = add_licence(system, name)
        self.nodes = sorted(
            (Node(system.api, one) for one in made["nodes"]), key=lambda one: one.grant.row % 2
        )
        self.begin_ms = now_ms()
        for node in self.nodes:
            self.bind(node, self.licence_id)

    def bind(self, node: Node, licence_id: str | None) -> None:
        text = "null" if licence_id is None else f'"{licence_id}"'
        body = f'{{"licence_id": {text}}}'.encode()
        reply = self.api.request("PATCH", f"/v1/workloads/{node.workloads[0]}", body=body, headers=PATCH)
        assert reply.status == 200, reply.body
        time.sleep(0.6)  # its engine hears of it within 250 ms

    def leases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.get(f"/v1/licences/{self.licence_id}/leases")["items"]
        return found

    def holders(self) -> list[str]:
        return [one["holder_id"] for one in self.leases()]

    def eventually_held_by(self, *nodes: Node) -> None:
        wanted = [node.workloads[0] for node in nodes]
        eventually(lambda: self.holders() == wanted, within_s=8, why=self.leases)

    def standby(self, node: Node) -> tuple[list[tuple[int, int]], Any]:
        answer = self.api.uptime(node.workloads[0])
        answer.check_sum()
        return answer.of("standby"), answer

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@pytest.fixture
def rivals(system: System) -> Iterator[Rivals]:
    made = Rivals(system)
    yield made
    made.close()


def add_licence(system: System, project: str) -> str:
    """A token of a collection of the project, as the worker that follows a chain would have written it."""
    licence_id, collection_id = str(uuid.uuid4()), str(uuid.uuid4())

    async def work() -> None:
        connection = await asyncpg.connect(system.config["database"]["url"])
        try:
            project_id = await connection.fetchval("select project_id from project where slug = $1", project)
            await connection.execute(
                """
                insert into collection
                  (collection_id, project_id, chain_id, contract, standard, name, created_ms)
                values ($1, $2, 1, $3, 'erc721', 'licences', 0)
                """,
                collection_id,
                project_id,
                "0x" + uuid.UUID(collection_id).hex + "0" * 8,
            )
            await connection.execute(
                """
                insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)
                values ($1, $2, $3, 1, $4, 0)
                """,
                licence_id,
                collection_id,
                project_id,
                "0x" + "ab" * 20,
            )
        finally:
            await connection.close()

    asyncio.run(work())
    return licence_id


def beat_both(first: Node, second: Node) -> Code:
    first.beat()
    return Code(second.beat().code)


def beat_until_told(first: Node, second: Node) -> int:
    """Both beat on; how long after its first beat the second is told to stand by, ms."""
    began = now_ms()
    while (code := beat_both(first, second)) != Code.STANDBY:
        assert code in (Code.OK, Code.EARLY)
        assert now_ms() - began < TOLD_MS + BUSY_MS, "the second run was not told"
        time.sleep(0.1)
    return now_ms() - began


def test_the_second_run_of_a_licence_stands_by_and_takes_over_when_the_first_stops(rivals: Rivals):
    first, second = rivals.nodes
    t_first = first.beat().server_ms
    time.sleep(0.05)
    t_second = second.beat().server_ms
    assert beat_until_told(first, second) < TOLD_MS + BUSY_MS
    assert rivals.holders() == first.workloads
    spans, _ = rivals.standby(second)
    assert spans[0][0] == t_second  # before its first report it is silent, whatever else says so
    assert rivals.standby(first)[0] == []
    stopped = first.beat(flags=FLAG_STOPPING)
    time.sleep(0.3)
    handed = second.beat()
    assert handed.code in (Code.STANDBY, Code.OK, Code.EARLY)
    rivals.eventually_held_by(first, second)
    one, two = rivals.leases()
    assert (one["epoch"], one["ended"], unix_ms(one["from"])) == (1, "stopped", t_first)
    assert unix_ms(one["to"]) == stopped.server_ms
    assert (two["epoch"], unix_ms(two["from"]), two["to"]) == (2, handed.server_ms, None)
    spans, _ = rivals.standby(second)
    assert spans == [(t_second, stopped.server_ms)]
    eventually(lambda: second.beat().code in (Code.OK, Code.EARLY), within_s=4, every_s=0.3)
    spans, _ = rivals.standby(first)
    assert [start for start, _ in spans] == [handed.server_ms]


def test_the_conflict_is_told_once_and_names_licence_and_holder(rivals: Rivals):
    first, second = rivals.nodes
    first.beat()
    time.sleep(0.05)
    t_second = second.beat().server_ms
    beat_until_told(first, second)
    for _ in range(3):
        beat_both(first, second)
    time.sleep(1.0)
    told = [one for one in rivals.api.events(rivals.project) if one["kind"] == "licence.conflict"]
    assert [(one["workload_id"], unix_ms(one["since"])) for one in told] == [(second.workloads[0], t_second)]
    assert rivals.licence_id in told[0]["detail"]
    assert first.workloads[0] in told[0]["detail"]


def test_over_json_the_second_run_is_answered_standby(rivals: Rivals):
    beats = Api(*rivals.system.beats)

    def say(node: Node) -> dict[str, Any]:
        said = {"workloads": dict.fromkeys(node.workloads, "healthy")}
        reply = beats.post("/v1/beats", said, headers={"authorization": f"Bearer {node.grant.token}"})
        assert reply.status == 200
        return reply.json

    second, first = rivals.nodes  # the other way round
    say(first)
    time.sleep(0.05)
    began = now_ms()
    say(second)

    def told() -> bool:
        assert say(first)["code"] in ("ok", "early")
        return say(second)["code"] == "standby"

    eventually(told, within_s=(TOLD_MS + BUSY_MS) / 1_000, every_s=0.1)
    assert now_ms() - began < TOLD_MS + BUSY_MS
    answer = say(second)
    assert (answer["code"], answer["ttl_ms"]) == ("standby", 1_500)
    assert rivals.standby(second)[0]


def test_a_run_that_reports_nothing_claims_nothing(rivals: Rivals):
    first, second = rivals.nodes
    first.beat({0: State.ABSENT})
    second.beat({0: State.HEALTHY})
    rivals.eventually_held_by(second)
    for _ in range(3):
        assert beat_both(second, first) in (Code.OK, Code.EARLY, Code.STANDBY)
        time.sleep(0.2)
    assert rivals.holders() == second.workloads


@pytest.mark.slow
def test_a_silent_holder_is_lost_after_ten_intervals_and_the_next_beat_takes_over(rivals: Rivals):
    first, second = rivals.nodes
    last = first.beat()
    time.sleep(0.05)
    second.beat()
    lost_ms = last.server_ms + 10 * 1_000
    taken = []
    while now_ms() < lost_ms + 1_500:
        taken.append(second.beat().server_ms)
        time.sleep(0.4)
    rivals.eventually_held_by(first, second)
    one, two = rivals.leases()
    assert (one["ended"], unix_ms(one["to"])) == ("lost", lost_ms)
    assert unix_ms(two["from"]) == min(t_ms for t_ms in taken if t_ms >= lost_ms)


@pytest.mark.slow
def test_a_workload_absent_for_ten_intervals_lets_its_licence_go(rivals: Rivals):
    first, second = rivals.nodes
    first.beat()
    time.sleep(0.05)
    second.beat()
    absent = first.beat({0: State.ABSENT})
    gone_ms, taken = absent.server_ms + 10 * 1_000, []
    while now_ms() < gone_ms + 1_500:
        first.beat({0: State.ABSENT})
        taken.append(second.beat().server_ms)
        time.sleep(0.4)
    rivals.eventually_held_by(first, second)
    one, two = rivals.leases()
    assert (one["ended"], unix_ms(one["to"])) == ("absent", gone_ms)
    assert unix_ms(two["from"]) == min(t_ms for t_ms in taken if t_ms >= gone_ms)


def test_unbinding_and_retiring_let_the_licence_go(rivals: Rivals):
    first, second = rivals.nodes
    first.beat()
    rivals.eventually_held_by(first)
    rivals.bind(first, None)
    eventually(lambda: rivals.leases()[0]["ended"] == "unbound", within_s=8, why=rivals.leases)
    second.beat()
    rivals.eventually_held_by(first, second)
    rivals.bind(first, rivals.licence_id)
    eventually(lambda: first.beat().code == Code.STANDBY, within_s=8, every_s=0.3)
    reply = rivals.api.post(f"/v1/workloads/{second.workloads[0]}/retire", {})
    assert reply.status == 200, reply.body
    eventually(lambda: rivals.leases()[1]["ended"] == "retired", within_s=8, why=rivals.leases)
    first.beat()
    rivals.eventually_held_by(first, second, first)
    rivals.standby(first)


def test_leases_go_by_cursor_and_strangers_see_none(rivals: Rivals, system: System):
    first, second = rivals.nodes
    first.beat()
    rivals.eventually_held_by(first)
    first.beat(flags=FLAG_STOPPING)
    second.beat()
    rivals.eventually_held_by(first, second)
    path = f"/v1/licences/{rivals.licence_id}/leases"
    page = rivals.api.get(path, limit=1)
    assert [one["epoch"] for one in page["items"]] == [1]
    page = rivals.api.get(path, limit=1, after=page["next_cursor"])
    assert [one["epoch"] for one in page["items"]] == [2]
    stranger = system.api_for(system.provision("strangers")["api_key"])
    assert stranger.request("GET", path).status == 404
    assert rivals.api.request("GET", f"{path}?after=x").status == 400


@pytest.mark.slow
def test_a_killed_engine_keeps_the_lease_and_freezes_what_is_claimed_meanwhile(rivals: Rivals):
    """Last: for a minute after it no lease begins or ends."""
    first, second = rivals.nodes
    first.beat()
    time.sleep(0.05)
    second.beat()
    beat_until_told(first, second)
    shard = first.grant.row % 2
    killed = rivals.system.child(f"engine-{shard}")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: rivals.system.child(f"engine-{shard}") not in (None, killed), within_s=30)
    eventually(lambda: rivals.system.api.try_status("/readyz") == 200, within_s=30)
    assert first.beat().code in (Code.OK, Code.EARLY)
    assert second.beat().code == Code.STANDBY
    assert rivals.holders() == first.workloads
    stopped = first.beat(flags=FLAG_STOPPING)
    time.sleep(3.0)
    assert rivals.leases()[0]["to"] is None, "a lease ended in the grace after a gap"
    assert rfc3339(stopped.server_ms) > rivals.leases()[0]["from"]
    rivals.standby(second)
