"""A failing seed in words: what happened to one row between two times, in journal order, and what it meant.

For people who look at a violation; nothing decides by it.
"""

from __future__ import annotations

from tests.sim.history import Degraded, Frame, Gap, Record, Restart, Tick
from tests.sim.oracle.oracle import Oracle

LETTERS = "-hup"  # absent, healthy, unhealthy, updating


def narrate(oracle: Oracle, row_number: int, from_ms: int = 0, to_ms: int = 1 << 60) -> str:
    """Lines of `time what`, times in milliseconds after the row's first slot was created."""
    row = next(r for r in oracle.history.rows if r.row == row_number)
    zero = row.slots[0].created_ms
    lines = [
        f"{row.node_id} interval {row.interval_ms}, zero is {zero}",
        *(
            f"session {s.generation} {s.opened_ms - zero}..{s.expires_ms - zero} ttl {s.ttl_ms} {s.mask:b}"
            for s in row.sessions
        ),
        *(f"window {w.from_ms - zero}..{w.to_ms - zero} own {w.own} of {w.workload_id}" for w in row.windows),
    ]
    verdict = {one.frame.frame_id: (one.code, one.credited) for one in oracle.judged()}
    for record in oracle.history.records:
        at_ms = _time_of(record)
        if from_ms <= at_ms < to_ms and (not isinstance(record, Frame) or record.row == row_number):
            lines.append(f"{at_ms - zero:>12} {_words(record, zero, verdict)}")
    lines += [
        f"{t.earliest_ms - zero:>12} {t.state}"
        for t in oracle.transitions(row)
        if from_ms <= t.earliest_ms < to_ms
    ]
    return "\n".join(lines)


def _time_of(record: Record) -> int:
    if isinstance(record, Frame):
        return record.t_ms
    if isinstance(record, Restart | Tick):
        return record.at_ms
    return record.from_ms


def _words(record: Record, zero: int, verdict: dict[int, tuple[int | None, bool]]) -> str:
    if isinstance(record, Frame):
        states = "".join(
            LETTERS[2 * (record.plane1 >> slot & 1) + (record.plane0 >> slot & 1)] for slot in range(8)
        )
        code, credited = verdict[record.frame_id]
        seq = "no seq" if record.seq is None else f"seq {(record.seq >> 16) - zero}+{record.seq & 0xFFFF}"
        marks = " STOPPING" * record.stopping + " NO_ACK" * record.no_ack + " lost" * (not record.durable)
        return (
            f"frame {record.frame_id} {record.via} gen {record.generation} {seq} {states} ttl {record.ttl_ms}"
            f"{marks} -> {code}{' credited' if credited else ''}"
        )
    if isinstance(record, Gap | Degraded):
        end = "" if record.to_ms is None else record.to_ms - zero
        cause = record.cause if isinstance(record, Gap) else "degraded"
        return f"{cause} until {end}"
    return "restart" if isinstance(record, Restart) else "tick"
