"""Plays a script on an ideal shard and writes the `History`: one that reads each frame as it arrives, commits
a tick every second, and dies, stalls and returns exactly as scripted. It decides nothing: what each frame is
worth is the oracle's to say (asked here only to know the last committed beat before a crash).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.sim.history import Frame, Gap, History, Outage, Record, Restart, Row, Tick
from tests.sim.oracle.acceptance import Acceptance
from tests.sim.oracle.rules import Rules
from tests.sim.script import Arrival, EngineClock, Fault, Script, clock_of

TICK_MS = 1_000
STALL_MS = 1_000


@dataclass(frozen=True, slots=True)
class _Read:
    """One frame taken from the door at a true time."""

    at_ms: int
    arrival: Arrival
    durable: bool


def play(script: Script) -> History:
    """The history of the script's shard, up to the script's end."""
    clock = clock_of(script)
    rows = tuple(_recorded(row, clock) for row in script.rows)
    end_ms = clock.recorded_ms(script.end_ms)
    bare = History(shard=0, rows=rows, records=(), as_of_ms=end_ms)
    shard = _Shard(script, clock, bare)
    steps: list[tuple[int, int, int, _Read | Fault]] = []
    for number, read in enumerate(_reads(script)):
        steps.append((read.at_ms, 1, number, read))
    for number, fault in enumerate(script.faults):
        steps.append((fault.to_ms, 0, number, fault))  # the gap is written before the sockets are drained
    for _, _, _, step in sorted(steps, key=lambda item: item[:3]):
        if isinstance(step, Fault):
            shard.fault(step)
        else:
            shard.read(step)
    outages = tuple(
        Outage(kind=f.kind, from_ms=clock.recorded_ms(f.from_ms), to_ms=clock.recorded_ms(f.to_ms))
        for f in script.faults
    )
    return replace(bare, records=tuple(shard.records), outages=outages)


def _recorded(row: Row, clock: EngineClock) -> Row:
    """Times at which the shard applies something, in its recorded time."""
    sessions = tuple(replace(s, opened_ms=clock.recorded_ms(s.opened_ms)) for s in row.sessions)
    revoked = tuple(clock.recorded_ms(at) for at in row.revoked_ms)
    slots = tuple(
        replace(
            s,
            created_known_ms=clock.recorded_ms(s.created_ms),
            retired_known_ms=None if s.retired_ms is None else clock.recorded_ms(s.retired_ms),
        )
        for s in row.slots
    )
    retired = None if row.retired_ms is None else clock.recorded_ms(row.retired_ms)
    return replace(row, sessions=sessions, revoked_ms=revoked, slots=slots, retired_ms=retired)


def _reads(script: Script) -> list[_Read]:
    """When each arrival is read, if ever."""
    reads = []
    faults = [f for f in script.faults if f.kind != "drops"]
    for arrival in script.arrivals:
        at_ms, durable = arrival.at_ms, True
        for fault in faults:
            if fault.from_ms <= at_ms < fault.to_ms:
                if fault.kind == "disk_full":
                    durable = False
                elif fault.kind == "crash" and arrival.via != "udp":
                    at_ms = -1
                    break
                else:
                    at_ms = fault.to_ms
            elif fault.kind == "crash" and fault.from_ms - fault.in_flight_ms <= at_ms < fault.from_ms:
                durable = False
        if 0 <= at_ms <= script.end_ms:
            reads.append(_Read(at_ms, arrival, durable))
    return sorted(reads, key=lambda read: read.at_ms)


class _Shard:
    """Writes the records."""

    def __init__(self, script: Script, clock: EngineClock, bare: History) -> None:
        self.script, self.clock = script, clock
        self.rows = {row.row: row for row in bare.rows}
        self.acceptance = Acceptance(bare, Rules())
        self.rng = Random(script.seed ^ 0x5EED)
        self.records: list[Record] = [Tick(at_ms=clock.recorded_ms(script.begin_ms))]
        self.listening_ms = script.begin_ms  # true time since when ticks have been committed
        self.beat_ms = 0  # recorded time of the last committed beat
        self.frames = 0

    def read(self, read: _Read) -> None:
        a = read.arrival
        t_ms = self.clock.recorded_ms(read.at_ms)
        if a.via != "udp" and self.rng.random() < 0.2:  # another reader's clock reading, a moment earlier
            t_ms = max(t_ms - self.rng.randrange(6), self.clock.recorded_ms(self.listening_ms))
        frame = Frame(
            frame_id=self.frames,
            row=a.row,
            t_ms=t_ms,
            via=a.via,
            generation=a.generation,
            seq=a.seq,
            plane0=a.plane0,
            plane1=a.plane1,
            ttl_ms=self._ttl_ms(a, read.at_ms),
            stopping=a.stopping,
            no_ack=a.no_ack,
            durable=read.durable,
            unknown_ids=a.unknown_ids,
        )
        self.frames += 1
        judged = self.acceptance.offer(frame, len(self.records))
        self.records.append(frame)
        if judged.credited:
            self.beat_ms = max(self.beat_ms, judged.t_ms)

    def _ttl_ms(self, arrival: Arrival, at_ms: int) -> int:
        """1.5 times the larger of configured interval and largest next_ms; never below the session's."""
        row = self.rows[arrival.row]
        permille = [load.permille for load in self.script.loads if load.at_ms <= at_ms]
        interval_ms = max(row.interval_ms, row.interval_ms * (permille[-1] if permille else 0) // 1000)
        session = next((s for s in row.sessions if s.generation == arrival.generation), None)
        return max(interval_ms * 3 // 2, 0 if session is None else session.ttl_ms)

    def fault(self, fault: Fault) -> None:
        from_ms, to_ms = self.clock.recorded_ms(fault.from_ms), self.clock.recorded_ms(fault.to_ms)
        if fault.kind == "drops":
            self.records.append(Gap(from_ms=from_ms, to_ms=to_ms, cause="drops"))
            return
        if fault.kind == "stall":
            if to_ms - from_ms > STALL_MS:
                self.records.append(Gap(from_ms=from_ms, to_ms=to_ms, cause="stall"))
            self.listening_ms = fault.to_ms
            return
        ticks = max(fault.from_ms - fault.in_flight_ms - self.listening_ms, 0) // TICK_MS
        tick_ms = self.clock.recorded_ms(self.listening_ms + ticks * TICK_MS)
        committed_ms = max(tick_ms, self.beat_ms)
        if fault.kind == "crash":
            self._tick_in_place(tick_ms)
            restart = Restart(at_ms=to_ms, seqs_lost=fault.seqs_lost)
            self.records.append(restart)
            self.acceptance.restart(restart)
        self.records.append(Gap(from_ms=committed_ms, to_ms=to_ms, cause=fault.kind))
        self.listening_ms = fault.to_ms

    def _tick_in_place(self, tick_ms: int) -> None:
        """The last tick stands before the frames that were read after it. Judging does not look at ticks, so
        that frames already judged move by one place is of no matter here."""
        place = len(self.records)
        while place > 0:
            before = self.records[place - 1]
            if not isinstance(before, Frame) or before.t_ms < tick_ms:
                break
            place -= 1
        self.records.insert(place, Tick(at_ms=tick_ms))
