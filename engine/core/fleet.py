"""Nodes, workloads and events in lists, and how many there are of what: as seen by somebody.

Nothing of a fleet is given out without a `Sight`: whose things may be told at all. It is made from who asks,
in one place (web/sight.py), and an empty one sees nothing, so that a question without an asker has no answer.
What filters narrow down, they narrow down within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from engine.core.ports import NodeRecord, WorkloadRecord
from engine.core.records import Event


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """Whose things may be told: of these projects, and the machines of this person; or just everything."""

    everything: bool = False
    projects: tuple[str, ...] = ()
    operator_id: str | None = None


class NodeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes; None does not narrow. `version`: of the manager; `prefix`: what the name begins with, and
    the list then goes by name. `ids`: from and to, both of them included. `rows`: only nodes in these."""

    project_id: str | None = None
    owner_id: str | None = None
    region: str | None = None
    version: str | None = None
    prefix: str | None = None
    kind: str | None = None
    ids: tuple[str, str] | None = None
    rows: tuple[int, ...] | None = None
    retired: bool = False  # those, too


class WorkloadFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which workloads; None does not narrow. `kind`: a slug; `version`: as its manager reported it;
    `region` and `rows`: their nodes'; `prefix` and `ids` as of nodes."""

    project_id: str | None = None
    operator_id: str | None = None
    node_id: str | None = None
    kind: str | None = None
    version: str | None = None
    licence_id: str | None = None
    region: str | None = None
    prefix: str | None = None
    ids: tuple[str, str] | None = None
    rows: tuple[int, ...] | None = None
    retired: bool = False  # those, too


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; None and () do not narrow."""

    project_id: str | None = None
    node_id: str | None = None
    kinds: tuple[str, ...] = ()


class Place(NamedTuple):
    """A node or a workload by its id, and where it stands in the live view (a node's slot is 0)."""

    id: str
    row: int
    slot: int


class Census(NamedTuple):
    """All living nodes of a project and their living workloads, as arrays in order of their rows."""

    node_row: np.ndarray
    node_region: np.ndarray  # index in `regions`
    workload_row: np.ndarray
    workload_slot: np.ndarray
    workload_region: np.ndarray
    workload_group: np.ndarray  # index in `groups`
    workload_waits: np.ndarray  # another run holds its licence
    regions: tuple[str, ...]
    groups: tuple[tuple[str | None, str | None], ...]  # slug of the kind, running version


class Fleet(Protocol):
    """Lists by keyset: `after` is the id (of events: the cursor) of the last one before, None or 0 at first.

    StoreUnavailableError when PostgreSQL is away.
    """

    async def node_places(
        self, sight: Sight, which: NodeFilter, *, after: str | None, limit: int
    ) -> list[Place]: ...
    async def nodes(self, ids: Sequence[str]) -> list[NodeRecord]:
        """The nodes of these places, in their order."""
        ...

    async def workload_places(
        self, sight: Sight, which: WorkloadFilter, *, after: str | None, limit: int
    ) -> list[Place]: ...
    async def workloads(self, ids: Sequence[str]) -> list[WorkloadRecord]: ...

    async def events(
        self, sight: Sight, which: EventFilter, *, after: int, limit: int, newest: bool = False
    ) -> list[tuple[int, Event]]:
        """(cursor, event) with cursor > after, in cursor order; no late commit is skipped.

        `newest`: from the end instead, with cursor < after (0: from the very end), the newest first.
        """
        ...

    async def newest_cursor(self) -> int:
        """Of all events that there are; 0: none. What is asked for afterwards misses none up to it."""
        ...

    async def census(self, project_id: str) -> Census:
        """Neither retired nor revoked ones. Of a project that the caller was seen to run."""
        ...
