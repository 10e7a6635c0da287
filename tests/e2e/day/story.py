"""The story of one day, played against a real system of two shards whose clock stands just before midnight.

Everything is real but the day's length: the first two thirds of a minute are the machines' whole life in it.
What each scene is about stands at its method; what must follow is asserted in test_day.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.core.catalog import RewardRule
from engine.core.inventory import Block, Collection, LicenceFilter, NewCollection, Pass, Token
from engine.core.people import Act
from np1.codec import Ack, State
from storage.ids import new_id
from storage.open import AllStores
from tests.e2e.api import Api, Reply, now_ms
from tests.e2e.day.expected import DAY_MS, Facts
from tests.e2e.day.machine import Machine
from tests.e2e.system import System, eventually
from tests.sim.history import Gap, Window

SLUG = "day"
INTERVAL_S = 1.0
BEFORE_MIDNIGHT_S = 80  # from the start of the processes
SELLER, BUYER, KEEPER = ("0x" + digit * 40 for digit in "abc")
RULE = RewardRule(micro_points_per_paid_s=1_500_000, licensed_only=False)  # one machine has no licence


def seconds_ahead() -> int:
    """How far ahead the system's clock must run for midnight (UTC) to come in BEFORE_MIDNIGHT_S."""
    return DAY_MS // 1_000 - now_ms() % DAY_MS // 1_000 - BEFORE_MIDNIGHT_S


