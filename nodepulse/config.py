"""The whole configuration as one frozen record, and where its values come from.

YAML file < environment (`NODEPULSE_INGEST__PORT`) < `--set ingest.port=...` < dedicated options. The settings
of each part stand with the part; what may be set to what stands in `limits.py`; units, defaults and the cost
of moving each key stand in config.example.yaml.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from engine.settings import EngineSettings, FlushSettings, IngestSettings, JournalSettings, LivenessSettings
from nodepulse.limits import ConfigError, Problem, broken_limits
from storage import failpoint
from storage.settings import DatabaseSettings, DatagramSettings, RedisSettings
from web.settings import WebSettings
from worker.settings import WorkerSettings

ENVIRONMENT_PREFIX = "NODEPULSE_"
CONFIG_VARIABLE = "NODEPULSE_CONFIG"  # names the YAML file where no --config is given
# Kubernetes puts such variables into every pod beside a service that is called "nodepulse".
_SERVICE_LINK = re.compile(
    r"^NODEPULSE_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$"
)


class EngineKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many engine processes share the rows, and where they are observed."""

    shards: int = 1
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # of shard 0, the others follow; 0 = free ports, told in run/config.json


class SentrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where crashes are reported to. An empty dsn: nowhere, and the library is not even imported."""

    dsn: str = ""
    environment: str = "production"


class CanarySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Beats that the installation sends itself from outside, through the same door as everybody."""

    count: int = 0
    interval_ms: int = 10_000
    url: str = ""  # web API as seen from where the canaries run; empty = the own web address


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How `serve` supervises its children."""

    restart_intensity: int = 20  # deaths of one child ...
    restart_period_s: float = 30.0  # ... in this time, and serve gives up
    start_attempts_max: int = 5  # deaths in a row before the child ever listened
    ready_s_max: float = 60.0
    stop_web_s: float = 6.0
    stop_engine_s: float = 5.0
    stop_stores_s: float = 3.0
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # 0 = a free port, told in run/config.json


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set. An empty `data_dir` becomes a folder under the user's state folder."""

    data_dir: str = ""
    log_level: str = "info"
    clock_ahead_s: int = 0
    engine: EngineKeys = msgspec.field(default_factory=EngineKeys)
    ingest: IngestSettings = msgspec.field(default_factory=IngestSettings)
    journal: JournalSettings = msgspec.field(default_factory=JournalSettings)
    liveness: LivenessSettings = msgspec.field(default_factory=LivenessSettings)
    flush: FlushSettings = msgspec.field(default_factory=FlushSettings)
    web: WebSettings = msgspec.field(default_factory=WebSettings)
    worker: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    database: DatabaseSettings = msgspec.field(default_factory=DatabaseSettings)
    redis: RedisSettings = msgspec.field(default_factory=RedisSettings)
    datagram: DatagramSettings = msgspec.field(default_factory=DatagramSettings)
    sentry: SentrySettings = msgspec.field(default_factory=SentrySettings)
    canary: CanarySettings = msgspec.field(default_factory=CanarySettings)
    serve: ServeSettings = msgspec.field(default_factory=ServeSettings)

    @property
    def folder(self) -> Path:
        return Path(self.data_dir)

    @property
    def secrets_file(self) -> Path:
        return self.folder / "secrets.json"

    @property
    def engine_settings(self) -> EngineSettings:
        return EngineSettings(
            shards=self.engine.shards,
            clock_ahead_ms=self.clock_ahead_s * 1_000,
            ingest=self.ingest,
            journal=self.journal,
            liveness=self.liveness,
            flush=self.flush,
        )


def load_config(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    sets: Sequence[str] = (),
    options: Mapping[str, str | int | None] | None = None,
) -> Config:
    """Put all sources together. ConfigError lists every problem found, each with the path of its key."""
    named = environ.get(CONFIG_VARIABLE)
    if file is None and named:
        file = Path(named)
    tree: dict[str, Any] = _read_yaml(file) if file is not None else {}
    for path, value in _from_environment(environ):
        _plant(
            tree, path, value, source=f"environment variable {ENVIRONMENT_PREFIX}{'__'.join(path).upper()}"
        )
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError([Problem(text, "is no setting; write --set key.path=value")])
        _plant(tree, key.split("."), value, source=f"--set {text}")
    for key, option in (options or {}).items():
        if option is not None:
            _plant(tree, key.split("."), option, source=f"option for {key}")
    tree.setdefault("data_dir", "")
    if not tree["data_dir"]:
        tree["data_dir"] = str(default_data_dir(environ))
    return check_tree(tree)


def check_tree(tree: dict[str, Any]) -> Config:
    """A tree of plain values as a Config. ConfigError for unknown keys, wrong types, impossible relations."""
    unknown = list(_unknown_keys(tree, Config, ()))
    if unknown:
        raise ConfigError(unknown)
    try:
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise ConfigError([Problem(where.rstrip("`") or "configuration", what)]) from error
    config = msgspec.structs.replace(config, data_dir=os.path.abspath(os.path.expanduser(config.data_dir)))
    problems = list(broken_limits(config))
    if problems:
        raise ConfigError(problems)
    return config


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """A folder under the user's state folder (XDG base directories)."""
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "nodepulse"


def every_key(of: type[msgspec.Struct] = Config, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """All keys as ``{"ingest.port": default}``, in order."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(of):
        path = (*above, field.name)
        if _is_section(field.type):
            found.update(every_key(field.type, path))
        else:
            found[".".join(path)] = field.default
    return found


def _is_section(of: Any) -> bool:
    return isinstance(of, type) and issubclass(of, msgspec.Struct)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(file), f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(file), f"is not YAML: {error}")]) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([Problem(str(file), "must be a mapping of keys to values")])
    # A section whose keys are all commented out reads as null.
    return {key: {} if value is None and _has_section(key) else value for key, value in tree.items()}


def _has_section(key: object) -> bool:
    return any(field.name == key and _is_section(field.type) for field in msgspec.structs.fields(Config))


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[list[str], str]]:
    for name in sorted(environ):
        ours = name in (CONFIG_VARIABLE, failpoint.VARIABLE) or _SERVICE_LINK.match(name)
        if name.startswith(ENVIRONMENT_PREFIX) and not ours:
            yield name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), environ[name]


def _plant(tree: dict[str, Any], path: Sequence[str], value: object, *, source: str) -> None:
    at = tree
    for part in path[:-1]:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise ConfigError([Problem(".".join(path), f"{source}: {part!r} is a value, not a section")])
    at[path[-1]] = value


def _unknown_keys(
    tree: Mapping[Any, Any], of: type[msgspec.Struct], above: tuple[str, ...]
) -> Iterable[Problem]:
    fields = {field.name: field.type for field in msgspec.structs.fields(of)}
    for key, value in tree.items():
        path = ".".join((*above, str(key)))
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            meant = ".".join((*above, near[0])) if near else ""
            advice = f"did you mean {meant}?" if meant else f"known here: {', '.join(fields)}"
            yield Problem(path, f"is not a key; {advice}")
        elif _is_section(fields[key]):
            if isinstance(value, Mapping):
                yield from _unknown_keys(value, fields[key], (*above, str(key)))
            else:
                yield Problem(path, "is a section; give it keys, not a value")
