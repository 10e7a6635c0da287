"""When the observer is at fault: which silence of a row a gap forgives (LIVENESS.md 3).

Here: merging of gaps, the spans they forgive, how far a reader must look for that, and the `since` of
node.down. Not here: what a forgiven instant counts as (compose.py), when verdicts are held back (step.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from engine.core.coverage import OPEN_END, Coverage
from engine.core.records import BASE_UP, BaseInterval, Gap
from engine.core.timing import grace_of_ttl, interval_of_ttl

DROPS = "drops"


class Forgiven(NamedTuple):
    """What is silent in [from_ms, to_ms) is our fault. Provisional: so long as no beat comes in time."""

    from_ms: int
    to_ms: int
    provisional: bool


def forgiven(coverage: Coverage, gaps: Iterable[Gap], *, as_of_ms: int) -> list[Forgiven]:
    """The spans forgiven to a row with this coverage, as far as is known at `as_of_ms`. They may overlap.

    Gaps not decided yet (`to_ms` = OPEN_END) are left out first: what the others forgive is certain. Then all
    are judged together, and what a merged gap with an undecided part forgives is provisional.
    """
    ordered = sorted(
        (gap for gap in gaps if gap.from_ms < gap.to_ms), key=lambda gap: (gap.from_ms, gap.to_ms)
    )
    decided = [gap for gap in ordered if gap.to_ms < OPEN_END]
    spans = [span for merged in _merge(coverage, decided) for span in merged.forgives(coverage, as_of_ms)]
    if len(decided) < len(ordered):
        spans.extend(_merge(coverage, ordered)[-1].forgives(coverage, as_of_ms))  # no gap starts after it
    return spans


def down_since(*, last_ms: int, ttl_ms: int, gaps: Iterable[Gap]) -> int:
    """The `since` of node.down: the end of coverage or, if forgiven, the next instant not `unobserved`.

    `last_ms` and `ttl_ms` are those of the row's last accepted beat, `gaps` those of its shard; only those
    that end after that beat count (which earlier ones were merged, earlier beats would tell). Judged as if
    no beat will come: a verdict is passed after the grace, and what drops would forgive if a beat came is no
    reason to tell another time (LIVENESS.md 4).
    """
    since_ms = last_ms + ttl_ms
    known = [gap for gap in gaps if last_ms < gap.to_ms < OPEN_END]
    if all(gap.from_ms > since_ms for gap in known):
        return since_ms  # what starts later reaches back to nobody
    coverage = Coverage([BaseInterval(kind=BASE_UP, started_ms=last_ms, ended_ms=since_ms, ttl_ms=ttl_ms)])
    for span in forgiven(coverage, known, as_of_ms=OPEN_END):  # in order of time, and without overlap
        if span.from_ms <= since_ms < span.to_ms:
            since_ms = span.to_ms
    return since_ms


def needed_range(
    gaps: Iterable[Gap], from_ms: int, to_ms: int, *, base: Sequence[BaseInterval] | None = None
) -> tuple[int, int]:
    """The range whose gaps and base rows decide about [from_ms, to_ms).

    With `base` (what `History.intervals` gave, its neighbours on both sides included, and the open row) the
    beats known end the search: ask for rows and gaps of the window, then of the answer, until the answer lies
    inside what was asked for; usually at once. Without it nothing is known of beats, and every gap given
    is taken as linked to the window: right for a reader that has fetched gaps with a wide margin.

    In both directions a chain of gaps lasts until the first beat outside of them, or until a whole grace
    without a gap.
    """
    ordered = sorted((gap for gap in gaps if gap.from_ms < gap.to_ms), key=lambda gap: gap.from_ms)
    if base is None:
        starts, ends = [gap.from_ms for gap in ordered], [gap.to_ms for gap in ordered]
        return min([from_ms, *starts]), max([to_ms, *ends])
    coverage = Coverage(base)
    if not coverage.rows:
        return from_ms, to_ms
    grace_ms = max(grace_of_ttl(row.ttl_ms) for row in coverage.rows)
    return (
        _reach_back(coverage, ordered, from_ms, to_ms, grace_ms),
        _reach_on(coverage, ordered, to_ms, grace_ms),
    )


def _reach_back(coverage: Coverage, gaps: list[Gap], from_ms: int, to_ms: int, grace_ms: int) -> int:
    reached_ms = from_ms
    for gap in sorted(gaps, key=lambda gap: gap.to_ms, reverse=True):
        if gap.from_ms >= to_ms:
            continue
        if gap.to_ms + grace_ms <= reached_ms or coverage.beat_within(gap.to_ms, reached_ms):
            break
        reached_ms = min(reached_ms, gap.from_ms)
    # A beat just where a gap starts does not part it from the one before.
    beat_ms = coverage.previous_beat(reached_ms - 1)
    unlinked_ms = reached_ms - grace_ms
    return unlinked_ms if beat_ms is None else max(unlinked_ms, beat_ms)


def _reach_on(coverage: Coverage, gaps: list[Gap], to_ms: int, grace_ms: int) -> int:
    reached_ms = to_ms
    for gap in gaps:
        if gap.from_ms >= reached_ms + grace_ms or coverage.beat_within(reached_ms, gap.from_ms):
            break
        reached_ms = max(reached_ms, gap.to_ms)
    beat_ms = coverage.next_beat(reached_ms)
    unlinked_ms = reached_ms + grace_ms
    # One more than the beat: a gap that starts with it is still merged.
    return min(unlinked_ms, OPEN_END) if beat_ms is None else min(unlinked_ms, beat_ms + 1)


class _MergedGap:
    """Gaps that count as one for a row: [from_ms, end_ms). Of drops only if all of its parts are."""

    __slots__ = ("_drops", "end_ms", "parts")

    def __init__(self, first: Gap) -> None:
        self.parts = [first]
        self.end_ms = first.to_ms
        self._drops = first.cause == DROPS

    def add(self, part: Gap) -> None:
        self.parts.append(part)
        self.end_ms = max(self.end_ms, part.to_ms)
        self._drops = self._drops and part.cause == DROPS

    def takes_in(self, coverage: Coverage, part: Gap) -> bool:
        """Whether a gap that starts no earlier is merged: within the grace, and no beat in between."""
        if part.from_ms < self.end_ms:
            return True
        grace_end_ms = self.end_ms + self._grace(coverage)
        return part.from_ms < grace_end_ms and not coverage.beat_within(self.end_ms, part.from_ms)

    def forgives(self, coverage: Coverage, as_of_ms: int) -> Iterator[Forgiven]:
        start_ms = self._start(coverage)
        if start_ms is None:
            return
        tail_ms = start_ms  # from here on the beat that follows decides
        if not self._drops and self.end_ms < OPEN_END:
            yield Forgiven(start_ms, self.end_ms, provisional=False)
            tail_ms = self.end_ms
        bound_ms = self.end_ms + self._patience(coverage)
        beat_ms = coverage.next_beat(self.end_ms)
        if beat_ms is None:
            if as_of_ms < bound_ms:
                yield Forgiven(tail_ms, bound_ms, provisional=True)
        elif beat_ms < bound_ms:
            yield Forgiven(tail_ms, beat_ms, provisional=False)

    def _start(self, coverage: Coverage) -> int | None:
        """s of LIVENESS.md 3; None: who was silent stays silent."""
        if coverage.vouched_at(self.parts[0].from_ms):
            return self.parts[0].from_ms
        for part in self.parts:
            if coverage.beat_within(part.from_ms, part.to_ms):
                return part.from_ms
        return None

    def _grace(self, coverage: Coverage) -> int:
        """How long after the end a further gap is still merged with this one."""
        ttl_ms = coverage.ttl_before(self.end_ms)
        return interval_of_ttl(ttl_ms) if self._drops else grace_of_ttl(ttl_ms)

    def _patience(self, coverage: Coverage) -> int:
        """How long after the end the first beat may come, for the silence until then to be forgiven."""
        if not self._drops and coverage.vouched_at(self.end_ms):
            return coverage.ttl_before(self.end_ms)  # a short stall forgives no long absence
        return self._grace(coverage)


def _merge(coverage: Coverage, gaps: list[Gap]) -> list[_MergedGap]:
    merged: list[_MergedGap] = []
    for gap in gaps:
        if merged and merged[-1].takes_in(coverage, gap):
            merged[-1].add(gap)
        else:
            merged.append(_MergedGap(gap))
    return merged
