"""kill -9 between any two steps of event -> outbox -> delivery, by real processes: nothing lost or doubled.

A message that comes twice has the same webhook-id, and only where the step explains it: the receiver took it,
and nobody lived to write that down.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core.records import INTERVAL_DTYPE, Event, FlushBatch, event_id
from storage.bridge import run_on_uvloop
from storage.failpoint import STEPS
from storage.ids import new_id
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings
from storage.tokens import new_webhook_secret
from tests.e2e.api import now_ms
from tests.e2e.load import Load
from tests.e2e.receiver import receiving as receiving_all
from tests.e2e.system import eventually
from tests.faults.workers import BadReceiver, all_of, receiving, tended, workers

OF_WORKERS = [step for step in STEPS if not step.startswith("flush.")]
OF_ENGINES = [step for step in STEPS if step.startswith("flush.")]
QUICK = ("decide.before_commit", "delivery.sent")
WITHIN_S = 40.0


class Outbox:
    """The stores of a test as those who make events and channels see them."""

    def __init__(self, postgres_url: str, valkey_url: str) -> None:
        self.urls = {"database.url": postgres_url, "redis.url": valkey_url}

    def run(self, work: Any) -> Any:
        results = []

        async def main() -> int:
            database = DatabaseSettings(url=self.urls["database.url"])
            async with open_stores(database, RedisSettings(url=self.urls["redis.url"])) as stores:
                results.append(await work(stores))
            return 0

        assert run_on_uvloop(main) == 0
        return results[0]

    def project(self, slug: str, url: str) -> str:
        """A project with a webhook; its id."""

        async def work(stores: Any) -> str:
            project = await stores.directory.create_project(slug, now_ms=1)
            await stores.outbox.add_channel(
                project.project_id, kind="webhook", target=url, secret=new_webhook_secret(), now_ms=1
            )
            return str(project.project_id)

        return self.run(work)

    def happen(self, project_id: str, count: int) -> list[str]:
        """So many machines of the project fall at once; the ids of the events."""
        at_ms = now_ms()
        events = tuple(_fall(project_id, new_id(), at_ms) for _ in range(count))

        async def work(stores: Any) -> None:
            batch = FlushBatch(0, at_ms, at_ms, np.zeros(0, INTERVAL_DTYPE), events=events)
            await stores.history.flush(batch)

        self.run(work)
        return [event.event_id for event in events]

    def states(self) -> dict[str, int]:
        async def work(stores: Any) -> dict[str, int]:
            async def ask(connection: Any) -> dict[str, int]:
                rows = await connection.fetch("select state, count(*) from delivery group by 1")
                return {row["state"]: row["count"] for row in rows}

            return await stores.outbox._db.run(ask)

        return self.run(work)


def _fall(project_id: str, node_id: str, at_ms: int) -> Event:
    return Event(
        event_id=event_id("node.down", node_id, at_ms - 90_000),
        kind="node.down",
        shard=0,
        project_id=project_id,
        node_id=node_id,
        workload_id=None,
        since_ms=at_ms - 90_000,
        at_ms=at_ms,
    )


@pytest.fixture
def outbox(postgres_url: str, valkey_url: str) -> Outbox:
    return Outbox(postgres_url, valkey_url)


def _steps(steps: Sequence[str]) -> list[Any]:
    return [pytest.param(step, marks=() if step in QUICK else pytest.mark.slow) for step in steps]


@pytest.mark.parametrize("step", _steps(OF_WORKERS))
def test_a_worker_killed_at_any_step_loses_nothing_and_another_goes_on(
    step: str, outbox: Outbox, tmp_path: Path
):
    flag = tmp_path / "fired"
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving(BadReceiver()))
        projects = [outbox.project(f"p{number}", receiver.url) for number in range(4)]
        two = stack.enter_context(workers(tmp_path, sets=outbox.urls, count=2, failpoint=step, flag=flag))
        ids = [one for project_id in projects for one in outbox.happen(project_id, 3)]
        tended(two, lambda: flag.exists() and all_of(receiver.events, ids), within_s=WITHIN_S)
        # Whatever else might come would come now: when the lease of what the killed one had in hand is over.
        tended(two, lambda: outbox.states().keys() == {"sent"}, within_s=WITHIN_S)
        assert two.deaths == [-signal.SIGKILL]
    assert set(receiver.events) == set(ids)
    assert set(receiver.events.values()) == {1}, "an event was told in two messages"
    assert len(receiver.doubles) == (1 if step == "delivery.sent" else 0), receiver.told


def test_beside_receivers_of_all_bad_kinds_and_a_kill_the_good_one_hears_all(outbox: Outbox, tmp_path: Path):
    flag = tmp_path / "fired"
    with ExitStack() as stack:
        stolen = stack.enter_context(receiving(BadReceiver()))
        bad = {
            "fails": BadReceiver(status=500),
            "hangs": BadReceiver(wait_s=30.0),
            "redirects": BadReceiver(status=302, location=stolen.url),
            "gone": BadReceiver(status=410),
            "good": BadReceiver(),
        }
        projects = {
            slug: outbox.project(slug, stack.enter_context(receiving(one)).url) for slug, one in bad.items()
        }
        sets = outbox.urls | {"worker.delivery_concurrency_max": "8", "worker.delivery_endpoint_max": "2"}
        two = stack.enter_context(workers(tmp_path, sets=sets, count=2, failpoint="delivery.sent", flag=flag))
        ids = [outbox.happen(project_id, 1) for project_id in projects.values() for _ in range(3)]
        good = [one for made in ids[-3:] for one in made]
        tended(two, lambda: flag.exists() and all_of(bad["good"].events, good), within_s=WITHIN_S)
        time.sleep(0.5)
    assert set(bad["good"].events) == set(good)
    assert len(bad["good"].doubles) <= 2, "at most what one worker had in flight to it"
    assert stolen.told == []
    assert all(one.told for one in bad.values())


@pytest.mark.slow
@pytest.mark.parametrize("step", OF_ENGINES)
def test_an_engine_killed_as_it_writes_an_event_tells_it_all_the_same_once(
    step: str, start_system: Any, tmp_path: Path
):
    flag = tmp_path / "fired"
    sets = {
        "worker.webhook_allow_private": "true",
        "worker.notifier_project_delay_s": 0,
        "worker.notifier_gather_s": 0,
    }
    system = start_system(sets=sets, environment={"NODEPULSE_FAILPOINT": f"{step}:{flag}"})
    with receiving_all() as receiver:
        made = system.provision("alpha", nodes=3)
        owner = system.api_for(made["api_key"])
        hook = {"kind": "webhook", "target": receiver.url, "event_kinds": ["node.down"]}
        key = {"idempotency-key": "hook"}
        assert owner.post("/v1/projects/alpha/channels", hook, headers=key).status == 201
        load = Load(system, made["nodes"], per_s=6)
        load.open_sessions()
        load.start()
        time.sleep(3.0)
        load.stop()
        eventually(flag.exists, within_s=60, why=lambda: system.log()[-2_000:])
        nodes = {one["node_id"] for one in made["nodes"]}
        eventually(lambda: nodes <= _fallen(receiver), within_s=90, why=lambda: system.log()[-2_000:])
        events = {one["event_id"] for one in owner.events("alpha") if one["kind"] == "node.down"}
    told = [one.headers["webhook-id"] for one in receiver.delivered]
    assert len(told) == len(set(told))
    assert len(events) == 3


def _fallen(receiver: Any) -> set[str]:
    """The nodes that somebody was told of."""
    found = set()
    for each in receiver.delivered:
        data = json.loads(each.body)["data"]
        found |= {one["node_id"] for one in data.get("events", [data])}
    return found
