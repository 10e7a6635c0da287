"""The manifest of the process driver: how a command is run, read strictly. JSON:

``{"command": [..], "env": {}, "cwd", "restart": "always|on-failure|never", "stop_timeout_s", "health": {}}``
Only `command` is required. What `health` may say is told in health_spec.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from node.drivers.port import ManifestError
from node.health_spec import HealthSpec, is_text, parse_health, words

Restarts = Literal["always", "on-failure", "never"]
STOP_TIMEOUT_S_MAX = 300  # an update must be over within the ten minutes that are excused
VARIABLES_MAX = 256
_KEYS = {"command", "env", "cwd", "restart", "stop_timeout_s", "health"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_RESTARTS = ("always", "on-failure", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessManifest:
    """cwd: relative to the workload's own folder, which it is by default. env: beside the manager's own.

    stop_timeout_s: from SIGTERM to SIGKILL, both to the whole process group.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    restart: Restarts = "always"
    stop_timeout_s: int = 10
    health: HealthSpec | None = None


def parse_manifest(text: str) -> ProcessManifest:
    """Read a manifest. ManifestError names what is wrong."""
    try:
        return _parse(json.loads(text))
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:
        raise ManifestError(str(error)) from error


def _parse(value: Any) -> ProcessManifest:
    if not isinstance(value, dict):
        raise ManifestError("not a JSON object")
    unknown = sorted(set(value) - _KEYS)
    if unknown:
        raise ManifestError(f"{unknown[0]}: there is no such key")
    if "command" not in value:
        raise ManifestError("command: missing")
    found: dict[str, Any] = {"command": words(value["command"], "command")}
    if "env" in value:
        found["env"] = _variables(value["env"])
    if "cwd" in value:
        if not is_text(value["cwd"]):
            raise ManifestError("cwd: not a text")
        found["cwd"] = value["cwd"]
    if "restart" in value:
        if value["restart"] not in _RESTARTS:
            raise ManifestError(f"restart: not one of {', '.join(_RESTARTS)}")
        found["restart"] = value["restart"]
    if "stop_timeout_s" in value:
        timeout_s = value["stop_timeout_s"]
        if type(timeout_s) is not int or not 0 <= timeout_s <= STOP_TIMEOUT_S_MAX:
            raise ManifestError(f"stop_timeout_s: not a whole number from 0 to {STOP_TIMEOUT_S_MAX}")
        found["stop_timeout_s"] = timeout_s
    if "health" in value:
        found["health"] = parse_health(value["health"])
    return ProcessManifest(**found)


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > VARIABLES_MAX:
        raise ManifestError(f"env: not an object of at most {VARIABLES_MAX} texts")
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name) or not is_text(text):
            raise ManifestError(f"env.{name[:128]}: not a variable with a text")
    return value
