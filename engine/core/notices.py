"""Who wants to be told what, and where: channels of projects and of people, and a person's settings.

Only kept here. Which event becomes a notice and how it is sent is the worker's, over the Outbox (ports.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from engine.core.people import Act

if TYPE_CHECKING:
    from engine.core.consent import Question

CHANNELS_MAX = 100  # of one project, and of one person
# What may be told at all.
EventKind = Literal[
    "node.down",
    "node.up",
    "node.stopped",
    "node.flapping",
    "node.steady",
    "node.clone",
    "workload.down",
    "workload.up",
    "workload.flapping",
    "workload.steady",
    "workload.below_minimum",
    "licence.conflict",
    "licence.flapping",
    "licence.steady",
    "dispute.opened",
    "dispute.answered",
    "seal.done",
    "points.committed",
    "publication.done",
    "publication.failed",
    "gap.opened",
    "gap.closed",
    "shard.degraded",
    "shard.recovered",
    "region.down",
    "ingress.down",
    "clock.stepped",
    "actor.quarantined",
]
TakenKind = Literal[EventKind, "announcement", "report"]  # what a channel may be asked to take


class ChannelRecord(msgspec.Struct, frozen=True):
    """A channel as its owner sees it. `disabled_ms`: its receiver said that it wants no more, in the words of
    `disabled_note`; `no_announcements_ms`: no announcements. `unconfirmed_ms`: since when it waits for its
    recipient to want it at all (consent.py), and is disabled for that."""

    channel_id: str
    project_id: str | None
    user_id: str | None
    kind: str  # webhook | mail | apprise
    target: str
    secret: str
    name: str
    event_kinds: tuple[str, ...]  # none: all
    created_ms: int
    disabled_ms: int | None
    disabled_note: str = ""
    no_announcements_ms: int | None = None
    unconfirmed_ms: int | None = None


class NotificationSetting(msgspec.Struct, frozen=True, kw_only=True):
    """When a person is told. Quiet hours are local times ``HH:MM`` of `time_zone`, both or neither."""

    down_delay_s: int = 300
    quiet_from: str | None = None
    quiet_to: str | None = None
    time_zone: str = "UTC"
    daily_report: bool = False
    weekly_report: bool = True


class TooManyChannelsError(Exception):
    """There are CHANNELS_MAX of them already."""


class Notices(Protocol):
    """Channels and settings, as their owners change them. Of an owner exactly one id is given."""

    async def channels(
        self, *, project_id: str | None = None, user_id: str | None = None
    ) -> list[ChannelRecord]:
        """By id; what was removed is not among them."""
        ...

    async def create_channel(
        self,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        kind: str,
        target: str,
        secret: str,
        name: str,
        event_kinds: tuple[str, ...],
        question: Question | None = None,
        act: Act,
    ) -> ChannelRecord:
        """The channel `act.made_id`, made when absent. TooManyChannelsError.

        `question`: how the recipient of a mail channel is asked, unless they confirmed it before or it is the
        maker's own account's address. None: it counts as confirmed, unless they unsubscribed.
        """
        ...

    async def remove_channel(
        self, channel_id: str, *, project_id: str | None = None, user_id: str | None = None, act: Act
    ) -> bool:
        """What was still to be told there dies. False when this owner has no such channel."""
        ...

    async def setting(self, user_id: str) -> NotificationSetting: ...
    async def change_setting(self, user_id: str, setting: NotificationSetting, *, act: Act) -> None: ...
