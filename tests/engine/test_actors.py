"""Supervised actors: woken by change alone, restarted alone, set aside alone, gone when nothing waits."""

from __future__ import annotations

import gc
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.actors import Actor, Actors
from engine.core.records import BASE_UNHEALTHY, BASE_UP
from engine.core.step import DOWN, UP, Heard, Said, SlotState, step_workload
from engine.decisions import Decisions
from engine.rows import apply_spec
from engine.settings import LivenessSettings
from engine.table import Table
from tests.engine.rows_world import SECRETS, T0, beat, beats, spec, table

TTL = 90_000
HOUR_MS = 3_600_000


def heard(row: int, at: int = 0, *, stopping: bool = False) -> tuple[int, Heard]:
    return row, Heard(T0 + at, TTL, stopping)


def said(slot: int, kind: int, at: int = 0, *, ttl_ms: int = TTL) -> tuple[int, Said]:
    return slot, Said(kind, T0 + at, ttl_ms)


def stops(change: Any) -> bool:
    return isinstance(change, Heard) and change.stopping


class Recorder:
    """Decides nothing, remembers what it was asked, and crashes where it is told to."""

    def __init__(self) -> None:
        self.nodes: dict[int, list[Any]] = defaultdict(list)
        self.slots: dict[int, list[Any]] = defaultdict(list)
        self.cooled: list[int] = []
        self.poison: Callable[[Any], bool] = lambda _change: False
        self.meanwhile: Callable[[], None] = lambda: None

    def node(self, index: int, change: Any) -> int:
        self.meanwhile()
        if self.poison(change):
            raise ValueError("poisoned")
        self.nodes[index].append(change)
        return UP

    def workload(self, slot: int, change: Any) -> None:
        if self.poison(change):
            raise ValueError("poisoned")
        self.slots[slot].append(change)

    def cool(self, index: int) -> None:
        self.cooled.append(index)


class Scene:
    """Actors that run, and what they tell."""

    def __init__(self, rows: Table, decider: Any, settings: LivenessSettings) -> None:
        self.rows, self.decider = rows, decider
        self.now_ms = T0
        self.crashes: list[tuple[str, str, bool]] = []
        self.slices = 0
        self.actors = Actors(rows, decider, settings, now_ms=lambda: self.now_ms, crashed=self._crashed)

    def _crashed(self, actor: Actor, error: BaseException, aside: bool) -> None:
        self.crashes.append((repr(actor).split(":")[0], str(error), aside))

    def count_slice(self) -> None:
        self.slices += 1

    async def tell(self, *changes: tuple[int, Any]) -> None:
        """Tell, and wait until all is decided."""
        self.actors.tell(
            [each for each in changes if isinstance(each[1], Heard)],
            [each for each in changes if isinstance(each[1], Said)],
        )
        await wait_all_tasks_blocked()


@asynccontextmanager
async def running(
    rows: Table | None = None, decider: Any = None, *, begin: bool = True, **settings: Any
) -> AsyncIterator[Scene]:
    scene = Scene(rows or table(), decider or Recorder(), LivenessSettings(**settings))
    async with trio.open_nursery() as nursery:
        if begin:
            nursery.start_soon(scene.actors.run, scene.count_slice)
            await wait_all_tasks_blocked()
        yield scene
        nursery.cancel_scope.cancel()


async def test_only_those_are_woken_to_whom_something_changed():
    async with running() as scene:
        await scene.tell(heard(2), said(2, BASE_UP))
        assert dict(scene.decider.nodes) == {2: [heard(2)[1]]}
        assert dict(scene.decider.slots) == {2: [said(2, BASE_UP)[1]]}
        assert scene.actors.statistics().started == 2


async def test_a_passivated_actor_is_activated_by_the_next_change_and_leaves_nothing_behind():
    async with running() as scene:
        for turn in range(50):
            await scene.tell(*(heard(row, turn) for row in range(4)), said(1, BASE_UP, turn))
        figures = scene.actors.statistics()
        assert (figures.live, figures.queued, figures.passive) == (0, 0, 4)
        assert figures.started == figures.passivated == 250
        assert not scene.actors._nodes
        assert not scene.actors._workloads
        assert not scene.actors._pending
        assert not scene.actors._watched
        assert scene.actors.settled()


