"""Whose field is whose: server-side apply, merge patch, and `managedFields` as Kubernetes shows them.

A path is a tuple of steps: a key of a map, or ``("k", key, value)`` for an item of a list of maps that are
told apart by one of their fields. Lists of anything else are one value. Pure.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Path = tuple[Any, ...]
Owners = dict[tuple[str, str], set[Path]]  # by manager and operation
# Lists whose items have a name, by the key of the list (`x-kubernetes-list-map-keys`).
LIST_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
}
_NOBODYS = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
MISSING = object()


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that can be owned, with its value."""
    if path in _NOBODYS or path[:1] == ("status",):
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and (key := _key_of(path)):
        for item in value:
            step = ("k", key, item.get(key))  # which stands for that field as well
            yield from leaves({name: one for name, one in item.items() if name != key}, (*path, step))
    else:
        yield path, value


def _key_of(path: Path) -> str | None:
    return LIST_KEYS.get(path[-1]) if path and isinstance(path[-1], str) else None


def at(value: Any, path: Path) -> Any:
    """What stands there, or MISSING."""
    for step in path:
        value = _step(value, step)
        if value is MISSING:
            return MISSING
    return value


def _step(value: Any, step: Any) -> Any:
    if isinstance(step, tuple):
        found = [one for one in value or [] if one.get(step[1]) == step[2]] if isinstance(value, list) else []
        return found[0] if found else MISSING
    return value.get(step, MISSING) if isinstance(value, dict) else MISSING


def merged(live: Any, applied: Any, path: Path = ()) -> Any:
    """What is applied laid over what is there."""
    if isinstance(live, dict) and isinstance(applied, dict):
        laid = dict(live)
        for key, value in applied.items():
            laid[key] = merged(live.get(key), value, (*path, key))
        return laid
    key = _key_of(path)
    if key and isinstance(live, list) and isinstance(applied, list):
        laid_items = {one[key]: one for one in live}
        for item in applied:
            laid_items[item[key]] = merged(
                laid_items.get(item[key], {}), item, (*path, ("k", key, item[key]))
            )
        return list(laid_items.values())
    return copy.deepcopy(applied)


def removed(value: Any, path: Path) -> None:
    """Take a field away, and the maps and items that are left empty by it."""
    holder = at(value, path[:-1])
    if holder is MISSING:
        return
    step = path[-1]
    if isinstance(step, tuple):
        holder[:] = [one for one in holder if one.get(step[1]) != step[2]]
    else:
        holder.pop(step, None)
    only_key = len(path) > 1 and isinstance(path[-2], tuple) and set(holder) <= {path[-2][1]}
    if path[:-1] and (not holder or only_key):
        removed(value, path[:-1])


def conflicts(
    live: dict[str, Any], applied: dict[str, Any], owners: Owners, who: str
) -> list[tuple[str, Path]]:
    """Fields that others own and that would get another value."""
    found = []
    for path, value in leaves(applied):
        for (other, operation), paths in owners.items():
            mine = (other, operation) == (who, "Apply")
            if not mine and path in paths and at(live, path) != value:
                found.append((other, path))
    return found


def apply(live: dict[str, Any], applied: dict[str, Any], owners: Owners, who: str) -> dict[str, Any]:
    """The object after a forced apply; `owners` is changed."""
    wanted = {path for path, _ in leaves(applied)}
    before = owners.get((who, "Apply"), set())
    for (other, operation), paths in owners.items():
        if (other, operation) != (who, "Apply"):
            paths -= {path for path in wanted if at(live, path) != at(applied, path)}
    laid = merged(live, applied)
    others = set().union(*(paths for one, paths in owners.items() if one != (who, "Apply")))
    for path in before - wanted - others:
        removed(laid, path)
    owners[who, "Apply"] = wanted
    return laid


def update(live: dict[str, Any], patch: dict[str, Any], owners: Owners, who: str) -> dict[str, Any]:
    """The object after a JSON merge patch (RFC 7386); `owners` is changed."""
    after = _patched(live, patch)
    before_fields, after_fields = dict(leaves(live)), dict(leaves(after))
    changed = {path for path, value in after_fields.items() if before_fields.get(path, MISSING) != value}
    for paths in owners.values():
        paths -= changed
        paths &= set(after_fields)
    owners.setdefault((who, "Update"), set()).update(changed)
    return after


def _patched(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    laid = dict(value) if isinstance(value, dict) else {}
    for key, one in patch.items():
        if one is None:
            laid.pop(key, None)
        else:
            laid[key] = _patched(laid.get(key), one)
    return laid


def managed_fields(owners: Owners, api_version: str) -> list[dict[str, Any]]:
    """As `metadata.managedFields` shows them."""
    return [
        {
            "manager": who,
            "operation": operation,
            "apiVersion": api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": _fields_v1(paths),
        }
        for (who, operation), paths in owners.items()
        if paths
    ]


def _fields_v1(paths: set[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths, key=str):
        inner = tree
        for step in path:
            name = f"k:{json.dumps({step[1]: step[2]})}" if isinstance(step, tuple) else f"f:{step}"
            inner = inner.setdefault(name, {})
    return tree


def told(path: Path) -> str:
    """A path as Kubernetes writes it in messages."""
    steps = (f"[{s[1]}={json.dumps(s[2])}]" if isinstance(s, tuple) else f".{s}" for s in path)
    return "".join(steps)
