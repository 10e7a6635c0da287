"""The checker: what an engine did with a history, held against what the oracle says of it.

Frames, base rows and uptime answers here; states and events in `check_verdicts.py`, gaps in `check_gaps.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.sim.history import History
from tests.sim.observed import KINDS, Ack, Answer, Observed
from tests.sim.oracle.acceptance import Judged, may_be_unanswered
from tests.sim.oracle.base import FOREVER
from tests.sim.oracle.check_gaps import gap_violations
from tests.sim.oracle.check_verdicts import verdict_violations
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.rules import BUSY, CLOCK, CREDITING, MOVED, STALE, Rules
from tests.sim.oracle.violation import Violation

Line = tuple[str, int, int, int]  # kind, from, true end, ttl


def check(
    history: History, observed: Observed, *, tolerance_ms: int = 1_000, rules: Rules | None = None
) -> list[Violation]:
    """Everything in which the engine and the oracle differ; an empty list is agreement.

    `tolerance_ms`: how late a verdict may be judged, an event raised, an ended base row written.
    `rules` bends the oracle and is for tests of the oracle only.
    """
    oracle = Oracle(history, tolerance_ms=tolerance_ms, rules=rules)
    return [
        *frame_violations(oracle, observed),
        *base_violations(oracle, observed),
        *first_report_violations(oracle, observed),
        *(v for answer in observed.answers for v in answer_violations(oracle, answer)),
        *verdict_violations(oracle, observed),
        *gap_violations(oracle),
    ]


# --- frames
def frame_violations(oracle: Oracle, observed: Observed) -> Iterator[Violation]:
    unanswered = may_be_unanswered(oracle.history)
    judged = oracle.judged()
    for one in judged:
        frame = one.frame
        name = f"frame {frame.frame_id} of row {frame.row}"
        credited = frame.frame_id in observed.credited
        if credited != one.credited:
            detail = f"credited: {credited}, but must have been answered {sorted_codes(one)}"
            yield Violation("credit", name, one.t_ms, detail)
        ack = observed.acks.get(frame.frame_id)
        code = None if ack is None else ack.code
        if not frame.durable and code in CREDITING:
            yield Violation("ack-lost", name, one.t_ms, f"answered {code}, but the beat did not survive")
        elif code not in one.codes and not (code is None and frame.frame_id in unanswered):
            yield Violation("ack", name, one.t_ms, f"answered {code}, must be one of {sorted_codes(one)}")
        if ack is not None:
            yield from ack_violations(one, ack, name)
        yield from fact_violations(oracle, one, ack, name)
    known = {one.frame.frame_id for one in judged}
    for frame_id in sorted((set(observed.acks) | set(observed.credited)) - known):
        yield Violation("ack", f"frame {frame_id}", None, "was never offered")


def sorted_codes(one: Judged) -> list[int | None]:
    return sorted(one.codes, key=lambda code: -1 if code is None else code)


def ack_violations(one: Judged, ack: Ack, name: str) -> Iterator[Violation]:
    """The fields of a reply: server time, how long it vouches, when to come again."""
    if ack.server_ms is not None and ack.server_ms != one.t_ms:
        yield Violation("ack-time", name, one.t_ms, f"server time {ack.server_ms}")
    vouches = 0 if one.frame.stopping or ack.code in (STALE, CLOCK, MOVED, BUSY) else one.frame.ttl_ms
    if ack.ttl_ms is not None and ack.ttl_ms != vouches:
        yield Violation("ack-ttl", name, one.t_ms, f"ttl {ack.ttl_ms}, must be {vouches}")
    if ack.next_ms is not None and ack.next_ms <= 0:
        yield Violation("ack-next", name, one.t_ms, f"next {ack.next_ms}")
    if ack.next_ms is not None and one.credited and ack.next_ms * 3 // 2 > one.frame.ttl_ms:
        yield Violation("ack-next", name, one.t_ms, f"next {ack.next_ms} outlives ttl {one.frame.ttl_ms}")


def fact_violations(oracle: Oracle, one: Judged, ack: Ack | None, name: str) -> Iterator[Violation]:
    """What the adapter reports as fact must be possible: the journaled ttl, and a beat that was lost."""
    frame = one.frame
    row = next(r for r in oracle.history.rows if r.row == frame.row)
    if one.credited:
        session = next((s for s in row.sessions if s.generation == frame.generation), None)
        least = row.interval_ms * 3 // 2 if session is None else session.ttl_ms
        if frame.ttl_ms < least:
            yield Violation("ttl", name, one.t_ms, f"journaled ttl {frame.ttl_ms} below {least}")
    if not frame.durable and ack is None and BUSY in one.codes:
        deadly = [g for _, g in oracle.gaps() if g.cause not in ("stall", "drops", "degraded")]
        # A frame may have been read before the tick that was committed last, and still not have been written.
        if not any(g.from_ms - oracle.rules.tick_ms <= one.t_ms <= g.to_ms for g in deadly):
            yield Violation("vanished", name, one.t_ms, "neither durable nor BUSY, and nothing crashed")


# --- base rows
def base_violations(oracle: Oracle, observed: Observed) -> Iterator[Violation]:
    """Rows are compared from the first report to the end of life: what lies outside is nobody's business."""
    for row in [*observed.base_rows, *(observed.open_rows or ())]:
        if row.workload_id not in oracle.workloads():
            yield Violation("base", row.workload_id, None, "no such workload")
    for workload_id in oracle.workloads():
        yield from _base_of(oracle, observed, workload_id)


