"""The client's estimate of the server's clock: monotonic time plus an offset that every reply bounds.

A reply that names server time s, sent at a and received at b (monotonic), says that the offset lies in
[s - b, s - a]. The estimate is moved only as far as that demands, so that it narrows with quick replies
and does not jitter with slow ones.
"""

from __future__ import annotations

from np1.session import UNIX_MS_MAX


class ServerClock:
    """Unknown until the first reply."""

    def __init__(self) -> None:
        self._offset_ms: int | None = None

    @property
    def known(self) -> bool:
        return self._offset_ms is not None

    def told(self, server_ms: int, *, sent_ms: int, received_ms: int) -> None:
        """Take in one reply. A time outside 0..UNIX_MS_MAX fits no sequence number and is passed over."""
        if not 0 <= server_ms <= UNIX_MS_MAX:
            return
        low, high = server_ms - received_ms, server_ms - sent_ms
        guess = (low + high) // 2 if self._offset_ms is None else self._offset_ms
        self._offset_ms = min(max(guess, low), high)

    def estimate_ms(self, now_ms: int) -> int:
        """The server's unix time at a monotonic moment. LookupError while nothing is known."""
        if self._offset_ms is None:
            raise LookupError("no reply has told the server's time yet")
        return min(max(now_ms + self._offset_ms, 0), UNIX_MS_MAX)

    def moment_of(self, server_ms: int) -> int:
        """The monotonic moment at which the estimate will reach a server time."""
        if self._offset_ms is None:
            raise LookupError("no reply has told the server's time yet")
        return server_ms - self._offset_ms
