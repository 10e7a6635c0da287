"""Planted bugs, second kind: one thing done wrong by an engine without other faults; it must be noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.sim.hand import Story, ms
from tests.sim.history import Degraded, Frame, Gap
from tests.sim.observed import Ack, Observed, OpenRow
from tests.sim.oracle.check_verdicts import event_id
from tests.sim.reference import DAY_MS
from tests.sim.stories import (
    TOLERANCE_MS,
    across_midnight,
    crash_and_away,
    engine,
    lossy,
    plain,
    rules_broken,
    under_maintenance,
)


def with_a_day_counted_twice(observed: Observed) -> Observed:
    """The beat before midnight is counted with its whole ttl into both days."""
    answers = []
    for answer in observed.answers:
        if answer.to_ms % DAY_MS == 0 and answer.ms["up"]:
            answer = replace(answer, ms={**answer.ms, "up": answer.ms["up"] + 60_000})
        answers.append(answer)
    return replace(observed, answers=tuple(answers))


def with_a_window_over_up(observed: Observed) -> Observed:
    answers = []
    for answer in observed.answers:
        moved = {**answer.ms, "up": answer.ms["up"] - 1_000, "maintenance": answer.ms["maintenance"] + 1_000}
        answers.append(replace(answer, ms=moved))
    return replace(observed, answers=tuple(answers))


def with_a_key_missing(observed: Observed) -> Observed:
    first = observed.answers[0]
    return replace(observed, answers=(replace(first, ms={k: v for k, v in first.ms.items() if v}),))


def with_an_event_per_workload(observed: Observed) -> Observed:
    down = next(e for e in observed.events or () if e.kind == "node.down")
    for_one = replace(
        down,
        event_id=event_id("workload.down", "w0", down.since_ms),
        kind="workload.down",
        workload_id="w0",
    )
    return replace(observed, events=(*(observed.events or ()), for_one))


def with_the_down_event_twice(observed: Observed) -> Observed:
    down = next(e for e in observed.events or () if e.kind == "node.down")
    other = replace(down, since_ms=down.since_ms + 1, event_id=event_id(down.kind, "node", down.since_ms + 1))
    return replace(observed, events=(*(observed.events or ()), replace(other, at_ms=down.at_ms + 5)))


def without_the_up_event(observed: Observed) -> Observed:
    return replace(observed, events=tuple(e for e in observed.events or () if e.kind != "node.up"))


def without_any_event(observed: Observed) -> Observed:
    return replace(observed, events=())


def with_another_event_id(observed: Observed) -> Observed:
    return replace(
        observed, events=tuple(replace(e, event_id=e.event_id[::-1]) for e in observed.events or ())
    )


def with_a_workload_unnamed(observed: Observed) -> Observed:
    return replace(
        observed, events=tuple(replace(e, workloads=e.workloads[:1]) for e in observed.events or ())
    )


def with_a_lost_row(observed: Observed) -> Observed:
    return replace(observed, base_rows=observed.base_rows[1:])


def with_a_row_left_open(observed: Observed) -> Observed:
    row = observed.base_rows[0]
    left = OpenRow(
        workload_id=row.workload_id,
        kind=row.kind,
        started_ms=row.started_ms,
        last_t_ms=row.ended_ms - row.ttl_ms,
        ttl_ms=row.ttl_ms,
    )
    return replace(observed, base_rows=observed.base_rows[1:], open_rows=(*(observed.open_rows or ()), left))


def without_acks(observed: Observed) -> Observed:
    return replace(observed, acks={})


def with_acks_of_the_wrong_time(observed: Observed) -> Observed:
    acks = {n: replace(ack, server_ms=(ack.server_ms or 0) + 1) for n, ack in observed.acks.items()}
    return replace(observed, acks=acks)


def with_a_first_report_too_late(observed: Observed) -> Observed:
    return replace(
        observed, first_reports={w: at + 60_000 for w, at in (observed.first_reports or {}).items()}
    )


def with_a_frozen_state(observed: Observed) -> Observed:
    return replace(observed, verdicts=(observed.verdicts or ())[:1])


BROKEN: list[tuple[Callable[[], Story], Callable[[Observed], Observed], str]] = [
    (across_midnight, with_a_day_counted_twice, "uptime-sum"),
    (under_maintenance, with_a_window_over_up, "uptime"),
    (plain, with_a_key_missing, "uptime"),
    (plain, with_an_event_per_workload, "event"),
    (plain, with_the_down_event_twice, "event"),
    (plain, without_the_up_event, "event-missing"),
    (plain, without_any_event, "event-missing"),
    (plain, with_another_event_id, "event-id"),
    (plain, with_a_workload_unnamed, "event-workloads"),
    (plain, with_a_lost_row, "base"),
    (plain, with_a_row_left_open, "base"),
    (plain, without_acks, "ack"),
    (plain, with_acks_of_the_wrong_time, "ack-time"),
    (plain, with_a_first_report_too_late, "first-report"),
    (plain, with_a_frozen_state, "verdict"),
]


@pytest.mark.parametrize(
    ("tell", "break_it", "rule"), BROKEN, ids=[break_it.__name__ for _, break_it, _ in BROKEN]
)
def test_a_wrong_outcome_is_noticed(
    tell: Callable[[], Story], break_it: Callable[[Observed], Observed], rule: str
):
    history = tell().history()
    observed = engine(history)
    assert rules_broken(history, observed) == set()
    assert rule in rules_broken(history, break_it(observed))


# --- durability and gaps
def test_an_ack_for_a_beat_that_did_not_survive_is_noticed():
    history = lossy().history()
    observed = engine(history)
    assert rules_broken(history, observed) == set()
    acked = replace(observed, acks={**observed.acks, 2: Ack(code=0, server_ms=ms(100), ttl_ms=90_000)})
    assert "ack-lost" in rules_broken(history, acked)


def test_a_beat_that_vanished_without_a_crash_is_noticed():
    history = lossy(gap=False).history()
    assert rules_broken(history, engine(history)) == {"vanished"}


def test_a_crash_without_its_gap_and_a_gap_without_a_fault_are_noticed():
    history = crash_and_away().history()
    bare = replace(history, records=tuple(r for r in history.records if not isinstance(r, Gap)))
    assert "gap" in rules_broken(bare, engine(bare))
    invented = replace(history, outages=())
    assert "gap" in rules_broken(invented, engine(invented))


@pytest.mark.parametrize(
    ("silent", "beating", "justified"), [(20, 113, True), (20, 114, False), (19, 0, False)]
)
def test_a_breaker_that_opens_for_too_few_is_noticed(silent: int, beating: int, justified: bool):
    """20 of 133 are 15.04 %, 20 of 134 are 14.93 %."""
    story = Story(slots=1, end_s=200)
    story.beat(0, "h")
    base = story.history()
    row, frame = base.rows[0], base.records[0]
    assert isinstance(frame, Frame)
    rows, records = [], []
    for number in range(silent + beating):
        slot = replace(row.slots[0], workload_id=f"w{number}")
        rows.append(replace(row, row=number, node_id=f"node {number}", slots=(slot,)))
        records.append(replace(frame, row=number, frame_id=number))
    for number in range(beating):
        records.append(replace(frame, row=number, frame_id=1000 + number, t_ms=ms(80), seq=ms(80) << 16))
    degraded = Degraded(from_ms=ms(100), to_ms=None)
    history = replace(base, rows=tuple(rows), records=(*records, degraded), as_of_ms=ms(150))
    assert rules_broken(history, engine(history)) == (set() if justified else {"degraded"})


def test_a_ttl_below_the_sessions_is_noticed():
    story = Story()
    story.session(1, -100)
    story.beat(0, ttl_s=89)
    history = story.history()
    assert rules_broken(history, engine(history)) == {"ttl"}


def test_the_engine_may_use_its_tolerance_and_no_more():
    history = plain().history()
    observed = engine(history)
    for late_ms, broken in ((TOLERANCE_MS, False), (TOLERANCE_MS + 1, True)):
        events = tuple(replace(e, at_ms=e.at_ms + late_ms) for e in observed.events or ())
        assert bool(rules_broken(history, replace(observed, events=events))) is broken


def test_turns_of_a_row_within_one_millisecond_are_told_once():
    story = Story(end_s=60)
    for at_s in (0, 10, 10, 10, 10):
        story.beat(at_s)
    story.records[2] = replace(story.records[2], stopping=True)
    story.records[4] = replace(story.records[4], stopping=True)
    for number, record in enumerate(story.records):
        story.records[number] = replace(record, seq=record.seq + number)
    history = story.history()
    observed = engine(history)
    told = {event.event_id: event for event in observed.events or ()}
    assert [event.kind for event in told.values()] == ["node.stopped", "node.up"]
    once = replace(observed, events=tuple(told.values()))
    assert rules_broken(history, once) == set()
    assert "event-missing" in rules_broken(history, replace(once, events=once.events[:1]))
