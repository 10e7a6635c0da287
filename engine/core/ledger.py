"""The points ledger as a port: what a project's owner committed for a day. Adapters stand in storage/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class PointsRow(msgspec.Struct, frozen=True):
    workload_id: str
    micro_points: int


class AlreadyCommittedError(Exception):
    """The day's points of this project are in the ledger already."""


class KeyReusedError(Exception):
    """The Idempotency-Key was used with another body."""


class Commit(msgspec.Struct, frozen=True):
    commit_id: str
    project_id: str
    day: str
    rows: int
    total_micro_points: int
    committed_ms: int


class Ledger(Protocol):
    """Points: append-only, all or nothing, once per project and day."""

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
        """(commit, made now). The same key and body again: the stored commit and False.

        KeyReusedError, AlreadyCommittedError. Rows must belong to the project (checked by the caller).
        """
        ...

    async def totals(self, project_id: str, *, day: str | None) -> list[tuple[str, int]]:
        """(user id or, without one, node id; micro-points) in descending order of points."""
        ...
