"""One node's life, at random: when its client sends what, and what the network makes of it.

The client is open-loop: it does not see answers. It beats, skips, bursts, falls silent, stops and returns,
with times that now and then hit a deadline to the millisecond.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.sim.history import Row, Session, Via, Window
from tests.sim.script import Arrival, EngineClock, Fault

MODES = (
    "steady",
    "steady",
    "steady",
    "exact",
    "exact",
    "burst",
    "flap",
    "off",
    "off",
    "stop",
    "json",
    "http",
)
HEALTH = {"healthy": (1, 0), "unhealthy": (0, 1), "updating": (1, 1), "absent": (0, 0)}


def exact_pauses(ttl_ms: int) -> list[int]:
    """Pauses around every deadline that the rules know."""
    interval_ms = 2 * ttl_ms // 3
    edges = [ttl_ms, 3 * interval_ms, 10 * interval_ms, interval_ms // 4, interval_ms // 2, interval_ms]
    return [max(1, edge + by) for edge in edges for by in (-1, 0, 1)]


class Client:
    """What one node sends, from its birth to the end or until its budget of frames is spent."""

    def __init__(
        self, rng: Random, clock: EngineClock, row: Row, *, begin_ms: int, end_ms: int, beats_max: int
    ) -> None:
        self.rng, self.clock, self.row = rng, clock, row
        self.now_ms, self.end_ms, self.beats_left = begin_ms, end_ms, beats_max
        self.last_ms = begin_ms  # arrival of the last frame
        self.ping = not row.sessions
        self.ttl_ms = row.interval_ms * 3 // 2 if self.ping else row.sessions[0].ttl_ms
        self.off_ms = rng.choice([0, 0, 0, rng.randrange(-2_000, 2_000), rng.choice([-95_000, 95_000])])
        self.states = [
            rng.choice(["healthy", "healthy", "absent", "unhealthy", "updating"]) for _ in range(64)
        ]
        self.seqs: dict[int | None, int] = {}
        self.arrivals: list[Arrival] = []

    def live(self) -> list[Arrival]:
        interval = self.row.interval_ms
        while self.now_ms < self.end_ms and self.beats_left > 0:
            mode = self.rng.choice(MODES)
            if mode == "off":
                some = [interval, self.ttl_ms, 2 * interval, 5 * interval, 15 * interval]
                self.now_ms += self.rng.choice(some) + self.rng.randrange(interval)
            elif mode == "stop":
                self._send(stopping=True)
                self.now_ms += self.rng.choice([interval // 3, 2 * interval, 20 * interval])
            else:
                self._segment(mode, interval)
        return self.arrivals

    def _segment(self, mode: str, interval: int) -> None:
        via: Via = "ping" if self.ping else "json" if mode == "json" else "http" if mode == "http" else "udp"
        for _ in range(self.rng.randrange(1, 25)):
            if mode == "exact":
                pause = self.rng.choice(exact_pauses(self.ttl_ms))
                self.now_ms = max(self.now_ms, self.last_ms + pause)
                self._send(exact=True)
                self.now_ms += 1
                continue
            if mode == "burst":
                self.now_ms += self.rng.randrange(1, max(2, interval // 3))
            else:
                self.now_ms += interval * self.rng.randrange(80, 101) // 100
            self._wander(0.5 if mode == "flap" else 0.04)
            self._send(via=via)

    def _wander(self, chance: float) -> None:
        """Health of the workloads changes; now and then the client's clock, too."""
        for slot in range(64):
            if self.rng.random() < chance:
                self.states[slot] = self.rng.choice(
                    ["healthy", "healthy", "healthy", "unhealthy", "updating", "absent"]
                )
        if self.rng.random() < 0.01:
            self.off_ms = self.rng.choice([0, 0, self.rng.randrange(-90_100, 90_100)])

    def _session(self) -> Session | None:
        """The newest session, or for a while after a new one still the old."""
        opened = [s for s in self.row.sessions if s.opened_ms <= self.now_ms]
        if not opened:
            return None
        newest = max(opened, key=lambda s: s.opened_ms)
        others = [s for s in opened if s is not newest]
        if others and self.now_ms < newest.opened_ms + 75_000 and self.rng.random() < 0.4:
            return max(others, key=lambda s: s.opened_ms)
        return newest

    def _send(self, *, via: Via = "udp", stopping: bool = False, exact: bool = False) -> None:
        session = None if self.ping else self._session()
        if self.ping:
            via, stopping = "ping", False
        elif session is None:
            return
        self.beats_left -= 1
        generation = None if session is None else session.generation
        seq = self._seq(generation) if via in ("udp", "http") else None
        planes = [sum(HEALTH[state][bit] << slot for slot, state in enumerate(self.states)) for bit in (0, 1)]
        if self.rng.random() < 0.9:  # bits outside the map are noise, most clients leave them out
            planes = [plane & (1 if session is None else session.mask) for plane in planes]
        frame = Arrival(
            at_ms=self.now_ms if exact else self.now_ms + self.rng.randrange(1, 80),
            sent_ms=self.now_ms,
            row=self.row.row,
            via=via,
            generation=generation,
            seq=seq,
            plane0=planes[0],
            plane1=planes[1],
            stopping=stopping,
            no_ack=via in ("udp", "http") and self.rng.random() < 0.2,
            note="aimed" if exact else "beat",
            unknown_ids=via == "json" and self.rng.random() < 0.05,
        )
        self._network(frame, exact=exact)

    def _seq(self, generation: int | None) -> int:
        estimate = self.clock.recorded_ms(self.now_ms) + self.off_ms
        seq = max(self.seqs.get(generation, -1) + 1, estimate << 16 | self.rng.randrange(4))
        if abs(self.off_ms) <= 90_000:  # seqs that are refused with CLOCK are forgotten
            self.seqs[generation] = seq
        return seq

    def _network(self, frame: Arrival, *, exact: bool) -> None:
        """Loss, delay, duplication, reordering and replay. A frame sent over TCP comes once or not at all."""
        rng = self.rng
        if not exact and rng.random() < 0.03:
            return
        self.last_ms = max(self.last_ms, frame.at_ms)
        if frame.via == "udp" and not exact and rng.random() < 0.02:
            frame = replace(frame, at_ms=frame.at_ms + rng.randrange(500, 30_000), note="late")
        self.arrivals.append(frame)
        if frame.via != "udp":
            return
        if rng.random() < 0.04:
            self.arrivals.append(
                replace(frame, at_ms=frame.at_ms + rng.choice([0, 1, rng.randrange(2_000)]), note="duplicate")
            )
        if rng.random() < 0.02:
            later = rng.choice([rng.randrange(90_000), rng.randrange(7_200_000)])
            self.arrivals.append(replace(frame, at_ms=frame.at_ms + later, note="replay"))


