"""The engine and the oracle agree, to the millisecond, in random worlds (issue: done when 8)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.compose import OPEN_END, compose
from engine.core.records import BASE_KINDS, BASE_STOPPED, BaseInterval, Window
from tests.sim.engine_world import EngineWorld
from tests.sim.generate import generate
from tests.sim.history import Frame, History, Row, StoreAway
from tests.sim.observed import Answer, BaseRow, Event, Observed
from tests.sim.oracle.check import check
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.violation import Violation
from tests.sim.play import play
from tests.sim.reference import whole_lives
from tests.sim.registry_world import uuid_of

TOLERANCE_MS = 1_000


def history_of(seed: int, *, hours: float = 8.0) -> tuple[History, list[tuple[str, int, int]]]:
    """Leases and claims belong to a later issue: the worlds are played without them.

    The engine reads the drop counter every 250 ms: longer readings are not in the worlds either. A window is
    opened when there is a row to open it for.
    """
    script = generate(seed, hours=hours)
    rows = tuple(_named(replace(row, leases=(), claims=())) for row in script.rows)
    faults = tuple(
        replace(fault, from_ms=max(fault.from_ms, fault.to_ms - 1_000)) if fault.kind == "drops" else fault
        for fault in script.faults
    )
    script = replace(script, rows=rows, faults=faults)
    return play(script), [(uuid_of(q.workload_id), q.from_ms, q.to_ms) for q in script.questions]


def _named(row: Row) -> Row:
    """Ids as the product has them."""
    return replace(
        row,
        node_id=uuid_of(row.node_id),
        project_id=uuid_of(row.project_id),
        slots=tuple(replace(slot, workload_id=uuid_of(slot.workload_id)) for slot in row.slots),
        windows=tuple(
            replace(w, workload_id=w.workload_id and uuid_of(w.workload_id))
            for w in row.windows
            if w.from_ms > _born_ms(row)
        ),
    )


def _born_ms(row: Row) -> int:
    """When all of the row is there, by either clock."""
    return row.slots[0].created_ms + 4_000_000


def observe(history: History, questions: list[tuple[str, int, int]], directory: Path) -> Observed:
    world = EngineWorld(history, directory)
    world.play()
    base, events, gaps, reports = world.outputs()
    open_rows = world.open_rows()
    answers = []
    for workload_id, from_ms, to_ms in [*questions, *whole_lives(Oracle(history, tolerance_ms=TOLERANCE_MS))]:
        row = next(r for r in history.rows for s in r.slots if s.workload_id == workload_id)
        slot = next(s for s in row.slots if s.workload_id == workload_id)
        mine = [_interval(r) for r in base if r.workload_id == workload_id]
        mine += [
            BaseInterval(
                kind=BASE_KINDS.index(r.kind),
                started_ms=r.started_ms,
                ended_ms=OPEN_END if BASE_KINDS.index(r.kind) == BASE_STOPPED else r.last_t_ms + r.ttl_ms,
                ttl_ms=r.ttl_ms,
            )
            for r in open_rows
            if r.workload_id == workload_id
        ]
        composed = compose(
            base=mine,
            gaps=gaps,
            leases=(),
            maintenances=[
                Window("w", w.workload_id, w.from_ms, w.to_ms, w.own)
                for w in row.windows
                if w.workload_id in (None, workload_id)
            ],
            claims=(),
            life=(slot.created_ms, slot.retired_ms),
            first_report=reports.get(workload_id),
            as_of=history.as_of_ms,
            from_ms=from_ms,
            to_ms=to_ms,
        )
        answers.append(
            Answer(
                workload_id=workload_id,
                from_ms=from_ms,
                to_ms=to_ms,
                as_of_ms=history.as_of_ms,
                ms=composed.ms,
                intervals=composed.intervals,
                provisional=composed.provisional,
            )
        )
    return Observed(
        acks=world.acks,
        credited=frozenset(world.credited),
        base_rows=tuple(base),
        open_rows=tuple(open_rows),
        answers=tuple(answers),
        events=tuple(
            Event(
                event_id=e.event_id,
                kind=e.kind,
                project_id=e.project_id or "",
                node_id=e.node_id,
                workload_id=e.workload_id,
                since_ms=e.since_ms,
                at_ms=e.at_ms,
                workloads=e.workloads,
            )
            for e in events
            if e.node_id is not None
        ),
        verdicts=tuple(world.verdicts()),
        first_reports=reports,
    )


def _interval(row: BaseRow) -> BaseInterval:
    return BaseInterval(
        kind=BASE_KINDS.index(row.kind), started_ms=row.started_ms, ended_ms=row.ended_ms, ttl_ms=row.ttl_ms
    )


def disagreements(seed: int, directory: Path, *, store_away: tuple[StoreAway, ...] = ()) -> list[Violation]:
    history, questions = history_of(seed)
    history = replace(history, store_away=store_away)
    return check(history, observe(history, questions, directory), tolerance_ms=TOLERANCE_MS)


# Found by the long run: a window inside a crash (93), one that begins while the disk is full (135), a copy of
# a frame whose batch could not be written (326), turns of a row within one millisecond (426).
ONCE_DISAGREED = (93, 135, 326, 420, 426)


@pytest.mark.parametrize("seed", [*range(6), *ONCE_DISAGREED])
def test_the_engine_agrees_with_the_oracle(seed: int, tmp_path: Path):
    assert disagreements(seed, tmp_path) == []


@pytest.mark.parametrize("seed", [7, 21])
def test_the_engine_agrees_on_sessions_that_expire_while_the_store_is_away(seed: int, tmp_path: Path):
    """The worlds' managers open sessions all the same: only which of their frames are taken is at stake."""
    records = history_of(seed)[0].records
    times = [record.t_ms for record in records if isinstance(record, Frame) and record.seq is not None]
    first, last = min(times), max(times)
    away = StoreAway(from_ms=first + (last - first) // 3, to_ms=first + (last - first) * 2 // 3)
    assert disagreements(seed, tmp_path, store_away=(away,)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 512))
def test_the_engine_agrees_with_the_oracle_for_hundreds_of_seeds(seed: int, tmp_path: Path):
    """500 worlds of 4 nodes and 8 hours: some 670 virtual node-days."""
    assert disagreements(seed, tmp_path) == []
