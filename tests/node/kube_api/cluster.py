"""What happens in the pretended cluster by itself: Deployments get pods, pods begin, get ready, crash, end.

`step` is called every few hundredths of a second with the objects locked. How a pod behaves is said by the
last part of its image's name (BEHAVIOURS); times are fractions of a second where a cluster takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from tests.node.kube_api.objects import Key, Objects, now

BEHAVIOURS = {
    "well": "runs and is ready",
    "crash": "ends with code 1 a moment after it has begun, again and again",
    "missing": "there is no such image",
    "lazy": "runs and never gets ready",
    "fading": "gets ready, then is not any more",
    "huge": "fits no machine",
    "forbidden": "no pod of it may be made",
}
PULL_S, CRASH_S, END_S = 0.3, 0.4, 0.3
BACKOFF_S = (0.6, 1.2, 2.4, 4.8)


def behaviour(image: str) -> str:
    """`registry/well:2.0.0` behaves well."""
    word = image.rsplit("/", 1)[-1].partition("@")[0].partition(":")[0]
    return word if word in BEHAVIOURS else "well"


class Cluster:
    """Deployment controller and kubelet. Its clock is the caller's."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._turns: dict[str, tuple[str, float]] = {}  # by pod: what it does, since when

    def step(self, now_s: float) -> None:
        before = self._objects.version
        for key in [key for key in self._objects.all if key[0] == "pods"]:
            self._pod(key, now_s)
        for key in [key for key in self._objects.all if key[0] == "deployments"]:
            self._deployment(key)
        if self._objects.version != before:
            self._objects.save()

    # -- Deployments --------------------------------------------------------------------------------

    def _deployment(self, key: Key) -> None:
        one = self._objects.all[key]
        pods = self._pods_of(one)
        if one["metadata"].get("deletionTimestamp"):
            for pod in pods:
                self._end(pod)
            if not pods:
                self._objects.drop(key)
            return
        template = json.dumps(one["spec"]["template"], sort_keys=True)
        wanted = hashlib.sha256(template.encode()).hexdigest()[:10]
        living = [pod for pod in pods if not self._objects.all[pod]["metadata"].get("deletionTimestamp")]
        current = [pod for pod in living if self._hash(pod) == wanted]
        for pod in set(living) - set(current):
            self._end(pod)
        for pod in current[one["spec"].get("replicas", 1) :]:
            self._end(pod)
        self._objects.most_at_once[key[2]] = max(len(pods), self._objects.most_at_once.get(key[2], 0))
        image = one["spec"]["template"]["spec"]["containers"][0]["image"]
        may = behaviour(image) != "forbidden"
        # Recreate: the new pod waits until the old one is gone; one that ended badly is replaced at once.
        if may and len(pods) == len(current) < one["spec"].get("replicas", 1):
            self._make_pod(key, one, wanted)
        self._tell(key, one, current, may=may)

    def _tell(self, key: Key, one: dict[str, Any], current: list[Key], *, may: bool) -> None:
        ready = sum(_is_ready(self._objects.all[pod]) for pod in current)
        conditions = [
            {"type": "Available", "status": "True" if ready else "False"},
            {"type": "Progressing", "status": "True"},
        ]
        if not may:
            told = 'pods "x" is forbidden: exceeded quota: pods'
            conditions.append(
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": told}
            )
        status = {
            "observedGeneration": one["metadata"]["generation"],
            "replicas": len(current),
            "readyReplicas": ready,
            "conditions": conditions,
        }
        self._objects.set_status(key, status)

    def _pods_of(self, one: dict[str, Any]) -> list[Key]:
        uid = one["metadata"]["uid"]
        return [
            key
            for key, pod in self._objects.all.items()
            if key[0] == "pods" and pod["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def _hash(self, pod: Key) -> str:
        found: str = self._objects.all[pod]["metadata"]["labels"]["pod-template-hash"]
        return found

    def _end(self, pod: Key) -> None:
        if not self._objects.all[pod]["metadata"].get("deletionTimestamp"):
            self._objects.delete(pod, foreground=False)

    def _make_pod(self, key: Key, one: dict[str, Any], wanted: str) -> None:
        template = one["spec"]["template"]
        name = f"{key[2]}-{wanted}-{uuid.uuid4().hex[:5]}"
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": key[2], "uid": one["metadata"]["uid"]}
        meta = {
            "name": name,
            "namespace": key[1],
            "labels": {**template["metadata"]["labels"], "pod-template-hash": wanted},
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [owner],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
        self._objects.create(("pods", key[1], name), pod, who="kube-controller-manager")
        self._objects.pods_made[key[2]] = self._objects.pods_made.get(key[2], 0) + 1

    # -- pods ---------------------------------------------------------------------------------------

    def _pod(self, key: Key, now_s: float) -> None:
        pod = self._objects.all[key]
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            turn, since_s = self._turn(uid, "ending", now_s)
            if turn == "ending" and now_s >= since_s + END_S:
                self._objects.drop(key)
                del self._turns[uid]
            return
        self._live(key, pod, behaviour(pod["spec"]["containers"][0]["image"]), now_s)

    def _turn(self, uid: str, word: str, now_s: float) -> tuple[str, float]:
        """Go over to this, unless it is so already."""
        if uid not in self._turns or self._turns[uid][0] != word:
            self._turns[uid] = (word, now_s)
        return self._turns[uid]

    def _live(self, key: Key, pod: dict[str, Any], how: str, now_s: float) -> None:
        uid, restarts = pod["metadata"]["uid"], _restarts(pod)
        if uid not in self._turns:  # new, or this process is
            begun = "runs" if "running" in _state(pod) else "pulls"
            self._turns[uid] = (begun, now_s)
        turn, since_s = self._turns[uid]
        age_s = now_s - since_s
        if how == "huge":
            self._set(key, pod, {}, placed=False)
        elif turn == "pulls":
            self._pull(key, pod, how, age_s, now_s)
        elif turn == "runs":
            if how == "crash" and age_s >= CRASH_S:
                self._turn(uid, "waits", now_s)
                waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
                self._set(key, pod, waits, last={"exitCode": 1, "reason": "Error"}, restarts=restarts)
            elif how == "fading" and age_s >= CRASH_S:
                self._set(key, pod, {"running": {}}, restarts=restarts)
        elif turn == "waits" and age_s >= BACKOFF_S[min(restarts, len(BACKOFF_S) - 1)]:
            self._turn(uid, "runs", now_s)
            self._set(key, pod, {"running": {}}, ready=True, restarts=restarts + 1)

    def _pull(self, key: Key, pod: dict[str, Any], how: str, age_s: float, now_s: float) -> None:
        if age_s < PULL_S:
            self._set(key, pod, {"waiting": {"reason": "ContainerCreating"}})
        elif how == "missing":
            told = "rpc error: image not found"
            reason = "ErrImagePull" if age_s < 2 * PULL_S else "ImagePullBackOff"
            self._set(key, pod, {"waiting": {"reason": reason, "message": told}})
        else:
            self._turn(pod["metadata"]["uid"], "runs", now_s)
            self._set(key, pod, {"running": {}}, ready=how != "lazy")

    def _set(
        self,
        key: Key,
        pod: dict[str, Any],
        state: dict[str, Any],
        *,
        ready: bool = False,
        placed: bool = True,
        last: dict[str, Any] | None = None,
        restarts: int = 0,
    ) -> None:
        container = {"name": "workload", "ready": ready, "restartCount": restarts, "state": state}
        if last is not None:
            container["lastState"] = {"terminated": last}
        unready = {} if ready else {"message": "containers with unready status: [workload]"}
        ready_now = {"type": "Ready", "status": "True" if ready else "False", **unready}
        scheduled: dict[str, Any] = {"type": "PodScheduled", "status": "True"}
        if not placed:
            told = "0/1 nodes are available: 1 Insufficient cpu."
            scheduled = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": told,
            }
        status = {
            "phase": "Running" if "running" in state or last else "Pending",
            "conditions": [scheduled, ready_now],
            "containerStatuses": [container] if placed else [],
            "startTime": pod.get("status", {}).get("startTime") or now(),
        }
        self._objects.set_status(key, status)


def _state(pod: dict[str, Any]) -> dict[str, Any]:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    found: dict[str, Any] = statuses[0].get("state", {})
    return found


def _restarts(pod: dict[str, Any]) -> int:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
