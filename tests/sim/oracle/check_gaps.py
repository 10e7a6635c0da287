"""Gap records held against restarts and, where known, against what the world really did (LIVENESS.md 3)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.sim.history import Degraded, Frame, Gap, Outage, Restart, Tick
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.verdicts import allowed_states
from tests.sim.oracle.violation import Violation

CAUSES = {"restart": "crash", "lost_shard": "crash"}


def gap_violations(oracle: Oracle) -> Iterator[Violation]:
    yield from _restart_gaps(oracle)
    if oracle.history.outages is not None:
        yield from _gaps_and_outages(oracle, oracle.history.outages)
    yield from _unjustified_breaker(oracle)


def _unjustified_breaker(oracle: Oracle) -> Iterator[Violation]:
    """DEGRADED only when so many rows can have been SUSPECT, and so large a part of UP + SUSPECT."""
    for record in oracle.history.records:
        if not isinstance(record, Degraded):
            continue
        states = [allowed_states(oracle.transitions(row), record.from_ms) for row in oracle.history.rows]
        suspect = sum("suspect" in state for state in states)
        up = sum(state == {"up"} for state in states)
        few = suspect < oracle.rules.breaker_rows
        if few or suspect * 100 <= oracle.rules.breaker_percent * (up + suspect):
            detail = f"at most {suspect} rows were SUSPECT, {up} certainly UP"
            yield Violation("degraded", f"shard {oracle.history.shard}", record.from_ms, detail)


def _restart_gaps(oracle: Oracle) -> Iterator[Violation]:
    """Each restart wrote the gap [last committed tick or beat, listening again)."""
    committed: int | None = None
    credited = {one.frame.frame_id: one.t_ms for one in oracle.judged() if one.credited}
    gaps = [gap for _, gap in oracle.gaps()]
    for record in oracle.history.records:
        if isinstance(record, Tick):
            committed = max(record.at_ms, committed or 0)
        elif isinstance(record, Frame) and record.frame_id in credited:
            committed = max(credited[record.frame_id], committed or 0)
        elif isinstance(record, Restart) and committed is not None and committed < record.at_ms:
            if any((gap.from_ms, gap.to_ms) == (committed, record.at_ms) for gap in gaps):
                continue
            wanted = f"no gap [{committed}, {record.at_ms}) in the journal"
            yield Violation("gap", f"shard {oracle.history.shard}", record.at_ms, wanted)


def _gaps_and_outages(oracle: Oracle, outages: tuple[Outage, ...]) -> Iterator[Violation]:
    """No gap that nothing explains, none longer than its outage by more than a tick and the tolerance; and no
    outage over a second without one."""
    rules, name = oracle.rules, f"shard {oracle.history.shard}"
    slack = rules.tick_ms + oracle.tolerance_ms
    gaps = [gap for _, gap in oracle.gaps()]
    for gap in gaps:
        kind = CAUSES.get(gap.cause, gap.cause)
        if not any(
            o.kind == kind
            and o.from_ms - slack <= gap.from_ms
            and gap.to_ms <= o.to_ms + slack
            and gap.from_ms <= o.to_ms
            and o.from_ms <= gap.to_ms
            for o in outages
        ):
            yield Violation("gap", name, gap.from_ms, f"{gap} is explained by no outage")
    for outage in outages:
        if outage.kind in ("drops", "degraded") or outage.to_ms > oracle.history.as_of_ms:
            continue
        long = outage.kind == "crash" or outage.to_ms - outage.from_ms > rules.tick_ms
        if long and not any(_covers(gap, outage) for gap in gaps):
            yield Violation("gap", name, outage.from_ms, f"{outage} left no gap")


def _covers(gap: Gap, outage: Outage) -> bool:
    return gap.from_ms <= outage.from_ms and outage.to_ms <= gap.to_ms
