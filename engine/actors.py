"""The actors: one task per node and per workload, woken only by change, under one supervisor.

An actor waits for changes and hands each to `Decisions`, nothing more. It is parked in trio itself
(`wait_task_rescheduled`): a task and no channel, because a channel per actor would cost more than the task.
Changes are told at once and actors woken in slices, so that a mass outage never stalls the loop. An actor
with nothing pending may be passivated: its task ends, its state stays in the table.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
import trio

from engine.core.step import Heard, NodeChange, Said
from engine.core.timing import SLOTS_MAX
from engine.pulse import Pulse
from engine.settings import LivenessSettings
from engine.table import Table

Change = NodeChange | Said
_STARTED_AT_ONCE = 4_096  # actors started before the loop gets a turn


class Decider(Protocol):
    """What actors do with a change (`engine.decisions.Decisions`)."""

    def node(self, index: int, change: NodeChange) -> int: ...
    def workload(self, slot: int, said: Said) -> None: ...
    def cool(self, index: int) -> None: ...


class Actor:
    """One node's (slot -1) or workload's mailbox and, while it lives, its parked task.

    `slot` is the number in the row: where the table keeps it may change when the row gets a further workload.
    """

    __slots__ = (
        "crashes",
        "folded",
        "inbox",
        "index",
        "live",
        "quarantined_until_ms",
        "queued",
        "slot",
        "task",
    )

    def __init__(self, index: int, slot: int) -> None:
        self.index = index
        self.slot = slot
        self.inbox: deque[Change] | None = None  # made with the first change: most never get one
        self.task: trio.lowlevel.Task | None = None
        self.queued = False
        self.live = False  # its task runs or is parked
        self.folded = 0
        self.crashes: list[float] | None = None
        self.quarantined_until_ms = 0

    def __repr__(self) -> str:
        kind = "node" if self.slot < 0 else f"workload {self.slot} of node"
        return f"<{kind} {self.index}: {'parked' if self.task else 'passive'}>"


class ActorStatistics(NamedTuple):
    live: int
    passive: int
    queued: int
    started: int
    passivated: int
    crashes: int
    quarantined: int
    folded: int


class Actors:
    """The supervisor of a shard's actors: one for one, with intensity, period and quarantine."""

    def __init__(
        self,
        table: Table,
        decider: Decider,
        settings: LivenessSettings,
        *,
        now_ms: Callable[[], int],
        crashed: Callable[[Actor, BaseException, bool], None],
    ) -> None:
        self._table = table
        self._decider = decider
        self._settings = settings
        self._now_ms = now_ms
        self._crashed = crashed
        self._nodes: dict[int, Actor] = {}
        self._workloads: dict[int, Actor] = {}
        self._waking: deque[Actor] = deque()
        self._pending: dict[int, int] = {}  # row index -> changes told and not yet decided
        self._passivate = settings.passivate
        self._nursery: trio.Nursery | None = None
        self._work = Pulse()
        self.live = self._started = self._passivated = self._crashes = self._folded = 0
        self._watched: set[Actor] = set()  # those that crashed lately or are set aside

    # -- telling ------------------------------------------------------------------------------------

    def tell(self, heard: Iterable[tuple[int, NodeChange]], said: Iterable[tuple[int, Said]]) -> None:
        """Put changes into mailboxes. The actors are woken by `wake_slice`."""
        for index, change in heard:
            self._put(self._nodes.get(index) or self._new_node(index), index, change)
        if said:
            owners = self._table.slot.row_index
            bases = self._table.row.slot_base
            for place, spoken in said:
                index = int(owners[place])
                self._put(self._of_workload(index, place - int(bases[index])), index, spoken)
        if self._waking:
            self._work.give()

    def _new_node(self, index: int) -> Actor:
        actor = self._nodes[index] = Actor(index, -1)
        return actor

    def _new_workload(self, index: int, slot: int) -> Actor:
        actor = self._workloads[index * SLOTS_MAX + slot] = Actor(index, slot)
        return actor

    def _of_workload(self, index: int, slot: int) -> Actor:
        """A node of one workload is one task; what that still has to decide of it comes first."""
        node = self._nodes.get(index)
        if self._table.row.slot_count[index] == 1 or (slot == 0 and node is not None and _has_said(node)):
            return node or self._new_node(index)
        return self._workloads.get(index * SLOTS_MAX + slot) or self._new_workload(index, slot)

    def _put(self, actor: Actor, index: int, change: Change) -> None:
        if actor.quarantined_until_ms:
            return
        if actor.inbox is None:
            actor.inbox = deque()
        if len(actor.inbox) >= self._settings.mailbox_max and self._fold(actor.inbox, change):
            actor.folded += 1
            self._folded += 1
            return
        actor.inbox.append(change)
        self._pending[index] = self._pending.get(index, 0) + 1
        if not actor.queued:
            actor.queued = True
            self._waking.append(actor)

    @staticmethod
    def _fold(inbox: deque[Change], change: Change) -> bool:
        """A full mailbox: of beats that say the same one after the other the first and the last are kept.

        The first is the `since` of what is decided, the last may decide it. Nothing else is ever dropped.
        """
        if len(inbox) < 2 or not (_alike(inbox[-2], change) and _alike(inbox[-1], change)):
            return False
        inbox[-1] = change
        return True

    # -- running ------------------------------------------------------------------------------------

    async def run(
        self,
        after_slice: Callable[[], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Wake actors as changes come, `wake_slice` per turn of the loop; `after_slice` after each.

        Started once actors can be.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                while not self._waking:
                    await self._work.wait()
                self._wake_slice()
                # All the woken have run once two turns have passed: trio shuffles the tasks of a turn.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                after_slice()

    def _wake_slice(self) -> None:
        for _ in range(min(len(self._waking), self._settings.wake_slice)):
            actor = self._waking.popleft()
            actor.queued = False
            if actor.task is not None:
                task, actor.task = actor.task, None
                trio.lowlevel.reschedule(task)
            elif not actor.live:
                self.start(actor)

    def start(self, actor: Actor) -> None:
        """Start (or activate) an actor's task."""
        assert self._nursery is not None
        self._started += 1
        self.live += 1
        actor.live = True
        self._nursery.start_soon(self._life, actor)

    async def start_all(self) -> None:
        """Start an actor for every node and workload in the table, to be parked until something changes.

        The collector rests meanwhile: it would walk all that was made so far again and again. Afterwards
        it is told to leave this lasting population alone, or each full collection were a stall.
        """
        rows = self._table.row
        gc.disable()
        try:
            for index in np.flatnonzero(rows.known[: self._table.rows]).tolist():
                self.start(self._nodes.get(index) or self._new_node(index))
                count = int(rows.slot_count[index])
                for slot in range(count if count > 1 else 0):
                    actor = self._workloads.get(index * SLOTS_MAX + slot)
                    self.start(actor or self._new_workload(index, slot))
                if self._started % _STARTED_AT_ONCE < SLOTS_MAX:
                    await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            gc.freeze()
        finally:
            gc.enable()

    async def passivate_all(self) -> None:
        """End the tasks of all who have nothing to decide, and of the others when they have decided.

        For the stop of a shard in live mode: to cancel a task costs trio ten times what it costs to wake it.
        """
        self._passivate = True
        ending = [actor for actors in (self._nodes, self._workloads) for actor in actors.values()]
        gc.disable()
        try:
            for number, actor in enumerate(ending):
                if actor.task is not None:
                    task, actor.task = actor.task, None
                    trio.lowlevel.reschedule(task)
                if number % _STARTED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()  # the woken of the last turn have run
        finally:
            gc.enable()

    async def _life(self, actor: Actor) -> None:
        """Setup, running, teardown of one actor; a crash ends this task only."""
        try:
            while True:
                if actor.inbox:
                    self._decide(actor)
                if self._passivate:
                    break
                actor.task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(_cancelled)
        except trio.Cancelled:
            self._ended(actor)  # the shard stops; what comes until it has stopped starts the actor anew
            raise
        except Exception as error:  # noqa: BLE001 - the supervisor's: reported, restarted or set aside
            self._ended(actor)
            self._supervise(actor, error)
            return
        self._ended(actor)
        self._passivated += 1
        if actor not in self._watched:
            self._forget(actor)

    def _ended(self, actor: Actor) -> None:
        self.live -= 1
        actor.live, actor.task = False, None

    def _decide(self, actor: Actor) -> None:
        inbox = actor.inbox
        assert inbox is not None
        while inbox:
            change = inbox.popleft()
            try:
                if isinstance(change, Said):
                    place = int(self._table.row.slot_base[actor.index]) + max(actor.slot, 0)
                    self._decider.workload(place, change)
                else:
                    self._decider.node(actor.index, change)
            finally:
                self._decided(actor.index)

    def _decided(self, index: int) -> None:
        left = self._pending[index] - 1
        if left:
            self._pending[index] = left
        else:
            del self._pending[index]
            self._decider.cool(index)

    def _forget(self, actor: Actor) -> None:
        if actor.queued:
            return  # told something again meanwhile: a second actor of its row could decide out of turn
        if actor.slot < 0:
            self._nodes.pop(actor.index, None)
        else:
            self._workloads.pop(actor.index * SLOTS_MAX + actor.slot, None)

    # -- supervision --------------------------------------------------------------------------------

    def _supervise(self, actor: Actor, error: BaseException) -> None:
        """Restart the one that crashed, with the state the table holds; one that keeps crashing is set aside.

        The change that crashed it is not tried again: it would crash it again.
        """
        self._crashes += 1
        now = trio.current_time()
        recent = [at for at in actor.crashes or () if at > now - self._settings.restart_period_s]
        actor.crashes = [*recent, now]
        self._watched.add(actor)
        aside = len(actor.crashes) > self._settings.restart_intensity
        if aside:
            actor.quarantined_until_ms = self._now_ms() + int(self._settings.quarantine_s * 1_000)
            while actor.inbox:
                actor.inbox.popleft()
                self._decided(actor.index)
        self._crashed(actor, error, aside)
        if not aside and not actor.queued:
            self.start(actor)

    def forgive(self, now_ms: int) -> list[int]:
        """Forget crashes that are long past and let out who was set aside; the rows of the latter.

        They start again with their next change, which the caller brings about.
        """
        released: list[int] = []
        for actor in list(self._watched):
            if actor.quarantined_until_ms > now_ms:
                continue
            past = trio.current_time() - self._settings.restart_period_s
            if actor.quarantined_until_ms:
                released.append(actor.index)
            elif actor.crashes and actor.crashes[-1] > past:
                continue
            actor.quarantined_until_ms, actor.crashes = 0, None
            self._watched.discard(actor)
            if not actor.live:
                self._forget(actor)  # one that is queued forgets itself when it has run
        return released

    def set_aside(self) -> list[int]:
        """Rows whose node's actor is set aside: they are not judged; their beats are still credited."""
        return [each.index for each in self._watched if each.slot < 0 and each.quarantined_until_ms]

    def settled(self) -> bool:
        """Whether every change that was told has been decided."""
        return not self._pending

    def statistics(self) -> ActorStatistics:
        rows = self._table
        return ActorStatistics(
            live=self.live,
            passive=rows.rows - len(self._nodes),
            queued=len(self._waking),
            started=self._started,
            passivated=self._passivated,
            crashes=self._crashes,
            quarantined=sum(1 for actor in self._watched if actor.quarantined_until_ms),
            folded=self._folded,
        )


def _has_said(actor: Actor) -> bool:
    return any(isinstance(change, Said) for change in actor.inbox or ())


def _alike(one: Change, other: Change) -> bool:
    if isinstance(one, Heard) and isinstance(other, Heard):
        return one.stopping == other.stopping
    if isinstance(one, Said) and isinstance(other, Said):
        return (one.kind, one.ttl_ms) == (other.kind, other.ttl_ms)
    return False


def _cancelled(_raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED
