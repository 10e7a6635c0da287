"""The tries that were sent and not yet answered, and the matching of incoming bytes to them.

An ACK is believed only if its seq is an unanswered try of ours and its tag is right under the key of that
try's session (WIRE.md: "Ignore an ACK whose tag is wrong or whose seq is not an unanswered beat of yours").
"""

from __future__ import annotations

from dataclasses import dataclass

from np1.codec import Ack, FrameRejectedError, decode_ack, peek, peek_seq
from np1.effects import Path
from np1.session import SessionGrant

UNANSWERED_MAX = 64  # tries whose ACK would still be believed; the oldest are forgotten first


@dataclass(frozen=True, slots=True)
class Try:
    """A frame that was sent."""

    grant: SessionGrant
    seq: int
    beat: int  # number of the beat it is a try of
    number: int  # of the try, rising over all beats
    sent_ms: int  # monotonic
    path: Path
    epoch: int  # Sequence.epoch when it was sent


class Unanswered:
    """Bounded, by generation and seq."""

    def __init__(self, tries_max: int = UNANSWERED_MAX) -> None:
        self._tries: dict[tuple[int, int], Try] = {}
        self._tries_max = tries_max

    def __contains__(self, generation_and_seq: tuple[int, int]) -> bool:
        return generation_and_seq in self._tries

    def __len__(self) -> int:
        return len(self._tries)

    def sent(self, one: Try) -> None:
        if len(self._tries) >= self._tries_max:
            del self._tries[next(iter(self._tries))]
        self._tries[one.grant.generation, one.seq] = one

    def take(self, data: bytes) -> tuple[Try, Ack] | None:
        """The try that these bytes answer, which is then no longer unanswered; None for any other bytes."""
        try:
            found = self._tries.get((peek(data)[0], peek_seq(data)))
            if found is None:
                return None
            grant = found.grant
            ack = decode_ack(data, grant.key, row=grant.row, generation=grant.generation)
        except FrameRejectedError:
            return None
        del self._tries[ack.generation, ack.seq]
        return found, ack
