"""What the engine asks of the loop that trio is a guest of (DESIGN.md, decision 1; docs/decisions/0018).

What happens hundreds of times a second is done by callbacks there: each time that trio is woken from outside
costs a thread and two turns. The real one is `storage.bridge.Host`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol


class Host(Protocol):
    """All is asked and called back on the one thread that both loops share."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the loop's next turn."""
        ...

    def in_thread(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Do what blocks in a thread, one after the other, then say `done`, with what it raised."""
        ...

    def when_readable(self, sock: socket.socket, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever something lies in the socket, until the returned function is called."""
        ...
