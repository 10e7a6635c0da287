"""Base intervals (LIVENESS.md 2): what the accepted beats alone say of one slot, and the rows made of it.

First one span per beat, then spans are joined to rows: the same kind and ttl, without a break, and no new gap
in between. Nothing here knows windows, leases, claims or forgiveness.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from tests.sim.history import Gap
from tests.sim.oracle.rules import Beat, Rules

FOREVER = 1 << 60  # the end of a span that only the next beat can end
STATES = ("absent", "healthy", "unhealthy", "updating")
KIND_OF_STATE = {"healthy": "up", "updating": "updating", "unhealthy": "unhealthy", "absent": "unhealthy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One beat's word on one slot: it holds in [from_ms, to_ms)."""

    kind: str
    from_ms: int
    to_ms: int
    ttl_ms: int
    beat: Beat


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLine:
    """A base row with its true end, which may lie in the future. `ttl_ms` is 0 for stopped."""

    kind: str
    from_ms: int
    to_ms: int
    ttl_ms: int
    last_t_ms: int


def state_in(beat: Beat, slot: int) -> str | None:
    """What the beat says of the slot; None when the slot is not in its map or the planes are ignored."""
    if beat.stopping or not beat.mask >> slot & 1:
        return None
    return STATES[2 * (beat.plane1 >> slot & 1) + (beat.plane0 >> slot & 1)]


def first_report_of(beats: list[Beat], slot: int) -> int | None:
    """The first accepted non-STOPPING beat with a non-absent state."""
    for beat in beats:
        if state_in(beat, slot) not in (None, "absent"):
            return beat.t_ms
    return None


def spans_of(rules: Rules, beats: list[Beat], slot: int) -> list[Span]:
    """One span for each beat that speaks of the slot, in order; zero lengths dropped."""
    spans: list[Span] = []
    for place, beat in enumerate(beats):
        if rules.stops(beat):
            kind, end = "stopped", beats[place + 1].t_ms if place + 1 < len(beats) else FOREVER
        else:
            state = state_in(beat, slot)
            if state is None:
                continue
            kind, end = KIND_OF_STATE[state], rules.coverage_end(beat)
            for later in range(place + 1, len(beats)):
                b = beats[later]
                if b.t_ms >= end:
                    break
                if rules.stops(b) or state_in(b, slot) is not None:
                    end = b.t_ms
                    break
        if end > beat.t_ms:
            ttl_ms = 0 if kind == "stopped" else beat.ttl_ms
            spans.append(Span(kind=kind, from_ms=beat.t_ms, to_ms=end, ttl_ms=ttl_ms, beat=beat))
    return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Times at which a new row must start though nothing else changed, and where it may."""

    must: frozenset[int]
    may: frozenset[int]


def splits_of(beats: list[Beat], spans: list[Span], gaps: list[tuple[int, Gap]]) -> Splits:
    """The first beat at or after the end of a gap starts a new row. `gaps` come with their journal position.

    Where the engine could not know of the gap yet (its record came after that beat), or where the row's first
    beat does not speak of this slot, the next one that does may start it as well.
    """
    must: set[int] = set()
    may: set[int] = set()
    for index, gap in gaps:
        of_row = next((b for b in beats if b.t_ms >= gap.to_ms), None)
        of_slot = next((s.beat for s in spans if s.from_ms >= gap.to_ms), None)
        known = next((s.beat for s in spans if s.from_ms >= gap.to_ms and s.beat.index > index), None)
        if of_slot is None:
            continue
        if of_row is not None and of_row.t_ms == of_slot.t_ms and of_slot.index > index:
            must.add(of_slot.t_ms)
        else:
            may.update(b.t_ms for b in (of_slot, known) if b is not None)
    return Splits(must=frozenset(must), may=frozenset(may - must))


def touching(spans: list[Span]) -> frozenset[int]:
    """Times at which a beat came in the very millisecond in which the one before it ran out: one row or two
    is the same to everybody."""
    return frozenset(b.from_ms for a, b in pairwise(spans) if a.to_ms == b.from_ms == a.beat.t_ms + a.ttl_ms)


def same_instant(beats: list[Beat]) -> frozenset[int]:
    """Times of two beats in one millisecond: the first has no length, but may have ended a row."""
    return frozenset(a.t_ms for a, b in pairwise(beats) if a.t_ms == b.t_ms)


def lines_of(spans: list[Span], splits: Splits) -> list[BaseLine]:
    """Spans joined to rows, as long as they can be."""
    lines: list[BaseLine] = []
    for span in spans:
        began = span.from_ms
        if lines:
            last = lines[-1]
            goes_on = (last.kind, last.ttl_ms, last.to_ms) == (span.kind, span.ttl_ms, span.from_ms)
            if goes_on and (span.kind == "stopped" or span.from_ms not in splits.must):
                began = lines.pop().from_ms
        lines.append(
            BaseLine(
                kind=span.kind,
                from_ms=began,
                to_ms=span.to_ms,
                ttl_ms=span.ttl_ms,
                last_t_ms=span.beat.t_ms,
            )
        )
    return lines
