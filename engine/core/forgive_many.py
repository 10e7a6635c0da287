"""What a lone gap forgives many workloads at once, as arrays: forgiveness.py for the commonest case by far.

A crash or an outage of ours touches everybody, and is a gap with no other one near: nothing can be merged
with it. What it forgives is then decided by the beats around it alone. Gaps near each other, near an end of
what is known, or undecided are left to forgiveness.py (`compose_many` says who must go there).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from engine.core.coverage import OPEN_END
from engine.core.forgiveness import DROPS
from engine.core.records import BASE_STOPPED, Gap
from engine.core.timing import GRACE_MS_MIN

_SPAN = 1 << 43  # milliseconds that one workload has in a key: 278 years
LONE_MAX = 64  # gaps judged here; each costs some searches, so more of them are not


class Spans(NamedTuple):
    """Base rows or records of these workloads, in any order; arrays of shape (m,)."""

    of: np.ndarray  # index of the workload
    label: np.ndarray  # a BASE_* code, or STANDBY, MAINTENANCE, MAINTENANCE_OWN
    from_ms: np.ndarray
    to_ms: np.ndarray
    ttl_ms: np.ndarray  # of base rows; else 0


def lone_gaps(gaps: Iterable[Gap], *, from_ms: int, to_ms: int, grace_ms: int) -> tuple[list[Gap], list[Gap]]:
    """(those that can be judged here, the others). `grace_ms`: the longest of anybody.

    Lone: wholly inside of the window, with a whole grace to its end, and to each other gap. So nothing is
    merged with it whatever the beats are, and every beat that has a say is known.
    """
    ordered = sorted(
        (gap for gap in gaps if gap.from_ms < gap.to_ms), key=lambda gap: (gap.from_ms, gap.to_ms)
    )
    lone: list[Gap] = []
    others: list[Gap] = []
    reached_ms = -OPEN_END
    for number, gap in enumerate(ordered):
        next_ms = ordered[number + 1].from_ms if number + 1 < len(ordered) else OPEN_END
        alone = reached_ms + grace_ms <= gap.from_ms and gap.to_ms + grace_ms <= next_ms
        inside = from_ms <= gap.from_ms and gap.to_ms + grace_ms <= to_ms
        (lone if alone and inside and len(lone) < LONE_MAX else others).append(gap)
        reached_ms = max(reached_ms, gap.to_ms)
    return lone, others


class Beats:
    """What base rows tell of beats: coverage.py's questions, for all workloads of a chunk at once.

    `base`: in order and without overlap (compose_many puts it so).
    """

    def __init__(self, base: Spans) -> None:
        self._base = base
        self._least = int(base.from_ms.min(initial=OPEN_END))
        self._keys = self._key(base.of, base.from_ms)
        follows = np.append((np.diff(base.of) == 0) & (base.to_ms[:-1] == base.from_ms[1:]), False)
        ended = ~follows & (base.to_ms < OPEN_END)
        last = np.where(
            base.label == BASE_STOPPED, base.to_ms, np.maximum(base.from_ms, base.to_ms - base.ttl_ms)
        )
        of = np.concatenate([base.of, base.of[ended]])
        at = np.concatenate([base.from_ms, last[ended]])
        order = np.lexsort((at, of))
        self._beat_of, self._beat_at = of[order], at[order]
        self._beat_keys = self._key(self._beat_of, self._beat_at)

    def vouched_at(self, of: np.ndarray, at_ms: int) -> np.ndarray:
        row, there = self._last_row(of, at_ms)
        base = self._base
        return np.asarray(there & (at_ms < base.to_ms[row]) & (base.label[row] != BASE_STOPPED))

    def ttl_before(self, of: np.ndarray, at_ms: int) -> np.ndarray:
        """0 where there was no beat."""
        row, there = self._last_row(of, at_ms - 1)
        return np.where(there, self._base.ttl_ms[row], 0)

    def next_beat(self, of: np.ndarray, at_ms: int) -> np.ndarray:
        """OPEN_END where none is known."""
        place = np.searchsorted(self._beat_keys, self._key(of, np.full(len(of), at_ms)))
        place = np.minimum(place, len(self._beat_of) - 1)
        there = (self._beat_of[place] == of) & (self._beat_at[place] >= at_ms)
        return np.where(there, self._beat_at[place], OPEN_END)

    def _last_row(self, of: np.ndarray, at_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """The last row that begins at or before this instant, and whether there is one."""
        place = np.searchsorted(self._keys, self._key(of, np.full(len(of), at_ms)), side="right") - 1
        row = np.maximum(place, 0)
        return row, (place >= 0) & (self._base.of[row] == of)

    def _key(self, of: np.ndarray, at_ms: np.ndarray) -> np.ndarray:
        return np.asarray(of * _SPAN + np.clip(at_ms - self._least + 1, 0, _SPAN - 1))


def forgiven_by(gap: Gap, beats: Beats, of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whom a lone gap forgives silence, from when to when (LIVENESS.md 3). `of`: whose shard it is of."""
    started = beats.vouched_at(of, gap.from_ms) | (beats.next_beat(of, gap.from_ms) < gap.to_ms)
    ttl_ms = beats.ttl_before(of, gap.to_ms)
    interval_ms = 2 * ttl_ms // 3
    if gap.cause == DROPS:
        patience_ms = interval_ms
    else:
        grace_ms = np.maximum(GRACE_MS_MIN, 5 * interval_ms)
        # A short stall forgives no long absence.
        patience_ms = np.where(beats.vouched_at(of, gap.to_ms), ttl_ms, grace_ms)
    beat_ms = beats.next_beat(of, gap.to_ms)
    in_time = beat_ms < gap.to_ms + patience_ms
    until_ms = np.where(in_time, beat_ms, gap.from_ms if gap.cause == DROPS else gap.to_ms)
    some = started & (until_ms > gap.from_ms)
    return of[some], np.full(int(some.sum()), gap.from_ms), until_ms[some]


def all_forgiven(lone: Sequence[Gap], base: Spans, of: np.ndarray, row: np.ndarray, *, label: int) -> Spans:
    """What these gaps forgive the workloads `of`, on nodes of these rows, as spans with a label."""
    beats = Beats(base)
    found = [forgiven_by(gap, beats, of[row[of] % gap.shards == gap.shard]) for gap in lone if len(base.of)]
    if not found:
        nothing = np.empty(0, np.int64)
        return Spans(nothing, nothing, nothing, nothing, nothing)
    who, from_ms, to_ms = (np.concatenate([each[field] for each in found]) for field in range(3))
    return Spans(who, np.full(len(who), label), from_ms, to_ms, np.zeros(len(who), np.int64))
