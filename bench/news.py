"""`bench news`: from an event in PostgreSQL to the attempt to tell it, at 1,000 events a second.

The worker as a process over a real PostgreSQL, notices without any delay, a thousand projects with a webhook
each at eight receivers' addresses. Events are written as engines write them, in batches. Told: how long after
an event its message came in (so a little more than the attempt), how fast a backlog is sent off, and beside
it plain POSTs with the same library from a loop that does nothing else.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx2
import numpy as np
import trio

from bench.rig.chart import Axis, draw
from bench.rig.child import Child, python_child
from bench.rig.machine import cpu_s
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey
from engine.core.news import notice_of
from engine.core.records import INTERVAL_DTYPE, Event, FlushBatch, event_id
from storage.bridge import run_on_uvloop
from storage.ids import new_id
from storage.open import Stores, open_stores
from storage.settings import DatabaseSettings, RedisSettings
from storage.tokens import new_webhook_secret

P99_S_PROMISED = 1.0
RECEIVERS = 8
TURN_S = 0.05  # an engine's batches come at this pace
SETTLE_S = 30.0  # for what is still on its way
PEER_TASKS = 64
SETTINGS = {
    "webhook_allow_private": True,
    "notifier_project_delay_s": 0.0,
    "notifier_gather_s": 0.0,
    "metrics_port": 0,
}


class Size(NamedTuple):
    projects: int
    per_s: int
    seconds: float
    backlog: int
    peer_s: float


FULL = Size(1_000, 1_000, 20.0, 5_000, 5.0)
QUICK = Size(20, 50, 1.0, 50, 0.3)


class Channels(NamedTuple):
    project_ids: list[str]
    channel_ids: list[str]


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("news", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        database, redis = stack.enter_context(postgres()), stack.enter_context(valkey())
        hooks = stack.enter_context(python_child("bench.rig.hooks_child", {"ports": RECEIVERS}))
        ports = hooks.answer()["ports"]
        channels = _on(database, redis, lambda stores: _make_channels(stores, size.projects, ports))
        peer = _plain_posts(hooks, ports, size.peer_s)
        options = {"database": database.url, "redis": redis.url, "settings": SETTINGS}
        worker = stack.enter_context(python_child("bench.rig.worker_child", options))
        worker.answer()
        live = _live(size, database, redis, worker, hooks, channels)
        backlog = _backlog(size, database, redis, worker, hooks, channels)
    _tell(report, size, live, backlog, peer)
    return report.finish()


def _on(database: Running, redis: Running, work: Any) -> Any:
    """What `await work(stores)` returns."""
    results = []

    async def run() -> int:
        async with open_stores(DatabaseSettings(url=database.url), RedisSettings(url=redis.url)) as stores:
            results.append(await work(stores))
        return 0

    assert run_on_uvloop(run) == 0
    return results[0]


async def _make_channels(stores: Stores, count: int, ports: list[int]) -> Channels:
    made = Channels([], [])
    for number in range(count):
        project = await stores.directory.create_project(f"p{number}", now_ms=1)
        channel = await stores.outbox.add_channel(
            project.project_id,
            kind="webhook",
            target=f"http://127.0.0.1:{ports[number % len(ports)]}/{number}",
            secret=new_webhook_secret(),
            now_ms=1,
        )
        made.project_ids.append(project.project_id)
        made.channel_ids.append(channel.channel_id)
    return made


def _fall(project_id: str) -> Event:
    node_id, at_ms = new_id(), time.time_ns() // 1_000_000
    return Event(
        event_id=event_id("node.down", node_id, at_ms),
        kind="node.down",
        shard=0,
        project_id=project_id,
        node_id=node_id,
        workload_id=None,
        since_ms=at_ms,
        at_ms=at_ms,
        detail=f"at={at_ms}",
    )


def _live(
    size: Size, database: Running, redis: Running, worker: Child, hooks: Child, channels: Channels
) -> dict[str, Any]:
    """Events at a constant rate; what came of them."""
    chance = random.Random(7)
    wanted = int(size.per_s * size.seconds)

    async def write(stores: Stores) -> None:
        began, written = trio.current_time(), 0
        while written < wanted:
            due = min(wanted, int((trio.current_time() - began + TURN_S) * size.per_s))
            events = tuple(_fall(chance.choice(channels.project_ids)) for _ in range(due - written))
            if events:
                at_ms = events[-1].at_ms
                batch = FlushBatch(0, written, at_ms, np.zeros(0, INTERVAL_DTYPE), events=events)
                await stores.history.flush(batch)
                await stores.live.announce_events(events)
                written += len(events)
            await trio.sleep(max(0.0, began + written / size.per_s - trio.current_time()))

    hooks.ask("arrivals")
    used = cpu_s(worker.pid)
    began = time.monotonic()
    _on(database, redis, write)
    took_s = time.monotonic() - began
    found, messages = _arrivals(hooks, wanted)
    lag = np.sort(np.array([came - at for at, came in found], np.float64)) / 1_000
    return {
        "events": wanted,
        "events_written_per_s": wanted / took_s,
        "told": len(found),
        "missing": wanted - len(found),
        "messages": messages,
        "event_to_arrival_s": _percentiles(lag),
        "worker_cpu_ms_per_message": (cpu_s(worker.pid) - used) * 1_000 / messages,
        "curve": [(100 * (n + 1) / len(lag), float(lag[n])) for n in range(0, len(lag), len(lag) // 200 + 1)],
    }


def _percentiles(lag_s: np.ndarray) -> dict[str, float]:
    found = {f"p{share}": float(np.percentile(lag_s, share)) for share in (50, 90, 99)}
    return found | {"max": float(lag_s[-1])}


def _arrivals(hooks: Child, wanted: int) -> tuple[list[tuple[int, int]], int]:
    """All that came, once `wanted` came or nothing more does; and in how many messages."""
    found: list[tuple[int, int]] = []
    messages = 0
    deadline = time.monotonic() + SETTLE_S
    while len(found) < wanted and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = hooks.ask("arrivals")
        found += [(at, came) for at, came in answer["arrivals"]]
        messages += answer["messages"]
    return found, messages


def _backlog(
    size: Size, database: Running, redis: Running, worker: Child, hooks: Child, channels: Channels
) -> dict[str, Any]:
    """Notices that are all due at once: how fast they go."""
    told = [
        (notice_of(_fall(channels.project_ids[n % size.projects])), channels.channel_ids[n % size.projects])
        for n in range(size.backlog)
    ]
    used = cpu_s(worker.pid)
    _on(database, redis, lambda stores: stores.outbox.put(told, now_ms=time.time_ns() // 1_000_000))
    began_ms = time.time_ns() // 1_000_000
    found, messages = _arrivals(hooks, size.backlog)
    seconds = max(0.001, (max(came for _, came in found) - began_ms) / 1_000)
    return {
        "messages": messages,
        "s": seconds,
        "messages_per_s": messages / seconds,
        "worker_cpu_ms_per_message": (cpu_s(worker.pid) - used) * 1_000 / messages,
    }


def _plain_posts(hooks: Child, ports: list[int], seconds: float) -> dict[str, Any]:
    """POSTs of a message's size, each on a connection of its own, from tasks that do nothing else."""
    body = json.dumps({"type": "node.down", "data": {"workloads": [], "detail": "x" * 400}}).encode()
    count = 0

    async def post(client: httpx2.AsyncClient, port: int, until: float) -> None:
        nonlocal count
        while trio.current_time() < until:
            await client.post(f"http://127.0.0.1:{port}/", content=body)
            count += 1

    async def run() -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx2.AsyncClient(limits=limits) as client, trio.open_nursery() as nursery:
            until = trio.current_time() + seconds
            for number in range(PEER_TASKS):
                nursery.start_soon(post, client, ports[number % len(ports)], until)

    used, began = time.process_time(), time.monotonic()
    trio.run(run)
    took_s = time.monotonic() - began
    hooks.ask("arrivals")
    return {"posts_per_s": count / took_s, "cpu_ms_per_post": (time.process_time() - used) * 1_000 / count}


