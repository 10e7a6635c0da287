"""`compose`, the slow way (LIVENESS.md 2): cut time wherever any record begins or ends, then ask of each
piece, by its first millisecond, which is the first kind of the list that applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from tests.sim.history import Claim, Row, Slot
from tests.sim.observed import KINDS
from tests.sim.oracle.base import KIND_OF_STATE, STATES, BaseLine
from tests.sim.oracle.forgiveness import Forgiven
from tests.sim.oracle.rules import Beat

CLAIMED_KIND = {"up": "claimed_up", "updating": "claimed_updating", "unhealthy": "claimed_unhealthy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """The answer, cut to life and as_of. All keys of KINDS are in `ms`; `intervals` are as long as can be."""

    from_ms: int
    to_ms: int
    ms: dict[str, int]
    intervals: tuple[tuple[str, int, int], ...]
    provisional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSpan:
    kind: str
    from_ms: int
    to_ms: int


def claim_spans(row: Row, slot: int, beats: list[Beat]) -> list[ClaimSpan]:
    """Of claims with equal time the first stored counts; each is cut at the next claim or accepted beat."""
    counted: dict[int, Claim] = {}
    for claim in row.claims:
        counted.setdefault(claim.at_ms, claim)
    spans = []
    for at_ms in sorted(counted):
        claim = counted[at_ms]
        session = next((s for s in row.sessions if s.generation == claim.generation), None)
        if session is None or not session.mask >> slot & 1:
            continue
        to_ms = at_ms + session.ttl_ms
        to_ms = min([to_ms, *(other for other in counted if other > at_ms)])
        to_ms = min([to_ms, *(b.t_ms for b in beats if b.t_ms >= at_ms)])
        state = STATES[2 * (claim.plane1 >> slot & 1) + (claim.plane0 >> slot & 1)]
        if to_ms > at_ms:
            spans.append(ClaimSpan(kind=CLAIMED_KIND[KIND_OF_STATE[state]], from_ms=at_ms, to_ms=to_ms))
    return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """All records of one workload, judged before anything is cut."""

    row: Row
    slot: Slot
    base: list[BaseLine]
    forgiven: list[Forgiven]
    claims: list[ClaimSpan]
    first_report_ms: int | None

    def kind_at(self, x_ms: int) -> tuple[str, bool]:
        """What the instant x counts as, and whether that is provisional."""
        if self.first_report_ms is None or x_ms < self.first_report_ms:
            return "silent", False
        base = next((line.kind for line in self.base if line.from_ms <= x_ms < line.to_ms), "silent")
        holders = [f for f in self.forgiven if f.from_ms <= x_ms < f.to_ms]
        excused = base == "silent" and bool(holders)
        # A claim counts where the list would say `unobserved`, maintenance left aside.
        claim = next((c.kind for c in self.claims if excused and c.from_ms <= x_ms < c.to_ms), "")
        windows = [
            w
            for w in self.row.windows
            if w.workload_id in (None, self.slot.workload_id) and w.from_ms <= x_ms < w.to_ms
        ]
        applies: dict[str, bool] = {
            "standby": any(
                lease.from_ms <= x_ms and (lease.to_ms is None or x_ms < lease.to_ms)
                for lease in self.row.leases
                if lease.workload_id == self.slot.workload_id
            ),
            "maintenance": any(not w.own for w in windows),
            "maintenance_own": any(w.own for w in windows),
            "unobserved": excused,
            "silent": True,
        }
        kind = next(k for k in KINDS if applies.get(k) or k in (base, claim))
        rests_on_it = kind == "unobserved" or (kind == claim and kind != "")
        provisional = rests_on_it and all(f.provisional for f in holders)
        return kind, provisional

    def edges(self) -> set[int]:
        spans = [(r.from_ms, r.to_ms) for group in (self.base, self.forgiven, self.claims) for r in group]
        spans += [(w.from_ms, w.to_ms) for w in self.row.windows]
        spans += [(x.from_ms, x.from_ms if x.to_ms is None else x.to_ms) for x in self.row.leases]
        found = {edge for span in spans for edge in span}
        return found if self.first_report_ms is None else found | {self.first_report_ms}


def compose(
    records: Records,
    *,
    from_ms: int,
    to_ms: int,
    as_of_ms: int,
    kind_at: Callable[[int], tuple[str, bool]] | None = None,
) -> Composed:
    """What every instant of [from, to) was, cut to life = [created, retired) and to as_of."""
    ask = kind_at or records.kind_at
    retired_ms = records.slot.retired_ms
    start = max(from_ms, records.slot.created_ms)
    end = min(to_ms, as_of_ms if retired_ms is None else min(as_of_ms, retired_ms))
    ms = dict.fromkeys(KINDS, 0)
    intervals: list[tuple[str, int, int]] = []
    provisional = False
    cuts = sorted({start, end} | {edge for edge in records.edges() if start < edge < end})
    for a, b in pairwise(cuts if start < end else []):
        kind, undecided = ask(a)
        ms[kind] += b - a
        provisional = provisional or undecided
        if intervals and intervals[-1][0] == kind:
            intervals[-1] = (kind, intervals[-1][1], b)
        else:
            intervals.append((kind, a, b))
    return Composed(
        from_ms=start, to_ms=max(start, end), ms=ms, intervals=tuple(intervals), provisional=provisional
    )
