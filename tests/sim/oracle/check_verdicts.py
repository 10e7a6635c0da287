"""Verdicts and events held against the oracle: each that must be is there, in time, and none without cause.

What an engine may leave out or do differs with what it did before: node.up must follow a node.down that was
told, and must not follow one that was not. So events are matched row by row, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.history import Row
from tests.sim.observed import Event, Observed
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.rules import Beat
from tests.sim.oracle.verdicts import Silence, Times, allowed_states, windows_of_node
from tests.sim.oracle.violation import Violation

JUDGED_KINDS = ("node.down", "node.up", "node.stopped", "workload.down", "workload.up")


def event_id(kind: str, subject: str, since_ms: int) -> str:
    """BLAKE2b-128 over kind NUL subject NUL since (LIVENESS.md 4)."""
    return hashlib.blake2b(f"{kind}\0{subject}\0{since_ms}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An event that may be raised in `times` and must have been by `due_ms` (None: it need not be)."""

    kind: str
    subject: str
    since_ms: int
    times: Times
    due_ms: int | None


def verdict_violations(oracle: Oracle, observed: Observed) -> Iterator[Violation]:
    if observed.verdicts is not None:
        for row in oracle.history.rows:
            yield from _course_violations(oracle, observed, row)
    if observed.events is not None:
        yield from _event_violations(oracle, observed.events)


# --- states
def _course_violations(oracle: Oracle, observed: Observed, row: Row) -> Iterator[Violation]:
    transitions = oracle.transitions(row)
    course = [v for v in observed.verdicts or () if v.row == row.row]
    if row.retired_ms is not None:  # what state a retired row is said to be in is nobody's business
        course = [v for v in course if v.at_ms <= row.retired_ms]
    for verdict in course:
        allowed = allowed_states(transitions, verdict.at_ms)
        if verdict.state not in allowed:
            detail = f"{verdict.state}, must be one of {sorted(allowed)}"
            yield Violation("verdict", f"row {row.row}", verdict.at_ms, detail)
    end_ms = (
        oracle.history.as_of_ms if row.retired_ms is None else min(oracle.history.as_of_ms, row.retired_ms)
    )
    moments = {t.latest_ms + 1 for t in transitions if t.latest_ms is not None}
    for x_ms in sorted(m for m in moments | {end_ms} if m <= end_ms):
        state = "new"
        for verdict in course:
            if verdict.at_ms <= x_ms:
                state = verdict.state
        allowed = allowed_states(transitions, x_ms)
        if state not in allowed:
            yield Violation(
                "verdict", f"row {row.row}", x_ms, f"still {state}, must be one of {sorted(allowed)}"
            )


# --- events
def _event_violations(oracle: Oracle, events: tuple[Event, ...]) -> Iterator[Violation]:
    """Found twice, told once: of events with one id the first counts."""
    told: dict[str, Event] = {}
    for event in events:
        if event.kind in JUDGED_KINDS:
            yield from _form_violations(oracle, event)
            told.setdefault(event.event_id, event)
    left = sorted(told.values(), key=lambda e: e.at_ms)
    for row in oracle.history.rows:
        yield from _Row(oracle, row, left).violations()
    for event in left:
        yield Violation("event", event.workload_id or event.node_id, event.at_ms, f"{event} without cause")


def _form_violations(oracle: Oracle, event: Event) -> Iterator[Violation]:
    """The id and whom it names."""
    of_node = event.kind.startswith("node.")
    subject = event.node_id if of_node else event.workload_id
    if subject is None or of_node != (event.workload_id is None):
        yield Violation("event-form", str(subject), event.at_ms, f"{event} names the wrong subject")
        return
    if event.event_id != event_id(event.kind, subject, event.since_ms):
        yield Violation(
            "event-id", subject, event.at_ms, f"{event.kind} since {event.since_ms} has another id"
        )
    rows = [r for r in oracle.history.rows if r.node_id == event.node_id]
    if not rows or rows[0].project_id != event.project_id:
        yield Violation(
            "event-form", subject, event.at_ms, f"{event.kind} names node {event.node_id} wrongly"
        )


