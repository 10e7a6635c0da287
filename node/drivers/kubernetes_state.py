"""How a workload fares, read from its Deployment and its pods: pure functions, tried by a table of cases.

`look` says what the cluster shows now; `follow` what that means after what was known before: whether a run is
another one, and why it was begun. Asking is kubernetes_api.py's, being well node/health.py's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from node.drivers.kubernetes_deployment import STOPPED
from node.drivers.port import Origin, Phase

DETAIL_MAX = 500
# Why a container waits while all goes well; every other reason is a failure.
_GOES_WELL = {"", "ContainerCreating", "PodInitializing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the cluster shows. `run`: pod and restarts of its container, "" without a pod. `order`: what the
    pod was begun for. `begun`: its container runs, ready or not."""

    phase: Phase
    detail: str = ""
    run: str = ""
    order: str = ""
    restarts: int = 0
    begun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a workload's run. `since_s` as in port.Running; `proved`: it was ready once."""

    phase: Phase
    origin: Origin
    since_s: float
    detail: str = ""
    run: str = ""
    order: str = ""
    crashes: int = 0
    restarts: int = 0
    proved: bool = False


def look(deployment: dict[str, Any], pods: Sequence[dict[str, Any]]) -> Seen:
    """How the workload of this Deployment fares; `pods` are all with its label."""
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    if spec.get("replicas") == 0:
        stopped = STOPPED in _annotations(deployment)
        return Seen(
            phase=Phase.STARTING if stopped else Phase.FAILED,
            detail="stopped" if stopped else "somebody has scaled its Deployment to 0",
        )
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return Seen(phase=Phase.STARTING, detail="the cluster has not taken up the change yet")
    wanted = _ours(_annotations(spec.get("template") or {}))
    of_now = [pod for pod in pods if _ours(_annotations(pod)) == wanted]
    living = [pod for pod in of_now if not pod["metadata"].get("deletionTimestamp")]
    if living:
        pod = max(living, key=lambda one: str(one["metadata"].get("creationTimestamp", "")))
        return _look_at(pod, wanted, _stuck(status))
    failed = _failed_condition(status)
    if failed is not None:
        return Seen(phase=Phase.FAILED, detail=failed)
    waits = "the run before is being ended" if pods else "no pod is there yet"
    return Seen(phase=Phase.STARTING, detail=waits)


def _look_at(pod: dict[str, Any], order: str, stuck: str | None) -> Seen:
    status = pod.get("status") or {}
    statuses = status.get("containerStatuses") or [{}]
    restarts = int(statuses[0].get("restartCount") or 0)
    phase, detail, begun = _judge(status, statuses[0])
    if phase is Phase.STARTING and stuck is not None:
        phase, detail = Phase.FAILED, f"{detail}; {stuck}"
    return Seen(
        phase=phase,
        detail=detail[:DETAIL_MAX],
        run=f"{pod['metadata'].get('uid', '')}:{restarts}",
        order=order,
        restarts=restarts,
        begun=begun,
    )


def _judge(status: dict[str, Any], container: dict[str, Any]) -> tuple[Phase, str, bool]:
    """Phase, why, and whether the container runs."""
    state = container.get("state") or {}
    if status.get("phase") == "Failed":
        return (
            Phase.FAILED,
            _joined(status.get("reason") or "the pod has failed", status.get("message")),
            False,
        )
    if "terminated" in state:
        return Phase.FAILED, _ended(state["terminated"] or {}), False
    waiting = state.get("waiting") or {}
    if waiting.get("reason", "") not in _GOES_WELL:
        before = (container.get("lastState") or {}).get("terminated")
        why = _ended(before) if before else waiting.get("message")
        return Phase.FAILED, _joined(waiting["reason"], why), False
    conditions = {one.get("type"): one for one in status.get("conditions") or []}
    placed = conditions.get("PodScheduled") or {}
    if placed.get("status") == "False":
        return Phase.FAILED, _joined(placed.get("reason") or "not scheduled", placed.get("message")), False
    ready = conditions.get("Ready") or {}
    if "running" in state and ready.get("status") == "True":
        return Phase.RUNNING, "", True
    if "running" in state:
        return Phase.STARTING, _joined("not ready", ready.get("message")), True
    return Phase.STARTING, str(waiting.get("reason") or "the pod is being begun"), False


def _ended(terminated: dict[str, Any]) -> str:
    code = terminated.get("exitCode")
    told = f"killed by signal {code - 128}" if type(code) is int and code > 128 else f"ended with code {code}"
    reason = terminated.get("reason")
    return told if reason in (None, "", "Error") else f"{told} ({reason})"


def _joined(reason: str, message: Any) -> str:
    return f"{reason}: {message}" if message else reason


def _stuck(status: dict[str, Any]) -> str | None:
    """That the Deployment has made no progress for as long as an update is excused."""
    for one in status.get("conditions") or []:
        if one.get("type") == "Progressing" and one.get("status") == "False":
            return _joined(str(one.get("reason", "")), one.get("message"))
    return None


def _failed_condition(status: dict[str, Any]) -> str | None:
    """Why no pod can be made: a quota, an admission rule; or that none came in time."""
    for one in status.get("conditions") or []:
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            return _joined(str(one.get("reason", "")), one.get("message"))[:DETAIL_MAX]
    return _stuck(status)


def _annotations(thing: dict[str, Any]) -> dict[str, str]:
    return (thing.get("metadata") or {}).get("annotations") or {}


def _ours(annotations: dict[str, str]) -> str:
    """What a pod was begun for: equal texts, the same order."""
    return json.dumps(
        {name: one for name, one in annotations.items() if name.startswith("nodepulse/")}, sort_keys=True
    )


def follow(before: Known | None, seen: Seen, *, now_s: float) -> Known:
    """What is known now. A run is another when its pod or its container's count of restarts is."""
    if before is None:
        return _first(seen, now_s)
    another = seen.run not in ("", before.run)
    ordered = another and seen.order != before.order
    origin, crashes = before.origin, before.crashes
    if another:
        origin = Origin.ORDERED if ordered or not before.run else Origin.CRASHED
    if another and origin is Origin.CRASHED:
        same_pod = seen.run.partition(":")[0] == before.run.partition(":")[0]
        crashes += max(1, seen.restarts - before.restarts) if same_pod else 1
    proved = seen.phase is Phase.RUNNING or (before.proved and not another)
    phase = seen.phase
    if phase is Phase.STARTING and seen.begun and proved:
        phase = Phase.FAILED  # it was ready, and is not any more
    same = phase is before.phase and not another
    return Known(
        phase=phase,
        origin=origin,
        since_s=before.since_s if same else now_s,
        detail=seen.detail,
        run=seen.run or before.run,
        order=seen.order or before.order,
        crashes=crashes,
        restarts=seen.restarts if seen.run else before.restarts,
        proved=proved,
    )


def _first(seen: Seen, now_s: float) -> Known:
    """What was there before this manager: trusted if it runs, not if it has crashed before."""
    if seen.phase is Phase.RUNNING:
        origin = Origin.ADOPTED
    else:
        origin = Origin.CRASHED if seen.restarts else Origin.ORDERED
    return Known(
        phase=seen.phase,
        origin=origin,
        since_s=now_s,
        detail=seen.detail,
        run=seen.run,
        order=seen.order,
        restarts=seen.restarts,
        proved=seen.phase is Phase.RUNNING,
    )
