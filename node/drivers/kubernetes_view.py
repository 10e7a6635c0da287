"""What the kubernetes driver knows of its workloads: in memory, and in a file for starts without a cluster.

The cluster is the truth: everything here is read from it, and overwritten by what is read next. Looking and
changing are kubernetes.py's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import trio

from node.config import write_whole
from node.drivers.kubernetes_deployment import STOPPED, WORKLOAD, read_order
from node.drivers.kubernetes_state import Known, follow, look
from node.drivers.port import Order, Origin, Phase, Running
from node.health_spec import HealthSpec

log = logging.getLogger(__name__)
FILE_BYTES_MAX = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One workload. stop_s: how long its pod may take to end. stopped: scaled to 0 by an orderly stop."""

    order: Order
    health: HealthSpec | None
    known: Known
    stop_s: int
    stopped: bool = False


class View:
    """Workloads by id. What is being changed is not overwritten by a reading that began before the change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = b""
        self._tick = 0
        self._touched: dict[str, int] = {}
        self._changing: set[str] = set()
        self.kept: dict[str, Kept] = {}
        self._load()

    @contextmanager
    def changing(self, workload_id: str) -> Iterator[None]:
        """Readings that overlap with this say nothing of the workload."""
        self._changing.add(workload_id)
        try:
            yield
        finally:
            self._changing.discard(workload_id)
            self._tick += 1
            self._touched[workload_id] = self._tick

    def moment(self) -> int:
        """Asked for before a reading, given to `take` with its outcome."""
        return self._tick

    def take(
        self, deployments: Sequence[dict[str, Any]], pods: Sequence[dict[str, Any]], *, moment: int
    ) -> None:
        """Take over what was read."""
        now_s, found = trio.current_time(), dict[str, Kept]()
        of: dict[str, list[dict[str, Any]]] = {}
        for pod in pods:
            of.setdefault(_workload(pod), []).append(pod)
        for deployment in deployments:
            workload_id = _workload(deployment)
            if workload_id and not deployment["metadata"].get("deletionTimestamp"):
                before = self.kept.get(workload_id)
                seen = look(deployment, of.get(workload_id, []))
                known = follow(None if before is None else before.known, seen, now_s=now_s)
                found[workload_id] = _kept(workload_id, deployment, known)
        stale = {name for name, tick in self._touched.items() if tick > moment} | self._changing
        for name in sorted(set(self.kept) - set(found) - stale):
            log.warning("workload %s: its Deployment is gone, and not by us", name)
        own = {name: kept for name, kept in self.kept.items() if name in stale}
        self.kept = {name: kept for name, kept in found.items() if name not in stale} | own
        self._touched = {name: tick for name, tick in self._touched.items() if tick > moment}
        self.save()

    def ordered(self, order: Order, health: HealthSpec | None, *, stop_s: int) -> None:
        """This was begun just now, in place of what ran of it."""
        before = self.kept.get(order.workload_id)
        known = Known(phase=Phase.STARTING, origin=Origin.ORDERED, since_s=trio.current_time())
        if before is not None:
            was = before.known
            known = replace(known, run=was.run, order=was.order, crashes=was.crashes, restarts=was.restarts)
        self.kept[order.workload_id] = Kept(order=order, health=health, known=known, stop_s=stop_s)
        self.save()

    def running(self, *, blind: str = "") -> Mapping[str, Running]:
        """For the port. blind: why nothing is known any more; who reports by himself is believed still."""
        return {name: _running(kept, blind) for name, kept in self.kept.items()}

    # -- on disk ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write it down if it has changed: a manager that starts with the API server away goes on with it."""
        told = [
            {**asdict(kept), "known": asdict(replace(kept.known, since_s=0, detail=""))}
            for kept in self.kept.values()
        ]
        data = json.dumps(told).encode()
        if data == self._saved:
            return
        try:
            write_whole(self._path, data)
            self._saved = data
        except OSError as error:
            log.warning("what is known of workloads cannot be kept: %s", error)

    def _load(self) -> None:
        try:
            with self._path.open("rb") as file:
                told = json.loads(file.read(FILE_BYTES_MAX))
            self.kept = {one.order.workload_id: one for one in map(_restored, told)}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("what was known of workloads cannot be used: %s", error)


def _workload(thing: dict[str, Any]) -> str:
    return str((thing["metadata"].get("labels") or {}).get(WORKLOAD, ""))


def _kept(workload_id: str, deployment: dict[str, Any], known: Known) -> Kept:
    """A Deployment whose annotation is spoilt is of no version: it is ordered anew, or removed."""
    spoilt = Order(workload_id=workload_id, name="", version="", digest="", manifest="", restarts=0)
    order, health = read_order(deployment) or (spoilt, None)
    if order.workload_id != workload_id:
        order, health = spoilt, None
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    return Kept(
        order=order,
        health=health,
        known=known,
        stop_s=int(pod.get("terminationGracePeriodSeconds") or 0),
        stopped=STOPPED in (deployment["metadata"].get("annotations") or {}),
    )


def _running(kept: Kept, blind: str) -> Running:
    order, known = kept.order, kept.known
    speaks = kept.health is not None and kept.health.report
    unknown = bool(blind) and not speaks
    return Running(
        workload_id=order.workload_id,
        name=order.name,
        version=order.version,
        digest=order.digest,
        restarts=order.restarts,
        phase=Phase.FAILED if unknown else known.phase,
        origin=known.origin,
        since_s=known.since_s,
        run=known.run,
        detail=blind if unknown else known.detail,
        crashes=known.crashes,
        health=kept.health,
    )


def _restored(told: dict[str, Any]) -> Kept:
    """Of an earlier manager: what ran then is believed to run until it is seen."""
    known = Known(**{**told["known"], "phase": Phase(told["known"]["phase"])})
    origin = Origin.ADOPTED if known.phase is Phase.RUNNING else Origin(known.origin)
    health = told["health"]
    return Kept(
        order=Order(**told["order"]),
        health=None if health is None else HealthSpec(**health),
        known=replace(known, origin=origin, since_s=trio.current_time()),
        stop_s=int(told["stop_s"]),
        stopped=bool(told["stopped"]),
    )