class _Row:
    """The events of one row, matched in order. `left` is shared: what is matched is taken out of it."""

    def __init__(self, oracle: Oracle, row: Row, left: list[Event]) -> None:
        self.oracle, self.row, self.left = oracle, row, left
        self.told: set[str] = set()  # ids of events that were matched
        self._told_stopped = False  # of the last stop
        self.about = oracle.circumstances(row)
        self.windows = windows_of_node(row)

    def violations(self) -> Iterator[Violation]:
        beats = self.oracle.beats(self.row)
        silences = {s.beat.frame_id: s for s in self.oracle.silences(self.row)}
        for place, beat in enumerate(beats):
            before = beats[place - 1] if place else None
            if self.about.rules.stops(beat):
                yield from self._stopped(beat, before)
                continue
            if before is not None and self.about.rules.stops(before):
                yield from self._up(beat, required=self._told_stopped)
            silence = silences[beat.frame_id]
            down: list[Event] = []
            yield from self._down(silence, down)
            follower = silence.follower
            if down and follower is not None and not self.about.rules.stops(follower):
                yield from self._up(follower, required=True)  # a window hides no return from who was told
        yield from self._flips()

    # --- of the node
    def _down(self, silence: Silence, down: list[Event]) -> Iterator[Violation]:
        """At most one node.down, with the right since; `down` receives it."""
        node = self.row.node_id
        for event in [e for e in self.left if e.kind == "node.down" and e.node_id == node]:
            if not any(a <= event.at_ms < b for a, b in silence.down_may):
                continue
            allowed = self.oracle.since(self.row, silence.beat, event.at_ms)
            if down:
                continue  # a second one in one silence is left over, without cause
            down.append(event)
            self.left.remove(event)
            if event.since_ms not in allowed:
                detail = f"node.down since {event.since_ms}, must be {allowed}"
                yield Violation("event-since", node, event.at_ms, detail)
            if silence.down_by is not None and event.at_ms > silence.down_by:
                detail = f"node.down judged at {event.at_ms}, due by {silence.down_by}"
                yield Violation("event-late", node, event.at_ms, detail)
            yield from self._names(event, silence.beat)
        if not down and silence.down_by is not None and silence.down_by <= self.about.as_of_ms:
            yield Violation("event-missing", node, silence.down_by, "node.down")

    def _names(self, event: Event, beat: Beat) -> Iterator[Violation]:
        """It names the node's living workloads; one that was never reported need not be named."""
        lag = self.about.rules.registry_lag_ms
        must, may = set(), set()
        for slot in self.row.slots:
            created_ms, retired_early_ms, retired_ms = self.oracle.life(slot.workload_id)
            if retired_ms >= event.at_ms - lag:  # a clock behind the registry's may not have reached created
                may.add(slot.workload_id)
            first = self.oracle.first_report(slot.workload_id)
            reported = first is not None and first <= beat.t_ms
            if reported and created_ms <= event.at_ms - lag and retired_early_ms > event.at_ms + lag:
                must.add(slot.workload_id)
        named = set(event.workloads)
        if not must <= named <= may or len(event.workloads) != len(named):
            detail = f"names {sorted(named)}, must name {sorted(must)} of {sorted(may)}"
            yield Violation("event-workloads", self.row.node_id, event.at_ms, detail)

    def _up(self, beat: Beat, *, required: bool) -> Iterator[Violation]:
        yield from self._match(self._after("node.up", self.row.node_id, beat.t_ms, [beat.t_ms], required))

    def _stopped(self, beat: Beat, before: Beat | None) -> Iterator[Violation]:
        """Once: a STOPPING beat of a row that is stopped raises nothing."""
        if before is not None and self.about.rules.stops(before):
            return
        required = not any(a <= beat.t_ms < b for a, b in self.windows)
        yield from self._match(
            self._after("node.stopped", self.row.node_id, beat.t_ms, [beat.t_ms], required)
        )
        self._told_stopped = event_id("node.stopped", self.row.node_id, beat.t_ms) in self.told

    # --- of workloads
    def _flips(self) -> Iterator[Violation]:
        for slot in self.row.slots:
            found: dict[tuple[str, int], list[int]] = {}
            for own_ttl in (True, False):
                for flip in self.oracle.flips(slot.workload_id, own_ttl=own_ttl):
                    found.setdefault((flip.kind, flip.since_ms), []).append(flip.confirmed_ms)
            _, retired_early_ms, retired_ms = self.oracle.life(slot.workload_id)
            for (kind, since_ms), confirmed in sorted(found.items(), key=lambda item: item[0][1]):
                if min(confirmed) > retired_ms + self.about.rules.registry_lag_ms:
                    continue  # nobody is told of a workload that is gone
                agreed = len(confirmed) == 2 and max(confirmed) < retired_early_ms
                yield from self._match(self._after(kind, slot.workload_id, since_ms, confirmed, agreed))

    def _after(self, kind: str, subject: str, since_ms: int, causes: list[int], required: bool) -> Expected:
        """What a beat (at one of the times in `causes`) raises."""
        times = [(t, self.about.effect_due(t) + 1) for t in causes]
        due = max(end for _, end in times) - 1 if required else None
        if not required:  # where the rules leave it open, leave the time open as well, to the window's end
            ends = [b for a, b in self.windows if any(a <= t < b for t in causes)]
            times += [(t, self.about.effect_due(end) + 1) for t in causes for end in ends]
        return Expected(kind=kind, subject=subject, since_ms=since_ms, times=times, due_ms=due)

    def _match(self, expected: Expected) -> Iterator[Violation]:
        """Several turns of one row within a millisecond have one id: found twice, told once."""
        if event_id(expected.kind, expected.subject, expected.since_ms) in self.told:
            return
        for event in self.left:
            subject = event.node_id if event.workload_id is None else event.workload_id
            if (event.kind, subject, event.since_ms) == (expected.kind, expected.subject, expected.since_ms):
                self.left.remove(event)
                self.told.add(event.event_id)
                if not any(a <= event.at_ms < b for a, b in expected.times):
                    detail = f"{event.kind} since {event.since_ms} raised outside {expected.times}"
                    yield Violation("event-late", expected.subject, event.at_ms, detail)
                return
        if expected.due_ms is not None and expected.due_ms <= self.about.as_of_ms:
            detail = f"{expected.kind} since {expected.since_ms}"
            yield Violation("event-missing", expected.subject, expected.due_ms, detail)
