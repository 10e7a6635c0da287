"""Actors alone, in a process of their own: the table, the decisions and the supervisor, without a shard.

actors_child '{"nodes", "workloads", "passivate", "woken"}' answers one JSON line and ends. With `bare` true
it measures plain parked trio tasks instead: what an actor cannot cost less than.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio
import trio.testing

from bench.rig.child import say
from bench.rig.machine import cpu_s, rss_bytes
from bench.rig.world import fill
from engine.actors import Actors
from engine.core.step import Heard, NodeChange, Silent
from engine.core.timing import down_after_ms, ttl_of_interval
from engine.decisions import Decisions
from engine.settings import LivenessSettings
from engine.table import Table

INTERVAL_MS = 60_000
NOW_MS = 1_800_000_000_000
TTL_MS = ttl_of_interval(INTERVAL_MS)


class Took:
    """Seconds and processor seconds of a block."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0


@contextmanager
def timed() -> Iterator[Took]:
    took, wall, cpu = Took(), time.perf_counter(), cpu_s()
    yield took
    took.wall_s, took.cpu_s = time.perf_counter() - wall, cpu_s() - cpu


async def measure(*, nodes: int, workloads: int, passivate: bool, woken: int) -> dict[str, Any]:
    """Start all actors (live mode), then wake some without and with consequences."""
    table = Table(shard=0, shards=1)
    fill(table, rows=nodes, workloads=workloads, interval_ms=INTERVAL_MS, now_ms=NOW_MS)
    decisions = Decisions(table)
    settings = LivenessSettings(passivate=passivate)
    actors = Actors(table, decisions, settings, now_ms=lambda: NOW_MS, crashed=_crashed)
    before = rss_bytes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actors.run, _nothing)
        await trio.testing.wait_all_tasks_blocked()
        with timed() as started:
            if not passivate:
                await actors.start_all()
            await trio.testing.wait_all_tasks_blocked()
        live, memory = actors.live, rss_bytes() - before
        expected = 0 if passivate else nodes + (nodes * workloads if workloads > 1 else 0)
        assert live == expected, f"{live} actors live instead of {expected}"
        rows = range(0, nodes, max(1, nodes // woken))
        silent = NOW_MS + down_after_ms(TTL_MS)
        changes: dict[str, NodeChange] = {
            "wake": Heard(NOW_MS, TTL_MS, False),
            "down": Silent(NOW_MS, silent, False, NOW_MS + TTL_MS),  # UP, SUSPECT, DOWN: one event
            "up": Heard(silent, TTL_MS, False),  # one event
        }
        took = {name: await _tell(actors, decisions, rows, change) for name, change in changes.items()}
        assert decisions.raised == {"node.down": len(rows), "node.up": len(rows)}, decisions.raised
        nursery.cancel_scope.cancel()
    return {
        "actors": live,
        "start_s": started.wall_s,
        "start_cpu_us": started.cpu_s / max(1, live) * 1e6,
        "bytes_per_actor": memory / max(1, live),
        "process_bytes": before + memory,
        **{f"{name}_cpu_us": each.cpu_s / len(rows) * 1e6 for name, each in took.items()},
        **{f"{name}_wall_us": each.wall_s / len(rows) * 1e6 for name, each in took.items()},
    }


async def _tell(actors: Actors, decisions: Decisions, rows: range, change: NodeChange) -> Took:
    decisions.now_ms = NOW_MS
    with timed() as took:
        actors.tell(((index, change) for index in rows), ())
        while not actors.settled():
            await trio.lowlevel.checkpoint()
    return took


async def measure_bare(*, tasks: int) -> dict[str, Any]:
    """Tasks that wait and do nothing."""
    parked: list[trio.lowlevel.Task] = []

    async def park() -> None:
        while True:
            parked.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    before = rss_bytes()
    async with trio.open_nursery() as nursery:
        gc.disable()  # as the supervisor does
        with timed() as started:
            for _ in range(tasks):
                nursery.start_soon(park)
            await trio.testing.wait_all_tasks_blocked()
        memory = rss_bytes() - before
        with timed() as woken:
            waking = parked[:]
            parked.clear()
            for task in waking:
                trio.lowlevel.reschedule(task)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return {
        "start_s": started.wall_s,
        "start_cpu_us": started.cpu_s / tasks * 1e6,
        "bytes_per_actor": memory / tasks,
        "wake_cpu_us": woken.cpu_s / tasks * 1e6,
    }


def _nothing() -> None:
    """No journal here: what is decided stays with the decisions."""


def _crashed(actor: object, error: BaseException, aside: bool) -> None:
    raise AssertionError(f"{actor!r} crashed") from error


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    bare = asked.pop("bare", False)
    say(**trio.run(partial(measure_bare if bare else measure, **asked)))
