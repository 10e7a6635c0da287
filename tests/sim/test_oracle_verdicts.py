"""Verdicts, flips, events by hand (LIVENESS.md 3 and 4): SUSPECT 90 s, DOWN 180 s, LOST 600 s of silence."""

from dataclasses import replace

import pytest

from tests.sim.hand import Story, ms, seconds
from tests.sim.history import Degraded
from tests.sim.oracle.verdicts import allowed_states
from tests.sim.reference import run_reference
from tests.sim.stories import engine, rules_broken


def course(story: Story) -> str:
    """The verdicts that must be, each at its earliest time."""
    oracle = story.oracle()
    transitions = oracle.transitions(oracle.history.rows[0])
    return " ".join(f"{t.state}@{seconds(t.earliest_ms)}" for t in transitions if t.latest_ms is not None)


def events(story: Story) -> list[str]:
    return [
        f"{e.kind} {e.workload_id or e.node_id} since {seconds(e.since_ms)} at {seconds(e.at_ms)}"
        for e in run_reference(story.oracle()).events or ()
    ]


def test_silence_makes_suspect_down_and_lost_and_one_event():
    story = Story()
    story.beats(0, 60)
    assert course(story) == "up@0 suspect@150 down@240 lost@660"
    assert events(story) == ["node.down node since 150 at 240"]


def test_a_beat_before_down_raises_nothing_and_one_after_it_raises_node_up():
    story = Story()
    story.beats(0, 60)
    story.beat(239)
    story.beat(500)
    assert (
        course(story) == "up@0 suspect@150 up@239 suspect@329 down@419 up@500 suspect@590 down@680 lost@1100"
    )
    assert events(story) == [
        "node.down node since 329 at 419",
        "node.up node since 500 at 500",
        "node.down node since 590 at 680",
    ]


def test_intervals_go_by_the_ttl_of_the_last_beat():
    story = Story()
    story.beat(0, ttl_s=90)
    story.beat(60, ttl_s=15.001)  # interval floor(2 * 15001 / 3) = 10000
    assert course(story) == "up@0 suspect@75.001 down@90 lost@160"


def test_no_down_before_the_grace_after_a_gap():
    story = Story()
    story.beats(0, 60)
    story.crash(200, 230)
    assert course(story) == "up@0 suspect@150 down@530 lost@660"
    assert events(story) == ["node.down node since 150 at 530"]


def test_since_of_down_is_the_first_instant_that_is_not_forgiven():
    story = Story()
    story.beats(0, 60)
    story.crash(100, 400)
    assert events(story) == ["node.down node since 400 at 700"]


def test_drops_hold_back_no_verdict():
    story = Story()
    story.beats(0, 60)
    story.gap(200, 230, "drops")
    assert "down@240" in course(story)


def test_a_verdict_due_just_before_a_crash_may_have_been_told_or_not():
    story = Story()
    story.beats(0, 60)
    story.crash(240, 300)
    oracle = story.oracle()
    silence = oracle.silences(oracle.history.rows[0])[-1]
    assert [(seconds(a), seconds(b)) for a, b in silence.down_may] == [("240", "241.25"), ("600", "3600.001")]
    assert silence.down_by == ms(600.25)


def test_nothing_is_judged_between_a_stall_and_the_emptied_socket():
    story = Story()
    story.beats(0, 60)
    story.gap(230, 245)
    oracle = story.oracle()
    silence = oracle.silences(oracle.history.rows[0])[-1]
    assert [seconds(a) for a, _ in silence.down_may] == ["545"]


def test_degraded_holds_back_down_and_lost():
    story = Story()
    story.beats(0, 60)
    story.records.append(Degraded(from_ms=ms(200), to_ms=ms(1000)))
    oracle = story.oracle()
    silence = oracle.silences(oracle.history.rows[0])[-1]
    assert [seconds(a) for a, _ in silence.down_may] == ["1000"]
    assert silence.down_by == ms(1000 + 7 * 60 + 0.25)