def _base_of(oracle: Oracle, observed: Observed, workload_id: str) -> Iterator[Violation]:
    as_of_ms, optional = oracle.history.as_of_ms, oracle.optional_splits(workload_id)
    _, slot = oracle.place(workload_id)
    first = oracle.first_report(workload_id)
    life = (FOREVER if first is None else first, FOREVER if slot.retired_ms is None else slot.retired_ms)
    expected = _joined([(b.kind, b.from_ms, b.to_ms, b.ttl_ms) for b in oracle.base(workload_id)], optional)
    written_raw = {
        (r.kind, r.started_ms, r.ended_ms, 0 if r.kind == "stopped" else r.ttl_ms)
        for r in observed.base_rows
        if r.workload_id == workload_id
    }
    open_raw = [
        (r.kind, r.started_ms, FOREVER, 0)
        if r.kind == "stopped"
        else (r.kind, r.started_ms, r.last_t_ms + r.ttl_ms, r.ttl_ms)
        for r in observed.open_rows or ()
        if r.workload_id == workload_id
    ]
    for kind, a, b, _ in sorted(written_raw):
        if b > as_of_ms or a >= b:
            yield Violation("base", workload_id, a, f"{kind} row [{a}, {b}) written at {as_of_ms}")
    seen = _joined([*written_raw, *open_raw], optional)
    want = {_cut(line, life) for line in expected} - {None}
    have = {_cut(line, life) for line in seen} - {None}
    for line in sorted(have - want):
        yield Violation("base", workload_id, line[1], f"row {line} not expected")
    for line in sorted(want - have):
        if line[2] <= as_of_ms or observed.open_rows is not None:
            yield Violation("base", workload_id, line[1], f"row {line} missing")
    for kind, a, b, ttl in sorted(open_raw):
        late = b <= as_of_ms - oracle.tolerance_ms and (kind, a, b, ttl) not in written_raw
        if late and _cut((kind, a, b, ttl), life) is not None and b <= life[1]:
            yield Violation("base", workload_id, a, f"{kind} row [{a}, {b}) ended and is still open")


def _joined(lines: list[Line], optional: frozenset[int]) -> list[Line]:
    """The same rows with every cut undone that may as well not be there."""
    result: list[Line] = []
    for line in sorted(lines, key=lambda x: (x[1], x[2])):
        last = result[-1] if result else None
        meets = last is not None and (last[0], last[2], last[3]) == (line[0], line[1], line[3])
        if last is not None and meets and (line[0] == "stopped" or line[1] in optional):
            result[-1] = (last[0], last[1], line[2], last[3])
        else:
            result.append(line)
    return result


def _cut(line: Line, life: tuple[int, int]) -> Line | None:
    kind, a, b, ttl = line
    a, b = max(a, life[0]), min(b, life[1])
    return (kind, a, b, ttl) if a < b else None


def first_report_violations(oracle: Oracle, observed: Observed) -> Iterator[Violation]:
    if observed.first_reports is None:
        return
    for workload_id in oracle.workloads():
        want, have = oracle.first_report(workload_id), observed.first_reports.get(workload_id)
        if want != have:
            yield Violation("first-report", workload_id, want, f"{have}, must be {want}")


# --- uptime answers
def answer_violations(oracle: Oracle, answer: Answer) -> Iterator[Violation]:
    want = oracle.compose(
        answer.workload_id,
        from_ms=answer.from_ms,
        to_ms=answer.to_ms,
        as_of_ms=answer.as_of_ms,
        upto=answer.upto,
    )
    name = f"{answer.workload_id} [{answer.from_ms}, {answer.to_ms}) as of {answer.as_of_ms}"
    if set(answer.ms) != set(KINDS):
        yield Violation("uptime", name, None, f"keys {sorted(answer.ms)}")
    if sum(answer.ms.values()) != want.to_ms - want.from_ms:
        yield Violation("uptime-sum", name, None, f"sums to {sum(answer.ms.values())}")
    wrong = {kind: (answer.ms.get(kind), ms) for kind, ms in want.ms.items() if answer.ms.get(kind) != ms}
    if wrong:
        yield Violation("uptime", name, None, f"(answered, must be): {wrong}")
    if answer.intervals is not None:
        have = _adjacent_joined(answer.intervals)
        if have != list(want.intervals):
            odd = sorted(set(have) ^ set(want.intervals), key=lambda i: i[1:])
            at = odd[0][1] if odd else None
            yield Violation("uptime-intervals", name, at, f"differ in {odd[:6]}")
    if answer.provisional is not None and answer.provisional != want.provisional:
        yield Violation("uptime-provisional", name, None, f"{answer.provisional}, must be {want.provisional}")


def _adjacent_joined(intervals: tuple[tuple[str, int, int], ...]) -> list[tuple[str, int, int]]:
    joined: list[tuple[str, int, int]] = []
    for kind, a, b in intervals:
        if joined and joined[-1][0] == kind and joined[-1][2] == a:
            joined[-1] = (kind, joined[-1][1], b)
        else:
            joined.append((kind, a, b))
    return joined
