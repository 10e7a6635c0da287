"""Planted bugs, first kind: an engine whose rules are the oracle's but for one, and the checker must say so.

Without the bug the same story must pass. The second kind, single things done wrong, is in
`test_oracle_outcomes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.sim.hand import Story
from tests.sim.history import Frame, Gap
from tests.sim.oracle import Rules
from tests.sim.oracle.rules import EARLY, Beat
from tests.sim.stories import (
    back_at_the_limit,
    changing_ttl,
    clients_clock,
    crash_and_away,
    dead_before_a_crash,
    drops,
    early,
    engine,
    flickering,
    odd_ttl,
    overlap,
    plain,
    replayed,
    rules_broken,
    short_stall,
    stopped,
    two_crashes,
)


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
