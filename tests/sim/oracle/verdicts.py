"""Verdicts of a row (LIVENESS.md 3 and 4): when each may be given at the earliest, must be at the latest.

A row's past is cut into silences: from one accepted beat to the next. In a silence the row may become
SUSPECT, DOWN, LOST, at times that are neither held back by a gap's grace, nor DEGRADED, nor inside a window
of the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sim.history import Degraded, Gap, Row
from tests.sim.oracle.base import FOREVER
from tests.sim.oracle.forgiveness import forgiven_spans
from tests.sim.oracle.rules import Beat, Rules

Times = list[tuple[int, int]]  # half-open spans, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The row may be in `state` from `earliest_ms` on, and must have got there (or further) by `latest_ms`;
    None = it need not."""

    state: str
    earliest_ms: int
    latest_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a silence outside windows: deadlines run from the anchor; judged in [begin_ms, end_ms)."""

    anchor_ms: int
    begin_ms: int
    end_ms: int


@dataclass(slots=True, kw_only=True)
class Silence:
    """From one beat to the next (None: to the end of the history). `down_may`: when node.down may be judged;
    `down_by`: by when it must have been (None: it need not be)."""

    beat: Beat
    follower: Beat | None
    stretches: list[Stretch]
    down_may: Times = field(default_factory=list)
    down_by: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What holds back the verdicts of one row, and how late a verdict may be."""

    rules: Rules
    row: Row
    gaps: list[Gap]  # in order of their start
    degraded: list[Degraded]
    as_of_ms: int
    tolerance_ms: int
    slack_ms: int  # after DEGRADED: how long the release of held-back verdicts may take

    def effect_due(self, t_ms: int) -> int:
        """The latest time for what a beat at t causes: the tolerance, and again after a gap that cut in."""
        due = t_ms + self.tolerance_ms
        for gap in self.gaps:
            if gap.cause != "drops" and gap.from_ms <= due and gap.to_ms > t_ms:
                due = max(due, gap.to_ms + self.tolerance_ms)
        return due


def windows_of_node(row: Row) -> Times:
    """The node's own windows, overlapping and adjacent ones joined."""
    joined: Times = []
    for a, b in sorted((w.from_ms, w.to_ms) for w in row.windows if w.workload_id is None):
        if joined and a <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], b))
        elif a < b:
            joined.append((a, b))
    return joined


def without(span: tuple[int, int], bans: Times) -> Times:
    """The parts of a span that no ban touches."""
    left = [span]
    for ban_from, ban_to in bans:
        if ban_from < ban_to:
            left = [
                part
                for a, b in left
                for part in ((a, min(b, ban_from)), (max(a, ban_to), b))
                if part[0] < part[1]
            ]
    return sorted(left)


def bans(about: Circumstances, ttl_ms: int, *, strict: bool) -> Times:
    """When no DOWN and no LOST may be judged (`strict` False), or need not be (True).

    At g0 itself the engine was still alive; before a crash it may even have judged between its last committed
    tick and its death, so that much is left open.
    """
    found: Times = []
    for gap in about.gaps:
        if gap.cause == "drops":
            continue
        lead = 0 if strict else 1
        if not strict and gap.cause not in ("stall", "degraded"):
            lead = about.rules.tick_ms + about.tolerance_ms
        found.append((min(gap.from_ms + lead, gap.to_ms), about.rules.no_down_before(gap, ttl_ms)))
    found += [(d.from_ms, FOREVER if d.to_ms is None else d.to_ms) for d in about.degraded]
    return found


def stretches_of(about: Circumstances, beat: Beat, until_ms: int) -> list[Stretch]:
    """The parts of [beat, until) outside the node's windows; after each window deadlines start afresh."""
    stretches = []
    anchor = begin = beat.t_ms
    for a, b in windows_of_node(about.row):
        if b <= begin or a >= until_ms:
            continue
        if a > begin:
            stretches.append(Stretch(anchor_ms=anchor, begin_ms=begin, end_ms=a))
        anchor = begin = b
    if begin < until_ms:
        stretches.append(Stretch(anchor_ms=anchor, begin_ms=begin, end_ms=until_ms))
    return stretches


def required_by(about: Circumstances, may: Times, held: Times, anchor_ms: int, extra_ms: int) -> int | None:
    """By when a verdict that may be given in `may` must have been: the tolerance after the first span that
    is long enough for it, those times left out in which the engine could not judge."""
    slack = extra_ms
    if any(d.to_ms is not None and d.to_ms > anchor_ms for d in about.degraded):
        slack += about.slack_ms
    for span in may:
        for a, b in without(span, held):
            if b - a > about.tolerance_ms + slack:
                return a + about.tolerance_ms + slack
    return None


def silences_of(about: Circumstances, beats: list[Beat]) -> list[Silence]:
    """One for each non-STOPPING beat, with the times at which the row may be judged DOWN."""
    result = []
    end = about.as_of_ms if about.row.retired_ms is None else min(about.as_of_ms, about.row.retired_ms)
    for place, beat in enumerate(beats):
        if about.rules.stops(beat):
            continue
        follower = beats[place + 1] if place + 1 < len(beats) else None
        until = min(end, follower.t_ms if follower is not None else end)
        # A verdict in the very millisecond of the next beat came before it.
        stretches = stretches_of(about, beat, until + 1)
        silence = Silence(beat=beat, follower=follower, stretches=stretches)
        dead = any(revoked <= until for revoked in about.row.revoked_ms)
        for stretch in stretches:
            due = about.rules.down_at(stretch.anchor_ms, beat.ttl_ms)
            span = (max(due, stretch.begin_ms), stretch.end_ms)
            if span[0] >= span[1]:
                continue
            may = without(span, bans(about, beat.ttl_ms, strict=False))
            silence.down_may += may
            if silence.down_by is None and not dead:
                held = bans(about, beat.ttl_ms, strict=True)
                silence.down_by = required_by(about, may, held, stretch.anchor_ms, 0)
        result.append(silence)
    return result