async def test_in_live_mode_every_node_and_workload_has_a_task_and_a_node_of_one_workload_is_one():
    rows = table(3)
    apply_spec(rows, spec(3, workloads=1), SECRETS)
    apply_spec(rows, spec(4, workloads=5), SECRETS)
    async with running(rows, passivate=False) as scene:
        await scene.actors.start_all()
        gc.unfreeze()
        await wait_all_tasks_blocked()
        assert scene.actors.live == 3 * (1 + 2) + 1 + (1 + 5)
        await scene.tell(heard(3), said(int(rows.row.slot_base[3]), BASE_UP))
        await scene.tell(heard(3, 1), said(int(rows.row.slot_base[4]), BASE_UP))
        figures = scene.actors.statistics()
        assert figures.live == 16, "they park again"
        assert (figures.started, figures.passivated) == (16, 0)
        assert len(scene.decider.nodes[3]) == 2
        assert sum(map(len, scene.decider.slots.values())) == 2


async def test_a_node_of_one_workload_decides_for_both():
    rows = table(2, workloads=1)
    async with running(rows) as scene:
        await scene.tell(heard(1), said(1, BASE_UNHEALTHY))
        assert scene.decider.nodes[1] == [heard(1)[1]]
        assert scene.decider.slots[1] == [said(1, BASE_UNHEALTHY)[1]]
        assert scene.actors.statistics().started == 1


async def test_actors_are_woken_in_slices_with_room_for_others_in_between():
    async with running(table(100), wake_slice=10, begin=False) as scene:
        decided: list[int] = []
        scene.actors.tell([heard(row) for row in range(100)], [])

        def after() -> None:
            decided.append(sum(map(len, scene.decider.nodes.values())))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.actors.run, after)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert decided[:10] == [10 * number for number in range(1, 11)]


async def test_a_full_mailbox_folds_beats_that_say_the_same_and_counts_them():
    async with running(mailbox_max=4) as scene:
        await scene.tell(*(heard(1, at) for at in range(100)))
        assert scene.decider.nodes[1][:2] == [heard(1, 0)[1], heard(1, 1)[1]]
        assert scene.decider.nodes[1][-1] == heard(1, 99)[1]
        assert len(scene.decider.nodes[1]) == 4
        assert scene.actors.statistics().folded == 96
        assert scene.actors.settled()


async def test_a_stop_is_never_folded_away():
    async with running(mailbox_max=2) as scene:
        changes = [heard(1, at, stopping=at % 3 == 0) for at in range(30)]
        await scene.tell(*changes)
        stops = [change for _, change in changes if change.stopping]
        assert [change for change in scene.decider.nodes[1] if change.stopping] == stops


@pytest.mark.parametrize("seed", range(30))
async def test_folding_loses_no_decision(seed: int):
    rng = random.Random(seed)
    at, says = 0, []
    for _ in range(rng.randrange(5, 60)):
        kind = rng.choice((BASE_UP, BASE_UNHEALTHY))
        for _ in range(rng.randrange(1, 9)):
            at += rng.randrange(1, 40_000)
            says.append(said(2, kind, at, ttl_ms=rng.choice((TTL, TTL, 150_000))))

    def told_of(each: list[Said]) -> tuple[SlotState, list[Any]]:
        state, raised = SlotState(0, 0), []
        for say in each:
            state, new = step_workload(state, say)
            raised.extend(new)
        return state, raised

    async with running(mailbox_max=rng.randrange(1, 6)) as scene:
        await scene.tell(*says)
        assert told_of(scene.decider.slots[2]) == told_of([say for _, say in says])


@pytest.mark.parametrize("passivate", [True, False])
async def test_an_actor_that_crashes_is_restarted_alone_and_its_siblings_notice_nothing(passivate: bool):
    async with running(passivate=passivate) as scene:
        if not passivate:
            await scene.actors.start_all()
            gc.unfreeze()
        scene.decider.poison = lambda change: change.t_ms == T0 + 51
        await scene.tell(*(heard(row, 10 * at + row) for at in range(10) for row in range(4)))
        assert [len(scene.decider.nodes[row]) for row in range(4)] == [10, 9, 10, 10]
        assert [change.t_ms - T0 for change in scene.decider.nodes[1]] == [1, 11, 21, 31, 41, 61, 71, 81, 91]
        assert scene.crashes == [("<node 1", "poisoned", False)]
        await scene.tell(heard(1, 200))
        assert scene.decider.nodes[1][-1] == heard(1, 200)[1]
        assert scene.actors.settled()
        assert scene.actors.live == (0 if passivate else 12)


