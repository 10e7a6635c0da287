"""A fleet in which everything happened, in the real stores: what bulk uptime and single reads must agree on.

Histories are the random worlds of tests/core, moved to yesterday, all under the gaps of one shard. The last
row of some is still open in the live view, of some it is in both stores, of some only its first report.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import numpy as np

from engine.core.liveview import ROW_BYTES, ROW_DTYPE, SLOT_BYTES, SLOT_DTYPE
from engine.core.ports import NewNode
from engine.core.records import BASE_STOPPED, INTERVAL_DTYPE, NODE_STATES, BaseInterval, Gap
from storage.ids import new_id
from tests.contract.given import batch
from tests.core.compose_oracle import World
from tests.core.compose_worlds import LATE, random_world
from tests.web.control import Control
from web.times import DAY_MS, format_rfc3339


class BulkFleet:
    """`workload_ids` in order; `start_ms`: where the worlds' 0 lies. Two workloads on each node."""

    def __init__(self, control: Control, rng: Random, *, nodes: int) -> None:
        self.control, self.rng = control, rng
        now_ms = control.app.backend.clock()
        self.day_ms = now_ms - now_ms % DAY_MS - DAY_MS
        self.start_ms = self.day_ms + 3_600_000
        gaps = random_world(rng).gaps
        self.gaps = tuple(gap for gap in gaps if gap.to_ms < LATE)
        self.worlds = [self._world() for _ in range(2 * nodes)]
        self.workload_ids: list[str] = []

    def _world(self) -> World:
        return replace(random_world(self.rng), gaps=self.gaps)

    async def write(self) -> None:
        """Into registry, history and live view; the view is there once the engine told it."""
        control, start_ms = self.control, self.start_ms
        news = [
            NewNode(control.alpha.project_id, f"n{number}", "node", None, 60_000, ("a", "b"))
            for number in range(len(self.worlds) // 2)
        ]
        nodes = await control.stores.directory.create_nodes(news, now_ms=start_ms)
        self.workload_ids = [each for node in nodes for each in node.workload_ids]
        intervals: list[tuple[str, BaseInterval]] = []
        rows: list[tuple[int, bytes]] = []
        slots: list[tuple[int, bytes]] = []
        for number, (workload_id, world) in enumerate(zip(self.workload_ids, self.worlds, strict=True)):
            closed, slot = self._split(world)
            intervals += [(workload_id, row) for row in closed]
            slots.append(((number + 1) * SLOT_BYTES, slot))
            await self._records(workload_id, nodes[number // 2].node_id, world)
        for number, node in enumerate(nodes):
            row = np.zeros(1, ROW_DTYPE)
            row["state"], row["ttl_ms"], row["slot_base"] = NODE_STATES.index("up"), 90_000, 2 * number + 1
            row["slot_count"], row["last_t_ms"] = 2, start_ms
            rows.append((node.row * ROW_BYTES, row.tobytes()))
        gaps = tuple(Gap(0, start_ms + gap.from_ms, start_ms + gap.to_ms, gap.cause) for gap in self.gaps)
        flushed = batch(position=10_000, gaps=gaps)
        await control.stores.history.flush(msgspec.structs.replace(flushed, intervals=_array(intervals)))
        control.engine.pages.append((rows, slots))
        await control.wait_state(nodes[-1].node_id, "up")

    def _split(self, world: World) -> tuple[list[BaseInterval], bytes]:
        """Closed rows, moved to yesterday, and the record of the live slot."""
        moved = [
            BaseInterval(row.kind, self.start_ms + row.started_ms, self._end(row), row.ttl_ms)
            for row in world.rows
        ]
        slot = np.zeros(1, SLOT_DTYPE)
        if world.first_report is not None:
            slot["first_report_ms"] = self.start_ms + world.first_report
        unended = bool(moved) and moved[-1].ended_ms > self.day_ms + 2 * DAY_MS
        choice = self.rng.random()
        if not moved or (choice < 0.4 and not unended):
            return moved, slot.tobytes()
        last = moved[-1]
        slot["kind"], slot["ttl_ms"], slot["started_ms"] = last.kind, last.ttl_ms, last.started_ms
        slot["own_t_ms"] = last.started_ms if last.kind == BASE_STOPPED else last.ended_ms - last.ttl_ms
        in_both = choice > 0.8 and not unended
        return moved if in_both else moved[:-1], slot.tobytes()

    def _end(self, row: BaseInterval) -> int:
        return min(self.start_ms + row.ended_ms, 2**61)

    async def _records(self, workload_id: str, node_id: str, world: World) -> None:
        sql, start_ms = self.control.sql, self.start_ms
        created, retired = world.life
        flushed = world.first_report if self.rng.random() < 0.7 else None
        await sql(
            "update workload set created_ms = $2, retired_ms = $3, first_report_ms = $4"
            " where workload_id = $1",
            workload_id,
            start_ms + created,
            None if retired is None else start_ms + max(retired, created + 1),
            None if flushed is None else start_ms + flushed,
        )
        for lease in world.leases:
            to_ms = None if lease.to_ms is None else start_ms + lease.to_ms
            await sql("insert into lease values ($1, $2, $3)", workload_id, start_ms + lease.from_ms, to_ms)
        for claim in {claim.at_ms: claim for claim in reversed(world.claims)}.values():
            await sql(
                "insert into claim (workload_id, at_ms, kind, ttl_ms) values ($1, $2, $3, $4)",
                workload_id,
                start_ms + claim.at_ms,
                claim.kind,
                claim.ttl_ms,
            )
        for window in world.windows:
            if window.from_ms < window.to_ms:
                await sql(
                    """
                    insert into maintenance_window
                      (window_id, node_id, workload_id, from_ms, to_ms, own, created_ms)
                    values ($1, $2, $3, $4, $5, $6, 1)
                    """,
                    new_id(),
                    node_id,
                    workload_id if self.rng.random() < 0.5 else None,
                    start_ms + window.from_ms,
                    start_ms + window.to_ms,
                    window.own,
                )

    def windows(self) -> list[tuple[int, int]]:
        """The day, and parts of it."""
        some = [(self.day_ms, self.day_ms + DAY_MS)]
        for _ in range(3):
            first, last = sorted(self.rng.randrange(0, LATE) for _ in range(2))
            some.append((self.start_ms + first, self.start_ms + last + 1))
        return some


def window_query(window: tuple[int, int]) -> str:
    return f"from={format_rfc3339(window[0])}&to={format_rfc3339(window[1])}"


def lines(body: bytes) -> list[Any]:
    """The rows of a whole NDJSON stream."""
    *rows, end = [msgspec.json.decode(line) for line in body.splitlines()]
    assert end == {"end": True, "rows": len(rows)}
    return rows


def _array(intervals: list[tuple[str, BaseInterval]]) -> np.ndarray:
    array = np.zeros(len(intervals), INTERVAL_DTYPE)
    for at, (workload_id, row) in enumerate(intervals):
        number = int(workload_id.replace("-", ""), 16)
        key = (number >> 64, number & 2**64 - 1)
        array[at] = (*key, row.kind, row.started_ms, row.ended_ms, row.ttl_ms)
    return array
