"""Flips of a workload's health (LIVENESS.md 4): two accepted beats far enough apart, none contradicting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.oracle.base import state_in
from tests.sim.oracle.rules import Beat, Rules

HEALTH = {"healthy": "up", "unhealthy": "down", "absent": "down"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """workload.down or workload.up: `since_ms` the first of the two beats, `confirmed_ms` the second."""

    kind: str
    since_ms: int
    confirmed_ms: int


def flips_of(rules: Rules, beats: list[Beat], slot: int, *, own_ttl: bool) -> Iterator[Flip]:
    """The flips of one slot. A workload starts as up, untold: its first healthy beat raises nothing.

    "Interval" is that of the row's last accepted beat. Whether that is the confirming beat itself (`own_ttl`)
    or the one before it differs only where the ttl changes; both readings are let through.
    """
    told = "up"
    first: Beat | None = None
    reported = False
    previous: Beat | None = None
    for beat in beats:
        before, previous = previous, beat
        state = state_in(beat, slot)
        if state is None or (not reported and state == "absent"):
            continue
        reported = True
        health = HEALTH.get(state)  # updating neither counts nor resets
        if health is None:
            continue
        if health == told:
            first = None
        elif first is None:
            first = beat
        else:
            judge = beat if own_ttl or before is None else before
            if beat.t_ms - first.t_ms >= rules.flip_apart(judge.ttl_ms):
                yield Flip(kind=f"workload.{health}", since_ms=first.t_ms, confirmed_ms=beat.t_ms)
                told, first = health, None
