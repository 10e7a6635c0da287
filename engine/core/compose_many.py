"""`compose` for many workloads at once, as arrays: what bulk uptime is made with.

Here: the sweep of compose.py over all workloads of a chunk together. Whoever may be forgiven something is one
with time without coverage close enough behind a gap of ours. What a lone gap forgives is judged at once, too
(forgive_many.py); everybody else goes through `compose` one by one (`Totals.unsure`). That the two agree
everywhere, tests/core/test_compose_many.py proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from engine.core.compose import Composition
from engine.core.compose_hours import Hours
from engine.core.coverage import OPEN_END
from engine.core.forgive_many import Spans, all_forgiven, lone_gaps
from engine.core.records import BASE_KINDS, BASE_NONE, KINDS, Gap
from engine.core.timing import grace_of_ttl

NEVER = OPEN_END  # in an array of times: not retired, no first report, no end
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_SILENT = _RANK["silent"]
# Labels of the sweep: the base kinds from 1 on, then what a record makes. Each with its rank in KINDS.
STANDBY, MAINTENANCE, MAINTENANCE_OWN, _FORGIVEN = range(len(BASE_KINDS), len(BASE_KINDS) + 4)
_LABELS = (*BASE_KINDS, "standby", "maintenance", "maintenance_own", "unobserved")
_LABEL_RANKS = np.array([_RANK[label] for label in _LABELS])


class Lives(NamedTuple):
    """What is known of each of n workloads; int64 arrays of shape (n,), unix ms, NEVER for what is not."""

    row: np.ndarray  # of its node: which gaps are its own
    created_ms: np.ndarray
    retired_ms: np.ndarray
    first_report_ms: np.ndarray
    as_of_ms: np.ndarray


class _Swept(NamedTuple):
    """The window of every workload in pieces, as arrays."""

    of: np.ndarray
    from_ms: np.ndarray
    to_ms: np.ndarray
    rank: np.ndarray  # of the kind, in KINDS
    bare: np.ndarray  # covered by no base row


class Totals:
    """The answers. `ms[i, k]` are milliseconds of KINDS[k]; they sum to the window of the workload.

    `hours`: the same by the hour, where that was asked for.
    """

    def __init__(self, from_ms: np.ndarray, to_ms: np.ndarray, as_of_ms: np.ndarray) -> None:
        count = len(from_ms)
        self.from_ms, self.to_ms, self.as_of_ms = from_ms, to_ms, as_of_ms
        self.ms = np.zeros((count, len(KINDS)), np.int64)
        self.claims_paid_ms = np.zeros(count, np.int64)  # of `claimed_up`, what policy pays
        self.provisional = np.zeros(count, bool)
        self.unsure = np.zeros(count, bool)  # to be composed one by one, and put in here
        self.hours: Hours | None = None

    def put(self, index: int, answer: Composition, *, claims_paid_ms: int) -> None:
        """Take over what `compose` answered for one workload."""
        self.from_ms[index], self.to_ms[index], self.as_of_ms[index] = (
            answer.from_ms,
            answer.to_ms,
            answer.as_of,
        )
        self.ms[index] = [answer.ms[kind] for kind in KINDS]
        if self.hours is not None:
            self.hours.put(index, answer)
        self.claims_paid_ms[index] = claims_paid_ms
        self.provisional[index] = answer.provisional
        self.unsure[index] = False

    def take(self, places: Sequence[int], other: Totals) -> None:
        """Take over all answers of another one, which are of these workloads here."""
        for name in ("from_ms", "to_ms", "as_of_ms", "ms", "claims_paid_ms", "provisional", "unsure"):
            getattr(self, name)[places] = getattr(other, name)
        if self.hours is not None and other.hours is not None:
            self.hours.take(places, other.hours)


def compose_many(
    lives: Lives,
    base: Spans,
    records: Spans,
    gaps: Iterable[Gap],
    *,
    claimed: np.ndarray,
    from_ms: int,
    to_ms: int,
    hours: int = 0,
) -> Totals:
    """What [from_ms, to_ms) was for each workload, as `compose` tells it (there: all arguments' meaning).

    `base`: rows that touch the window and, of each workload, the last one that begins before it; the open row
    with the end of its coverage. A workload whose base rows are known to cover all of its window needs no
    more than those. `records`: leases and windows (labelled) that touch the window. `gaps`: those that touch
    the window or lie before it by no more than any grace. `claimed` (bool, (n,)): who has any claims near.
    `hours`: tell each of so many hours from `from_ms` on as well.
    """
    start, end = _cut(lives, from_ms, to_ms)
    totals = Totals(start, end, lives.as_of_ms.copy())
    heard = np.clip(lives.first_report_ms, start, end)
    base, gaps = _in_order(base), list(gaps)
    grace_ms = grace_of_ttl(int(base.ttl_ms.max(initial=0)))
    swept = _sweep(base, records, heard, end)
    near = _near_gaps(swept, lives.row, gaps, grace_ms)
    if near.any():
        lone, others = lone_gaps(gaps, from_ms=from_ms, to_ms=to_ms, grace_ms=grace_ms)
        last_ms = max((gap.to_ms for gap in lone), default=0) + grace_ms
        totals.unsure = near & (
            _near_gaps(swept, lives.row, others, grace_ms) | claimed | (lives.as_of_ms < last_ms)
        )
        judged = np.flatnonzero(near & ~totals.unsure)
        forgiven = all_forgiven(lone, base, judged, lives.row, label=_FORGIVEN)
        if len(forgiven.of):
            both = (np.concatenate(pair) for pair in zip(records, forgiven, strict=True))
            swept = _sweep(base, Spans(*both), heard, end)
    totals.ms[:, _SILENT] = heard - start
    np.add.at(totals.ms, (swept.of, swept.rank), swept.to_ms - swept.from_ms)
    if hours:
        totals.hours = Hours(len(start), from_ms, hours)
        everyone = np.arange(len(start))
        before = (everyone, start, heard, np.full(len(start), _SILENT))
        totals.hours.add(*(np.concatenate(pair) for pair in zip(swept[:4], before, strict=True)))
    return totals


def paid_and_ratio(totals: Totals) -> tuple[list[int], list[float | None]]:
    """Paid milliseconds, and paid / (window - unobserved); None where that is nothing."""
    paid = totals.ms[:, _RANK["up"]] + totals.ms[:, _RANK["maintenance"]] + totals.claims_paid_ms
    owed = totals.to_ms - totals.from_ms - totals.ms[:, _RANK["unobserved"]]
    ratio = paid / np.maximum(owed, 1)
    some = zip(ratio.tolist(), owed.tolist(), strict=True)
    return paid.tolist(), [each if left else None for each, left in some]


def _cut(lives: Lives, from_ms: int, to_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """compose.py's `_cut`: the window cut to life and as_of."""
    start = np.maximum(from_ms, lives.created_ms)
    end = np.minimum(np.minimum(to_ms, lives.as_of_ms), lives.retired_ms)
    empty = np.minimum(np.minimum(start, to_ms), lives.as_of_ms)
    nothing = end <= start
    return np.where(nothing, empty, start), np.where(nothing, empty, end)


def _in_order(base: Spans) -> Spans:
    """coverage.py's `_in_order`: sorted; of one start the longer counts; a row ends where the next starts."""
    real = (base.label != BASE_NONE) & (base.to_ms > base.from_ms)
    base = Spans(*(each[real] for each in base))
    order = np.lexsort((base.to_ms, base.from_ms, base.of))
    base = Spans(*(each[order] for each in base))
    if len(order) == 0:
        return base
    same = (np.diff(base.of) == 0) & (np.diff(base.from_ms) == 0)
    base = Spans(*(each[np.append(~same, True)] for each in base))
    following = np.append(base.from_ms[1:], NEVER)
    follows = np.append(np.diff(base.of) == 0, False)
    ends = np.where(follows, np.minimum(base.to_ms, following), base.to_ms)
    return base._replace(to_ms=ends)


def _sweep(base: Spans, records: Spans, heard: np.ndarray, end: np.ndarray) -> _Swept:
    """Walk over all cut points of all workloads in [heard, end)."""
    of = np.concatenate([base.of, records.of])
    label = np.concatenate([base.label, records.label])
    starts = np.maximum(np.concatenate([base.from_ms, records.from_ms]), heard[of])
    ends = np.minimum(np.concatenate([base.to_ms, records.to_ms]), end[of])
    real = starts < ends
    of, label, starts, ends = of[real], label[real], starts[real], ends[real]
    everyone, nothing = np.arange(len(heard)), np.full(2 * len(heard), BASE_NONE)
    edge_of = np.concatenate([of, of, everyone, everyone])
    edge_at = np.concatenate([starts, ends, heard, end])
    edge_label = np.concatenate([label, label, nothing])
    change = np.concatenate([np.ones(len(of), np.int32), np.full(len(of), -1, np.int32), 0 * nothing])
    order = np.lexsort((edge_at, edge_of))
    edge_of, edge_at = edge_of[order], edge_at[order]
    depth = np.zeros((len(order), len(_LABELS)), np.int32)
    depth[np.arange(len(order)), edge_label[order]] = change[order]
    # Each workload's changes sum to nothing, so one running sum over all of them is right for each.
    under = np.cumsum(depth, axis=0)[:-1] > 0
    lasting = (edge_of[1:] == edge_of[:-1]) & (edge_at[1:] > edge_at[:-1])
    under = under[lasting]
    rank = np.where(under, _LABEL_RANKS, _SILENT).min(axis=1, initial=_SILENT)
    return _Swept(
        edge_of[:-1][lasting],
        edge_at[:-1][lasting],
        edge_at[1:][lasting],
        rank,
        ~np.any(under[:, 1 : len(BASE_KINDS)], axis=1),
    )


def _near_gaps(swept: _Swept, row: np.ndarray, gaps: Iterable[Gap], grace_ms: int) -> np.ndarray:
    """Who has a stretch without coverage of which something may be forgiven: bool, (n,).

    An instant x is forgiven by gaps merged to [s, e) if s <= x and either x < e or the row's first beat after
    e has not come by x; then the ttl that counts at e is that of the last row that begins before x, and x
    lies within its grace of e. Inside of [s, e) but in no gap itself, x lies within that grace of the gap
    before it. So some gap begins at or before x, and ends after x - grace. (interval, ttl <= grace.)
    """
    found = np.zeros(len(row), bool)
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for gap in gaps:
        if gap.from_ms < gap.to_ms:
            spans.setdefault((gap.shards, gap.shard), []).append((gap.from_ms, gap.to_ms + grace_ms))
    of, at, until = swept.of[swept.bare], swept.from_ms[swept.bare], swept.to_ms[swept.bare]
    for (shards, shard), reaches in spans.items():
        firsts, lasts = _joined(reaches)
        place = np.searchsorted(firsts, until) - 1  # the last reach that begins before the stretch ends
        near = (place >= 0) & (lasts[place] > at) & (row[of] % shards == shard)
        found[of[near]] = True
    return found


def _joined(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Spans, joined where they overlap, as rising starts and rising ends."""
    starts, ends = np.array(sorted(spans), np.int64).T
    ends = np.maximum.accumulate(ends)
    apart = np.append(True, starts[1:] > ends[:-1])
    return starts[apart], ends[np.append(apart[1:], True)]
