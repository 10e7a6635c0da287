"""Plain beats (JSON, ping, push) that came one after the other, as one submission of many.

numpy takes as long for one beat as for a hundred, and each of these comes alone: gathered until something
else comes in between or a commit begins, they share what is done per submission. What makes such a beat
good is the door's (`engine.intake`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.answers import Outcome, Waiting
from engine.core.beats import BEAT_DTYPE
from engine.door import PlainAnswer
from np1.codec import Code

Reply = Callable[[PlainAnswer], None]
_RESYNC_INSTEAD = (Code.OK, Code.EARLY, Code.STANDBY)


class PlainBeats:
    """Those that wait. `add` in order of arrival; `take` makes them one submission."""

    def __init__(self) -> None:
        self._records: list[tuple[int, ...]] = []
        self._replies: list[Reply] = []
        self._unknown_ids: list[int] = []  # positions of beats that named workloads we do not know

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: tuple[int, ...], reply: Reply, *, unknown_ids: bool) -> None:
        """One beat, in the order of BEAT_DTYPE's fields."""
        if unknown_ids:
            self._unknown_ids.append(len(self._records))
        self._records.append(record)
        self._replies.append(reply)

    def take(self) -> Waiting:
        """All that were added; there must be some."""
        beats = np.array(self._records, BEAT_DTYPE)
        replies, unknown_ids = self._replies, self._unknown_ids
        self._records, self._replies, self._unknown_ids = [], [], []

        def decided(what: Outcome) -> None:
            for position in unknown_ids:
                if what.codes[position] in _RESYNC_INSTEAD:
                    what.codes[position] = Code.RESYNC
            told = zip(
                what.codes.tolist(),
                what.next_ms.tolist(),
                what.ttl_ms.tolist(),
                what.t_ms.tolist(),
                strict=True,
            )
            for reply, (code, next_ms, ttl_ms, t_ms) in zip(replies, told, strict=True):
                reply(PlainAnswer(code, next_ms, 0 if code == Code.BUSY else ttl_ms, t_ms))

        return Waiting(beats, None, decided)
