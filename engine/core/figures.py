"""What a shard tells of itself to those who run the installation: figures as of this moment, as one record.

They travel beside rows in the answers of engine/core/asks.py; who may see them is web's. `/metrics` of each
engine has the same figures and more, for graphs over time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

# Upper bounds of how long beats waited for their answer, in ms; what waited longer is counted after the last.
WAITED_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


class ShardFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one shard. Times: unix ms by its clock; totals: since its start; `*_last_min`: of the last minute.

    `rejected_*`: by reason; what was never answered (length, mac, row ...) and what was answered by a refusal
    (stale, clock, busy ...). `waited_last_min`: answered beats by how long that took from their receive time,
    one more than WAITED_BOUNDS_MS. `phase`: of the mass-silence breaker; `suspect` of `watched` rows are
    silent. `gaps_open`: causes of gaps that last, with their beginning. `away`: stores out of reach.
    """

    shard: int
    shards: int
    at_ms: int
    started_ms: int
    rows: int
    slots: int
    beats_per_s: float
    beats_total: int
    rejected_total: dict[str, int]
    rejected_last_min: dict[str, int]
    waited_last_min: list[int]
    journal_position: int
    journal_bytes: int  # on disk
    journal_failures: int
    commit_ms_last: float
    commit_ms_max: float
    flush_lag_bytes: int  # of the journal, not yet in PostgreSQL
    flush_ms_last: float
    flush_failures: int
    away: list[str]
    taking: bool  # beats are taken
    gaps_open: dict[str, int]
    gaps_total: int
    unobserved_ms_total: int
    phase: str
    phase_since_ms: int
    suspect: int
    watched: int
    actors_quarantined: int
    actor_crashes: int
    clock_error_ms: float
    clock_stepped: bool


def waited_ms(counts: Sequence[int], share: float) -> float | None:
    """How long that share of the beats waited at most, in ms; None: none came.

    Between two bounds as if spread evenly; infinite for what waited longer than the last bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, seen, low = share * total, 0, 0
    for bound, count in zip(WAITED_BOUNDS_MS, counts, strict=False):
        if count and seen + count >= wanted:
            return low + (bound - low) * max(0.0, wanted - seen) / count
        seen, low = seen + count, bound
    return math.inf
