"""What the pretended API server says of itself, so that `kubectl` can speak with it: groups and resources."""

from __future__ import annotations

from typing import Any

_VERBS = ["create", "delete", "get", "list", "patch"]
_APPS = {"groupVersion": "apps/v1", "version": "v1"}


def _resources(version: str, *named: tuple[str, str, str]) -> dict[str, Any]:
    resources = [
        {
            "name": name,
            "singularName": kind.lower(),
            "namespaced": True,
            "kind": kind,
            "verbs": _VERBS,
            "shortNames": [short],
        }
        for name, kind, short in named
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


DISCOVERY: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [_APPS], "preferredVersion": _APPS}],
    },
    "/api/v1": _resources("v1", ("pods", "Pod", "po")),
    "/apis/apps/v1": _resources("apps/v1", ("deployments", "Deployment", "deploy")),
}
