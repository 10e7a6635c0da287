"""Announcements: what whoever runs a project tells the operators of its nodes. Records and the port.

They go through the outbox as one notice each (news.py); who takes none is left out.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np

from engine.core.people import Act


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Which living nodes are meant; None does not narrow. `kind` (a slug) and `version` (as reported): one
    workload on the node has both."""

    project_id: str | None = None
    kind: str | None = None
    version: str | None = None
    region: str | None = None


class Reach(msgspec.Struct, frozen=True):
    """Whom an announcement reaches. `operators`: whose nodes they are; `people`: those of them who have a
    channel that takes announcements; `channels`: messages, one each."""

    nodes: int
    operators: int
    people: int
    channels: int


class Announcement(msgspec.Struct, frozen=True):
    """`filter`: JSON, as it was asked."""

    announcement_id: str
    project_id: str | None
    project: str | None  # slug
    title: str
    text: str
    filter: str
    actor: str
    created_ms: int
    nodes: int
    people: int
    channels: int
    sent: int = 0
    dead: int = 0


class TooManyAnnouncementsError(Exception):
    """As many as a day may have were made for this project."""


class Announcements(Protocol):
    """`rows`: of the nodes meant, for what PostgreSQL does not know (their state); None: all of the audience.

    StoreUnavailableError of each.
    """

    async def rows(self, audience: Audience) -> np.ndarray:
        """Rows of the audience's nodes, i8, in their order."""
        ...

    async def reach(self, audience: Audience, *, rows: np.ndarray | None) -> Reach: ...

    async def announce(
        self,
        audience: Audience,
        *,
        rows: np.ndarray | None,
        title: str,
        text: str,
        filter_json: str,
        per_day_max: int,
        act: Act,
    ) -> Announcement:
        """The announcement `act.made_id`, made when absent, in the outbox. TooManyAnnouncementsError."""
        ...

    async def announcements(
        self, projects: tuple[str, ...] | None, *, before: str | None, limit: int
    ) -> list[Announcement]:
        """Of these projects (None: all), the newest first, with how many were sent and given up."""
        ...
