"""Beats that were never acknowledged and are handed in later, signed by the node (WIRE.md, Backfill).

Here: which of them are taken, purely; and the port that keeps them as claims. What a claim counts as is
decided whenever time is composed (compose.py), never when it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

BEATS_MAX = 10_000  # of one request

Reason = Literal["future", "duplicate", "generation", "sealed", "order"]
REASONS: tuple[Reason, ...] = ("future", "duplicate", "generation", "sealed", "order")


class MissedBeat(msgspec.Struct, frozen=True):
    """`at_ms`: when it was sent, in the server's time as the node estimated it. Planes as in a frame."""

    at_ms: int
    plane0: int
    plane1: int
    generation: int


class Era(msgspec.Struct, frozen=True):
    """What a generation of the node's present salt vouched with: its ttl and its frozen slot map."""

    generation: int
    ttl_ms: int
    slots: int  # u64 mask


class Sifted(msgspec.Struct, frozen=True):
    """`beats` may be stored, at most one for each time. `ignored`: how many were not, by reason."""

    beats: tuple[MissedBeat, ...]
    ignored: dict[Reason, int]


class Stored(msgspec.Struct, frozen=True):
    """What became of a request's beats. `ignored` has every reason."""

    taken: int
    ignored: dict[Reason, int]


class Backfill(Protocol):
    """Where missed beats are kept."""

    async def take(
        self,
        node_id: str,
        beats: Sequence[MissedBeat],
        *,
        nonce: str,
        nonce_expires_ms: int,
        rate_per_min: int,
        now_ms: int,
    ) -> Stored:
        """Keep beats as claims of the node's workloads.

        RateLimitedError before NonceSeenError before anything is kept; NodeRefusedError for a node that is
        gone. Refusals count against the rate. Taking a beat twice changes nothing.
        """
        ...


def sift(beats: Sequence[MissedBeat], *, eras: Mapping[int, Era], now_ms: int) -> Sifted:
    """Leave out what can be told from the request alone, each beat for the first reason that applies.

    In the future (then it says nothing of the order, either); not a generation of `eras`; older than one
    before it; of the same time as the one before it. Which days are sealed, the store knows.
    """
    ignored: dict[Reason, int] = dict.fromkeys(REASONS, 0)
    kept: list[MissedBeat] = []
    newest_ms = -1
    for beat in beats:
        reason = _reason(beat, eras=eras, now_ms=now_ms, newest_ms=newest_ms, kept=kept)
        if reason != "future":
            newest_ms = max(newest_ms, beat.at_ms)
        if reason is None:
            kept.append(beat)
        else:
            ignored[reason] += 1
    return Sifted(tuple(kept), ignored)


def _reason(
    beat: MissedBeat, *, eras: Mapping[int, Era], now_ms: int, newest_ms: int, kept: Sequence[MissedBeat]
) -> Reason | None:
    if beat.at_ms > now_ms:
        return "future"
    if beat.generation not in eras:
        return "generation"
    if beat.at_ms < newest_ms:
        return "order"
    return "duplicate" if kept and kept[-1].at_ms == beat.at_ms else None
