"""Days to be sealed in tests, over real stores: made, and sealed on the very path that the worker takes.

`make_day` writes nodes and what they did on a day that is over, `seal_days` lets a worker's sealer look once,
`seal_a_day` does both. The live view must be there: `tell_view`, where no pretended engine tells it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from engine.core.ports import NewNode, NodeRecord
from engine.core.records import BASE_UNHEALTHY, BASE_UP, INTERVAL_DTYPE, FirstReport, FlushBatch, ShardHead
from engine.core.sealed import DAY_MS, Seal
from engine.core.uptime_source import UptimeSource
from storage.open import AllStores
from worker.main import seal_stores
from worker.sealer import Sealer

TTL_MS = 90_000
Span = tuple[int, int, int]  # BASE_* kind, from and to in ms of the day


class Day(msgspec.Struct, frozen=True):
    """A day that is over, and the nodes that were made for it. `seal`: None until it is sealed."""

    project_id: str
    day_ms: int
    nodes: list[NodeRecord]
    seal: Seal | None = None

    @property
    def day(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self.day_ms / 1000))

    @property
    def workload_ids(self) -> list[str]:
        return [each for node in self.nodes for each in node.workload_ids]


def system_ms() -> int:
    return time.time_ns() // 1_000_000


def yesterday_ms() -> int:
    return system_ms() // DAY_MS * DAY_MS - DAY_MS


def spans_of(number: int) -> list[Span]:
    """What the workload of that number did: up all day, or up with three hours of something else."""
    hour = 3_600_000
    if number % 3 == 1:
        return [(BASE_UP, 0, 9 * hour + 1), (BASE_UP, 12 * hour + 2, DAY_MS + TTL_MS)]
    if number % 3 == 2:
        cut = 6 * hour + hour // 2
        return [
            (BASE_UP, 0, cut),
            (BASE_UNHEALTHY, cut, cut + 3 * hour),
            (BASE_UP, cut + 3 * hour, DAY_MS + 1),
        ]
    return [(BASE_UP, -hour, DAY_MS + hour // 60)]


async def make_day(
    stores: AllStores,
    project_id: str,
    *,
    nodes: int = 2,
    workloads: int = 2,
    day_ms: int | None = None,
    owner_id: str | None = None,
    kind_ids: Sequence[str | None] = (),
    licence_ids: Sequence[str | None] = (),
    spans: Callable[[int], Sequence[Span]] = spans_of,
) -> Day:
    """Nodes of that many workloads that lived on a day (yesterday), and their base rows in history.

    `kind_ids`, `licence_ids`: of all workloads in order, or none. `spans`: by the number of the workload.
    """
    day_ms = yesterday_ms() if day_ms is None else day_ms
    new = [
        NewNode(
            project_id,
            f"sealed-{number}",
            "node",
            None,
            60_000,
            tuple(f"w{slot}" for slot in range(workloads)),
            tuple(kind_ids[number * workloads : (number + 1) * workloads]),
            owner_id,
            "eu",
            tuple(licence_ids[number * workloads : (number + 1) * workloads]),
        )
        for number in range(nodes)
    ]
    made = await stores.directory.create_nodes(new, now_ms=day_ms)
    day = Day(project_id, day_ms, made)
    rows = [
        (*halves(workload_id), kind, day_ms + from_ms, day_ms + to_ms, TTL_MS)
        for number, workload_id in enumerate(day.workload_ids)
        for kind, from_ms, to_ms in spans(number)
    ]
    batch = FlushBatch(
        shard=0,
        position=1,
        watermark_ms=system_ms(),
        intervals=np.array(rows, INTERVAL_DTYPE),
        first_reports=tuple(FirstReport(each, day_ms) for each in day.workload_ids),
        leases_ms=system_ms(),
    )
    await stores.history.flush(batch)
    return day


async def tell_view(stores: AllStores, *, head: ShardHead | None = None) -> None:
    """An empty live view of one shard, as of now."""
    now_ms = system_ms()
    head = head or ShardHead(0, 1, "sealing", now_ms, 1, 0, False, None, now_ms)
    await stores.live.reset(head)
    assert await stores.live.write(head, rows=[], slots=[])


def new_sealer(
    stores: AllStores,
    *,
    source: UptimeSource | None = None,
    shards: int = 1,
    now_ms: Callable[[], int] = system_ms,
    after_ms: int = 0,
) -> Sealer:
    """A worker's sealer over these stores."""
    return Sealer(seal_stores(stores), shards=shards, source=source, now_ms=now_ms, after_ms=after_ms)


async def seal_days(stores: AllStores, *, source: UptimeSource | None = None) -> list[Seal]:
    """Seal all days and corrections that are due, as a worker does."""
    return await new_sealer(stores, source=source).run_once()


async def seal_a_day(stores: AllStores, project_id: str, *, nodes: int = 2, workloads: int = 2) -> Day:
    """Yesterday of a project with some workloads, sealed. The live view must be told (a pretended engine's
    is); days in between that became due with it are sealed as well."""
    day = await make_day(stores, project_id, nodes=nodes, workloads=workloads)
    await seal_days(stores)
    seal = await stores.seals.seal(project_id, day.day)
    assert seal is not None, "the day could not be sealed"
    return msgspec.structs.replace(day, seal=seal)


def halves(workload_id: str) -> tuple[int, int]:
    """The id as INTERVAL_DTYPE has it."""
    number = int(workload_id.replace("-", ""), 16)
    return number >> 64, number & 2**64 - 1
