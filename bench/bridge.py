"""`nodepulse bench bridge`: three ways to let trio use asyncpg on uvloop, under a trio side never idle.

Guest mode (ours, storage/bridge.py) against two that put uvloop into a thread of its own: behind a blocking
portal, and behind 25 lines of call_soon_threadsafe and run_sync_soon. Measured: how long a flush of 5,000
interval rows takes as the trio side sees it, how many turns the busy tasks get meanwhile, and how long they
wait for a turn: so much later would a datagram be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import numpy as np
import trio
import uvloop

from bench.rig.report import Report
from engine.core.records import BASE_UP, INTERVAL_DTYPE, FlushBatch
from storage.bridge import await_host, run_on_uvloop
from storage.embedded import PostgresServer
from storage.migrate import migrate
from storage.postgres_history import _flush, copy_rows

ROWS = 5_000
BUSY_TASKS = 10
BUSY_SLICE_S = 0.0002  # what a busy task does before it lets the others run
FLUSH_EVERY_S = 0.05

# How trio awaits ``async_fn(*args)`` of the host: the thing that is compared.
AwaitHost: TypeAlias = Callable[..., Awaitable[Any]]


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("bridge", as_json=as_json, quick=quick, svg=svg)
    found = run(quick=quick)
    report.figures, report.peers, report.ratios = found["figures"], found["peers"], found["ratios"]
    both = {**found["figures"], **found["peers"]}
    names = [name.removeprefix("guest_") for name in found["figures"] if name.startswith("guest_")]
    report.table(
        f"a flush of {ROWS:,} rows beside a trio side that is never idle",
        ("way", *names),
        [(way, *(both[f"{way}_{name}"] for name in names)) for way in ("guest", "portal", "callbacks")],
    )
    return report.finish()


def run(*, quick: bool) -> dict[str, dict[str, Any]]:
    """Figures of guest mode, of its two peers, and their ratios; minutes, or some seconds when quick.

    The three take turns, so that whatever else the machine does meanwhile falls on all alike.
    """
    rounds, flushes = (1, 3) if quick else (6, 40)
    ways: dict[str, Callable[[str, int], dict[str, list[float]]]] = {
        "guest": _guest,
        "portal": partial(_threaded, bridge=_portal),
        "callbacks": partial(_threaded, bridge=_callbacks),
    }
    samples: dict[str, list[dict[str, list[float]]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="np-bench-") as folder:
        server = PostgresServer(Path(folder))
        trio.run(server.start)
        try:
            run_on_uvloop(lambda: _migrated(server.owner_url))
            for _ in range(rounds):
                for name, way in ways.items():
                    samples[name].append(way(server.owner_url, flushes))
        finally:
            trio.run(server.stop)
    found = {name: _figures(rounds_of) for name, rounds_of in samples.items()}
    ratios = {
        f"{name}_{figure}_to_guest": round(value / found["guest"][figure], 2)
        for name in ("portal", "callbacks")
        for figure, value in found[name].items()
    }
    return {
        "figures": {"rows": ROWS, "flushes": rounds * flushes, **_named("guest", found)},
        "peers": {**_named("portal", found), **_named("callbacks", found)},
        "ratios": ratios,
    }


def _figures(rounds: list[dict[str, list[float]]]) -> dict[str, float]:
    flushes = [took for one in rounds for took in one["flush_s"]]
    waits = [waited for one in rounds for waited in one["wait_s"]]
    return {
        "flush_median_ms": round(statistics.median(flushes) * 1e3, 1),
        "flush_worst_ms": round(max(flushes) * 1e3, 1),
        "busy_turns_per_s": round(len(waits) / sum(one["lasted_s"][0] for one in rounds)),
        "busy_wait_p99_ms": round(statistics.quantiles(waits, n=100)[98] * 1e3, 1),
        "busy_wait_worst_ms": round(max(waits) * 1e3, 1),
    }


async def _migrated(url: str) -> int:
    await migrate(url)
    return 0


def _named(name: str, found: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{name}_{figure}": value for figure, value in found[name].items()}


def _guest(url: str, flushes: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}

    async def main() -> int:
        found.update(await _measure(url, flushes, await_host))
        return 0

    run_on_uvloop(main)
    return found


def _threaded(
    url: str, flushes: int, bridge: Callable[[asyncio.AbstractEventLoop], AwaitHost]
) -> dict[str, list[float]]:
    with _loop_in_a_thread() as loop:
        return trio.run(_measure, url, flushes, bridge(loop))


@contextlib.contextmanager
def _loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _portal(loop: asyncio.AbstractEventLoop) -> AwaitHost:
    """A thread of trio's pool blocks until the loop's thread has the result."""

    async def await_host(async_fn: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any:
        def blocking() -> Any:
            return asyncio.run_coroutine_threadsafe(async_fn(*args), loop).result()

        return await trio.to_thread.run_sync(blocking)

    return await_host


def _callbacks(loop: asyncio.AbstractEventLoop) -> AwaitHost:
    """No third thread: each side wakes the other by its own thread-safe callback."""

    async def await_host(async_fn: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any:
        token, waiter = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()
        tasks: list[asyncio.Task[Any]] = []

        def start() -> None:
            task = loop.create_task(async_fn(*args))
            tasks.append(task)
            task.add_done_callback(lambda _task: token.run_sync_soon(trio.lowlevel.reschedule, waiter))

        def abort(_raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            return trio.lowlevel.Abort.FAILED

        loop.call_soon_threadsafe(start)
        await trio.lowlevel.wait_task_rescheduled(abort)
        return tasks[0].result()

    return await_host


async def _measure(url: str, flushes: int, await_host: AwaitHost) -> dict[str, list[float]]:
    took: list[float] = []
    waited: list[float] = []

    async def be_busy() -> None:
        while True:
            until = time.perf_counter() + BUSY_SLICE_S
            while (now := time.perf_counter()) < until:
                pass
            await trio.lowlevel.checkpoint()
            waited.append(time.perf_counter() - now)

    connection = await await_host(asyncpg.connect, url)
    await await_host(connection.execute, "truncate base_interval")
    async with trio.open_nursery() as nursery:
        for _ in range(BUSY_TASKS):
            nursery.start_soon(be_busy)
        began = time.perf_counter()
        for number in range(flushes):
            before = time.perf_counter()
            batch = _batch(number)
            await await_host(_flush, connection, batch, copy_rows(batch.intervals))
            took.append(time.perf_counter() - before)
            await trio.sleep(FLUSH_EVERY_S)
        lasted = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    await await_host(connection.close)
    return {"flush_s": took, "wait_s": waited, "lasted_s": [lasted]}


def _batch(number: int) -> FlushBatch:
    rows = np.zeros(ROWS, INTERVAL_DTYPE)
    rows["hi"], rows["lo"], rows["kind"], rows["ttl_ms"] = 1, np.arange(ROWS), BASE_UP, 90_000
    rows["started_ms"], rows["ended_ms"] = number * 60_000, (number + 1) * 60_000
    return FlushBatch(shard=0, position=number, watermark_ms=number, intervals=rows)
