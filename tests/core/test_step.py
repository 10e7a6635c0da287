"""The step, as a table of cases: what a node or workload becomes, and what is told (LIVENESS.md 4)."""

from __future__ import annotations

import pytest

from engine.core.records import BASE_UNHEALTHY, BASE_UP, BASE_UPDATING, Gap
from engine.core.step import (
    DOWN,
    ILL,
    LOST,
    MAINTENANCE,
    NEW,
    NO_DEADLINE,
    STOPPED,
    SUSPECT,
    UNKNOWN,
    UP,
    WELL,
    Heard,
    NodeState,
    Raised,
    Said,
    Silent,
    SlotState,
    WindowClosed,
    WindowOpened,
    deadline_of,
    holding_gap_end,
    step_node,
    step_workload,
)

T = 1_000_000
TTL = 90_000  # interval 60 s


def node(state: int, *, last_t: int = T, silence_from: int | None = None, before: int = NEW) -> NodeState:
    return NodeState(state, 0, last_t, TTL, last_t if silence_from is None else silence_from, before)


def silent(judged: int, *, held: bool = False, basis: int = T) -> Silent:
    return Silent(basis, judged, held, basis + TTL)


HEARD = [
    (NEW, False, UP, None),
    (UP, False, UP, None),
    (SUSPECT, False, UP, None),
    (DOWN, False, UP, "node.up"),
    (LOST, False, UP, "node.up"),
    (STOPPED, False, UP, "node.up"),
    (MAINTENANCE, False, MAINTENANCE, None),
    (NEW, True, STOPPED, "node.stopped"),
    (UP, True, STOPPED, "node.stopped"),
    (SUSPECT, True, STOPPED, "node.stopped"),
    (DOWN, True, STOPPED, "node.stopped"),
    (STOPPED, True, STOPPED, None),
    (MAINTENANCE, True, STOPPED, "node.stopped"),
]


@pytest.mark.parametrize(("before", "stopping", "after", "told"), HEARD)
def test_a_beat(before: int, stopping: bool, after: int, told: str | None):
    found, raised = step_node(node(before), Heard(T + 10, TTL, stopping))
    assert found.state == after
    assert raised == (() if told is None else (Raised(told, T + 10),))


SILENCE = [
    (UP, TTL - 1, False, UP, False),
    (UP, TTL, False, SUSPECT, False),
    (SUSPECT, 179_999, False, SUSPECT, False),
    (SUSPECT, 180_000, False, DOWN, True),
    (SUSPECT, 180_000, True, SUSPECT, False),
    (DOWN, 599_999, False, DOWN, False),
    (DOWN, 600_000, False, LOST, False),
    (DOWN, 600_000, True, DOWN, False),
    (UP, 600_000, False, LOST, True),  # judged late: all on the way is told once
    (UP, 600_000, True, SUSPECT, False),
    (LOST, 10**9, False, LOST, False),
    (STOPPED, 10**9, False, STOPPED, False),
    (NEW, 10**9, False, NEW, False),
    (MAINTENANCE, 10**9, False, MAINTENANCE, False),
]


@pytest.mark.parametrize(("before", "silence", "held", "after", "down_told"), SILENCE)
def test_silence(before: int, silence: int, held: bool, after: int, down_told: bool):
    found, raised = step_node(node(before), silent(T + silence, held=held))
    assert found.state == after
    assert raised == ((Raised("node.down", T + TTL),) if down_told else ())


def test_a_verdict_overtaken_by_a_beat_is_none():
    assert step_node(node(UP, last_t=T + 5), silent(T + 10**9)) == (node(UP, last_t=T + 5), ())


def test_a_window_opens_over_any_state_and_deadlines_start_afresh_after_it():
    for before in (UP, SUSPECT, DOWN, LOST):
        opened, _ = step_node(node(before), WindowOpened(T + 20))
        assert opened.state == MAINTENANCE
        assert deadline_of(opened) == NO_DEADLINE
        closed, raised = step_node(opened, WindowClosed(T + 10**7))
        assert (closed.state, raised) == (UP, ())
        assert deadline_of(closed) == T + 10**7 + TTL


@pytest.mark.parametrize("before", [DOWN, LOST, STOPPED])
def test_who_fell_before_a_window_and_beats_in_it_is_told_up_then_and_only_then(before: int):
    opened, _ = step_node(node(before), WindowOpened(T + 20))
    heard, raised = step_node(opened, Heard(T + 30, TTL, False))
    assert (heard.state, raised) == (MAINTENANCE, (Raised("node.up", T + 30),))
    heard, raised = step_node(heard, Heard(T + 40, TTL, False))
    assert raised == ()
    closed, raised = step_node(heard, WindowClosed(T + 50))
    assert (closed.state, raised) == (UP, ())
    assert step_node(closed, Heard(T + 60, TTL, False))[1] == ()


