"""What every instant of a workload counts as: the one function that reads, seals and proofs call.

Here: the precedence of LIVENESS.md 2 over base rows, gaps, leases, maintenance windows and claims. What a gap
forgives is in forgiveness.py, what rows tell of beats in coverage.py. Nothing here is stored or cached:
records are never rewritten, the answer is computed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

import msgspec

from engine.core.coverage import OPEN_END, Coverage
from engine.core.forgiveness import down_since, forgiven, needed_range
from engine.core.records import (
    BASE_KINDS,
    BASE_UNHEALTHY,
    BASE_UP,
    BASE_UPDATING,
    KINDS,
    PAID_KINDS,
    BaseInterval,
    Claim,
    Gap,
    Lease,
    Window,
)

__all__ = ["OPEN_END", "Composition", "compose", "down_since", "needed_range"]

_CLAIMED = {BASE_UP: "claimed_up", BASE_UPDATING: "claimed_updating", BASE_UNHEALTHY: "claimed_unhealthy"}
_RECORDED = ("standby", "maintenance", "maintenance_own")  # kinds that a record alone makes
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_FORGIVEN, _PROVISIONAL = "forgiven", "provisional"  # labels of the sweep that are no kinds

_Labelled = tuple[int, int, str]  # from_ms, to_ms, label
_Piece = tuple[str, int, int, bool]  # kind, from_ms, to_ms, provisional


class Composition(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for [from_ms, to_ms): the window asked for, cut to the workload's life and to `as_of`.

    `ms` has all KINDS and sums exactly to the window. `intervals` are (kind, started_ms, ended_ms), cover the
    window without a break, and neighbours differ in kind. `provisional`: from `provisional_from_ms` on there
    is `unobserved` (or claimed) time that becomes something else unless a beat comes in time; a seal waits.
    `ratio` is paid / (window - unobserved); None flags a zero denominator, which is left to the owner.
    """

    from_ms: int
    to_ms: int
    as_of: int
    ms: dict[str, int]
    intervals: tuple[tuple[str, int, int], ...]
    provisional_from_ms: int | None
    paid_ms: int
    ratio: float | None

    @property
    def provisional(self) -> bool:
        return self.provisional_from_ms is not None


def compose(
    *,
    base: Sequence[BaseInterval],
    gaps: Sequence[Gap],
    leases: Sequence[Lease],
    maintenances: Sequence[Window],
    claims: Sequence[Claim],
    life: tuple[int, int | None],
    first_report: int | None,
    as_of: int,
    from_ms: int,
    to_ms: int,
    pay_claims: bool = True,
) -> Composition:
    """What each instant of [from_ms, to_ms) was (LIVENESS.md 2 and 3). All times in unix ms.

    `base`: rows of the workload over `needed_range`, in any order, with the ends of their *coverage*: the
    open row with last t + ttl, not cut at as_of; an open STOPPED row with OPEN_END. `gaps`: of its shard over
    the same range; to_ms = OPEN_END for one not decided yet. `maintenances`: of the workload and its node.
    `claims`: in the order in which they were stored, unsealed ones only. `life`: (created, retired or None).
    `first_report`: the first accepted non-STOPPING beat with a non-absent state; None: none yet.
    `as_of`: everything received before it is in the records. Records after it are used, too: all are judged
    before the answer is cut. `pay_claims`: the project's policy.

    Raises ValueError for a window that ends before it begins, and for a claim of no claimable kind.
    """
    if from_ms > to_ms:
        raise ValueError(f"window ends before it begins: {from_ms} > {to_ms}")
    coverage = Coverage(base)
    labelled: list[_Labelled] = [
        (row.started_ms, row.ended_ms, BASE_KINDS[row.kind]) for row in coverage.rows
    ]
    for span in forgiven(coverage, gaps, as_of_ms=as_of):
        labelled.append((span.from_ms, span.to_ms, _PROVISIONAL if span.provisional else _FORGIVEN))
    labelled.extend(_claimed(coverage, claims))
    for window in maintenances:
        labelled.append((window.from_ms, window.to_ms, "maintenance_own" if window.own else "maintenance"))
    for lease in leases:
        labelled.append((lease.from_ms, OPEN_END if lease.to_ms is None else lease.to_ms, "standby"))

    start_ms, end_ms = _cut(life=life, as_of=as_of, from_ms=from_ms, to_ms=to_ms)
    # Before its first report a workload is silent whatever else says so: the sweep begins with the report.
    heard_ms = end_ms if first_report is None else min(max(start_ms, first_report), end_ms)
    pieces: list[_Piece] = [("silent", start_ms, heard_ms, False)] if start_ms < heard_ms else []
    pieces += _sweep(labelled, heard_ms, end_ms)
    return _answer(pieces, start_ms=start_ms, end_ms=end_ms, as_of=as_of, pay_claims=pay_claims)


