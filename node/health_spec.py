"""How a manifest says whether its workload is well: the `health` object, read strictly.

One probe at most (http, tcp or command), and whether the workload must report by itself. Probing is
health_probe.py's, judging health.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TEXT_MAX = 4_096
WORDS_MAX = 256
KEYS = {"http", "tcp", "command", "report"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSpec:
    """http: a URL that answers 200 to 399. tcp: host:port that takes a connection. command: ends with 0.

    report: the workload must report; without this it may. A probe turns well after `healthy_after`
    successes and ill after `unhealthy_after` failures in a row. Until `start_period_s` after its beginning a
    run that was ordered counts as starting, whatever its probes say, unless they say that it is well.
    """

    http: str | None = None
    tcp: tuple[str, int] | None = None
    command: tuple[str, ...] | None = None
    report: bool = False
    interval_s: int = 5
    timeout_s: int = 3
    healthy_after: int = 1
    unhealthy_after: int = 3
    start_period_s: int = 30

    @property
    def probes(self) -> bool:
        return self.http is not None or self.tcp is not None or self.command is not None


_NUMBERS = {
    "interval_s": (1, 60),
    "timeout_s": (1, 60),
    "healthy_after": (1, 100),
    "unhealthy_after": (1, 100),
    "start_period_s": (0, 540),  # an ordered update is excused for ten minutes, not more
}


def parse_health(value: Any) -> HealthSpec:
    """The `health` of a manifest. ValueError names what is wrong."""
    if not isinstance(value, Mapping):
        raise ValueError("health: not an object")
    unknown = sorted(set(value) - KEYS - set(_NUMBERS))
    if unknown:
        raise ValueError(f"health.{unknown[0]}: there is no such key")
    if len(set(value) & {"http", "tcp", "command"}) > 1:
        raise ValueError("health: more than one of http, tcp and command")
    found: dict[str, Any] = {name: _number(value[name], name) for name in _NUMBERS if name in value}
    if "report" in value:
        if not isinstance(value["report"], bool):
            raise ValueError("health.report: neither true nor false")
        found["report"] = value["report"]
    if "http" in value:
        found["http"] = _url(value["http"])
    if "tcp" in value:
        found["tcp"] = _address(value["tcp"])
    if "command" in value:
        found["command"] = words(value["command"], "health.command")
    return HealthSpec(**found)


def words(value: Any, path: str) -> tuple[str, ...]:
    """A command: a list of 1 to 256 texts without NUL. ValueError."""
    fits = isinstance(value, list) and 0 < len(value) <= WORDS_MAX
    if not fits or not all(is_text(word) for word in value) or not value[0]:
        raise ValueError(f"{path}: not a list of 1 to {WORDS_MAX} texts")
    return tuple(value)


def is_text(value: Any) -> bool:
    """A text that a program can be given."""
    return isinstance(value, str) and len(value) <= TEXT_MAX and "\0" not in value and _is_utf8(value)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)  # half a pair, which JSON can write


def _number(value: Any, name: str) -> int:
    low, high = _NUMBERS[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"health.{name}: not a whole number from {low} to {high}")
    return value


def _url(value: Any) -> str:
    if is_text(value) and value.isascii() and value.isprintable() and " " not in value and _is_url(value):
        return str(value)
    raise ValueError("health.http: not an http or https URL")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _address(value: Any) -> tuple[str, int]:
    if is_text(value):
        host, _, port = value.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if host and port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65_535:
            return host, int(port)
    raise ValueError("health.tcp: not host:port")
