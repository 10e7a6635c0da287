"""The manifest of the kubernetes driver: how a container is run, read strictly. JSON:

``{"image", "command", "args", "env", "ports", "resources", "probes", "scratch", "user", "writable_root",
"pull_secret", "stop_timeout_s", "health"}``. Only `image` is required. It is no Deployment, on purpose: whose
manifests a cluster runs may say what runs, not what it may do there. The Deployment that is made of it is
kubernetes_deployment.py's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from node.drivers.port import ManifestError
from node.health_spec import HealthSpec, is_text, parse_health, words

STOP_TIMEOUT_S_MAX = 300  # an update must be over within the ten minutes that are excused
VARIABLES_MAX = 256
PORTS_MAX = SCRATCH_MAX = 16
_IMAGE = re.compile(
    r"[a-z0-9][A-Za-z0-9._-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_PORT_NAME = re.compile(r"(?=[a-z0-9-]{0,14}[a-z])[a-z0-9](-?[a-z0-9])*", re.ASCII)
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PATH = re.compile(r"/[!-~]{0,1023}", re.ASCII)
_FOLDER = re.compile(r"(/[A-Za-z0-9._-]{1,64}){1,8}", re.ASCII)
_AMOUNTS = {
    "cpu": re.compile(r"[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}", re.ASCII),
    "memory": re.compile(r"[1-9][0-9]{0,6}(Ki|Mi|Gi)", re.ASCII),
    "ephemeral-storage": re.compile(r"[1-9][0-9]{0,6}(Ki|Mi|Gi)", re.ASCII),
}
_PROBES = ("startup", "readiness", "liveness")
_PROBE_NUMBERS = {
    "delay_s": (0, 540),
    "interval_s": (1, 60),
    "timeout_s": (1, 60),
    "failures": (1, 100),
}
_HEALTH = {"report", "start_period_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One of http (port, path), tcp (port) and command; made by the cluster, not by the manager."""

    http: tuple[int, str] | None = None
    tcp: int | None = None
    command: tuple[str, ...] | None = None
    delay_s: int = 0
    interval_s: int = 5
    timeout_s: int = 3
    failures: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesManifest:
    """image: with a tag, a digest or both. command, args: None leaves the image's own. ports: by name.

    resources: requests and limits of cpu, memory and ephemeral-storage. scratch: folders that may be written,
    with the most each may hold; what is in them ends with the run. user: its number; None leaves the image's,
    which must not be root. stop_timeout_s: from SIGTERM to SIGKILL.
    """

    image: str
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    probes: Mapping[str, Probe] = field(default_factory=dict)
    scratch: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    writable_root: bool = False
    pull_secret: str = ""
    stop_timeout_s: int = 10
    health: HealthSpec | None = None


def parse_manifest(text: str) -> KubernetesManifest:
    """Read a manifest. ManifestError names what is wrong."""
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ManifestError("not a JSON object")
        _must_know(value, _READERS, "")
        if "image" not in value:
            raise ManifestError("image: missing")
        return KubernetesManifest(**{key: _READERS[key](one) for key, one in value.items()})
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:
        raise ManifestError(str(error)) from error


def _must_know(value: Mapping[str, Any], known: Any, path: str) -> None:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ManifestError(f"{path}{unknown[0][:128]}: there is no such key; known: {', '.join(known)}")