def aim(rng: Random, row: Row, arrivals: list[Arrival], fault: Fault) -> list[Arrival]:
    """Let the row fall silent at a chosen distance before this fault and return to the millisecond at a limit
    of forgiveness after it; what it sent in between never comes."""
    usable = [a for a in arrivals if a.note == "beat" and not a.stopping]
    before = next((a for a in reversed(usable) if a.at_ms <= fault.from_ms), None)
    after = next((a for a in usable if a.at_ms >= fault.to_ms), None)
    if before is None or after is None:
        return arrivals
    ttl = row.sessions[0].ttl_ms if row.sessions else row.interval_ms * 3 // 2
    interval = 2 * ttl // 3
    grace = max(60_000, 5 * interval)
    limits = [interval, ttl, grace, grace, rng.randrange(1, grace)]
    if fault.kind == "drops":
        limits = [interval, ttl, rng.randrange(interval, grace)]
    back_ms = fault.to_ms + max(0, rng.choice(limits) - rng.choice([0, 0, 1]))
    quiet_ms = fault.from_ms - rng.choice([1, interval // 2, ttl - 1, ttl, rng.randrange(2 * ttl)])
    kept = [a for a in arrivals if not quiet_ms < a.at_ms <= max(back_ms, after.at_ms)]
    return [*kept, _moved(before, quiet_ms), _moved(after, back_ms)]


def _moved(arrival: Arrival, at_ms: int) -> Arrival:
    """The same frame at another time; over a path without seq, which that time could contradict."""
    via: Via = "ping" if arrival.generation is None else "json"
    return replace(arrival, at_ms=at_ms, via=via, seq=None, no_ack=False, note="aimed")


def windows_of(rng: Random, workloads: list[str], begin_ms: int, end_ms: int) -> tuple[Window, ...]:
    """Windows of the node and of workloads, ordered and the operator's own."""
    windows = []
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        from_ms = rng.randrange(begin_ms, end_ms)
        windows.append(
            Window(
                from_ms=from_ms,
                to_ms=from_ms + rng.randrange(20_000, 3_600_000),
                own=rng.random() < 0.5,
                workload_id=rng.choice([None, None, rng.choice(workloads)]),
            )
        )
    return tuple(windows)
