"""The one place that decides: what a node or a workload becomes when something about it changed.

`step_node` and `step_workload` are pure: state and change in, state and events out (LIVENESS.md 4 and 7).
Who notices changes (table, judge), who runs this (actors) and what becomes of events: elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.records import BASE_UP, BASE_UPDATING, NODE_STATES, Gap
from engine.core.timing import down_after_ms, flip_apart_ms, lost_after_ms

NEW, UP, SUSPECT, DOWN, LOST, STOPPED, MAINTENANCE = range(len(NODE_STATES))
FALLEN = (DOWN, LOST, STOPPED)  # people were told
UNKNOWN, WELL, ILL = range(3)  # a workload's confirmed health
NO_DEADLINE = 2**62


class NodeState(NamedTuple):
    """What is known of a row. `silence_from_ms` is its last beat, or the end of a window after it.

    `before_window`: the state when the present or last window opened, UP once it has beaten since. While it
    is one of FALLEN, people were told that the row fell and not yet that it returned.
    """

    state: int
    since_ms: int
    last_t_ms: int
    ttl_ms: int
    silence_from_ms: int
    before_window: int = NEW


class Heard(NamedTuple):
    """A beat was accepted. `ttl_ms` is its own."""

    t_ms: int
    ttl_ms: int
    stopping: bool


class Silent(NamedTuple):
    """The row's deadline lies before `judged_ms`, up to which all that was received has been applied.

    `basis_ms`: the last beat the judge saw. `held`: no DOWN and no LOST now (grace, DEGRADED).
    `down_since_ms`: when the row's coverage ended, our own faults left out (LIVENESS.md 4).
    """

    basis_ms: int
    judged_ms: int
    held: bool
    down_since_ms: int


class WindowOpened(NamedTuple):
    at_ms: int


class WindowClosed(NamedTuple):
    at_ms: int


NodeChange = Heard | Silent | WindowOpened | WindowClosed


class Raised(NamedTuple):
    """An event to be told: of this kind, since then."""

    kind: str
    since_ms: int


class SlotState(NamedTuple):
    """A workload's health: what is confirmed, and since when beats say otherwise (0: they do not)."""

    health: int
    turning_ms: int


class Said(NamedTuple):
    """An accepted beat spoke of the workload. `kind` is the BASE_* code, absent being unhealthy."""

    kind: int
    t_ms: int
    ttl_ms: int


def deadline_of(node: NodeState) -> int:
    """When silence makes something of the row next; NO_DEADLINE when nothing does."""
    if node.state == UP:
        return node.silence_from_ms + node.ttl_ms
    if node.state == SUSPECT:
        return node.silence_from_ms + down_after_ms(node.ttl_ms)
    if node.state == DOWN:
        return node.silence_from_ms + lost_after_ms(node.ttl_ms)
    return NO_DEADLINE


def step_node(node: NodeState, change: NodeChange) -> tuple[NodeState, tuple[Raised, ...]]:
    """The row after the change, and what is to be told (LIVENESS.md 4, the table of transitions)."""
    match change:
        case Heard():
            return _heard(node, change)
        case Silent():
            return _silent(node, change)
        case WindowOpened(at_ms):
            if node.state == MAINTENANCE:
                return node, ()
            before = before_window(node.state, node.before_window)
            return node._replace(state=MAINTENANCE, since_ms=at_ms, before_window=before), ()
        case WindowClosed(at_ms):
            return _window_closed(node, at_ms), ()


def before_window(state: int, last: int) -> int:
    """What to remember of a row whose window opens; `last`: what was remembered of the window before.

    One that fell, and was taken for UP after that window without having beaten, is still one that fell.
    """
    return last if state in (UP, SUSPECT) and last in FALLEN else state


def _heard(node: NodeState, beat: Heard) -> tuple[NodeState, tuple[Raised, ...]]:
    heard = node._replace(
        last_t_ms=beat.t_ms, ttl_ms=beat.ttl_ms, silence_from_ms=max(beat.t_ms, node.silence_from_ms)
    )
    if beat.stopping:
        if STOPPED in (node.state, node.before_window if node.state == MAINTENANCE else UP):
            return heard, ()  # told already
        heard = heard._replace(before_window=UP)
        return heard._replace(state=STOPPED, since_ms=beat.t_ms), (Raised("node.stopped", beat.t_ms),)
    # A window hides a fall from nobody who was told of it: they are told of the return, in it or after it.
    fallen = node.state in FALLEN or node.before_window in FALLEN
    raised = (Raised("node.up", beat.t_ms),) if fallen else ()
    heard = heard._replace(before_window=UP)
    if node.state not in (UP, MAINTENANCE):
        heard = heard._replace(state=UP, since_ms=beat.t_ms, silence_from_ms=beat.t_ms)
    return heard, raised


def _silent(node: NodeState, silence: Silent) -> tuple[NodeState, tuple[Raised, ...]]:
    if node.last_t_ms != silence.basis_ms:
        return node, ()  # a beat came in between
    raised: list[Raised] = []
    while deadline_of(node) <= silence.judged_ms:
        if node.state == UP:
            node = node._replace(state=SUSPECT, since_ms=deadline_of(node))
        elif silence.held:
            break
        elif node.state == SUSPECT:
            node = node._replace(state=DOWN, since_ms=silence.down_since_ms)
            raised.append(Raised("node.down", silence.down_since_ms))
        else:
            node = node._replace(state=LOST, since_ms=deadline_of(node))
    return node, tuple(raised)


def _window_closed(node: NodeState, at_ms: int) -> NodeState:
    """After a window deadlines start afresh; who never beat, or had stopped and is still, stays so."""
    if node.state != MAINTENANCE:
        return node
    if node.before_window in (NEW, STOPPED):
        return node._replace(state=node.before_window, since_ms=at_ms)
    return node._replace(state=UP, since_ms=at_ms, silence_from_ms=max(at_ms, node.last_t_ms))


def step_workload(workload: SlotState, said: Said) -> tuple[SlotState, tuple[Raised, ...]]:
    """The workload's health after a beat: it flips when two beats far enough apart agree (LIVENESS.md 4)."""
    if said.kind == BASE_UPDATING:
        return workload, ()  # neither counts nor resets
    says = WELL if said.kind == BASE_UP else ILL
    if says == workload.health:
        return workload._replace(turning_ms=0), ()
    if workload.health == UNKNOWN and says == WELL:
        return SlotState(WELL, 0), ()  # the initial healthy raises nothing
    if workload.turning_ms == 0:
        return workload._replace(turning_ms=said.t_ms), ()
    if said.t_ms < workload.turning_ms + flip_apart_ms(said.ttl_ms):
        return workload, ()
    kind = "workload.up" if says == WELL else "workload.down"
    return SlotState(says, 0), (Raised(kind, workload.turning_ms),)


def holding_gap_end(gaps: tuple[Gap, ...]) -> int:
    """The end of the latest gap that holds back verdicts: one of kernel drops holds back none. 0: none."""
    return max((gap.to_ms for gap in gaps if gap.cause != "drops"), default=0)
