"""Runs the pure step against the table and gathers what follows from it: verdicts, events, closed rows.

The actors call `node` and `workload`; what they decide is collected and goes to the journal in `drain`, once
per slice. A replay calls the same two functions for the beats it applies, and `replay_verdicts` for what was
decided of silence: it never judges again (LIVENESS.md 3).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from engine.core.beats import VERDICT_DTYPE
from engine.core.records import SAY_LOST, Event, event_id
from engine.core.step import (
    DOWN,
    FALLEN,
    LOST,
    MAINTENANCE,
    NEW,
    STOPPED,
    SUSPECT,
    UP,
    Heard,
    NodeChange,
    NodeState,
    Raised,
    Said,
    SlotState,
    WindowClosed,
    before_window,
    deadline_of,
    step_node,
    step_workload,
)
from engine.journal_blocks import Kind
from engine.rows import node_id, workload_id, workload_ids
from engine.standing import let_go
from engine.table import Table

Array = npt.NDArray[Any]

_CANARY = 2  # in the table's `check` column


class Appends(Protocol):
    """Takes blocks, as `engine.journal.Journal` does."""

    def append(self, kind: Kind, t_ms: int, payload: bytes) -> object: ...


class DecisionStatistics(NamedTuple):
    events: dict[str, int]
    transitions: dict[int, int]  # by the state reached


class Decisions:
    """What is decided of one shard's nodes and workloads."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.now_ms = 0  # of the present slice or replayed block: when events are raised
        self._events: list[Event] = []
        self._verdicts: list[tuple[int, int, tuple[int, int, int], int, int, int]] = []
        self._fallen: list[int] = []
        self.raised: Counter[str] = Counter()
        self.reached: Counter[int] = Counter()

    def node(self, index: int, change: NodeChange) -> int:
        """Run one change of a row through the step; its state afterwards."""
        rows = self.table.row
        before = NodeState(
            int(rows.state[index]),
            int(rows.since_ms[index]),
            int(rows.last_t_ms[index]),
            int(rows.ttl_ms[index]),
            self.silence_from(index),
            int(rows.before_window[index]),
        )
        after, raised = step_node(before, change)
        if isinstance(change, WindowClosed):
            rows.window_end_ms[index] = after.silence_from_ms
        if after.state != before.state:
            self._enter(index, after)
            if not isinstance(change, Heard):
                self._verdicts.append(
                    (
                        self.table.number_of(index),
                        after.state,
                        (0, 0, 0),
                        before.last_t_ms,
                        after.since_ms,
                        int(rows.window_end_ms[index]),
                    )
                )
        rows.before_window[index] = after.before_window
        self._set_deadline(index)
        for event in raised:
            self._raise_node(index, event)
        return after.state

    def _enter(self, index: int, after: NodeState) -> None:
        rows = self.table.row
        rows.state[index] = after.state
        rows.since_ms[index] = after.since_ms
        self.reached[after.state] += 1
        self.table.touch(index)
        if after.state in (SUSPECT, DOWN, LOST):
            self._fallen.append(index)
        if after.state == LOST:
            let_go(self.table, index, int(rows.licensed[index]), after.since_ms, SAY_LOST)
        if after.state != UP:
            rows.hot[index] = 1

    def _set_deadline(self, index: int) -> None:
        rows = self.table.row
        silence_from = self.silence_from(index)
        state, ttl = int(rows.state[index]), int(rows.ttl_ms[index])
        if state == MAINTENANCE:
            # Nobody is judged in a window, but the judge ends what the last beat vouched for.
            rows.deadline_ms[index] = int(rows.last_t_ms[index]) + ttl
        else:
            rows.deadline_ms[index] = deadline_of(NodeState(state, 0, 0, ttl, silence_from))

    def silence_from(self, index: int) -> int:
        """Silence is counted from the last beat applied, or from the end of a window after it."""
        return max(int(self.table.row.last_t_ms[index]), int(self.table.row.window_end_ms[index]))

    def workload(self, slot: int, said: Said) -> None:
        """Run one beat's say on a workload through the step."""
        slots = self.table.slot
        before = SlotState(int(slots.health[slot]), int(slots.turning_ms[slot]))
        after, raised = step_workload(before, said)
        slots.health[slot], slots.turning_ms[slot] = after
        for event in raised:
            self._raise_workload(slot, event)

    def cool(self, index: int) -> None:
        """Every change of the row was decided: quiet beats need not be told any more, if nothing is open."""
        rows = self.table.row
        base, count = int(rows.slot_base[index]), int(rows.slot_count[index])
        rows.counting[index] = self.table.slot.turning_ms[base : base + count].any()
        # Not UP; or people wait to be told that it is back; or its newest session has not been heard.
        waits = rows.state[index] != UP or int(rows.before_window[index]) in FALLEN
        rows.hot[index] = waits or self.table.session_unheard(index)

    def _raise_node(self, index: int, raised: Raised) -> None:
        if self.table.row.check[index] == _CANARY:
            return
        node = node_id(self.table, index)
        workloads = workload_ids(self.table, index)
        self._raise(raised, index, node, None, workloads, node)

    def _raise_workload(self, slot: int, raised: Raised) -> None:
        index = int(self.table.slot.row_index[slot])
        number = slot - int(self.table.row.slot_base[index])
        retired = not int(self.table.row.slots_now[index]) >> number & 1
        if retired or self.table.row.check[index] == _CANARY:
            return
        workload = workload_id(self.table, slot)
        self._raise(raised, index, node_id(self.table, index), workload, (workload,), workload)

    def _raise(
        self,
        raised: Raised,
        index: int,
        node: str,
        workload: str | None,
        workloads: tuple[str, ...],
        subject: str,
        *,
        detail: str = "",
    ) -> None:
        self.raised[raised.kind] += 1
        self._events.append(
            Event(
                event_id=event_id(raised.kind, subject, raised.since_ms),
                kind=raised.kind,
                shard=self.table.shard,
                project_id=self.table.project_of(index),
                node_id=node,
                workload_id=workload,
                since_ms=raised.since_ms,
                at_ms=self.now_ms,
                workloads=workloads,
                detail=detail,
            )
        )

    def clone(self, index: int, since_ms: int, at_ms: int, detail: str) -> None:
        """Two runs on one node key, as far as can be told from outside (LIVENESS.md 5)."""
        self.now_ms = max(self.now_ms, at_ms)
        if self.table.row.check[index] != _CANARY:
            node = node_id(self.table, index)
            workloads = workload_ids(self.table, index)
            raised = Raised("node.clone", since_ms)
            self._raise(raised, index, node, None, workloads, node, detail=detail)

    def gap_event(self, kind: str, cause: str, since_ms: int, at_ms: int, detail: str) -> None:
        """For engine.gap_news: two gaps of different causes that begin together are two."""
        self.now_ms = max(self.now_ms, at_ms)
        self.installation_event(kind, since_ms, detail, about=f"shard-{self.table.shard} {cause}")

    def installation_event(self, kind: str, since_ms: int, detail: str, *, about: str = "") -> None:
        """An event for the operator of the installation: of the shard, unless `about` names another id."""
        self.raised[kind] += 1
        subject = about or f"shard-{self.table.shard}"
        self._events.append(
            Event(
                event_id=event_id(kind, subject, since_ms),
                kind=kind,
                shard=self.table.shard,
                project_id=None,
                node_id=None,
                workload_id=None,
                since_ms=since_ms,
                at_ms=self.now_ms,
                detail=detail,
            )
        )

    def close_fallen(self) -> None:
        """Close the base rows of rows that fell silent since the last call."""
        if self._fallen:
            fallen, self._fallen = np.array(self._fallen, np.int64), []
            self.table.close_silent(fallen)

    def drain(self, journal: Appends, now_ms: int) -> None:
        """Hand everything decided, and everything the table closed, to the journal."""
        self.close_fallen()
        if self._verdicts:
            verdicts = np.array(self._verdicts, VERDICT_DTYPE)
            journal.append(Kind.VERDICTS, now_ms, verdicts.tobytes())
            self._verdicts = []
        closed = self.table.take_closed()
        if len(closed):
            journal.append(Kind.INTERVALS, now_ms, closed.tobytes())
        reports = self.table.take_first_reports()
        if len(reports):
            journal.append(Kind.FIRST_REPORTS, now_ms, reports.tobytes())
        says = self.table.take_says()
        if len(says):
            journal.append(Kind.SAYS, now_ms, says.tobytes())
        if self._events:
            journal.append(Kind.EVENTS, now_ms, msgspec.msgpack.encode(self._events))
            self._events = []

    def replay_verdicts(self, verdicts: Array) -> None:
        """Apply what was decided of silence and windows before a crash.

        A verdict overtaken by a beat that was being committed when it was given does not hold; then the
        row is up again, and if people were told that it is down they are told that it is back. What people
        are told of silence is raised once more: it may have been cut off behind the verdict.
        """
        rows = self.table.row
        for record in verdicts:
            index = self.table.index_of(int(record["row"]))
            state, current = int(record["state"]), int(rows.state[index])
            basis_ms, since_ms = int(record["basis_ms"]), int(record["since_ms"])
            windowed = MAINTENANCE in (state, current)
            if state == DOWN:
                self._raise_node(index, Raised("node.down", since_ms))
            if not windowed and int(rows.last_t_ms[index]) != basis_ms:
                if current == UP and rows.since_ms[index] <= max(basis_ms, int(record["window_end_ms"])):
                    rows.since_ms[index] = rows.last_t_ms[index]  # it returned with the beat that overtook
                if state in (DOWN, LOST) and current == UP:
                    self._raise_node(index, Raised("node.up", int(rows.since_ms[index])))
                continue
            if current == MAINTENANCE and state in (NEW, STOPPED) and rows.before_window[index] == UP:
                # The window closed while a first beat was being committed: that came after it.
                state, since_ms = UP, int(rows.last_t_ms[index])
            if state == MAINTENANCE and current != MAINTENANCE:
                rows.before_window[index] = before_window(current, int(rows.before_window[index]))
            rows.window_end_ms[index] = max(int(record["window_end_ms"]), int(rows.window_end_ms[index]))
            self._enter(index, NodeState(state, since_ms, 0, 0, 0))
            self._set_deadline(index)
        self.close_fallen()

    def statistics(self) -> DecisionStatistics:
        return DecisionStatistics(dict(self.raised), dict(self.reached))
