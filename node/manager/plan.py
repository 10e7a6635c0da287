"""What must be done so that what runs is what is desired: one pure function.

Carrying it out is reconcile.py's; which version is desired the server's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.drivers.port import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One workload as the server wants it. `version` and `digest` None: what runs may run on.

    `running_version`: as it was reported last. `restarts`: how many were ordered so far.
    """

    workload_id: str
    slot: int
    name: str
    kind: str | None
    version: str | None
    digest: str | None
    running_version: str | None
    restarts: int


@dataclass(frozen=True, slots=True)
class Remove:
    """It is no longer listed."""

    workload_id: str


@dataclass(frozen=True, slots=True)
class Install:
    """It does not run, or what runs is of another manifest: fetch the manifest, apply it, report."""

    desired: Desired


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart was ordered: end it, begin it, report."""

    desired: Desired


@dataclass(frozen=True, slots=True)
class Tell:
    """All is as it should be, but the server does not know what runs: report."""

    workload_id: str
    version: str
    restarts: int


Action = Remove | Install | Restart | Tell


def plan(desired: Sequence[Desired], running: Mapping[str, Running]) -> tuple[Action, ...]:
    """Removals first (they free ports and memory), then one action at most for each workload, as listed."""
    listed = {one.workload_id for one in desired}
    removals: list[Action] = [Remove(name) for name in sorted(running) if name not in listed]
    steps = (_step(one, running.get(one.workload_id)) for one in desired)
    return (*removals, *(step for step in steps if step is not None))


def _step(desired: Desired, running: Running | None) -> Action | None:
    if desired.digest is not None and (running is None or _is_outdated(desired, running)):
        return Install(desired)
    if running is None:
        return None  # others run it, or nobody: there is nothing to apply
    if desired.restarts > running.restarts:
        return Restart(desired)
    if desired.running_version != running.version:
        return Tell(desired.workload_id, running.version, running.restarts)
    return None


def _is_outdated(desired: Desired, running: Running) -> bool:
    # The version as well: two may share a manifest, and the server asks for one of them by name.
    return (desired.digest, desired.version) != (running.digest, running.version)
