"""Histories written by hand: one shard, one row, times from zero, so that a case can be worked out on paper.

Unless a case says otherwise: interval 60 s, ttl 90 s, grace 300 s; SUSPECT 90 s, DOWN 180 s, LOST 600 s after
the last beat; slots 0 and 1 hold `w0` and `w1`. Times are given in seconds of the story and are stored
as milliseconds after `ZERO_MS`, a UTC midnight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sim.history import (
    Claim,
    Frame,
    Gap,
    History,
    Lease,
    Outage,
    Record,
    Restart,
    Row,
    Session,
    Slot,
    Tick,
    Window,
)
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.rules import Rules

ZERO_MS = 20_000 * 86_400_000
TTL_S = 90
STATES = {"-": (0, 0), "h": (1, 0), "u": (0, 1), "p": (1, 1)}  # absent, healthy, unhealthy, updating


def ms(seconds: float) -> int:
    return ZERO_MS + round(seconds * 1000)


def planes(states: str) -> tuple[int, int]:
    """`hu-p`: slot 0 healthy, 1 unhealthy, 2 absent, 3 updating."""
    plane0 = sum(STATES[letter][0] << place for place, letter in enumerate(states))
    plane1 = sum(STATES[letter][1] << place for place, letter in enumerate(states))
    return plane0, plane1


@dataclass
class Story:
    """Collects what happens, in journal order."""

    slots: int = 2
    end_s: float = 3600
    windows: list[Window] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    lives: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    revoked: list[float] = field(default_factory=list)
    outages: list[Outage] | None = None
    records: list[Record] = field(default_factory=list)

    def session(
        self,
        generation: int,
        opened_s: float,
        *,
        mask: int | None = None,
        life_s: float = 1e6,
        ttl_s: float = TTL_S,
    ) -> None:
        self.sessions.append(
            Session(
                generation=generation,
                opened_ms=ms(opened_s),
                expires_ms=ms(opened_s + life_s),
                interval_ms=round(ttl_s * 2000 / 3),
                ttl_ms=round(ttl_s * 1000),
                mask=(1 << self.slots) - 1 if mask is None else mask,
            )
        )

    def beat(
        self,
        at_s: float,
        states: str = "hh",
        *,
        ttl_s: float = TTL_S,
        seq_s: float | None = None,
        seq: int | None = None,
        generation: int | None = 1,
        via: str = "udp",
        stopping: bool = False,
        no_ack: bool = False,
        durable: bool = True,
        unknown_ids: bool = False,
    ) -> int:
        """One frame; its seq is its time unless told otherwise. Returns its id."""
        frame_id = sum(isinstance(r, Frame) for r in self.records)
        if seq is None and via in ("udp", "http"):
            seq = ms(at_s if seq_s is None else seq_s) << 16
        plane0, plane1 = planes(states)
        self.records.append(
            Frame(
                frame_id=frame_id,
                row=7,
                t_ms=ms(at_s),
                via=via,  # type: ignore[arg-type]
                generation=generation,
                seq=seq,
                plane0=plane0,
                plane1=plane1,
                ttl_ms=round(ttl_s * 1000),
                stopping=stopping,
                no_ack=no_ack,
                durable=durable,
                unknown_ids=unknown_ids,
            )
        )
        return frame_id

    def stop(self, at_s: float) -> int:
        return self.beat(at_s, "--", stopping=True)

    def beats(self, first_s: int, last_s: int, states: str = "hh", *, every_s: int = 60) -> None:
        for at_s in range(first_s, last_s + 1, every_s):
            self.beat(at_s, states)

    def gap(self, from_s: float, to_s: float, cause: str = "stall") -> None:
        self.records.append(Gap(from_ms=ms(from_s), to_ms=ms(to_s), cause=cause))  # type: ignore[arg-type]

    def crash(self, from_s: float, to_s: float, *, seqs_lost: bool = False) -> None:
        """Last committed tick at `from_s`, listening again at `to_s`."""
        self.records.append(Tick(at_ms=ms(from_s)))
        self.records.append(Restart(at_ms=ms(to_s), seqs_lost=seqs_lost))
        self.gap(from_s, to_s, "crash")

    def window(self, from_s: float, to_s: float, *, own: bool = False, of: str | None = None) -> None:
        self.windows.append(Window(from_ms=ms(from_s), to_ms=ms(to_s), own=own, workload_id=of))

    def lease(self, from_s: float, to_s: float | None, *, of: str = "w0") -> None:
        to_ms = None if to_s is None else ms(to_s)
        self.leases.append(Lease(workload_id=of, from_ms=ms(from_s), to_ms=to_ms))

    def claim(self, at_s: float, states: str = "hh", *, generation: int = 1) -> None:
        plane0, plane1 = planes(states)
        self.claims.append(Claim(at_ms=ms(at_s), generation=generation, plane0=plane0, plane1=plane1))

    def history(self) -> History:
        if not self.sessions:
            self.session(1, -1000)
        slots = []
        for slot in range(self.slots):
            born, dead = self.lives.get(slot, (-1000, None))
            slots.append(
                Slot(
                    slot=slot,
                    workload_id=f"w{slot}",
                    created_ms=ms(born),
                    retired_ms=None if dead is None else ms(dead),
                )
            )
        row = Row(
            row=7,
            node_id="node",
            project_id="project",
            interval_ms=self.sessions[0].interval_ms,
            slots=tuple(slots),
            sessions=tuple(self.sessions),
            revoked_ms=tuple(ms(at) for at in self.revoked),
            windows=tuple(self.windows),
            leases=tuple(self.leases),
            claims=tuple(self.claims),
        )
        return History(
            shard=0,
            rows=(row,),
            records=tuple(self.records),
            as_of_ms=ms(self.end_s),
            outages=None if self.outages is None else tuple(self.outages),
        )

    def oracle(self, *, rules: Rules | None = None, tolerance_ms: int = 250) -> Oracle:
        return Oracle(self.history(), rules=rules, tolerance_ms=tolerance_ms)

    # --- answers in seconds
    def uptime(
        self, workload_id: str = "w0", from_s: float = 0, to_s: float | None = None
    ) -> dict[str, float]:
        """Seconds by kind, the kinds that are zero left out."""
        end_s = self.end_s if to_s is None else to_s
        composed = self.oracle().compose(workload_id, from_ms=ms(from_s), to_ms=ms(end_s))
        return {kind: value / 1000 for kind, value in composed.ms.items() if value}

    def strip(self, workload_id: str = "w0", from_s: float = 0) -> str:
        """The intervals on one line: `up 0-90 silent 90-3600`."""
        composed = self.oracle().compose(workload_id, from_ms=ms(from_s), to_ms=ms(self.end_s))
        return " ".join(f"{kind} {seconds(a)}-{seconds(b)}" for kind, a, b in composed.intervals)

    def codes(self) -> list[int | None]:
        return [one.code for one in self.oracle().judged()]

    def rows(self, workload_id: str = "w0") -> str:
        lines = self.oracle().base(workload_id)
        end = self.oracle().history.as_of_ms
        return " ".join(
            f"{line.kind} {seconds(line.from_ms)}-{seconds(line.to_ms) if line.to_ms <= end else ''}"
            for line in lines
        )


def seconds(at_ms: int) -> str:
    return f"{(at_ms - ZERO_MS) / 1000:.3f}".rstrip("0").rstrip(".")
