"""The objects of the pretended cluster, on disk as well: versions, generations, owners of fields, validity.

Refusals are `RefusedError`, which server.py answers as a Status object. One lock is held by who calls.
"""

from __future__ import annotations

import copy
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tests.node.kube_api import fields

KUBERNETES = "1.31"
KINDS = {"deployments": ("apps/v1", "Deployment"), "pods": ("v1", "Pod")}
GROUPS = {"deployments": "apps", "pods": ""}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,251}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII
)
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class RefusedError(Exception):
    """Answered as a Status object."""

    def __init__(self, code: int, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason or REASONS.get(code, "Unknown")


Key = tuple[str, str, str]  # resource, namespace, name


class Objects:
    """Everything in the cluster; written to `path` after each change, read from it at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.version = 100
        self.all: dict[Key, dict[str, Any]] = {}
        self.owners: dict[Key, fields.Owners] = {}
        self.pods_made: dict[str, int] = {}  # by Deployment
        self.most_at_once: dict[str, int] = {}
        if path.exists():
            self._load(json.loads(path.read_text()))

    def get(self, key: Key) -> dict[str, Any]:
        if key not in self.all:
            group = f".{GROUPS[key[0]]}" if GROUPS[key[0]] else ""
            raise RefusedError(404, f'{key[0]}{group} "{key[2]}" not found')
        return self.all[key]

    def shown(self, key: Key) -> dict[str, Any]:
        """As it is answered."""
        one = copy.deepcopy(self.all[key])
        if key in self.owners:
            one["metadata"]["managedFields"] = fields.managed_fields(self.owners[key], one["apiVersion"])
        return one

    def apply(self, key: Key, body: dict[str, Any], *, who: str, force: bool) -> bool:
        """Server-side apply; whether it was made by it."""
        live = self.all.get(key)
        if live is None:
            self.create(key, body, who=who, operation="Apply")
            return True
        owners = self.owners.setdefault(key, {})
        against = fields.conflicts(live, body, owners, who)
        if against and not force:
            told = "; ".join(f'conflict with "{other}": {fields.told(path)}' for other, path in against)
            raise RefusedError(409, f"Apply failed with {len(against)} conflict: {told}")
        mine = copy.deepcopy(owners)
        self._replace(key, fields.apply(copy.deepcopy(live), body, mine, who))
        self.owners[key] = mine
        self.save()
        return False

    def merge(self, key: Key, patch: dict[str, Any], *, who: str) -> None:
        owners = copy.deepcopy(self.owners.get(key, {}))
        after = fields.update(copy.deepcopy(self.get(key)), patch, owners, who)
        self._replace(key, after)
        self.owners[key] = owners
        self.save()

    def create(self, key: Key, body: dict[str, Any], *, who: str, operation: str = "Update") -> None:
        if key in self.all:
            raise RefusedError(409, f'{key[0]} "{key[2]}" already exists', reason="AlreadyExists")
        made = copy.deepcopy(body)
        made.setdefault("metadata", {}).update({"name": key[2], "namespace": key[1]})
        _must_be_valid(key, made)
        made["metadata"].update({"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1})
        made.setdefault("status", {})
        self.all[key] = made
        self.owners[key] = {(who, operation): {path for path, _ in fields.leaves(body)}}
        self.touch(key)
        self.save()

    def delete(self, key: Key, *, foreground: bool) -> None:
        """Pods end by themselves a moment later; Deployments in the foreground wait for their pods."""
        one = self.get(key)
        if key[0] == "pods" or foreground:
            one["metadata"].setdefault("deletionTimestamp", now())
            if foreground and key[0] != "pods":
                one["metadata"]["finalizers"] = ["foregroundDeletion"]
            self.touch(key)
        else:
            self.drop(key)
        self.save()

    def drop(self, key: Key) -> None:
        del self.all[key]
        self.owners.pop(key, None)
        self.version += 1

    def set_status(self, key: Key, status: dict[str, Any]) -> None:
        if self.all[key].get("status") != status:
            self.all[key]["status"] = status
            self.touch(key)

    def touch(self, key: Key) -> None:
        self.version += 1
        self.all[key]["metadata"]["resourceVersion"] = str(self.version)

    def _replace(self, key: Key, after: dict[str, Any]) -> None:
        before = self.all[key]
        asked = (after["metadata"].get("resourceVersion"), before["metadata"]["resourceVersion"])
        if asked[0] != asked[1]:
            told = f'Operation cannot be fulfilled on {key[0]}.apps "{key[2]}": the object has been modified'
            raise RefusedError(409, f"{told}; please apply your changes to the latest version and try again")
        if key[0] == "deployments" and before["spec"]["selector"] != after["spec"].get("selector"):
            raise RefusedError(
                422, f'Deployment.apps "{key[2]}" is invalid: spec.selector: field is immutable'
            )
        _must_be_valid(key, after)
        if before == after:
            return
        if before.get("spec") != after.get("spec"):
            after["metadata"]["generation"] += 1
        self.all[key] = after
        self.touch(key)

    # -- on disk ------------------------------------------------------------------------------------

    def save(self) -> None:
        told = {
            "version": self.version,
            "objects": [[*key, one] for key, one in self.all.items()],
            "owners": [[*key, [[*who, sorted(map(_listed, paths), key=str)] for who, paths in owners.items()]]
                       for key, owners in self.owners.items()],
            "pods_made": self.pods_made,
            "most_at_once": self.most_at_once,
        }  # fmt: skip
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(told))
        beside.replace(self._path)

    def _load(self, told: dict[str, Any]) -> None:
        self.version = told["version"]
        self.all = {(a, b, c): one for a, b, c, one in told["objects"]}
        self.owners = {
            (a, b, c): {(who, how): {_path(path) for path in paths} for who, how, paths in owners}
            for a, b, c, owners in told["owners"]
        }
        self.pods_made, self.most_at_once = told["pods_made"], told["most_at_once"]


def _listed(path: fields.Path) -> list[Any]:
    return [list(step) if isinstance(step, tuple) else step for step in path]


def _path(steps: list[Any]) -> fields.Path:
    return tuple(tuple(step) if isinstance(step, list) else step for step in steps)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _must_be_valid(key: Key, one: dict[str, Any]) -> None:
    """By the published schema, and by what it does not say."""
    kind = f'{one.get("kind")} "{key[2]}" is invalid'
    if (one.get("apiVersion"), one.get("kind")) != KINDS[key[0]]:
        raise RefusedError(400, f"the object is no {KINDS[key[0]][1]} of {KINDS[key[0]][0]}")
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path))
        raise RefusedError(422, f"{kind}: {where}: {error.message}") from error
    template = one.get("spec", {}).get("template", {}).get("metadata", {})
    for meta in (one["metadata"], template):
        for name, value in (meta.get("labels") or {}).items():
            if not _KEY.fullmatch(name) or not _LABEL.fullmatch(value):
                raise RefusedError(422, f"{kind}: metadata.labels: Invalid value: {name}={value}")
        if not all(_KEY.fullmatch(name) for name in meta.get("annotations") or {}):
            raise RefusedError(422, f"{kind}: metadata.annotations: Invalid value")
    if not _NAME.fullmatch(key[2]):
        raise RefusedError(422, f"{kind}: metadata.name: Invalid value")
    if key[0] == "deployments":
        wanted = one["spec"]["selector"].get("matchLabels", {})
        if not wanted.items() <= (template.get("labels") or {}).items():
            raise RefusedError(422, f"{kind}: spec.template.metadata.labels: selector does not match")