def since_of(about: Circumstances, beats: list[Beat], last: Beat, at_ms: int) -> list[int]:
    """What `since` of node.down may say when judged at `at`: the end of coverage or, if that is forgiven, the
    first instant after it that is not. More than one only while a gap of drops is undecided."""
    known = [b for b in beats if b.index <= last.index]
    end = about.rules.silence_began(last)
    options: list[int] = []
    for gaps in ([g for g in about.gaps if g.to_ms <= at_ms], [g for g in about.gaps if g.to_ms < at_ms]):
        spans = forgiven_spans(about.rules, known, gaps, at_ms)
        for undecided_counts in (False, True):
            since = end
            moved = True
            while moved:
                moved = False
                for span in spans:
                    counts = undecided_counts or not span.provisional
                    if counts and span.from_ms <= since < span.to_ms < FOREVER:
                        since, moved = span.to_ms, True
            if since not in options:
                options.append(since)
    return options


def lateness(about: Circumstances, anchor_ms: int, due_ms: int) -> int:
    """What is measured as lateness and added to a deadline: at most the outages since the anchor."""
    outages = [g for g in about.gaps if g.cause != "drops" and g.from_ms < due_ms and g.to_ms > anchor_ms]
    return sum(g.to_ms - g.from_ms for g in outages)


def _declines(about: Circumstances, silence: Silence, stretch: Stretch) -> list[Transition]:
    """SUSPECT, DOWN and LOST of one stretch, as far as they can come in it."""
    ttl_ms, anchor = silence.beat.ttl_ms, stretch.anchor_ms
    if stretch.end_ms <= about.rules.suspect_at(anchor, ttl_ms):
        return []
    held = bans(about, ttl_ms, strict=True)
    found = []
    floor = stretch.begin_ms
    for state, due, holds in (
        ("suspect", about.rules.suspect_at(anchor, ttl_ms), []),
        ("down", about.rules.down_at(anchor, ttl_ms), bans(about, ttl_ms, strict=False)),
        ("lost", about.rules.lost_at(anchor, ttl_ms), bans(about, ttl_ms, strict=False)),
    ):
        span = (max(due, floor), stretch.end_ms)
        may = without(span, holds) if span[0] < span[1] else []
        if not may:
            break
        floor = may[0][0]
        late = 0 if state == "down" else lateness(about, anchor, due)
        latest = required_by(about, may, held, anchor, late)
        if any(revoked < stretch.end_ms for revoked in about.row.revoked_ms):
            latest = None
        found.append(Transition(state=state, earliest_ms=floor, latest_ms=latest))
    return found


def transitions_of(about: Circumstances, beats: list[Beat], silences: list[Silence]) -> list[Transition]:
    """The row's whole course, in order of the earliest times; it begins as NEW."""
    found: list[tuple[int, float, Transition]] = [
        (0, -2.0, Transition(state="new", earliest_ms=0, latest_ms=None))
    ]
    windows = windows_of_node(about.row)
    for a, b in windows:
        last = next((x for x in reversed(beats) if x.t_ms < b), None)
        after = "new" if last is None else "stopped" if about.rules.stops(last) else "up"
        for at_ms, state in ((a, "maintenance"), (b, after)):
            if at_ms <= about.as_of_ms:
                due = about.effect_due(at_ms)
                # A window's edge comes before a beat of the same millisecond.
                place = 2.0 * sum(x.t_ms < at_ms for x in beats) - 0.5
                found.append((at_ms, place, Transition(state=state, earliest_ms=at_ms, latest_ms=due)))
    by_beat = {silence.beat.frame_id: silence for silence in silences}
    for place, beat in enumerate(beats):
        in_window = any(a <= beat.t_ms < b for a, b in windows)
        state = "stopped" if about.rules.stops(beat) else "up"
        # Inside a window the state stays MAINTENANCE; that STOPPING or its end shows through is allowed.
        latest = None if in_window else about.effect_due(beat.t_ms)
        course = [Transition(state=state, earliest_ms=beat.t_ms, latest_ms=latest)]
        silence = by_beat.get(beat.frame_id)
        if silence is not None:
            for stretch in silence.stretches:
                course += _declines(about, silence, stretch)
        found += [(t.earliest_ms, 2.0 * place + (t is not course[0]), t) for t in course]
    found.sort(key=lambda item: item[:2])
    course = []
    for _, _, transition in found:
        known = bool(course) and course[-1].state == transition.state and course[-1].latest_ms is not None
        if not known:  # the same state again says nothing new
            course.append(transition)
    return course


def allowed_states(transitions: list[Transition], x_ms: int) -> set[str]:
    """Every state the row may be seen in at x: entered by then, and nothing later overdue."""
    allowed: set[str] = set()
    for transition in reversed(transitions):
        if transition.earliest_ms <= x_ms:
            allowed.add(transition.state)
        if transition.latest_ms is not None and transition.latest_ms < x_ms:
            break
    return allowed
