"""What bulk uptime asks of history: many workloads of a project at once, by pages and as arrays.

How their time is put together from this and the live view stands in storage/bulk_reading.py, what each
instant was in compose_many.py. The same of one workload: `History` in ports.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from engine.core.forgive_many import Spans
from engine.core.records import BaseInterval, Claim, Gap


class BulkItem(NamedTuple):
    """A workload as the registry has it. Times in unix ms; `row` is its node's, `kind` a slug.

    `chain_id`, `contract`, `token_id` say which token the licence is. `operator_id`: whose machine it is.
    `partner_id`: what Datagram calls the node.
    """

    workload_id: str
    name: str
    slot: int
    created_ms: int
    retired_ms: int | None
    first_report_ms: int | None
    kind: str | None
    licence_id: str | None
    chain_id: int | None
    contract: str | None
    token_id: str | None
    node_id: str
    node_name: str
    row: int
    operator_id: str | None
    partner_id: str | None


class Touching(NamedTuple):
    """What history has of some workloads for a window; `of` in the spans are their places in the question."""

    watermarks: dict[int, int]  # by shard; read before everything else that is here
    base: Spans  # rows that begin in the window, and the last one before it
    records: Spans  # leases and maintenance windows that touch the window
    gaps: tuple[Gap, ...]  # of all shards, that touch the window or lie within any grace before it
    claimed: np.ndarray  # who has any claims near the window, shape (n,); known only where there are gaps


class Around(NamedTuple):
    """Base rows of one workload around its range, with their neighbours, and the claims there."""

    base: list[BaseInterval]
    claims: list[Claim]


class Bulk(Protocol):
    """Reads for many workloads; StoreUnavailableError when history is away."""

    async def page(
        self, project_id: str, *, after: str, limit: int, from_ms: int, to_ms: int
    ) -> list[BulkItem]:
        """Workloads that lived within [from_ms, to_ms), by id, after one of them ("": from the first)."""
        ...

    async def touching(
        self,
        workload_ids: Sequence[str],
        node_ids: Sequence[str],
        *,
        bare: Sequence[int],
        ttl_ms_max: int,
        from_ms: int,
        to_ms: int,
        claims_from_ms: int,
    ) -> Touching:
        """For workloads and the node of each. `bare`: places of those whose base rows are wanted.

        `ttl_ms_max`: the longest ttl of rows that are not in history yet. `claims_from_ms`: earlier ones that
        reach up to here count as near, too.
        """
        ...

    async def users(self, wallets: Sequence[str]) -> dict[str, str]:
        """The accounts' user ids by wallet; wallets of nobody are left out."""
        ...

    async def last_ends(self, workload_ids: Sequence[str]) -> np.ndarray:
        """The end of the last closed row of each; 0 where there is none. int64."""
        ...

    async def around(
        self, ranges: Sequence[tuple[str, int, int]], *, claims_from_ms: int, claims_to_ms: int
    ) -> tuple[list[Around], list[Gap]]:
        """For each (workload id, from_ms, to_ms) the rows that touch it and their neighbours on both sides.

        The gaps are of all shards, those that touch any of the ranges.
        """
        ...


def spans_of(table: np.ndarray) -> Spans:
    """Spans of an array of shape (m, 5): of, label, from_ms, to_ms, ttl_ms."""
    return Spans(*table.reshape(-1, 5).T)
