"""What a cluster is given so that a manager runs in it: one YAML text for `kubectl apply -f -`.

Namespace, service account, the role with the least verbs that the driver needs, the manager's Deployment, a
Service by which workloads report and a policy that lets only them. The key of the node is not in it: it is in
a Secret that is made from the configuration file (`BEFORE` says how). Reasons: docs/decisions/0085.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

NAME = PROGRAM = "nodepulse-node"
REPORT_PORT = 7910
MANAGED_BY = {"app.kubernetes.io/managed-by": "nodepulse"}  # on what the driver makes, pods included
CONFIG, DATA, SECRET = "/etc/nodepulse", "/var/lib/nodepulse-node", "/run/nodepulse-secret"
STOP_S = 330  # the longest a workload may take to stop, and the saying of it
COMMAND = ("python3", "-P", "-m", "node.manager", "--config", f"{CONFIG}/node.json")
# Everything the driver ever asks, each verb needed by one of its steps (a test takes them away one by one).
RULES: tuple[dict[str, list[str]], ...] = (
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
)
BEFORE = """\
# A NodePulse manager in namespace {namespace}. It reads its configuration from the Secret {name}, which is
# made first, of a node.json that has been through `init` and `register`:
{settings}
# kubectl create namespace {namespace}
# kubectl -n {namespace} create secret generic {name} --from-file=node.json
# Then: kubectl apply -f THIS-FILE
"""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)
_WORDS_OF_YAML = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def cluster_values(namespace: str, *, name: str = NAME) -> dict[str, Any]:
    """What a node's configuration must say so that its manager works in this installation."""
    return {
        "driver": "kubernetes",
        "driver_options": {
            "namespace": namespace,
            "report_url": f"http://{name}.{namespace}.svc:{REPORT_PORT}",
        },
        "health_host": "0.0.0.0",
        "health_port": REPORT_PORT,
        "data_dir": DATA,
    }


def render_install(
    namespace: str,
    image: str,
    *,
    name: str = NAME,
    storage: str = "256Mi",
    command: tuple[str, ...] = COMMAND,
) -> str:
    """The YAML. image: has Python and the manager's distribution; by digest it is pinned. ValueError.

    name: of the objects and of the Secret. storage: of the volume for what must survive a restart.
    """
    for what, text, form in (
        ("namespace", namespace, _LABEL),
        ("image", image, _IMAGE),
        ("name", name, _LABEL),
        ("storage", storage, re.compile(r"[1-9][0-9]{0,5}(Mi|Gi)", re.ASCII)),
    ):
        if not form.fullmatch(text):
            raise ValueError(f"{what}: not {form.pattern}: {text!r}")
    head = BEFORE.format(namespace=namespace, name=name, settings=_settings(namespace, name))
    objects = install_objects(namespace, image, name=name, storage=storage, command=command)
    return head + "".join(f"---\n{to_yaml(one)}" for one in objects)


def _settings(namespace: str, name: str) -> str:
    """The commands that bring `cluster_values` into the configuration file."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in cluster_values(namespace, name=name).items()
    }
    words = (f"config set --config node.json {key} {shlex.quote(text)}" for key, text in texts.items())
    return "\n".join(f"# {PROGRAM} {word}" for word in words)


def install_objects(
    namespace: str,
    image: str,
    *,
    name: str = NAME,
    storage: str = "256Mi",
    command: tuple[str, ...] = COMMAND,
) -> tuple[dict[str, Any], ...]:
    """The same as objects, in the order in which they are applied."""
    labels = {"app.kubernetes.io/name": name}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    port = {"name": "reports", "port": REPORT_PORT, "targetPort": "reports"}
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [dict(rule) for rule in RULES],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [port]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": meta,
            "spec": _only_workloads_report(labels),
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},  # two managers of one node would be a clone
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _pod(image, name, command)},
            },
        },
    )


def _only_workloads_report(labels: dict[str, str]) -> dict[str, Any]:
    return {
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": MANAGED_BY}}], "ports": [{"port": REPORT_PORT}]}
        ],
    }


def _pod(image: str, name: str, command: tuple[str, ...]) -> dict[str, Any]:
    confined = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    at_config = {"name": "config", "mountPath": CONFIG}
    # A Secret's files are readable by the group, which the manager refuses; it gets a copy of mode 0600.
    copy = f"umask 077 && cp {SECRET}/node.json {CONFIG}/node.json"
    return {
        "serviceAccountName": name,
        "terminationGracePeriodSeconds": STOP_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [
            {
                "name": "config",
                "image": image,
                "command": ["sh", "-c", copy],
                "securityContext": confined,
                "volumeMounts": [at_config, {"name": "secret", "mountPath": SECRET, "readOnly": True}],
            }
        ],
        "containers": [
            {
                "name": "manager",
                "image": image,
                "command": list(command),
                "ports": [{"name": "reports", "containerPort": REPORT_PORT}],
                "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": confined,
                "volumeMounts": [
                    at_config,
                    {"name": "data", "mountPath": DATA},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "secret", "secret": {"secretName": name, "defaultMode": 0o440}},
            {"name": "config", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }


def to_yaml(value: Any, *, indent: int = 0) -> str:
    """Block YAML of what JSON can say; every text that could be read as something else is quoted."""
    space = " " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{space}{_scalar(key)}:{_inner(one, indent + 2)}" for key, one in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{space}- {to_yaml(one, indent=indent + 2).lstrip(' ')}" for one in value)
    return f"{space}{_scalar(value)}\n"


def _inner(value: Any, indent: int) -> str:
    if isinstance(value, (dict, list)) and value:
        return "\n" + to_yaml(value, indent=indent)
    return f" {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS_OF_YAML:
        return value
    if isinstance(value, str):
        # As JSON, but for what is beyond 16 bits: its pairs of escapes are no YAML.
        return '"' + "".join(one if ord(one) > 0xFFFF else json.dumps(one)[1:-1] for one in value) + '"'
    return json.dumps(value)
