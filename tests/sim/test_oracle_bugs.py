"""Planted bugs: an engine that does everything right but for one thing, and the checker must say so.

Each is an oracle with one rule bent, or one thing changed by hand in what the reference engine did; the story
is as short as shows it. Without the bug the same story must pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.sim.hand import Story, ms
from tests.sim.history import Degraded, Frame, Gap, History
from tests.sim.observed import Ack, Observed, OpenRow
from tests.sim.oracle import Oracle, Rules, check
from tests.sim.oracle.check_verdicts import event_id
from tests.sim.oracle.rules import EARLY, Beat
from tests.sim.reference import DAY_MS, run_reference

TOLERANCE_MS = 250


def rules_broken(history: History, observed: Observed) -> set[str]:
    return {violation.rule for violation in check(history, observed, tolerance_ms=TOLERANCE_MS)}


def engine(history: History, rules: Rules | None = None) -> Observed:
    return run_reference(Oracle(history, tolerance_ms=TOLERANCE_MS, rules=rules))


# --- stories
def plain() -> Story:
    """Beats, a silence with node.down, a return."""
    story = Story()
    story.beats(0, 120)
    story.beat(500)
    story.beat(560)
    return story


def replayed() -> Story:
    story = Story()
    story.beats(0, 60)
    story.beat(140, seq_s=60)
    return story


def dead_before_a_crash() -> Story:
    story = Story()
    story.beats(0, 60)
    story.crash(200, 230)
    story.beat(300)
    return story


def crash_and_away() -> Story:
    """Covered at the crash, and back long after the grace."""
    story = Story()
    story.beats(0, 60)
    story.crash(100, 130)
    story.beat(1500)
    return story


def short_stall() -> Story:
    story = Story()
    story.beats(0, 60)
    story.gap(100, 102)
    story.beat(192)
    return story


def back_at_the_limit() -> Story:
    story = Story()
    story.beats(0, 60)
    story.gap(100, 300)
    story.beat(600)
    return story


def two_crashes() -> Story:
    story = Story()
    story.beats(0, 60)
    story.crash(100, 200)
    story.crash(400, 410)
    story.beat(700)
    return story


def drops() -> Story:
    story = Story()
    story.beats(0, 60)
    story.gap(100, 160, "drops")
    story.beat(230)
    return story


def early() -> Story:
    story = Story()
    story.beats(0, 60)
    story.beat(70, "uu")
    return story


def flickering() -> Story:
    story = Story()
    story.beats(0, 60)
    story.beat(120, "uh")
    story.beat(121, "uh")
    story.beat(149, "hh")
    story.beats(180, 240)
    return story


def stopped() -> Story:
    story = Story()
    story.beats(0, 60)
    story.stop(100)
    story.beat(1000)
    return story


def clients_clock() -> Story:
    story = Story()
    story.beats(0, 60)
    story.beat(120, seq_s=300)
    return story


def changing_ttl() -> Story:
    story = Story()
    story.beat(0, ttl_s=90)
    story.beat(60, ttl_s=180)
    story.beat(120, ttl_s=90)
    return story


def odd_ttl() -> Story:
    story = Story()
    story.beat(0, ttl_s=90.005)  # two thirds are 60003.33 ms, a quarter of that 15000
    story.beat(15)
    return story


def overlap() -> Story:
    story = Story()
    story.session(1, 0)
    story.session(2, 100)
    story.beat(90, generation=1)
    story.beat(161, generation=1)
    return story


def across_midnight() -> Story:
    story = Story(end_s=DAY_MS // 1000 + 600)
    story.beats(86_220, 86_700)
    return story


def under_maintenance() -> Story:
    story = Story()
    story.beats(0, 600)
    story.window(100, 500)
    return story


# --- bent rules
class CoverageEndsOneLate(Rules):
    """now - last > ttl instead of now >= last + ttl."""

    def coverage_end(self, beat: Beat) -> int:
        return super().coverage_end(beat) + 1


class ReplaysAreTaken(Rules):
    def stale(self, seq: int, last_seq: int | None) -> bool:
        return False


class TheSilentAreForgiven(Rules):
    def forgiven_from_start(self, last: Beat | None, g0_ms: int) -> bool:
        return last is not None


class DownInsideTheGrace(Rules):
    def no_down_before(self, gap: Gap, ttl_ms: int) -> int:
        return gap.to_ms


class StallForgivesAbsence(Rules):
    def bound_of_covered(self, bound_ms: int, ttl_ms: int) -> int:
        return bound_ms


class BackAtTheLimitCounts(Rules):
    def back_in_time(self, back_ms: int, g1_ms: int, bound_ms: int) -> bool:
        return back_ms <= g1_ms + bound_ms


class GapsAreNotMerged(Rules):
    def follows_on(self, start_ms: int, previous_end_ms: int, grace_ms: int) -> bool:
        return False


class DropsHaveTheFullGrace(Rules):
    def gap_grace(self, causes: set[str], ttl_ms: int) -> int:
        return self.grace(ttl_ms)


class EarlyIsNotCredited(Rules):
    def credits(self, code: int) -> bool:
        return code != EARLY


class FlipsAtOnce(Rules):
    def flip_apart(self, ttl_ms: int) -> int:
        return 0


class StoppingCutsNothing(Rules):
    def stops(self, beat: Beat) -> bool:
        return False


class AnyClockWillDo(Rules):
    def off_clock(self, seq: int, t_ms: int) -> bool:
        return False


class SinceIsTheLastBeat(Rules):
    def silence_began(self, last: Beat) -> int:
        return last.t_ms


class DownTooSoon(Rules):
    def down_at(self, anchor_ms: int, ttl_ms: int) -> int:
        return anchor_ms + 2 * self.interval(ttl_ms)


class DownTooLate(Rules):
    def down_at(self, anchor_ms: int, ttl_ms: int) -> int:
        return anchor_ms + 4 * self.interval(ttl_ms)


class IntervalIsRoundedUp(Rules):
    def interval(self, ttl_ms: int) -> int:
        return -(-2 * ttl_ms // 3)


class OldGenerationsLiveOn(Rules):
    overlap_ms = 1 << 60


BENT: list[tuple[Callable[[], Story], type[Rules], set[str]]] = [
    (plain, CoverageEndsOneLate, {"base", "uptime", "uptime-intervals"}),
    (replayed, ReplaysAreTaken, {"credit", "ack", "uptime"}),
    (dead_before_a_crash, TheSilentAreForgiven, {"uptime"}),
    (crash_and_away, DownInsideTheGrace, {"event", "verdict"}),
    (short_stall, StallForgivesAbsence, {"uptime"}),
    (back_at_the_limit, BackAtTheLimitCounts, {"uptime"}),
    (two_crashes, GapsAreNotMerged, {"uptime"}),
    (drops, DropsHaveTheFullGrace, {"uptime"}),
    (early, EarlyIsNotCredited, {"credit", "base", "uptime"}),
    (flickering, FlipsAtOnce, {"event"}),
    (stopped, StoppingCutsNothing, {"base", "uptime", "event", "event-missing"}),
    (clients_clock, AnyClockWillDo, {"credit", "ack", "uptime"}),
    (plain, SinceIsTheLastBeat, {"event-since"}),
    (plain, DownTooSoon, {"event", "verdict"}),
    (plain, DownTooLate, {"event-late", "verdict"}),
    (odd_ttl, IntervalIsRoundedUp, {"ack"}),
    (overlap, OldGenerationsLiveOn, {"credit", "ack"}),
]


@pytest.mark.parametrize(
    ("tell", "bent", "expected"), BENT, ids=[f"{bent.__name__}-{tell.__name__}" for tell, bent, _ in BENT]
)
def test_a_bent_rule_is_noticed(tell: Callable[[], Story], bent: type[Rules], expected: set[str]):
    history = tell().history()
    assert rules_broken(history, engine(history)) == set()
    assert expected <= rules_broken(history, engine(history, bent()))


def test_the_ttl_of_the_wrong_beat_is_noticed():
    history = changing_ttl().history()
    frames = [r for r in history.records if isinstance(r, Frame)]
    shifted = [replace(f, ttl_ms=frames[max(n - 1, 0)].ttl_ms) for n, f in enumerate(frames)]
    wrong = engine(replace(history, records=tuple(shifted)))
    assert rules_broken(history, engine(history)) == set()
    assert {"ack-ttl", "base", "uptime"} <= rules_broken(history, wrong)


# --- things done wrong by hand
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
def lossy(*, gap: bool = True) -> Story:
    story = Story()
    story.beats(0, 60)
    story.beat(100, durable=False)
    if gap:
        story.crash(99, 110)
    return story


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
