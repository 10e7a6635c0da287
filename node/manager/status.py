"""What the manager answers to `GET /status`: one object that people and commands read."""

from __future__ import annotations

import os
import time
from typing import Any

import trio

from node.client import NodeClient
from node.drivers.port import Driver, Running
from node.manager.handing_in import HandingIn
from node.manager.kept_beats import KeptBeats
from node.manager.plan import Desired
from node.manager.reconcile import Reconciler
from node.manager.watching import Watching
from np1.codec import Code
from np1.effects import Path
from np1.session import rfc3339_of_ms


def beats_status(
    client: NodeClient, kept: KeptBeats, handing_in: HandingIn, last: tuple[Code, Path, float] | None
) -> dict[str, Any]:
    """Session, last acknowledgement (`last`: its code, way and trio time), way, and what waits."""
    statistics, grant = client.statistics(), client.grant
    return {
        "session": None
        if grant is None
        else {
            "row": grant.row,
            "generation": grant.generation,
            "expires_at": rfc3339_of_ms(grant.expires_ms),
            "interval_ms": statistics.interval_ms,
        },
        "last_ack": None
        if last is None
        else {"code": last[0].name, "via": str(last[1]), "at": _ago(last[2])},
        "via": str(statistics.path),
        "frames_sent": statistics.frames_sent,
        "codes": {code.name: count for code, count in sorted(statistics.codes.items())},
        "backlog": {
            "beats": len(kept),
            "oldest_at": None if kept.oldest_ms is None else rfc3339_of_ms(kept.oldest_ms),
            "dropped": kept.dropped,
            "write_failures": kept.write_failures,
            "taken": handing_in.taken,
            "ignored": dict(handing_in.ignored),
            "refused": handing_in.refused,
        },
    }


def workloads_status(reconciler: Reconciler, driver: Driver, watching: Watching) -> list[dict[str, Any]]:
    """Each workload that is desired or runs, by slot, those that are no longer desired last."""
    running, errors = driver.running(), reconciler.errors()
    desired = sorted(reconciler.desired.values(), key=lambda one: one.slot)
    ids = [one.workload_id for one in desired]
    ids += sorted(set(running) - set(ids))
    return [
        _workload(name, reconciler.desired.get(name), running.get(name), watching, errors.get(name, ""))
        for name in ids
    ]


def _workload(
    workload_id: str, desired: Desired | None, running: Running | None, watching: Watching, error: str
) -> dict[str, Any]:
    verdict = watching.verdict(workload_id)
    return {
        "workload_id": workload_id,
        "name": desired.name if desired is not None else running.name if running is not None else "",
        "kind": None if desired is None else desired.kind,
        "state": verdict.state,
        "why": verdict.why,
        "desired_version": None if desired is None else desired.version,
        "version": None if running is None else running.version,
        "phase": None if running is None else str(running.phase),
        "detail": "" if running is None else running.detail,
        "since": None if running is None else _ago(running.since_s),
        "pid": None if running is None else running.pid,
        "restarts": None if running is None else running.restarts,
        "crashes": None if running is None else running.crashes,
        "error": error,
    }


def desired_status(reconciler: Reconciler) -> dict[str, Any]:
    return {
        "fetched_at": None if reconciler.fetched_s is None else _ago(reconciler.fetched_s),
        "error": reconciler.error,
    }


def process_status(version: str, began_s: float) -> dict[str, Any]:
    return {"version": version, "pid": os.getpid(), "started_at": _ago(began_s)}


def _ago(moment_s: float) -> str:
    """A moment of trio's clock as RFC 3339."""
    return rfc3339_of_ms(round((time.time() - trio.current_time() + moment_s) * 1000))
