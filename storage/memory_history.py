"""The memory twin of postgres_history.py."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import islice

from engine.core.ports import HistoryWentBackError
from engine.core.records import (
    INTERVAL_DTYPE,
    BaseInterval,
    Claim,
    Event,
    FlushBatch,
    Gap,
    Lease,
    Recorded,
    Window,
)
from storage.memory_world import MemoryWorld


class MemoryHistory:
    """engine.core.ports.History in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    async def flushed_position(self, shard: int) -> int:
        await self._world.enter()
        return self._world.positions.get(shard, 0)

    async def watermark(self, shard: int) -> int:
        await self._world.enter()
        return self._world.watermarks.get(shard, 0)

    async def flush(self, batch: FlushBatch) -> None:
        await self._world.enter()
        assert batch.intervals.dtype == INTERVAL_DTYPE
        world = self._world
        if world.positions.get(batch.shard, 0) < batch.after:
            raise HistoryWentBackError(f"shard {batch.shard} lies before {batch.after}")
        for hi, lo, kind, started_ms, ended_ms, ttl_ms in batch.intervals.tolist():
            if ended_ms > started_ms:
                workload_id = str(uuid.UUID(int=hi << 64 | lo))
                kept = world.intervals.setdefault(workload_id, {})
                before = kept.get(started_ms)
                if before is not None and before.kind == kind:
                    ended_ms = max(ended_ms, before.ended_ms)
                kept[started_ms] = BaseInterval(kind, started_ms, ended_ms, ttl_ms)
        for gap in batch.gaps:
            if gap.to_ms > gap.from_ms:
                world.gaps[gap.shards, gap.shard, gap.cause, gap.from_ms] = gap
        for report in batch.first_reports:
            workload = world.workloads.get(report.workload_id)
            if workload and (workload.first_report_ms is None or report.at_ms < workload.first_report_ms):
                world.update_workload(report.workload_id, first_report_ms=report.at_ms)
        for one in batch.refused:
            key = (one.node_id, one.day, one.reason, one.run_ms)
            world.refused[key] = max(world.refused.get(key, 0), one.count)
        world.says.update(dict.fromkeys(batch.says))
        world.leases_ms[batch.shard] = max(world.leases_ms.get(batch.shard, 0), batch.leases_ms)
        for event in batch.events:
            if event.event_id not in world.event_ids:
                world.event_ids.add(event.event_id)
                world.events.append(event)
        world.positions[batch.shard] = batch.position
        world.watermarks[batch.shard] = max(world.watermarks.get(batch.shard, 0), batch.watermark_ms)

    async def intervals(self, workload_id: str, from_ms: int, to_ms: int) -> list[BaseInterval]:
        await self._world.enter()
        known = sorted(self._world.intervals.get(workload_id, {}).values(), key=lambda one: one.started_ms)
        before = [one for one in known if one.started_ms < from_ms and one.ended_ms <= from_ms]
        after = [one for one in known if one.started_ms >= max(from_ms, to_ms)]
        touching = [one for one in known if one not in before and one not in after]
        return before[-1:] + touching + after[:1]

    async def gaps(self, row: int, from_ms: int, to_ms: int) -> list[Gap]:
        await self._world.enter()
        gaps = [gap for gap in self._world.gaps.values() if row % gap.shards == gap.shard]
        found = [gap for gap in gaps if gap.from_ms < to_ms and gap.to_ms > from_ms]
        return sorted(found, key=lambda gap: (gap.from_ms, gap.cause, gap.shards))

    async def leases(self, workload_id: str, from_ms: int, to_ms: int) -> list[Lease]:
        await self._world.enter()
        leases = self._world.leases.get(workload_id, [])
        found = [one for one in leases if one.from_ms < to_ms and (one.to_ms is None or one.to_ms > from_ms)]
        return sorted(found, key=lambda lease: lease.from_ms)

    async def windows(self, workload_id: str, from_ms: int, to_ms: int) -> list[Window]:
        await self._world.enter()
        workload = self._world.workloads.get(workload_id)
        windows = self._world.nodes[workload.node_id].windows if workload else []
        mine = [window for window in windows if window.workload_id in (None, workload_id)]
        found = [window for window in mine if window.from_ms < to_ms and window.to_ms > from_ms]
        return sorted(found, key=lambda window: (window.from_ms, window.window_id))

    async def claims(self, workload_id: str, from_ms: int, to_ms: int) -> list[Claim]:
        await self._world.enter()
        claims = self._world.claims.get(workload_id, [])
        found = [one for one in claims if one.at_ms < to_ms and one.at_ms + one.ttl_ms > from_ms]
        return sorted(found, key=lambda claim: claim.at_ms)

    async def recorded(
        self,
        workload_id: str,
        row: int,
        *,
        shard: int,
        window: tuple[int, int],
        around: tuple[int, int],
    ) -> Recorded:
        return Recorded(
            watermark_ms=await self.watermark(shard),
            gaps=await self.gaps(row, *around),
            intervals=await self.intervals(workload_id, *around),
            leases=await self.leases(workload_id, *window),
            windows=await self.windows(workload_id, *window),
            claims=await self.claims(workload_id, *around),
        )

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        await self._world.enter()
        found: dict[str, dict[str, int]] = {}
        for (node_id, of_day, reason, _run_ms), count in sorted(self._world.refused.items()):
            if of_day == day and node_id in node_ids:
                reasons = found.setdefault(node_id, {})
                reasons[reason] = reasons.get(reason, 0) + count
        return found

    async def events(self, *, project_id: str | None, after: int, limit: int) -> list[tuple[int, Event]]:
        await self._world.enter()
        later = enumerate(islice(self._world.events, after, None), after + 1)
        return list(islice((one for one in later if project_id in (None, one[1].project_id)), limit))
