"""The client's running beat, and what the client tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from np1.codec import Code
from np1.effects import Path


@dataclass(slots=True, kw_only=True)
class RunningBeat:
    """The beat that was begun last. Times are monotonic."""

    number: int
    window_ms: int  # after BUSY, a beat begun before this is the same report again, kept once
    until_ms: int  # one interval after try 1: without an answer by then the interval was missed
    wants_ack: bool
    stopping: bool
    clock_resent: bool  # it was sent at once after a CLOCK: another one must wait for its turn
    tries: int = 0
    answered: bool = False
    credited: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """Counts since the start, and what is now."""

    codes: dict[Code, int]  # valid ACKs by code
    frames_sent: int
    beats_begun: int
    ignored: int  # datagrams and replies that were no valid ACK to an unanswered try
    sessions: int
    session_refusals: int
    unacknowledged: int  # beats kept for the backfill now
    dropped: int  # beats that no longer fitted there
    path: Path
    generation: int | None
    interval_ms: int | None
