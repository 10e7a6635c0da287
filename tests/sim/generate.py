"""A random world from one seed: nodes, sessions, slot maps, windows, faults, clocks. `generate(seed)` is a
script of inputs and nothing else; `play.play` turns it into a history, a real engine into its own.

Plain `random.Random(seed)`; the same seed gives the same script for ever (as long as this file stands still).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.sim.generate_node import Client, aim, windows_of
from tests.sim.history import Claim, Lease, Row, Session, Slot
from tests.sim.script import Arrival, ClockStep, EngineClock, Fault, Load, Question, Script

DAY_MS = 86_400_000
INTERVALS_MS = (1_000, 5_000, 10_000, 60_000, 60_000, 61_237, 300_000)


def generate(
    seed: int, *, hours: float = 8.0, nodes: int = 4, beats_max: int = 250, begin_ms: int | None = None
) -> Script:
    """A script over `hours` of virtual time that begins some hours before a UTC midnight. `beats_max`: how
    many frames a node's client sends at most before it falls silent for good; `begin_ms`:
    a begin of your own."""
    rng = Random(seed)
    drawn_ms = 20_000 * DAY_MS - rng.randrange(int(hours * 3_600_000))
    begin_ms = drawn_ms if begin_ms is None else begin_ms
    end_ms = begin_ms + int(hours * 3_600_000)
    rows = [_row(rng, number, begin_ms, end_ms) for number in range(nodes)]
    faults = _faults(rng, rows, beats_max, begin_ms, end_ms)
    drift_ppm = rng.choice([0, 0, 50, -200])
    steps = _clock_steps(rng, begin_ms, end_ms)
    clock = EngineClock(
        begin_ms,
        end_ms,
        drift_ppm=drift_ppm,
        steps=steps,
        restarts_ms=tuple(f.to_ms for f in faults if f.kind == "crash"),
    )
    arrivals: list[Arrival] = []
    for number, drawn in enumerate(rows):
        born_ms = drawn.slots[0].created_ms
        # A window is opened before it begins, and for a row that is there.
        later = tuple(w for w in drawn.windows if w.from_ms > clock.recorded_ms(born_ms) + 1_000)
        row = replace(drawn, windows=later)
        client = Client(rng, clock, row, begin_ms=born_ms, end_ms=end_ms, beats_max=beats_max)
        meant = sent = client.live()
        for fault in faults:
            if rng.random() < 0.8:
                sent = aim(rng, row, sorted(sent, key=lambda a: a.at_ms), fault)
        came = [a for a in sent if begin_ms <= a.at_ms < end_ms and not _dropped(rng, a, faults)]
        arrivals += came
        rows[number] = _with_claims(rng, row, meant, came)
    loads = [Load(at_ms=rng.randrange(begin_ms, end_ms), permille=rng.choice([1000, 1500, 2000, 3333]))]
    return Script(
        seed=seed,
        begin_ms=begin_ms,
        end_ms=end_ms,
        drift_ppm=drift_ppm,
        rows=tuple(rows),
        arrivals=tuple(sorted(arrivals, key=lambda a: a.at_ms)),
        faults=tuple(faults),
        clock_steps=steps,
        loads=tuple(loads if rng.random() < 0.4 else []),
        questions=tuple(_questions(rng, rows, faults, begin_ms, end_ms)),
    )


# --- the shard's troubles
def _faults(rng: Random, rows: list[Row], beats_max: int, begin_ms: int, end_ms: int) -> list[Fault]:
    """Crashes, stalls, full disks and drops, while somebody is beating; often one soon after another, at a
    distance that decides whether a row sees them as one."""
    faults: list[Fault] = []
    for _ in range(rng.choice([0, 2, 3, 4, 5])):
        row = rng.choice(rows)
        born_ms = row.slots[0].created_ms
        at_ms = born_ms + rng.randrange(min(end_ms - born_ms, beats_max * row.interval_ms))
        grace_ms = max(60_000, 5 * row.interval_ms)
        for _ in range(rng.choice([1, 1, 2, 3])):
            fault = _fault(rng, at_ms)
            faults.append(fault)
            edges = [grace_ms - 1, grace_ms, row.interval_ms, rng.randrange(200, 2 * grace_ms)]
            at_ms = fault.to_ms + rng.choice(edges)
    return _apart(rng, faults, begin_ms, end_ms)


def _fault(rng: Random, at_ms: int) -> Fault:
    kind = rng.choice(["crash", "crash", "stall", "stall", "disk_full", "drops", "drops"])
    long = {
        "crash": rng.choice([300, 2_000, 30_000, rng.randrange(500, 900_000)]),
        "stall": rng.choice([900, 1_000, 1_001, 1_500, 5_000, 90_000]),
        "disk_full": rng.choice([5_000, 200_000]),
        "drops": rng.choice([100, 1_000, 60_000, 200_000]),
    }[kind]
    if kind != "crash":
        return Fault(kind=kind, from_ms=at_ms, to_ms=at_ms + long)
    return Fault(
        kind="crash",
        from_ms=at_ms,
        to_ms=at_ms + long,
        in_flight_ms=rng.randrange(100),
        power_loss=rng.random() < 0.5,
        seqs_lost=rng.random() < 0.15,
    )


def _apart(rng: Random, faults: list[Fault], begin_ms: int, end_ms: int) -> list[Fault]:
    """In order, without those that would overlap or run over the end. When sockets overflow in a stall, the
    two readings of the drop counter are those around it."""
    kept: list[Fault] = []
    free_ms = begin_ms + 1
    for fault in sorted(faults, key=lambda f: f.from_ms):
        if free_ms <= fault.from_ms and fault.to_ms < end_ms - 2_000:
            kept.append(fault)
            free_ms = fault.to_ms + 200
            if fault.kind == "stall" and rng.random() < 0.3:
                kept.append(Fault(kind="drops", from_ms=fault.from_ms, to_ms=fault.to_ms))
    return kept


def _clock_steps(rng: Random, begin_ms: int, end_ms: int) -> tuple[ClockStep, ...]:
    if rng.random() < 0.75:
        return ()
    by_ms = rng.choice([-3_600_000, -2_000, 1_500, 20_000, 3_600_000])
    return (ClockStep(at_ms=rng.randrange(begin_ms, end_ms), by_ms=by_ms),)


def _dropped(rng: Random, arrival: Arrival, faults: list[Fault]) -> bool:
    """A frame that came while the kernel dropped is most likely gone; a power loss empties the sockets."""
    inside = [f for f in faults if f.from_ms <= arrival.at_ms < f.to_ms and arrival.via == "udp"]
    return any(f.power_loss or (f.kind == "drops" and rng.random() < 0.8) for f in inside)


# --- the registry
def _row(rng: Random, number: int, begin_ms: int, end_ms: int) -> Row:
    interval_ms = rng.choice(INTERVALS_MS)
    born_ms = begin_ms + rng.randrange(1, max(2, (end_ms - begin_ms) // 4))
    ping = rng.random() < 0.12
    slots = [_slot(number, slot, born_ms) for slot in range(1 if ping else rng.randrange(1, 5))]
    row = Row(
        row=number + 1,
        node_id=f"node-{number}",
        project_id="project",
        interval_ms=interval_ms,
        slots=tuple(slots),
    )
    if not ping:
        row = _with_sessions(rng, row, born_ms, end_ms)
    names = [slot.workload_id for slot in row.slots]
    leases = []
    if rng.random() < 0.15:
        from_ms = rng.randrange(begin_ms, end_ms)
        to_ms = rng.choice([None, from_ms + rng.randrange(1, 3_600_000)])
        leases.append(Lease(workload_id=rng.choice(names), from_ms=from_ms, to_ms=to_ms))
    row = replace(row, windows=windows_of(rng, names, begin_ms, end_ms), leases=tuple(leases))
    if rng.random() < 0.05:
        return _retired(row, rng.randrange(born_ms + 1, end_ms))
    return row


def _retired(row: Row, at_ms: int) -> Row:
    """The node is gone at `at_ms`, its workloads with it; nothing is opened or created later."""
    slots = [s for s in row.slots if s.created_ms < at_ms]
    return replace(
        row,
        retired_ms=at_ms,
        slots=tuple(replace(s, retired_ms=min(at_ms, s.retired_ms or at_ms)) for s in slots),
        sessions=tuple(s for s in row.sessions if s.opened_ms < at_ms),
        windows=tuple(w for w in row.windows if w.workload_id in (None, *(s.workload_id for s in slots))),
        leases=tuple(x for x in row.leases if x.workload_id in [s.workload_id for s in slots]),
    )


def _slot(node: int, slot: int, created_ms: int) -> Slot:
    return Slot(slot=slot, workload_id=f"node-{node}/{slot}", created_ms=created_ms)


def _with_sessions(rng: Random, row: Row, born_ms: int, end_ms: int) -> Row:
    """Sessions, each with the map of the slots that lived when it was opened; renewed in time, or late, or
    because the map changed, or because the row was revoked."""
    slots = list(row.slots)
    changes = sorted(rng.randrange(born_ms, end_ms) for _ in range(rng.choice([0, 0, 1, 2])))
    for at_ms in changes:
        if rng.random() < 0.6:
            slots.append(_slot(row.row - 1, len(slots), at_ms))
        else:
            place = rng.randrange(len(slots))
            if slots[place].retired_ms is None and slots[place].created_ms < at_ms:
                slots[place] = replace(slots[place], retired_ms=at_ms)
    revoked = (rng.randrange(born_ms, end_ms),) if rng.random() < 0.06 else ()
    ttl_ms = row.interval_ms * 3 // 2 + rng.choice([0, 0, rng.randrange(20)])
    life_ms = rng.choice([1_800_000, 7_200_000, DAY_MS])
    sessions: list[Session] = []
    opened_ms: int = born_ms
    while opened_ms < end_ms:
        living = [s for s in slots if s.created_ms <= opened_ms and (s.retired_ms or end_ms) > opened_ms]
        sessions.append(
            Session(
                generation=len(sessions) + 1,
                opened_ms=opened_ms,
                expires_ms=opened_ms + life_ms,
                interval_ms=row.interval_ms,
                ttl_ms=ttl_ms,
                mask=sum(1 << s.slot for s in living),
            )
        )
        reasons = [c for c in (*changes, *revoked) if c > opened_ms]
        renewal = opened_ms + life_ms * rng.choice([91, 95, 99, 103]) // 100
        due = min([renewal, *(c + rng.randrange(500, 40_000) for c in reasons)])
        opened_ms = max(due, opened_ms + rng.choice([200, 30_000, 61_000]))
    return replace(row, slots=tuple(slots), sessions=tuple(sessions), revoked_ms=revoked)


def _with_claims(rng: Random, row: Row, sent: list[Arrival], came: list[Arrival]) -> Row:
    """Some of what never arrived is brought later, as a backfill."""
    if not row.sessions or rng.random() < 0.5:
        return row
    arrived = {(a.sent_ms, a.seq) for a in came}
    claims = [
        Claim(at_ms=a.sent_ms, generation=a.generation or 1, plane0=a.plane0, plane1=a.plane1)
        for a in sent
        if (a.sent_ms, a.seq) not in arrived and not a.stopping
    ]
    claims += [replace(claim, at_ms=claim.at_ms + rng.randrange(3)) for claim in claims if rng.random() < 0.1]
    return replace(row, claims=tuple(claims))


# --- what is asked at the end
def _questions(
    rng: Random, rows: list[Row], faults: list[Fault], begin_ms: int, end_ms: int
) -> list[Question]:
    """Windows at random, and such as begin or end at a fault or a midnight."""
    edges = [begin_ms, end_ms, 20_000 * DAY_MS, *(t for f in faults for t in (f.from_ms, f.to_ms))]
    questions = []
    for row in rows:
        for slot in row.slots:
            for _ in range(3):
                a, b = rng.choice(edges), rng.choice([*edges, rng.randrange(begin_ms, end_ms)])
                if a != b:
                    questions.append(
                        Question(workload_id=slot.workload_id, from_ms=min(a, b), to_ms=max(a, b))
                    )
    return questions
