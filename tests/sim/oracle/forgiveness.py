"""What of a row's silence is our own fault (LIVENESS.md 3): gaps merged per row, and the spans they forgive.

A forgiven span says: what would be `silent` in here is `unobserved`. Provisional: it may still turn silent.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.history import Gap
from tests.sim.oracle.base import FOREVER
from tests.sim.oracle.rules import Beat, Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgiven:
    from_ms: int
    to_ms: int
    provisional: bool = False


@dataclass(slots=True)
class Merged:
    """A gap as one row sees it: its parts in order of their start, and the later end of them all."""

    parts: list[Gap]
    to_ms: int

    @property
    def from_ms(self) -> int:
        return self.parts[0].from_ms

    @property
    def causes(self) -> set[str]:
        return {str(part.cause) for part in self.parts}


def last_before(beats: list[Beat], t_ms: int) -> Beat | None:
    """The last beat with a receive time below t."""
    found = None
    for beat in beats:
        if beat.t_ms < t_ms:
            found = beat
    return found


def grace_after(rules: Rules, beats: list[Beat], merged: Merged) -> int:
    """How long after the gap's end the row may return: by the ttl of its last beat before that end."""
    last = last_before(beats, merged.to_ms)
    return rules.gap_grace(merged.causes, last.ttl_ms if last is not None else 0)


def merge(rules: Rules, beats: list[Beat], gaps: list[Gap]) -> list[Merged]:
    """A gap that starts before the previous one's g1 + grace, with no beat in [that g1, its start), is merged
    with it, to the later end."""
    result: list[Merged] = []
    for gap in sorted(gaps, key=lambda g: (g.from_ms, g.to_ms)):
        if gap.to_ms <= gap.from_ms:
            continue
        if result:
            previous = result[-1]
            soon = rules.follows_on(gap.from_ms, previous.to_ms, grace_after(rules, beats, previous))
            heard = any(previous.to_ms <= b.t_ms < gap.from_ms for b in beats)
            if soon and not heard:
                previous.parts.append(gap)
                previous.to_ms = max(previous.to_ms, gap.to_ms)
                continue
        result.append(Merged(parts=[gap], to_ms=gap.to_ms))
    return result


def start_of(rules: Rules, beats: list[Beat], merged: Merged) -> int | None:
    """s: from where the row's silence is forgiven, or None."""
    if rules.forgiven_from_start(last_before(beats, merged.from_ms + 1), merged.from_ms):
        return merged.from_ms
    for part in merged.parts:
        if any(part.from_ms <= b.t_ms < part.to_ms for b in beats):
            return part.from_ms
    return None


def forgiven_by(rules: Rules, beats: list[Beat], merged: Merged, as_of_ms: int) -> list[Forgiven]:
    """The spans that one merged gap forgives to the row whose beats these are."""
    start, g1 = start_of(rules, beats, merged), merged.to_ms
    if start is None:
        return []
    bound = grace_after(rules, beats, merged)
    last = last_before(beats, g1)
    if last is not None and rules.covers(last, g1):
        bound = rules.bound_of_covered(bound, last.ttl_ms)
    only_if_back = merged.causes == {"drops"}
    inside = Forgiven(from_ms=start, to_ms=g1)
    back = next((b.t_ms for b in beats if b.t_ms >= g1), None)
    if back is not None and rules.back_in_time(back, g1, bound):
        return [inside, Forgiven(from_ms=g1, to_ms=back)]
    if back is None and as_of_ms < g1 + bound:
        return [
            Forgiven(from_ms=start, to_ms=g1, provisional=only_if_back),
            Forgiven(from_ms=g1, to_ms=FOREVER, provisional=True),
        ]
    return [] if only_if_back else [inside]


def forgiven_spans(rules: Rules, beats: list[Beat], gaps: list[Gap], as_of_ms: int) -> list[Forgiven]:
    """Everything forgiven to one row, as known at as_of."""
    spans: list[Forgiven] = []
    for merged in merge(rules, beats, gaps):
        spans += forgiven_by(rules, beats, merged, as_of_ms)
    return [span for span in spans if span.from_ms < span.to_ms]
