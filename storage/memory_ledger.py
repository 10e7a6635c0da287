"""The memory twin of postgres_ledger.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from engine.core.ledger import AlreadyCommittedError, Commit, KeyReusedError, PointsRow
from storage.ids import new_id
from storage.memory_world import MemoryCommit, MemoryWorld


class MemoryLedger:
    """engine.core.ports.Ledger in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    async def commit(
        self,
        project_id: str,
        day: str,
        rows: Sequence[PointsRow],
        *,
        idempotency_key: str,
        body_sha256: bytes,
        now_ms: int,
    ) -> tuple[Commit, bool]:
        """ValueError when a workload stands in `rows` twice."""
        if len({row.workload_id for row in rows}) != len(rows):
            raise ValueError("a workload stands in the rows twice")
        await self._world.enter()
        mine = [one for one in self._world.commits if one.commit.project_id == project_id]
        for stored in mine:
            if stored.key == idempotency_key and stored.body_sha256 == body_sha256:
                return stored.commit, False
            if stored.key == idempotency_key:
                raise KeyReusedError("this Idempotency-Key was used with another body")
        if any(stored.commit.day == day for stored in mine):
            raise AlreadyCommittedError(f"the points of {day} were committed before")
        total = sum(row.micro_points for row in rows)
        commit = Commit(new_id(), project_id, day, len(rows), total, now_ms)
        self._world.commits.append(MemoryCommit(commit, idempotency_key, body_sha256, tuple(rows)))
        return commit, True

    async def totals(self, project_id: str, *, day: str | None) -> list[tuple[str, int]]:
        await self._world.enter()
        totals: Counter[str] = Counter()
        for stored in self._world.commits:
            if stored.commit.project_id == project_id and day in (None, stored.commit.day):
                for row in stored.rows:
                    totals[self._world.workloads[row.workload_id].node_id] += row.micro_points
        return sorted(totals.items(), key=lambda one: (-one[1], one[0]))