def _tell(
    report: Report, size: Size, live: dict[str, Any], backlog: dict[str, Any], peer: dict[str, Any]
) -> None:
    lag = live["event_to_arrival_s"]
    report.table(
        f"{size.per_s} events a second for {size.seconds:g} s, no delay, {size.projects} webhooks",
        ("told of", "messages", "missing", "p50 s", "p99 s", "max s", "worker ms/message"),
        [
            (
                *(live["events"], live["messages"], live["missing"], lag["p50"], lag["p99"], lag["max"]),
                live["worker_cpu_ms_per_message"],
            )
        ],
    )
    report.table(
        "as fast as it goes",
        ("who", "per second", "processor ms each"),
        [
            ("a backlog of notices", backlog["messages_per_s"], backlog["worker_cpu_ms_per_message"]),
            ("plain POSTs, same library", peer["posts_per_s"], peer["cpu_ms_per_post"]),
        ],
    )
    curve = live.pop("curve")
    draw(
        report.svg_path(),
        title="From an event to its message at the receiver",
        x=Axis("percent of events"),
        y=Axis("seconds"),
        lines={f"{size.per_s} events/s": curve},
    )
    report.figures |= rounded({"live": live, "backlog": backlog})
    report.peers |= rounded({"plain_posts": peer})
    report.ratios |= rounded(
        {
            "p99_to_promise": lag["p99"] / P99_S_PROMISED,
            "backlog_to_plain_posts_by_rate": backlog["messages_per_s"] / peer["posts_per_s"],
            "worker_to_plain_posts_by_cpu": backlog["worker_cpu_ms_per_message"] / peer["cpu_ms_per_post"],
        }
    )