async def test_an_actor_that_crashes_goes_on_with_the_state_the_table_holds():
    rows = table()
    decisions = Decisions(rows)
    rows.row.state[1] = DOWN
    crash = iter([True])
    inner = decisions.node

    def node(index: int, change: Any) -> int:
        if next(crash, False):
            raise ValueError("once")
        return inner(index, change)

    decisions.node = node  # type: ignore[method-assign]
    async with running(rows, decisions) as scene:
        applied = rows.apply(beat(1, T0))
        scene.actors.tell(applied.heard, applied.said)
        await wait_all_tasks_blocked()
        assert rows.row.state[1] == DOWN
        assert rows.row.last_t_ms[1] == T0, "the beat is credited all the same"
        assert rows.row.hot[1], "the next beat is a change again"
        applied = rows.apply(beat(1, T0 + 60_000))
        scene.actors.tell(applied.heard, applied.said)
        await wait_all_tasks_blocked()
        assert rows.row.state[1] == UP
        assert decisions.raised["node.up"] == 1


async def test_one_that_keeps_crashing_is_set_aside_within_intensity_and_period_and_told_once():
    async with running(restart_intensity=3, restart_period_s=60.0) as scene:
        scene.decider.poison = stops
        for at in range(10):
            await scene.tell(heard(1, at, stopping=True), heard(2, at), said(3, BASE_UP, at))
        assert [aside for _, _, aside in scene.crashes] == [False, False, False, True]
        assert len(scene.decider.nodes[2]) == len(scene.decider.slots[3]) == 10
        figures = scene.actors.statistics()
        assert (figures.crashes, figures.quarantined) == (4, 1)
        assert scene.actors.set_aside() == [1]
        assert scene.actors.settled(), "nothing waits for one that is set aside"


async def test_crashes_far_apart_set_nobody_aside(autojump_clock: MockClock):
    async with running(restart_intensity=2, restart_period_s=60.0) as scene:
        scene.decider.poison = lambda change: True
        for at in range(20):
            await scene.tell(heard(1, at))
            await trio.sleep(31)
        assert len(scene.crashes) == 20
        assert not any(aside for _, _, aside in scene.crashes)


async def test_its_beats_are_credited_while_it_is_set_aside():
    rows = table()
    decisions = Decisions(rows)
    inner = decisions.node

    def node(index: int, change: Any) -> int:
        if index == 1:
            raise ValueError("always")
        return inner(index, change)

    decisions.node = node  # type: ignore[method-assign]
    async with running(rows, decisions, restart_intensity=1) as scene:
        for minute in range(5):
            applied = rows.apply(beats(beat(1, T0 + minute * 60_000), beat(2, T0 + minute * 60_000)))
            scene.actors.tell(applied.heard, applied.said)
            await wait_all_tasks_blocked()
        assert scene.actors.set_aside() == [1]
        base = int(rows.row.slot_base[1])
        assert rows.row.last_t_ms[1] == T0 + 4 * 60_000
        assert rows.slot.kind[base : base + 2].tolist() == [BASE_UP, BASE_UP]
        assert rows.slot.started_ms[base] == T0
        assert len(rows.take_closed()) == 0
        assert rows.row.state[2] == UP


async def test_after_an_hour_it_is_let_out_and_leaves_nothing_behind(autojump_clock: MockClock):
    async with running(restart_intensity=1, quarantine_s=3_600.0) as scene:
        scene.decider.poison = stops
        for at in range(5):
            await scene.tell(heard(1, at, stopping=True))
        assert scene.actors.forgive(T0 + HOUR_MS - 1) == []
        assert scene.actors.forgive(T0 + HOUR_MS) == [1]
        assert scene.actors.set_aside() == []
        assert not scene.actors._nodes
        await scene.tell(heard(1, HOUR_MS))
        assert scene.decider.nodes[1] == [heard(1, HOUR_MS)[1]]
        assert not scene.actors._watched


async def test_crashes_long_past_are_forgotten(autojump_clock: MockClock):
    async with running(restart_period_s=60.0) as scene:
        scene.decider.poison = stops
        await scene.tell(heard(1, 0, stopping=True), said(2, BASE_UP))
        assert scene.actors.forgive(T0) == []
        assert len(scene.actors._watched) == 1
        await trio.sleep(61)
        assert scene.actors.forgive(T0) == [], "it was never set aside"
        assert not scene.actors._watched
        assert not scene.actors._nodes


