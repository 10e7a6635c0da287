"""The Deployment that an order becomes, and what is read back from one: names, labels, annotations.

Everything that must survive the manager is in the cluster itself, in annotations of the Deployment. The form
of a manifest is kubernetes_manifest.py's, how a Deployment fares kubernetes_state.py's.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from typing import Any

from node.drivers.kubernetes_install import MANAGED_BY
from node.drivers.kubernetes_manifest import KubernetesManifest, Probe
from node.drivers.port import ManifestError, Order
from node.health_spec import HealthSpec

NODE, WORKLOAD = "nodepulse/node", "nodepulse/workload"  # labels
ORDER, STOPPED = "nodepulse/order", "nodepulse/stopped"  # annotations of the Deployment
VERSION, DIGEST, BEGUN = "nodepulse/version", "nodepulse/digest", "nodepulse/begun"  # and of its pods
CONTAINER = "workload"
PROGRESS_S = 540  # an ordered update is excused for ten minutes, not more
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?", re.ASCII)


def label_of(node_id: str) -> str:
    """A node's id as the value of a label, which has a narrower form."""
    return node_id if _LABEL.fullmatch(node_id) else f"n-{hashlib.sha256(node_id.encode()).hexdigest()[:40]}"


def selector_of(node: str) -> str:
    """What picks a node's Deployments and pods, and no others."""
    managed = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())
    return f"{managed},{NODE}={node}"


def name_of(workload_id: str) -> str:
    """The Deployment's name: the same for ever, so that none is made twice. ManifestError."""
    if not _ID.fullmatch(workload_id):
        raise ManifestError(f"not an id that can name a Deployment: {workload_id!r}")
    return f"np-{workload_id}"


def render(
    order: Order, manifest: KubernetesManifest, *, node: str, namespace: str, report_url: str, machine: str
) -> dict[str, Any]:
    """The whole Deployment, as it is applied. report_url, machine: "" for none. ManifestError."""
    labels = {**MANAGED_BY, NODE: node, WORKLOAD: order.workload_id}
    of_pods = {VERSION: order.version, DIGEST: order.digest}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name_of(order.workload_id),
            "namespace": namespace,
            "labels": labels,
            "annotations": {ORDER: order_text(order, manifest.health)},
        },
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": PROGRESS_S,
            # Never two at once: one licence, one live run.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {WORKLOAD: order.workload_id}},
            "template": {
                "metadata": {"labels": labels, "annotations": of_pods},
                "spec": _pod(order, manifest, report_url=report_url, machine=machine),
            },
        },
    }


def order_text(order: Order, health: HealthSpec | None) -> str:
    """What the annotation says: the order but for its manifest, and how the workload tells its health."""
    told = {key: value for key, value in asdict(order).items() if key != "manifest"}
    said = None if health is None else {"report": health.report, "start_period_s": health.start_period_s}
    return json.dumps({**told, "health": said}, sort_keys=True)


def read_order(deployment: dict[str, Any]) -> tuple[Order, HealthSpec | None] | None:
    """The order of a Deployment that some manager made; None when its annotation cannot be read."""
    try:
        told = json.loads(deployment["metadata"]["annotations"][ORDER])
        health = told.pop("health")
        order = Order(**told, manifest="")
        texts = (order.workload_id, order.name, order.version, order.digest)
        if not all(isinstance(one, str) for one in texts) or type(order.restarts) is not int:
            return None
        return order, None if health is None else HealthSpec(**health)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _pod(order: Order, manifest: KubernetesManifest, *, report_url: str, machine: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,  # a workload has no business with the cluster
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": manifest.stop_timeout_s,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(order, manifest, report_url)],
    }
    if manifest.user is not None:
        numbers = {"runAsUser": manifest.user, "runAsGroup": manifest.user, "fsGroup": manifest.user}
        spec["securityContext"].update(numbers)
    if manifest.scratch:
        spec["volumes"] = [
            {"name": f"scratch-{at}", "emptyDir": {"sizeLimit": amount}}
            for at, amount in enumerate(manifest.scratch.values())
        ]
    if manifest.pull_secret:
        spec["imagePullSecrets"] = [{"name": manifest.pull_secret}]
    if machine:
        spec["nodeSelector"] = {"kubernetes.io/hostname": machine}
    return spec


def _container(order: Order, manifest: KubernetesManifest, report_url: str) -> dict[str, Any]:
    ours = {"NODEPULSE_WORKLOAD_ID": order.workload_id, "NODEPULSE_WORKLOAD": order.name}
    if report_url:
        ours["NODEPULSE_URL"] = report_url
    made: dict[str, Any] = {
        "name": CONTAINER,
        "image": manifest.image,
        "env": [{"name": name, "value": _literal(text)} for name, text in {**manifest.env, **ours}.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": not manifest.writable_root,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    for key, words in (("command", manifest.command), ("args", manifest.args)):
        if words is not None:
            made[key] = [_literal(word) for word in words]
    if manifest.ports:
        made["ports"] = [{"name": name, "containerPort": port} for name, port in manifest.ports.items()]
    if manifest.resources:
        made["resources"] = {name: dict(amounts) for name, amounts in manifest.resources.items()}
    if manifest.scratch:
        made["volumeMounts"] = [
            {"name": f"scratch-{at}", "mountPath": folder} for at, folder in enumerate(manifest.scratch)
        ]
    made |= {f"{name}Probe": _probe(probe) for name, probe in manifest.probes.items()}
    return made


def _literal(text: str) -> str:
    """A manifest's text is meant as it stands; Kubernetes would fill in `$(NAME)` and read `$$` as `$`."""
    return text.replace("$", "$$")


def _probe(probe: Probe) -> dict[str, Any]:
    how: dict[str, Any]
    if probe.http is not None:
        how = {"httpGet": {"port": probe.http[0], "path": probe.http[1]}}
    elif probe.tcp is not None:
        how = {"tcpSocket": {"port": probe.tcp}}
    else:
        how = {"exec": {"command": [*(probe.command or ())]}}
    return {
        **how,
        "initialDelaySeconds": probe.delay_s,
        "periodSeconds": probe.interval_s,
        "timeoutSeconds": probe.timeout_s,
        "failureThreshold": probe.failures,
    }
