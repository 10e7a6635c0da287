"""The outbox: what is to be told where, and what became of it. The port, and the records that cross it.

Who is told of what is decided by the notifier; how it is sent is the worker's. Channels as their owners see
them are in notices.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.core.news import Notice


class Channel(msgspec.Struct, frozen=True):
    """Where notices go. kind: webhook (target = URL, secret), mail (target = address) or apprise (target =
    a service's URL, a secret as a whole).

    `project_id` is None for a person's channel. `event_kinds`: those told there; none = all that are told.
    """

    channel_id: str
    project_id: str | None
    kind: str
    target: str
    secret: str
    event_kinds: tuple[str, ...] = ()


class Delivery(msgspec.Struct, frozen=True):
    """One notice for one channel, waiting to be sent. As claimed, `due_ms` is the end of the lease.

    `wanted_ms`: when it fell due before. `endpoint`, `circuit`: where it goes and whose that is, for bounds
    and breakers (worker/circuits.py); empty: never limited. `unsubscribe_token`: of the channel. `owner`: the
    id of the project or person whose channel it is; `own_address`: it is their own account's mail address.
    """

    delivery_id: str
    channel: Channel
    notice: Notice
    attempts: int
    due_ms: int
    wanted_ms: int = 0
    endpoint: str = ""
    circuit: str = ""
    unsubscribe_token: str = ""
    owner: str = ""
    own_address: bool = False


class Outbox(Protocol):
    """Channels, the notifier's lock and cursor, and new deliveries. What the notifier decides: newsroom.py; sending:
    sending.py."""

    async def add_channel(
        self, project_id: str, *, kind: str, target: str, secret: str, now_ms: int
    ) -> Channel: ...
    async def channels(self, project_id: str) -> list[Channel]: ...

    async def take_notifier_lock(self) -> bool:
        """True when this process is now (or still) the one notifier."""
        ...

    async def notifier_cursor(self) -> int:
        """Of the last event that was decided about."""
        ...

    async def pass_over(self, cursor: int) -> None:
        """Events up to this cursor are told to nobody. It never moves back."""
        ...

    async def put(self, notices: Sequence[tuple[Notice, str]], *, now_ms: int) -> int:
        """Write notices, each with a delivery to the channel of this id that is due now, in one transaction.

        What is there already is left alone; channels that are gone get nothing. How many deliveries are new.
        """
        ...