async def test_a_workload_that_keeps_crashing_does_not_stop_its_node():
    async with running(restart_intensity=1) as scene:
        scene.decider.poison = lambda change: isinstance(change, Said)
        for at in range(5):
            await scene.tell(heard(1, at), said(2, BASE_UNHEALTHY, at))
        assert len(scene.decider.nodes[1]) == 5
        assert scene.actors.set_aside() == []
        assert scene.actors.statistics().quarantined == 1


async def test_a_row_is_cooled_when_all_its_changes_are_decided_even_those_that_crashed():
    async with running() as scene:
        scene.decider.poison = lambda change: isinstance(change, Said)
        await scene.tell(heard(1), said(2, BASE_UP), said(3, BASE_UP), heard(2))
        assert sorted(scene.decider.cooled) == [1, 2]


async def test_a_stop_leaves_no_dead_task_to_be_woken():
    """What is told after the first run was cancelled is decided by the second."""
    async with running(passivate=False, begin=False) as scene:
        for turn in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scene.actors.run, scene.count_slice)
                await scene.tell(*(heard(row, turn) for row in range(4)))
                nursery.cancel_scope.cancel()
            assert scene.actors.live == 0
        assert all(len(scene.decider.nodes[row]) == 3 for row in range(4))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("passivate", [True, False])
async def test_changes_of_one_actor_are_decided_in_the_order_in_which_they_were_told(
    seed: int, passivate: bool
):
    """Also those told while it decides or passivates, and with slices that cut in between."""
    rng = random.Random(seed)
    count = [0] * 4
    async with running(wake_slice=rng.randrange(1, 4), passivate=passivate, mailbox_max=10_000) as scene:

        def tell_some() -> None:
            if sum(count) < 400 and rng.random() < 0.7:
                rows = [rng.randrange(4) for _ in range(rng.randrange(1, 3))]
                changes = []
                for row in rows:
                    changes.append(heard(row, count[row]))
                    count[row] += 1
                scene.actors.tell(changes, [])

        scene.decider.meanwhile = tell_some
        for _ in range(200):
            tell_some()
            for _ in range(rng.randrange(3)):
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        for row in range(4):
            order = [change.t_ms - T0 for change in scene.decider.nodes[row]]
            assert order == list(range(count[row]))
        if passivate:
            assert not scene.actors._nodes
        assert scene.actors.settled()


@pytest.mark.parametrize("workloads", [1, 2])
async def test_what_waits_to_be_decided_follows_a_row_whose_slots_move(workloads: int):
    rows = table(2, workloads=workloads)
    decisions = Decisions(rows)
    slots = (1 << workloads) - 1
    async with running(rows, decisions, begin=False) as scene:
        for minute in range(2):
            told = rows.apply(beat(0, T0 + minute * 60_000, plane0=0, plane1=slots, slots=slots))
            scene.actors.tell(told.heard, told.said)
        before = int(rows.row.slot_base[0])
        apply_spec(rows, spec(0, workloads=workloads + 3), SECRETS)
        base = int(rows.row.slot_base[0])
        assert base != before
        told = rows.apply(beat(0, T0 + 120_000, plane0=slots, plane1=0, slots=slots))
        scene.actors.tell(told.heard, told.said)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.actors.run, scene.count_slice)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not scene.crashes
        assert scene.actors.settled()
        assert rows.slot.health[base : base + workloads + 3].tolist() == [2] * workloads + [0] * 3
        assert rows.slot.turning_ms[base : base + workloads].tolist() == [T0 + 120_000] * workloads
        assert decisions.raised["workload.down"] == workloads


async def test_a_mass_of_rows_neither_grows_anything_nor_is_forgotten():
    rows = table(2_000, workloads=1)
    decisions = Decisions(rows)
    async with running(rows, decisions, wake_slice=300) as scene:
        for minute in range(3):
            applied = rows.apply(beats(*(beat(row, T0 + minute * 60_000, slots=1) for row in range(2_000))))
            scene.actors.tell(applied.heard, applied.said)
            await wait_all_tasks_blocked()
        assert (rows.row.state[:2_000] == UP).all()
        assert not rows.row.hot[:2_000].any(), "quiet beats are no changes any more"
        assert scene.actors.statistics().started == 2_000
        assert not scene.actors._nodes