def _cut(*, life: tuple[int, int | None], as_of: int, from_ms: int, to_ms: int) -> tuple[int, int]:
    """The window cut to life and as_of. Nothing left: an empty one, never after as_of."""
    created_ms, retired_ms = life
    start_ms = max(from_ms, created_ms)
    end_ms = min(to_ms, as_of, as_of if retired_ms is None else retired_ms)
    if end_ms > start_ms:
        return start_ms, end_ms
    empty_ms = min(start_ms, to_ms, as_of)
    return empty_ms, empty_ms


def _claimed(coverage: Coverage, claims: Sequence[Claim]) -> Iterator[_Labelled]:
    """Each claim up to its ttl, the next claim or the next accepted beat. Where it counts, `_kind` says.

    A beat at the claimed time itself cuts it to nothing. Beats that merely prolong a row are not known, and
    need not be: up to the row's last one, which is known when the row lapsed, the row covers everything.
    """
    first_stored: dict[int, Claim] = {}
    for claim in claims:
        first_stored.setdefault(claim.at_ms, claim)
    ordered = [first_stored[at_ms] for at_ms in sorted(first_stored)]
    for index, claim in enumerate(ordered):
        if claim.kind not in _CLAIMED:
            raise ValueError(f"no kind that can be claimed: {claim.kind}")
        ends = [claim.at_ms + claim.ttl_ms]
        if index + 1 < len(ordered):
            ends.append(ordered[index + 1].at_ms)
        beat_ms = coverage.next_beat(claim.at_ms)
        if beat_ms is not None:
            ends.append(beat_ms)
        yield claim.at_ms, min(ends), _CLAIMED[claim.kind]


def _sweep(labelled: Iterable[_Labelled], from_ms: int, to_ms: int) -> Iterator[tuple[str, int, int, bool]]:
    """Walk over all cut points in [from_ms, to_ms): (kind, started, ended, provisional), unmerged."""
    edges: list[tuple[int, int, str]] = []
    for start_ms, end_ms, label in labelled:
        start_ms, end_ms = max(start_ms, from_ms), min(end_ms, to_ms)
        if start_ms < end_ms:
            edges += ((start_ms, 1, label), (end_ms, -1, label))
    edges.sort(key=itemgetter(0))
    depth = dict.fromkeys((*KINDS, _FORGIVEN, _PROVISIONAL), 0)
    at_ms = from_ms
    for edge_ms, change, label in [*edges, (to_ms, 0, "silent")]:
        if edge_ms > at_ms:
            kind, provisional = _kind(depth)
            yield kind, at_ms, edge_ms, provisional
            at_ms = edge_ms
        depth[label] += change


def _kind(depth: dict[str, int]) -> tuple[str, bool]:
    """What an instant counts as under these labels, and whether that is provisional."""
    excused = depth[_FORGIVEN] + depth[_PROVISIONAL] > 0
    provisional = False
    heard = next((kind for kind in BASE_KINDS if depth[kind]), None)
    if heard is None and excused:
        heard = next((kind for kind in _CLAIMED.values() if depth[kind]), "unobserved")
        provisional = not depth[_FORGIVEN]
    kinds = [heard or "silent", *(kind for kind in _RECORDED if depth[kind])]
    first = min(kinds, key=_RANK.__getitem__)
    return first, provisional and first == heard


def _answer(
    pieces: Iterable[_Piece], *, start_ms: int, end_ms: int, as_of: int, pay_claims: bool
) -> Composition:
    ms = dict.fromkeys(KINDS, 0)
    intervals: list[tuple[str, int, int]] = []
    provisional_from_ms: int | None = None
    for kind, from_ms, to_ms, provisional in pieces:
        ms[kind] += to_ms - from_ms
        if intervals and intervals[-1][0] == kind:
            intervals[-1] = (kind, intervals[-1][1], to_ms)
        else:
            intervals.append((kind, from_ms, to_ms))
        if provisional and provisional_from_ms is None:
            provisional_from_ms = from_ms
    paid_ms = sum(ms[kind] for kind in PAID_KINDS if pay_claims or kind != "claimed_up")
    owed_ms = end_ms - start_ms - ms["unobserved"]
    return Composition(
        from_ms=start_ms,
        to_ms=end_ms,
        as_of=as_of,
        ms=ms,
        intervals=tuple(intervals),
        provisional_from_ms=provisional_from_ms,
        paid_ms=paid_ms,
        ratio=paid_ms / owed_ms if owed_ms else None,
    )
