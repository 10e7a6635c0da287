"""How many of something are open at once in this process, with a bound: above it one more is refused."""

from __future__ import annotations


class TooManyError(Exception):
    """As many are open as may be."""


class Counted:
    """Counts what enters and leaves."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = self._refused = 0

    def enter(self) -> None:
        """TooManyError."""
        if self._open >= self._most:
            self._refused += 1
            raise TooManyError
        self._open += 1

    def leave(self) -> None:
        self._open -= 1

    def statistics(self) -> dict[str, float]:
        return {"open": self._open, "refused_total": self._refused}
