"""What came of one attempt to send, and what follows from it. Pure: no clock, no I/O.

The senders (webhooks.py, mail.py, apprise_sender.py) say what they saw; `next_step` alone decides between
sent, another try and a dead letter. Claiming and settling is deliveries.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import msgspec

from engine.core.outbox import Delivery

# Standard Webhooks' ladder (FACTS.md, Conventions): the wait after the first, second, ... failed attempt.
RETRY_LADDER_MS: tuple[int, ...] = tuple(
    seconds * 1000
    for seconds in (5, 300, 1_800, 2 * 3_600, 5 * 3_600, 10 * 3_600, 14 * 3_600, 20 * 3_600, 24 * 3_600)
)
# Waits are stretched by up to this share, never shortened: receivers that failed together come back apart.
RETRY_JITTER = 0.2
NOTE_CHARS_MAX = 300
LATER_MS_MIN = 1_000  # so that what waits is not claimed again and again


class Result(Enum):
    ACCEPTED = "accepted"
    FAILED = "failed"  # may succeed later
    REFUSED = "refused"  # this one will never be taken; another may
    GONE = "gone"  # the receiver wants nothing any more (410)
    LATER = "later"  # nothing was attempted: not before `not_before_ms`


class Outcome(msgspec.Struct, frozen=True):
    """What a sender saw; `note` is kept with the delivery and shown to the channel's owner.

    `endpoint_failed`: it says something of the receiver as a whole (away, overloaded), not of this message
    only, and counts for its circuit.
    """

    result: Result
    note: str
    endpoint_failed: bool = False
    not_before_ms: int = 0


class Sender(Protocol):
    """Sends to channels of one kind. Operating errors become an Outcome; what escapes is a bug."""

    async def __call__(self, delivery: Delivery, *, now_ms: int, timeout_s: float) -> Outcome: ...


class Step(Enum):
    SENT = "sent"
    RETRY = "retry"
    DEAD = "dead"
    DISABLE = "disable"
    LATER = "later"


def retry_delay_ms(attempts: int, draw: float) -> int:
    """The wait after the attempt number `attempts` (1 = the first) failed; `draw` in [0, 1) is the jitter.

    Beyond the ladder its last rung repeats.
    """
    assert attempts >= 1
    base = RETRY_LADDER_MS[min(attempts, len(RETRY_LADDER_MS)) - 1]
    return base + int(base * RETRY_JITTER * draw)


def next_step(
    outcome: Outcome, *, attempts: int, attempts_max: int, now_ms: int, draw: float
) -> tuple[Step, int | None]:
    """(what to do with the delivery, when to try again if that is RETRY). `attempts` counts this one."""
    match outcome.result:
        case Result.ACCEPTED:
            return Step.SENT, None
        case Result.GONE:
            return Step.DISABLE, None
        case Result.REFUSED:
            return Step.DEAD, None
        case Result.LATER:
            return Step.LATER, max(outcome.not_before_ms, now_ms + LATER_MS_MIN)
        case Result.FAILED:
            if attempts >= attempts_max:
                return Step.DEAD, None
            return Step.RETRY, now_ms + retry_delay_ms(attempts, draw)
