"""Which seq a frame carries: ``(estimated server ms << 16) | counter``, strictly increasing (WIRE.md).

The rule: max(last credited seq + 1, estimate << 16), and above every seq sent since the last CLOCK. All of
it belongs to one generation and starts anew with the next.
"""

from __future__ import annotations

from collections.abc import Callable

COUNTER_BITS = 16


class Sequence:
    """The seqs of one row's present generation. `epoch` counts how often sent seqs were forgotten."""

    def __init__(self) -> None:
        self.epoch = 0
        self.newest: int | None = None  # the last that was given out
        self.last_credited = 0
        self._floor = 0  # the highest given out since the last CLOCK

    def next(self, server_ms: int, is_unanswered: Callable[[int], bool]) -> int:
        """A seq for a frame that leaves now; `is_unanswered` tells those it must not collide with.

        Without that, a seq from before a CLOCK could be met again, and its late ACK be taken for the new
        one's.
        """
        seq = max(self.last_credited + 1, server_ms << COUNTER_BITS, self._floor + 1)
        while is_unanswered(seq):
            seq += 1
        self.newest = self._floor = seq
        return seq

    def credited(self, seq: int) -> None:
        self.last_credited = max(self.last_credited, seq)

    def forget_sent(self) -> None:
        """A CLOCK came: those sent so far no longer bind."""
        self.epoch += 1
        self._floor = 0

    def new_generation(self) -> None:
        self.epoch += 1
        self.newest = None
        self.last_credited = self._floor = 0

    def stuck(self, server_ms: int, window_ms: int) -> bool:
        """Whether even the lowest seq allowed lies too far ahead of the server's clock to be accepted."""
        return (self.last_credited >> COUNTER_BITS) - server_ms > window_ms
