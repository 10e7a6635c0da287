"""The port between the manager and what runs workloads: records, errors, and the Driver protocol.

A driver keeps what it was told, over a restart of the manager too, and says at any time what it knows of it.
Whether a workload is well is not its business (health.py), nor what should run (manager/plan.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import trio

from node.health_spec import HealthSpec


class Phase(StrEnum):
    """What the driver knows of a workload."""

    STARTING = "starting"  # ordered, and not there yet
    RUNNING = "running"
    FAILED = "failed"  # it ended, or could not be started; whether it is tried again is the driver's to say
    COMPLETED = "completed"  # it ended as it should, and is not started again


class Origin(StrEnum):
    """Why the present run was begun."""

    ORDERED = "ordered"  # by a first start, an update or an ordered restart
    CRASHED = "crashed"  # because the one before it ended by itself
    ADOPTED = "adopted"  # it ran before this manager did


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A workload as it should run. `digest`: of the manifest. `restarts`: how many were ordered so far."""

    workload_id: str
    name: str
    version: str
    digest: str
    manifest: str
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A workload as it is. `since_s` is trio's clock: when the present phase began.

    `run` names the present run and changes with each. `crashes`: ends that nobody ordered, since this driver
    began. `health`: how to find out whether it is well, None when the phase alone says it.
    """

    workload_id: str
    name: str
    version: str
    digest: str
    restarts: int
    phase: Phase
    origin: Origin
    since_s: float
    run: str
    detail: str = ""
    crashes: int = 0
    pid: int | None = None
    health: HealthSpec | None = None


class ManifestError(ValueError):
    """This driver cannot run such a manifest; the text says what is wrong where."""


class DriverError(Exception):
    """What was asked could not be done now; it may be asked again."""


class Driver(Protocol):
    """Calls for one workload come one after the other; for different ones they may overlap."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what was ordered running, until cancelled, which ends nothing that runs.

        Under ``nursery.start`` it counts as started when `running` is complete. DriverError.
        """
        ...

    def running(self) -> Mapping[str, Running]:
        """Everything that was ordered and not removed, by workload id, as far as is known now."""
        ...

    def trouble(self) -> str:
        """Why the driver cannot do or see what it should, for people; "" when all is well."""
        ...

    def check(self, manifest: str) -> None:
        """ManifestError when it could not be run here."""
        ...

    async def apply(self, order: Order) -> None:
        """Run this, in place of what runs of it now; return when it is begun. ManifestError, DriverError."""
        ...

    async def restart(self, workload_id: str, *, restarts: int) -> None:
        """End it and begin it anew; `restarts` is remembered. DriverError."""
        ...

    async def remove(self, workload_id: str) -> None:
        """End it and forget it; no error when there is none. DriverError."""
        ...

    async def stop_all(self) -> None:
        """The node is stopped: end what would else run unwatched. What was ordered is remembered."""
        ...