def test_stopping_is_told_once_and_never_becomes_down():
    story = Story()
    story.beats(0, 60)
    story.stop(70)
    story.stop(80)
    story.beat(2000)
    assert course(story) == "up@0 stopped@70 up@2000 suspect@2090 down@2180 lost@2600"
    assert events(story) == [
        "node.stopped node since 70 at 70",
        "node.up node since 2000 at 2000",
        "node.down node since 2090 at 2180",
    ]


def test_after_a_window_of_the_node_deadlines_start_afresh():
    story = Story(end_s=600)
    story.beats(0, 60)
    story.window(200, 300)
    story.window(100, 101, of="w0")
    assert course(story) == "up@0 suspect@150 maintenance@200 up@300 suspect@390 down@480"
    assert events(story) == ["node.down node since 150 at 480"]


@pytest.mark.parametrize("back_s", [650, 950])
def test_who_was_told_down_hears_of_the_return_in_a_window_or_after_it(back_s: int):
    story = Story(end_s=1000)
    story.beats(0, 60)
    story.window(600, 900)
    story.beat(back_s)
    told = ["node.down node since 150 at 240", f"node.up node since {back_s} at {back_s}"]
    assert events(story) == told
    history = story.history()
    observed = engine(history)
    assert rules_broken(history, observed) == set()
    assert rules_broken(history, replace(observed, events=(observed.events or ())[:1])) == {"event-missing"}


def test_a_row_that_never_beat_stays_new():
    story = Story()
    assert course(story) == ""
    assert events(story) == []


def test_a_state_is_allowed_until_the_next_is_overdue():
    story = Story()
    story.beats(0, 60)
    oracle = story.oracle()
    transitions = oracle.transitions(oracle.history.rows[0])
    assert allowed_states(transitions, ms(149.999)) == {"up"}
    assert allowed_states(transitions, ms(150)) == {"up", "suspect"}
    assert allowed_states(transitions, ms(150.251)) == {"suspect"}
    assert allowed_states(transitions, ms(240)) == {"suspect", "down"}


@pytest.mark.parametrize(
    ("states", "flips"),
    [
        ("h h h", []),
        ("h u h u h", []),  # each contradicted in time
        ("h u u", ["workload.down w0 since 60 at 120"]),
        ("h - -", ["workload.down w0 since 60 at 120"]),
        ("h u p u", ["workload.down w0 since 60 at 180"]),  # updating neither counts nor resets
        ("h u u h h", ["workload.down w0 since 60 at 120", "workload.up w0 since 180 at 240"]),
        ("u u", ["workload.down w0 since 0 at 60"]),
        ("- - u u", ["workload.down w0 since 120 at 180"]),  # before its first report it is new
        ("p u h h", []),
        ("h u s u", ["workload.down w0 since 60 at 180"]),  # planes of STOPPING are ignored
    ],
)
def test_health_flips_when_two_beats_say_so_and_none_contradicts(states: str, flips: list[str]):
    story = Story(slots=1, end_s=400)
    for number, letter in enumerate(states.split()):
        if letter == "s":
            story.stop(number * 60)
        else:
            story.beat(number * 60, letter)
    assert [e for e in events(story) if e.startswith("workload")] == flips


def test_two_beats_must_lie_half_an_interval_apart():
    story = Story(slots=1, end_s=400)
    for at_s, letter in ((0, "h"), (60, "u"), (89.999, "u"), (90, "u"), (91, "h"), (121, "h")):
        story.beat(at_s, letter)
    told = [e for e in events(story) if e.startswith("workload")]
    assert told == ["workload.down w0 since 60 at 90", "workload.up w0 since 91 at 121"]


def test_the_count_survives_silence_and_sessions():
    story = Story(slots=1, end_s=2000)
    story.session(1, -100)
    story.session(2, 900)
    story.beat(0, "h")
    story.beat(60, "u")
    story.beat(1000, "u", generation=2)
    assert "workload.down w0 since 60 at 1000" in events(story)


def test_node_down_names_the_living_workloads_that_were_ever_reported():
    story = Story(slots=4, end_s=500, lives={2: (-1000, 200)})
    story.beat(0, "hhh-")
    down = next(e for e in run_reference(story.oracle()).events or () if e.kind == "node.down")
    assert down.workloads == ("w0", "w1", "w2")  # judged at 180, before w2 is retired; w3 was never reported
