"""Where a shard goes on flushing when it meets PostgreSQL (again): do the journal and history still fit?

They fit when the journal holds all that history lacks. They do not after a restore of one of them to another
time than the other's. Then nothing is flushed and nothing of the journal is let go until somebody has looked:
whatever went on by itself would lose what was acknowledged, and nobody would notice. Here is the judgement;
the flusher waits by it, and `nodepulse db rejoin` shows it and lets the operator decide.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.journal import POSITION_PER_MS


class Span(NamedTuple):
    """A journal on disk: positions of its first byte and of its end."""

    first: int
    end: int

    @property
    def whole(self) -> bool:
        """Whether nothing was ever trimmed from it: a journal begins at a whole millisecond's position."""
        return self.first % POSITION_PER_MS == 0


class OutOfStepError(Exception):
    """Journal and history do not fit; the text is for the operator."""


_LOOK = "Beats are taken and kept in the journal, nothing is flushed. See docs/operations.md#out-of-step"


def goes_on_at(span: Span, stored: int) -> int:
    """The position from which outputs are to be flushed. OutOfStepError.

    stored: the position up to which history says that it has everything; 0 when it never heard of the shard.
    """
    if stored > span.end:
        raise OutOfStepError(
            f"the journal ends at {span.end}, PostgreSQL holds records up to {stored}: the journal is an "
            f"older copy. {_LOOK}"
        )
    if stored < span.first and not span.whole:
        raise OutOfStepError(
            f"PostgreSQL holds records up to {stored} only, the journal begins at {span.first}: PostgreSQL "
            f"was brought back to a time that the journal no longer holds. {_LOOK}"
        )
    return max(stored, span.first)
