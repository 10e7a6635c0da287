"""What was told where, and what can be done about it: history, dead letters, tests, the link out of mails.

Sending is sending.py's. Of an owner exactly one id is given; a channel that is not theirs is not there.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from engine.core.consent import Question
from engine.core.news import Notice
from engine.core.notices import ChannelRecord
from engine.core.people import Act

DeliveryState = Literal["due", "sent", "dead"]
REPLAYED_MAX = 10_000  # by one act
# By one owner to one target, which may be a stranger's, whatever channel it was in; and of one owner in all.
TESTS_PER_HOUR_MAX, OWNERS_TESTS_PER_HOUR_MAX = 10, 100


class DeliveryRecord(msgspec.Struct, frozen=True):
    """One notice for one channel, as its owner sees it.

    `due_ms`: when it is tried next, or was to be. `replays`: how often somebody had it sent again.
    """

    delivery_id: str
    state: DeliveryState
    attempts: int
    replays: int
    note: str
    created_ms: int
    due_ms: int
    attempted_ms: int | None  # first
    settled_ms: int | None
    notice: Notice


_TEST = """This is a test, sent because somebody asked for it. Nothing is wrong and nothing is to be done.
Whoever reads this will hear of events here."""


def notice_of_test(channel: ChannelRecord, act: Act) -> Notice:
    """The notice that a test of this channel sends; `act.made_id` is its id."""
    return Notice(
        notice_id=act.made_id,
        form="test",
        kind="test",
        at_ms=act.now_ms,
        since_ms=act.now_ms,
        project_id=channel.project_id,
        title="A test of this channel",
        text=_TEST,
        urgent=True,
    )


class ChannelOffError(Exception):
    """Nothing is sent there: it is disabled. Enable it first."""


class TooManyTestsError(Exception):
    """There were TESTS_PER_HOUR_MAX or OWNERS_TESTS_PER_HOUR_MAX within the hour."""


class Told(Protocol):
    """StoreUnavailableError of each."""

    async def channel(
        self, channel_id: str, *, project_id: str | None = None, user_id: str | None = None
    ) -> ChannelRecord | None:
        """One that is not removed."""
        ...

    async def deliveries(
        self, channel_id: str, *, state: DeliveryState | None, before: str | None, limit: int
    ) -> list[DeliveryRecord]:
        """The newest first, from the one before `before` on."""
        ...

    async def send_test(self, channel: ChannelRecord, notice: Notice, *, act: Act) -> str:
        """Put a notice for this channel alone into the outbox; the delivery's id, the same when repeated.

        ChannelOffError, TooManyTestsError.
        """
        ...

    async def replay(self, channel: ChannelRecord, delivery_id: str | None, *, act: Act) -> int:
        """Dead letters of the channel, all or one, are due again as if new; how many. ChannelOffError."""
        ...

    async def enable(
        self, channel: ChannelRecord, *, question: Question | None = None, act: Act
    ) -> ChannelRecord:
        """Have notices sent there again, announcements too. What died meanwhile stays dead.

        Where a recipient of mail unsubscribed they are asked first, with the letter of `question`.
        """
        ...

    async def disable(self, channel: ChannelRecord, *, act: Act) -> ChannelRecord:
        """Have nothing sent there until it is enabled again; what was due dies, and can be replayed then."""
        ...

    async def channel_of_link(self, token: str) -> ChannelRecord | None:
        """The channel whose link to unsubscribe this is."""
        ...

    async def unsubscribe(self, token: str, *, announcements_only: bool, act: Act) -> bool:
        """Nothing, or no announcement, goes there any more, by whichever of this owner's channels. False: no
        such link."""
        ...