class Day:
    """The story. `play` it; then everything about the day can be asked."""

    def __init__(self, system: System, *, ahead_s: int) -> None:
        self.system, self.ahead_ms = system, ahead_s * 1_000
        self.midnight_ms = (self.now_ms() // DAY_MS + 1) * DAY_MS
        self.day = datetime.fromtimestamp(self.midnight_ms / 1_000 - 1, UTC).date().isoformat()
        made = system.admin(*f"provision --project {SLUG} --nodes 5 --workloads 1 --interval-ms 1000".split())
        self.owner = system.api_for(made["api_key"])
        self.machines = {
            name: Machine(name, one, system.api, self.ahead_ms)
            for name, one in zip(("first", "second", "sold", "updated", "plain"), made["nodes"], strict=True)
        }
        self.licences: list[str] = system.on_stores(self._inventory)
        self._bind()
        self.operator = self._operator("plain")
        self.sold_ms = 0
        self.released_ms: list[int] = []

    def now_ms(self) -> int:
        return now_ms() + self.ahead_ms

    # -- before the first beat ----------------------------------------------------------------------

    async def _inventory(self, stores: Any) -> list[str]:
        """A collection with two licences, and the project's rule as if it had been decided days ago."""
        assert isinstance(stores, AllStores)
        project = await stores.directory.project(SLUG)
        assert project is not None
        today = datetime.fromtimestamp(self.now_ms() / 1_000, UTC).date()
        await stores.projects.add_policy(
            self._act(),
            project.project_id,
            effective_from=today,
            today=today,
            uptime_source="native",
            pay_claims=True,
            reward=RULE,
        )
        new = NewCollection(
            project_id=project.project_id,
            chain_id=1,
            contract="0x" + "d" * 40,
            standard="erc721",
            subgraph_url="https://subgraph.example/licences",
        )
        collection = await stores.inventory.add_collection(new, act=self._act())
        await self._look(stores, collection, [Token(1, KEEPER), Token(2, SELLER)], whole=True)
        which = LicenceFilter(collection_id=collection.collection_id)
        found = await stores.inventory.licences(which, after=None, limit=10)
        return [one.licence_id for one in sorted(found, key=lambda one: one.token_id)]

    async def _look(
        self, stores: AllStores, collection: Collection, seen: Sequence[Token], *, whole: bool
    ) -> int:
        """A look at a chain whose newest block is of this very moment; that time."""
        now = await stores.inventory.collection(collection.collection_id)
        assert now is not None
        block_ms = self.now_ms()
        block = Block(number=block_ms // 1_000, hash=f"0x{block_ms:064x}", ms=block_ms)
        found = Pass(block=block, whole=whole, seen=seen, before_hash=now.synced_hash)
        await stores.inventory_sync.apply(now, found, now_ms=self.now_ms())
        return block_ms

    def _act(self) -> Act:
        return Act(actor="test", now_ms=self.now_ms(), request_id="day", made_id=new_id())

    def _bind(self) -> None:
        """Two machines under one licence, one under a licence that will be sold, one of a kind of its own."""
        kept, sold = self.licences
        for name, change in (
            ("first", {"licence_id": kept}),
            ("second", {"licence_id": kept}),
            ("sold", {"licence_id": sold}),
        ):
            self._change(name, change)
        assert self.send("POST", f"/v1/projects/{SLUG}/kinds", {"slug": "gateway"}).status == 201
        self._change("updated", {"kind": "gateway"})
        self._offer("1.0.0")
        self._run_desired("updated")

    def _operator(self, name: str) -> Api:
        """The person whose machine that is."""
        person = self.system.admin("user", "create", "--name", "Olga", "--wallet", KEEPER)
        admin = self.system.api_for(self.system.admin("key", "create", "--admin")["api_key"])
        path = f"/v1/nodes/{self.machines[name].node_id}"
        answer = self.send("PATCH", path, {"owner_id": person["user_id"]}, by=admin)
        assert answer.status == 200, answer
        return self.system.api_for(self.system.admin("key", "create", "--user", KEEPER)["api_key"])

    def _change(self, name: str, change: dict[str, Any]) -> None:
        answer = self.send("PATCH", f"/v1/workloads/{self.machines[name].workload_id}", change)
        assert answer.status == 200, answer

    def _offer(self, version: str) -> None:
        body = {"version": version, "manifest": "{}", "rollout_percent": 100}
        answer = self.send("POST", f"/v1/projects/{SLUG}/kinds/gateway/versions", body)
        assert answer.status == 201, answer

    def _run_desired(self, name: str) -> None:
        """As a manager does: fetch what is desired, and say that it runs."""
        machine = self.machines[name]
        manager = self.system.api_for(machine.node.grant.token)
        (workload,) = manager.get("/v1/manager/desired")["workloads"]
        if workload["version"] is not None:
            path = f"/v1/manager/workloads/{machine.workload_id}/version"
            answer = self.send("PUT", path, {"version": workload["version"]}, by=manager)
            assert answer.status == 200, answer

    def send(self, method: str, path: str, body: object, *, by: Api | None = None, key: str = "") -> Reply:
        """As the project's owner, unless `by` somebody else; a request of its own unless it has a key."""
        headers = {"content-type": "application/json", "idempotency-key": key or uuid.uuid4().hex}
        return (by or self.owner).request(method, path, body=json.dumps(body).encode(), headers=headers)

    # -- the scenes ---------------------------------------------------------------------------------

    def play(self) -> None:
        """From the first beat to some seconds after midnight."""
        self.beat_for(1.2, "first")  # it is the earliest, by more than any clock's doubt
        self.beat_for(4, *self.machines)
        self._sell()
        self.beat_for(2, *self.machines)
        self._update()
        self.beat_for(3, *self.machines)
        self._crash()
        self.beat_for(3, *self.machines)
        self._ill()
        self._hand_over()
        while self.now_ms() < self.midnight_ms + 3_000:
            self.beat_for(1, *self.running)

    @property
    def running(self) -> list[str]:
        """Those that go on after the first has stopped."""
        return [name for name in self.machines if name != "first"]

    def beat_for(
        self, seconds: float, *names: str, states: dict[str, State] | None = None
    ) -> dict[str, list[Ack]]:
        """Each of them once an interval."""
        acks: dict[str, list[Ack]] = {name: [] for name in names}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            for name in names:
                acks[name].append(self.machines[name].beat((states or {}).get(name, State.HEALTHY)))
            time.sleep(max(0.0, min(INTERVAL_S, until - began) - (time.monotonic() - began)))
        return acks

    def _sell(self) -> None:
        """The licence changes hands on the chain while its machine goes on."""

        async def sale(stores: Any) -> int:
            (collection,) = await stores.inventory_sync.living()
            return await self._look(stores, collection, [Token(2, BUYER)], whole=False)

        self.sold_ms = self.system.on_stores(sale)

    def _update(self) -> None:
        """A new version is ordered: told, fetched, its machine silent for four seconds, reported."""
        self._offer("2.0.0")
        others = [name for name in self.machines if name != "updated"]
        told = eventually(
            lambda: [one for one in self.beat_for(1, *self.machines)["updated"] if one.code.name == "RESYNC"],
            within_s=10,
        )
        assert told
        machine = self.machines["updated"]
        manager = self.system.api_for(machine.node.grant.token)
        (workload,) = manager.get("/v1/manager/desired")["workloads"]
        assert workload["version"] == "2.0.0"
        self.beat_for(4, *others)
        machine.beat()
        path = f"/v1/manager/workloads/{machine.workload_id}/version"
        assert self.send("PUT", path, {"version": "2.0.0"}, by=manager).status == 200

    def _crash(self) -> None:
        """Both engines die at once; two machines keep what they could not say, and hand it in afterwards."""
        with engines_dead(self.system):
            for _ in range(3):
                for name in ("plain", "sold"):
                    self.machines[name].miss()
                time.sleep(INTERVAL_S)
        eventually(lambda: self._listens(), within_s=20)
        self.beat_for(1, *self.machines)
        for name in ("plain", "sold"):
            answer = self.machines[name].hand_in()
            assert answer["taken"] == 3, answer

    def _listens(self) -> bool:
        try:
            return all(self.system.engine(shard).try_status("/readyz") == 200 for shard in range(2))
        except OSError:
            return False

    def _ill(self) -> None:
        """A workload says of itself that it is unhealthy."""
        self.beat_for(3, *self.machines, states={"plain": State.UNHEALTHY})

    def _hand_over(self) -> None:
        """The holder of the licence stops; the other run takes over with its next beat."""
        self.machines["first"].beat(stopping=True)

    # -- afterwards ---------------------------------------------------------------------------------

    def facts(self) -> Facts:
        """What only the system can tell: read from its stores."""

        async def read(stores: Any) -> Facts:
            from_ms, to_ms = self.midnight_ms - DAY_MS, self.midnight_ms + DAY_MS
            gaps = {
                shard: [
                    Gap(from_ms=gap.from_ms, to_ms=gap.to_ms, cause=gap.cause)
                    for gap in await stores.history.gaps(shard, from_ms, to_ms)
                ]
                for shard in range(2)
            }
            windows, created = {}, {}
            for machine in self.machines.values():
                windows[machine.node_id] = [
                    Window(from_ms=one.from_ms, to_ms=one.to_ms, own=one.own, workload_id=one.workload_id)
                    for one in await stores.history.windows(machine.workload_id, from_ms, to_ms)
                ]
                workload = await stores.directory.workload(machine.workload_id)
                created[machine.workload_id] = workload.created_ms
            return Facts(shards=2, gaps=gaps, windows=windows, created_ms=created)

        return self.system.on_stores(read)

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()


@contextmanager
def engines_dead(system: System) -> Iterator[None]:
    """`kill -9` of both engines; who would start others is held up until the block ends."""
    pids = [system.child(f"engine-{shard}") for shard in range(2)]
    starter = int(Path(f"/proc/{pids[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(starter, signal.SIGSTOP)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        yield
    finally:
        os.kill(starter, signal.SIGCONT)
