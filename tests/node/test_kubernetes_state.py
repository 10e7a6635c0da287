"""What a Deployment and its pods say of a workload: a table of what is shown and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from node.drivers.kubernetes_state import Known, Seen, follow, look
from node.drivers.port import Origin, Phase

NOW = {"annotations": {"nodepulse/version": "2"}}
BEFORE = {"annotations": {"nodepulse/version": "1"}}
READY = [{"type": "Ready", "status": "True"}]
UNREADY = [{"type": "Ready", "status": "False", "message": "containers with unready status: [workload]"}]
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}


def deployment(
    *conditions: dict[str, Any], replicas: int = 1, observed: int = 3, **meta: Any
) -> dict[str, Any]:
    return {
        "metadata": {"generation": 3, **meta},
        "spec": {"replicas": replicas, "template": {"metadata": NOW}},
        "status": {"observedGeneration": observed, "conditions": list(conditions)},
    }


def pod(
    state: dict[str, Any] | None = None,
    *,
    meta: dict[str, Any] = NOW,
    conditions: list[dict[str, Any]] = UNREADY,
    restarts: int = 0,
    last: dict[str, Any] | None = None,
    phase: str = "Running",
    made: str = "1",
    **more: Any,
) -> dict[str, Any]:
    container = {
        "state": state or {},
        "restartCount": restarts,
        "lastState": {"terminated": last} if last else {},
    }
    status = {"phase": phase, "conditions": conditions, "containerStatuses": [container], **more}
    return {"metadata": {**meta, "uid": f"u{made}", "creationTimestamp": made}, "status": status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


ENDING = {**NOW, "deletionTimestamp": "now"}
CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]], Phase, str]] = [
    ("ready", deployment(), [pod({"running": {}}, conditions=READY)], Phase.RUNNING, ""),
    ("not seen yet", deployment(observed=2), [], Phase.STARTING, "not taken up"),
    ("no pod yet", deployment(), [], Phase.STARTING, "no pod is there yet"),
    ("the old one ends", deployment(), [pod({"running": {}}, meta=BEFORE)], Phase.STARTING, "run before"),
    ("ours ends", deployment(), [pod({"running": {}}, meta=ENDING)], Phase.STARTING, "run before"),
    ("no status at all", deployment(), [{"metadata": {**NOW, "uid": "u"}}], Phase.STARTING, "being begun"),
    (
        "pulls",
        deployment(),
        [pod(waiting("ContainerCreating"), phase="Pending")],
        Phase.STARTING,
        "Container",
    ),
    ("pulls for ever", deployment(LATE), [pod(waiting("ContainerCreating"))], Phase.FAILED, "too late"),
    (
        "no image",
        deployment(),
        [pod(waiting("ImagePullBackOff", "none"))],
        Phase.FAILED,
        "ImagePullBackOff: none",
    ),
    ("no image name", deployment(), [pod(waiting("InvalidImageName"))], Phase.FAILED, "InvalidImageName"),
    ("no secret", deployment(), [pod(waiting("CreateContainerConfigError"))], Phase.FAILED, "ConfigError"),
    ("unready", deployment(), [pod({"running": {}})], Phase.STARTING, "not ready: containers with"),
    ("ended", deployment(), [pod({"terminated": {"exitCode": 3}})], Phase.FAILED, "ended with code 3"),
    (
        "too much memory",
        deployment(),
        [pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})],
        Phase.FAILED,
        "killed by signal 9 (OOMKilled)",
    ),
    (
        "crash loop",
        deployment(),
        [pod(waiting("CrashLoopBackOff"), last={"exitCode": 1, "reason": "Error"}, restarts=4)],
        Phase.FAILED,
        "CrashLoopBackOff: ended with code 1",
    ),
    (
        "fits nowhere",
        deployment(),
        [
            pod(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}
                ]
            )
        ],
        Phase.FAILED,
        "Unschedulable: 0/1",
    ),
    (
        "evicted",
        deployment(),
        [pod(phase="Failed", reason="Evicted", message="disk")],
        Phase.FAILED,
        "Evicted: disk",
    ),
    (
        "quota",
        deployment(
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
        ),
        [],
        Phase.FAILED,
        "FailedCreate: quota",
    ),
    ("no progress", deployment(LATE), [], Phase.FAILED, "ProgressDeadlineExceeded"),
    ("scaled by hand", deployment(replicas=0), [], Phase.FAILED, "somebody has scaled"),
    (
        "stopped by us",
        deployment(replicas=0, annotations={"nodepulse/stopped": "true"}),
        [],
        Phase.STARTING,
        "stopped",
    ),
    (
        "the newest counts",
        deployment(),
        [pod(phase="Failed", reason="Evicted"), pod({"running": {}}, conditions=READY, made="2")],
        Phase.RUNNING,
        "",
    ),
]


@pytest.mark.parametrize(
    ("shown", "pods", "phase", "detail"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_what_the_cluster_shows_is_told(
    shown: dict[str, Any], pods: list[dict[str, Any]], phase: Phase, detail: str
):
    seen = look(shown, pods)
    assert seen.phase is phase
    assert detail in seen.detail
    assert bool(seen.detail) == bool(detail)


def run(
    name: str, phase: Phase = Phase.RUNNING, *, order: str = "2", restarts: int = 0, begun: bool = True
) -> Seen:
    return Seen(phase=phase, run=f"{name}:{restarts}", order=order, restarts=restarts, begun=begun)


def known(*seen: Seen) -> Known:
    found: Known | None = None
    for at, one in enumerate(seen):
        found = follow(found, one, now_s=float(at))
    assert found is not None
    return found


NO_POD = Seen(phase=Phase.STARTING)


def test_what_runs_already_is_adopted_and_what_has_crashed_is_not_trusted():
    assert known(run("a")).origin is Origin.ADOPTED
    assert known(run("a", Phase.STARTING, restarts=3)).origin is Origin.CRASHED
    assert known(NO_POD).origin is Origin.ORDERED
    assert known(run("a"), run("a")).since_s == 0.0


def test_another_container_or_pod_is_a_crash_unless_something_else_was_ordered():
    again = known(run("a"), run("a", restarts=2))
    assert (again.origin, again.crashes, again.since_s) == (Origin.CRASHED, 2, 1.0)
    replaced = known(run("a"), NO_POD, run("b"))
    assert (replaced.origin, replaced.crashes) == (Origin.CRASHED, 1)
    ordered = known(run("a"), NO_POD, run("b", order="3"))
    assert (ordered.origin, ordered.crashes) == (Origin.ORDERED, 0)
    assert known(NO_POD, run("a")).origin is Origin.ORDERED


def test_who_was_ready_and_is_not_any_more_is_ill_and_who_never_was_is_starting():
    unready = Seen(phase=Phase.STARTING, run="a:0", order="2", begun=True, detail="not ready")
    assert known(unready).phase is Phase.STARTING
    assert known(run("a"), unready).phase is Phase.FAILED
    assert known(run("a"), unready, unready).since_s == 1.0
    assert known(run("a"), unready, run("a")).phase is Phase.RUNNING
    assert known(run("a"), Seen(phase=Phase.STARTING, run="b:0", begun=True)).phase is Phase.STARTING
