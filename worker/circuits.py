"""Circuit breakers and bounds of the receivers: which may be sent to now, and how much at a time. Pure.

An *endpoint* is where connections go (a webhook's origin): it may hold only so many of the slots, so that one
that hangs delays no other. A *circuit* is one owner's endpoint: failures in a row open it, and then it is
left alone, each time for longer, until a single probe comes through. Per owner, because many share an origin
(a chat's incoming hooks): nobody can cut others off by failing there. Which deliveries wait meanwhile is the
outbox's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

FAILURES_MAX = 5  # in a row; the next one opens
OPEN_MS_MIN, OPEN_MS_MAX = 5_000, 300_000
CIRCUITS_MAX = 10_000  # remembered; beyond, the one that failed longest ago is forgotten, and begins anew


class Circuit(msgspec.Struct):
    """What is known of one owner's endpoint that failed last. One that works is not kept."""

    failures: int = 0
    level: int = 0  # how often it was opened since it worked last
    is_open: bool = False
    probing: bool = False
    open_until_ms: int = 0


class CircuitStatistics(msgspec.Struct, frozen=True):
    open: int
    opened_total: int
    probes_total: int


class Circuits:
    """All endpoints of one kind of channel, as this process sees them. An empty name is never limited."""

    def __init__(self, *, in_flight_max: int, failures_max: int = FAILURES_MAX) -> None:
        """`in_flight_max`: of one endpoint at a time."""
        self.in_flight_max = in_flight_max
        self._failures_max = failures_max
        self._circuits: dict[str, Circuit] = {}
        self._in_flight: Counter[str] = Counter()
        self._opened = 0
        self._probes = 0

    @property
    def in_flight(self) -> Mapping[str, int]:
        """How much each endpoint holds; only those that hold something."""
        return self._in_flight

    def full(self) -> list[str]:
        """Endpoints that take no more now."""
        return [name for name, count in self._in_flight.items() if count >= self.in_flight_max]

    def closed_to(self) -> list[str]:
        """Circuits that deliveries may not be claimed for, except by a probe."""
        return [name for name, one in self._circuits.items() if one.is_open]

    def to_probe(self, now_ms: int) -> list[str]:
        """Open circuits whose time is over and that nobody probes."""
        return [
            name
            for name, one in self._circuits.items()
            if one.is_open and not one.probing and now_ms >= one.open_until_ms
        ]

    def probed(self, circuit: str, *, found: bool) -> None:
        """A probe was looked for. Without a delivery it is closed on trial: the next failure reopens it."""
        one = self._circuits.get(circuit)
        if one is None:
            return
        if found:
            one.probing = True
            self._probes += 1
        else:
            one.is_open, one.failures = False, self._failures_max - 1

    def started(self, endpoint: str) -> None:
        if endpoint:
            self._in_flight[endpoint] += 1

    def ended(self, endpoint: str) -> None:
        if endpoint:
            self._in_flight[endpoint] -= 1
            if not self._in_flight[endpoint]:
                del self._in_flight[endpoint]

    def worked(self, circuit: str) -> None:
        """The endpoint answered something sensible."""
        self._circuits.pop(circuit, None)

    def unjudged(self, circuit: str) -> None:
        """Nobody will know how this attempt ended; if it was the probe, there may be another."""
        if (one := self._circuits.get(circuit)) is not None:
            one.probing = False

    def failed(self, circuit: str, now_ms: int) -> int | None:
        """The endpoint failed. Until when (unix ms) it is left alone, if this failure opened its circuit.

        What was in flight when it opened counts no more: only the probe decides.
        """
        if not circuit:
            return None
        one = self._circuits.pop(circuit, None) or Circuit()
        self._circuits[circuit] = one  # the last one now
        while len(self._circuits) > CIRCUITS_MAX:
            del self._circuits[next(iter(self._circuits))]
        if one.is_open and not one.probing:
            return None
        one.failures += 1
        if not one.is_open and one.failures < self._failures_max:
            return None
        one.is_open, one.probing = True, False
        one.level += 1
        one.open_until_ms = now_ms + min(OPEN_MS_MAX, OPEN_MS_MIN * 2 ** min(one.level - 1, 16))
        self._opened += 1
        return one.open_until_ms

    def statistics(self) -> CircuitStatistics:
        return CircuitStatistics(
            open=len(self.closed_to()), opened_total=self._opened, probes_total=self._probes
        )
