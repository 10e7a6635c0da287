"""A tiny engine under test, read off an oracle: it does everything right, at the earliest time.

It exists to be broken. Give it an oracle whose rules are bent and it is an engine with that bug; or change
what it returns by hand. An unbent one must satisfy the checker: that is a test of the checker.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.sim.history import Row
from tests.sim.observed import Ack, Answer, BaseRow, Event, Observed, OpenRow, Verdict
from tests.sim.oracle.check_verdicts import event_id
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.rules import BUSY, CLOCK, MOVED, STALE
from tests.sim.oracle.verdicts import windows_of_node

DAY_MS = 86_400_000
Question = tuple[str, int, int]  # workload id, from, to


def run_reference(oracle: Oracle, questions: Iterable[Question] = ()) -> Observed:
    """Everything an engine with this oracle's rules would have done with its history."""
    judged = oracle.judged()
    rows = oracle.history.rows
    written, still_open = _base(oracle)
    return Observed(
        acks={
            one.frame.frame_id: Ack(
                code=one.code,
                server_ms=one.t_ms,
                ttl_ms=0
                if one.frame.stopping or one.code in (STALE, CLOCK, MOVED, BUSY)
                else one.frame.ttl_ms,
                next_ms=max(1, one.frame.ttl_ms * 2 // 3),
            )
            for one in judged
            if one.code is not None
        },
        credited=frozenset(one.frame.frame_id for one in judged if one.credited),
        base_rows=tuple(written),
        open_rows=tuple(still_open),
        answers=tuple(answer(oracle, question) for question in [*questions, *whole_lives(oracle)]),
        events=tuple(event for row in rows for event in _events(oracle, row)),
        verdicts=tuple(verdict for row in rows for verdict in _verdicts(oracle, row)),
        first_reports={
            w: at for w in oracle.workloads() for at in [oracle.first_report(w)] if at is not None
        },
    )


def whole_lives(oracle: Oracle) -> list[Question]:
    """Each workload from its creation to the end, whole and by UTC day."""
    questions: list[Question] = []
    for workload_id in oracle.workloads():
        _, slot = oracle.place(workload_id)
        end = oracle.history.as_of_ms
        questions.append((workload_id, slot.created_ms, end))
        for day in range(slot.created_ms // DAY_MS, end // DAY_MS + 1):
            questions.append((workload_id, day * DAY_MS, (day + 1) * DAY_MS))
    return questions


def answer(oracle: Oracle, question: Question) -> Answer:
    workload_id, from_ms, to_ms = question
    composed = oracle.compose(workload_id, from_ms=from_ms, to_ms=to_ms)
    return Answer(
        workload_id=workload_id,
        from_ms=from_ms,
        to_ms=to_ms,
        as_of_ms=oracle.history.as_of_ms,
        ms=composed.ms,
        intervals=composed.intervals,
        provisional=composed.provisional,
    )


def _base(oracle: Oracle) -> tuple[list[BaseRow], list[OpenRow]]:
    written, still_open = [], []
    for workload_id in oracle.workloads():
        for line in oracle.base(workload_id):
            if line.to_ms <= oracle.history.as_of_ms:
                written.append(
                    BaseRow(
                        workload_id=workload_id,
                        kind=line.kind,
                        started_ms=line.from_ms,
                        ended_ms=line.to_ms,
                        ttl_ms=line.ttl_ms,
                    )
                )
            else:
                still_open.append(
                    OpenRow(
                        workload_id=workload_id,
                        kind=line.kind,
                        started_ms=line.from_ms,
                        last_t_ms=line.last_t_ms,
                        ttl_ms=line.ttl_ms,
                    )
                )
    return written, still_open


def _verdicts(oracle: Oracle, row: Row) -> list[Verdict]:
    """Only what must be: each at its earliest time."""
    course = oracle.transitions(row)
    return [
        Verdict(row=row.row, state=t.state, at_ms=t.earliest_ms) for t in course if t.latest_ms is not None
    ]


def _events(oracle: Oracle, row: Row) -> list[Event]:
    def raised(kind: str, since_ms: int, at_ms: int, workload_id: str | None = None) -> Event:
        return Event(
            event_id=event_id(kind, workload_id or row.node_id, since_ms),
            kind=kind,
            project_id=row.project_id,
            node_id=row.node_id,
            workload_id=workload_id,
            since_ms=since_ms,
            at_ms=at_ms,
            workloads=_living(oracle, row, at_ms) if kind == "node.down" else (),
        )

    events = []
    windows = windows_of_node(row)
    silences = {silence.beat.frame_id: silence for silence in oracle.silences(row)}
    fallen = False  # people were told that the row is DOWN or STOPPED
    for beat in oracle.beats(row):
        in_window = any(a <= beat.t_ms < b for a, b in windows)
        silence = silences.get(beat.frame_id)
        if silence is None:
            before = [b for b in oracle.beats(row) if b.index < beat.index]
            if not in_window and not (before and oracle.rules.stops(before[-1])):
                events.append(raised("node.stopped", beat.t_ms, beat.t_ms))
                fallen = True
            continue
        if fallen:
            events.append(raised("node.up", beat.t_ms, beat.t_ms))
        fallen = silence.down_by is not None
        if fallen:
            at_ms = silence.down_may[0][0]
            events.append(raised("node.down", oracle.since(row, beat, at_ms)[0], at_ms))
    for slot in row.slots:
        _, retired_ms, _ = oracle.life(slot.workload_id)
        for flip in (f for f in oracle.flips(slot.workload_id) if f.confirmed_ms < retired_ms):
            events.append(raised(flip.kind, flip.since_ms, flip.confirmed_ms, slot.workload_id))
    return events


def _living(oracle: Oracle, row: Row, at_ms: int) -> tuple[str, ...]:
    names = []
    for slot in row.slots:
        first = oracle.first_report(slot.workload_id)
        if first is not None and first <= at_ms < oracle.life(slot.workload_id)[1]:
            names.append(slot.workload_id)
    return tuple(names)