@pytest.mark.parametrize("before", [DOWN, LOST])
def test_who_fell_before_a_window_and_beats_after_it_is_told_up_then(before: int):
    now, _ = step_node(node(before), WindowOpened(T + 20))
    now, _ = step_node(now, WindowClosed(T + 30))
    now, _ = step_node(now, WindowOpened(T + 40))
    now, _ = step_node(now, WindowClosed(T + 50))
    assert now.state == UP
    now, raised = step_node(now, Heard(T + 60, TTL, False))
    assert (now.state, raised) == (UP, (Raised("node.up", T + 60),))
    assert step_node(now, Heard(T + 70, TTL, False))[1] == ()


def test_who_fell_again_after_a_window_is_told_up_once():
    now, _ = step_node(node(DOWN), WindowOpened(T + 20))
    now, _ = step_node(now, WindowClosed(T + 30))
    now, raised = step_node(now, silent(T + 10**6))
    assert (now.state, raised) == (LOST, (Raised("node.down", T + TTL),)), "told once: it has the same id"
    now, raised = step_node(now, Heard(T + 10**6, TTL, False))
    assert raised == (Raised("node.up", T + 10**6),)
    assert step_node(now, Heard(T + 10**6 + 1, TTL, False))[1] == ()


def test_a_second_stop_inside_a_window_is_not_told():
    opened, _ = step_node(node(STOPPED), WindowOpened(T + 20))
    again, raised = step_node(opened, Heard(T + 30, TTL, True))
    assert (again.state, again.before_window, raised) == (MAINTENANCE, STOPPED, ())


@pytest.mark.parametrize("before", [NEW, STOPPED])
def test_who_never_beat_or_had_stopped_is_that_again_after_a_window(before: int):
    opened, _ = step_node(node(before), WindowOpened(T))
    closed, _ = step_node(opened, WindowClosed(T + 99))
    assert closed.state == before
    assert deadline_of(closed) == NO_DEADLINE


def said(kind: int, t: int) -> Said:
    return Said(kind, t, TTL)


def run(start: SlotState, *each: Said) -> tuple[SlotState, list[Raised]]:
    told: list[Raised] = []
    for one in each:
        start, raised = step_workload(start, one)
        told += raised
    return start, told


def test_two_beats_half_an_interval_apart_confirm_and_the_first_is_since():
    start = SlotState(WELL, 0)
    assert run(start, said(BASE_UNHEALTHY, T), said(BASE_UNHEALTHY, T + 29_999)) == (SlotState(WELL, T), [])
    end, told = run(start, said(BASE_UNHEALTHY, T), said(BASE_UNHEALTHY, T + 30_000))
    assert (end, told) == (SlotState(ILL, 0), [Raised("workload.down", T)])


def test_a_beat_between_that_contradicts_begins_anew():
    end, told = run(
        SlotState(WELL, 0), said(BASE_UNHEALTHY, T), said(BASE_UP, T + 10), said(BASE_UNHEALTHY, T + 40_000)
    )
    assert (end, told) == (SlotState(WELL, T + 40_000), [])


def test_updating_neither_counts_nor_resets():
    end, told = run(
        SlotState(WELL, 0),
        said(BASE_UNHEALTHY, T),
        said(BASE_UPDATING, T + 20_000),
        said(BASE_UNHEALTHY, T + 30_000),
    )
    assert told == [Raised("workload.down", T)]
    assert end.health == ILL


def test_the_initial_healthy_raises_nothing_the_initial_ill_does_when_confirmed():
    assert run(SlotState(UNKNOWN, 0), said(BASE_UP, T)) == (SlotState(WELL, 0), [])
    _, told = run(SlotState(UNKNOWN, 0), said(BASE_UNHEALTHY, T), said(BASE_UNHEALTHY, T + 30_000))
    assert told == [Raised("workload.down", T)]


def test_recovery_is_confirmed_the_same_way():
    _, told = run(SlotState(ILL, 0), said(BASE_UP, T), said(BASE_UP, T + 30_000))
    assert told == [Raised("workload.up", T)]


def test_drops_hold_back_no_verdict():
    gaps = (Gap(0, 1, 5, "crash"), Gap(0, 6, 9, "drops"))
    assert holding_gap_end(gaps) == 5
    assert holding_gap_end(()) == 0
