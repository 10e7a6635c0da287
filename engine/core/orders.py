"""What is asked of a manager (its desired state), what it says runs now, and ordered restarts: records, port.

The choice of a version is rollout.py's; how long a window may be, maintenance.py's.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.core.people import Act
from engine.core.rollout import Wanted

# What a window for an ordered update or restart may take (LIVENESS.md 4); it ends when the manager says so.
ORDER_MS = 10 * 60_000


class DesiredWorkload(msgspec.Struct, frozen=True, kw_only=True):
    """One workload as its manager should have it. `version` None: none is asked for."""

    wanted: Wanted
    name: str
    kind: str | None  # its slug
    version: str | None
    digest: str | None  # of the manifest
    running_version: str | None  # as it was reported last


class DesiredState(msgspec.Struct, frozen=True):
    """`digest` changes exactly when something else is asked for."""

    node_id: str
    interval_ms: int
    digest: bytes
    workloads: tuple[DesiredWorkload, ...]


class Manifest(msgspec.Struct, frozen=True):
    version: str
    manifest: str
    digest: str


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, and what should."""

    workload_id: str
    running_version: str | None
    minimum_version: str | None
    below_minimum: bool
    wanted: Wanted
    version: str | None  # that is wanted


class UnknownVersionError(Exception):
    """The workload's kind has no such version. `known`: the newest that it has."""

    def __init__(self, known: list[str]) -> None:
        super().__init__(f"known: {', '.join(known) or 'none'}")
        self.known = known


class RestartRefusedError(Exception):
    """Nothing is there that could be restarted; the text says why."""


class Orders(Protocol):
    """The desired state of one node, and what follows from asking for it."""

    async def fetch(self, node_id: str, *, now_ms: int) -> DesiredState | None:
        """The desired state, which the node's manager then has: RESYNC ends, and windows open.

        For each workload that was heard of, and that must be updated or restarted for it, one window of
        ORDER_MS is opened, as far as there is room (maintenance.py). None: no such living node.
        """
        ...

    async def manifest(self, node_id: str, workload_id: str) -> Manifest | None:
        """Of the version that is desired of this node's workload; None when there is none."""
        ...

    async def report(
        self, node_id: str, workload_id: str, *, version: str | None, restarts: int | None, now_ms: int
    ) -> Running | None:
        """What runs now (None: as before), and how many of the ordered restarts are done (None: as before).

        Orders that this fulfils are closed and their windows end after one more interval. Below the minimum
        version the event workload.below_minimum is raised. UnknownVersionError. None: not this node's.
        """
        ...

    async def running(self, workload_id: str) -> Running | None:
        """What runs and what should, as people look at it: nothing is changed. None: no such workload."""
        ...

    async def order_restart(self, act: Act, workload_id: str) -> int | None:
        """One more restart; how many were ordered so far. RestartRefusedError. None: no such workload."""
        ...


class Worked(msgspec.Struct, frozen=True):
    """What one chunk of a rollout did: nodes looked at, flags changed, workloads found below the minimum."""

    nodes: int
    changed: int
    below: int


class Rollouts(Protocol):
    """Changes of kinds on their way to the managers that they concern."""

    async def work(self, *, nodes: int, now_ms: int) -> Worked | None:
        """Look at the next so many nodes of a change that waits; None: nothing waits.

        One short transaction; several workers do not wait for each other.
        """
        ...