def _image(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 512 or not _IMAGE.fullmatch(value):
        raise ManifestError("image: not a name with a tag or a digest (name@sha256:...)")
    return value


def _command(value: Any) -> tuple[str, ...]:
    return words(value, "command")


def _args(value: Any) -> tuple[str, ...]:
    return words(value, "args")


def _object(value: Any, path: str, most: int) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > most:
        raise ManifestError(f"{path}: not an object of at most {most} entries")
    return value


def _env(value: Any) -> dict[str, str]:
    for name, text in _object(value, "env", VARIABLES_MAX).items():
        if not _VARIABLE.fullmatch(name) or not is_text(text):
            raise ManifestError(f"env.{name[:128]}: not a variable with a text")
    return dict(value)


def _ports(value: Any) -> dict[str, int]:
    for name, port in _object(value, "ports", PORTS_MAX).items():
        if not _PORT_NAME.fullmatch(name):
            raise ManifestError(f"ports.{name[:128]}: a name has 1 to 15 of a-z, 0-9 and -, one a letter")
        _port(port, f"ports.{name}")
    if len(set(value.values())) < len(value):
        raise ManifestError("ports: one of them has two names")
    return dict(value)


def _port(value: Any, path: str) -> int:
    return _number(value, path, 1, 65_535)


def _number(value: Any, path: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ManifestError(f"{path}: not a whole number from {low} to {high}")
    return value


def _resources(value: Any) -> dict[str, dict[str, str]]:
    _must_know(_object(value, "resources", 2), ("requests", "limits"), "resources.")
    for name, amounts in value.items():
        _must_know(_object(amounts, f"resources.{name}", 3), _AMOUNTS, f"resources.{name}.")
        for what, amount in amounts.items():
            if not isinstance(amount, str) or not _AMOUNTS[what].fullmatch(amount):
                raise ManifestError(f"resources.{name}.{what}: not {_AMOUNTS[what].pattern}")
    return dict(value)


def _scratch(value: Any) -> dict[str, str]:
    for folder, amount in _object(value, "scratch", SCRATCH_MAX).items():
        if not _FOLDER.fullmatch(folder) or "/.." in folder or "/./" in folder or folder.endswith("/."):
            raise ManifestError(f"scratch.{folder[:128]}: not an absolute path")
        if not isinstance(amount, str) or not _AMOUNTS["memory"].fullmatch(amount):
            raise ManifestError(f"scratch.{folder}: not {_AMOUNTS['memory'].pattern}")
    return dict(value)


def _probes(value: Any) -> dict[str, Probe]:
    _must_know(_object(value, "probes", len(_PROBES)), _PROBES, "probes.")
    return {name: _probe(one, f"probes.{name}") for name, one in value.items()}


def _probe(value: Any, path: str) -> Probe:
    _must_know(_object(value, path, 8), ("http", "tcp", "command", *_PROBE_NUMBERS), f"{path}.")
    if len(set(value) & {"http", "tcp", "command"}) != 1:
        raise ManifestError(f"{path}: not exactly one of http, tcp and command")
    found: dict[str, Any] = {
        name: _number(value[name], f"{path}.{name}", *bounds)
        for name, bounds in _PROBE_NUMBERS.items()
        if name in value
    }
    if "http" in value:
        asked = _object(value["http"], f"{path}.http", 2)
        _must_know(asked, ("port", "path"), f"{path}.http.")
        where = asked.get("path", "/")
        if not isinstance(where, str) or not _PATH.fullmatch(where):
            raise ManifestError(f"{path}.http.path: not a path")
        found["http"] = (_port(asked.get("port"), f"{path}.http.port"), where)
    if "tcp" in value:
        found["tcp"] = _port(value["tcp"], f"{path}.tcp")
    if "command" in value:
        found["command"] = words(value["command"], f"{path}.command")
    return Probe(**found)


def _user(value: Any) -> int:
    return _number(value, "user", 1, (1 << 31) - 1)


def _writable_root(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ManifestError("writable_root: neither true nor false")
    return value


def _pull_secret(value: Any) -> str:
    if not isinstance(value, str) or not _OBJECT_NAME.fullmatch(value):
        raise ManifestError("pull_secret: not the name of a Secret")
    return value


def _stop_timeout_s(value: Any) -> int:
    return _number(value, "stop_timeout_s", 0, STOP_TIMEOUT_S_MAX)


def _health(value: Any) -> HealthSpec:
    _must_know(_object(value, "health", 2), sorted(_HEALTH), "health.")
    return parse_health(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "image": _image,
    "command": _command,
    "args": _args,
    "env": _env,
    "ports": _ports,
    "resources": _resources,
    "probes": _probes,
    "scratch": _scratch,
    "user": _user,
    "writable_root": _writable_root,
    "pull_secret": _pull_secret,
    "stop_timeout_s": _stop_timeout_s,
    "health": _health,
}
