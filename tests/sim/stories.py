"""Stories for planted bugs, each as short as shows one thing; the engine and the checker to tell them to."""

from __future__ import annotations

from tests.sim.hand import Story
from tests.sim.history import History
from tests.sim.observed import Observed
from tests.sim.oracle import Oracle, Rules, check
from tests.sim.reference import DAY_MS, run_reference

TOLERANCE_MS = 250


def rules_broken(history: History, observed: Observed) -> set[str]:
    return {violation.rule for violation in check(history, observed, tolerance_ms=TOLERANCE_MS)}


def engine(history: History, rules: Rules | None = None) -> Observed:
    return run_reference(Oracle(history, tolerance_ms=TOLERANCE_MS, rules=rules))


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


def lossy(*, gap: bool = True) -> Story:
    story = Story()
    story.beats(0, 60)
    story.beat(100, durable=False)
    if gap:
        story.crash(99, 110)
    return story
