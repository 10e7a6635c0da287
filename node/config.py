"""The node's configuration file: what stands in it, reading and writing it. JSON, mode 0600.

It holds the node's private key, so it is refused when others can read it. What is not in the file has the
default below; NODE_PRIVATE_KEY and NODE_SYSTEM_ENDPOINT in the environment win over the file (a container
gets its key that way). What the manager does with the values is told where they are used.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

CONFIG_BYTES_MAX = 65_536
ENVIRONMENT = {"NODE_PRIVATE_KEY": "private_key", "NODE_SYSTEM_ENDPOINT": "web_url"}
_NODE_ID = re.compile(r"[!-~]{0,128}", re.ASCII)
_SEED = re.compile(r"(?:[0-9a-f]{64})?", re.ASCII)
_URL = re.compile(r"(?:https?://[!-~]{1,500})?", re.ASCII)
_WORD = re.compile(r"[a-z0-9-]{0,64}", re.ASCII)
_HOST = re.compile(r"[0-9A-Za-z:.-]{1,255}", re.ASCII)
_TEXT = re.compile(r"[^\0]{0,4096}")


class ConfigError(ValueError):
    """The file cannot be used; the text says where and why, in one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything a node is told. Empty texts are "not yet": `init` writes a key, `register` a node id."""

    node_id: str = ""
    private_key: str = field(default="", repr=False)  # the Ed25519 seed, 32 bytes in hex
    web_url: str = ""  # of the web API
    project: str = ""  # its slug; for people, the node id says it already
    tls_ca_file: str = ""  # certificates to trust instead of the system's
    data_dir: str = ""  # what must survive a restart: backlog, workloads, their logs; "" = default_data_dir()
    health_host: str = "127.0.0.1"  # where workloads report; anything but loopback lets strangers report
    health_port: int = 7910  # 0: only the Unix socket
    health_socket: str = ""  # "" = manager.sock in data_dir; mode 0600
    health_ttl_s: int = 30  # how long a report holds: three missed ones at the usual 10 s
    desired_every_s: int = 600  # the desired state is asked for this often, and at once on RESYNC
    driver: str = "process"  # or kubernetes
    driver_options: Mapping[str, str] = field(default_factory=dict)
    backlog_bytes_max: int = 1_048_576  # 33,000 beats that were never acknowledged: 23 days of minutes
    backlog_age_s_max: int = 172_800  # older beats belong to sealed days: nobody takes them any more
    log_bytes_max: int = 10_485_760  # of one workload's output before it is rotated
    log_files: int = 3  # rotated ones that are kept
    update_key: str = (
        ""  # whose releases of the manager are believed: Ed25519 public key in hex; "" = no updates
    )
    update_url: str = ""  # where the release's text lies (https, http, file); "" = the backend is asked
    update_every_s: int = 21_600  # between two looks for a release, a tenth more or less; 0: only when told
    update_beats_within_s: int = 180  # a new manager has beaten by then, or it is taken back

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir) if self.data_dir else default_data_dir()

    @property
    def socket_path(self) -> Path:
        return Path(self.health_socket) if self.health_socket else self.data_path / "manager.sock"


# What a text must look like, and between what a number must lie, bounds included.
_TEXTS: dict[str, re.Pattern[str]] = {
    "node_id": _NODE_ID,
    "private_key": _SEED,
    "web_url": _URL,
    "project": _WORD,
    "tls_ca_file": _TEXT,
    "data_dir": _TEXT,
    "health_host": _HOST,
    "health_socket": _TEXT,
    "driver": re.compile("process|kubernetes"),
    "update_key": _SEED,
    "update_url": re.compile(r"(?:(?:https?://|file:///)[!-~]{1,2000})?", re.ASCII),
}
_NUMBERS: dict[str, tuple[int, int]] = {
    "health_port": (0, 65_535),
    "health_ttl_s": (1, 3_600),
    "desired_every_s": (1, 86_400),
    "backlog_bytes_max": (4_096, 1 << 30),
    "backlog_age_s_max": (60, 30 * 86_400),
    "log_bytes_max": (4_096, 1 << 34),
    "log_files": (0, 100),
    "update_every_s": (0, 30 * 86_400),
    "update_beats_within_s": (5, 3_600),
}
KEYS = tuple(one.name for one in fields(NodeConfig))


def default_path() -> Path:
    """Where the file is when nobody says: NODEPULSE_NODE_CONFIG, else by user."""
    named = os.environ.get("NODEPULSE_NODE_CONFIG")
    if named:
        return Path(named)
    return Path("/etc/nodepulse/node.json") if os.geteuid() == 0 else _home(".config") / "node.json"


def default_data_dir() -> Path:
    """Where the manager keeps what must survive a restart."""
    return Path("/var/lib/nodepulse-node") if os.geteuid() == 0 else _home(".local/share") / "node"


def _home(folder: str) -> Path:
    return Path.home() / folder / "nodepulse"


def load(path: Path, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """Read the file, then the environment. ConfigError when it is missing, readable by others or wrong."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; `nodepulse node init` makes one") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: others can read the private key (mode {mode:o}); chmod 600 it")
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {CONFIG_BYTES_MAX} bytes")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a JSON object")
    try:
        config = from_values(values)
        named = {key: environment[name] for name, key in ENVIRONMENT.items() if environment.get(name)}
        return changed(config, named)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def save(path: Path, config: NodeConfig) -> None:
    """Write the whole file anew, so that it is there whole or as before, whatever happens. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps(asdict(replace(config, driver_options=dict(config.driver_options))), indent=2) + "\n"
    write_whole(path, text.encode())


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file of mode 0600 at once, synced. OSError."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # it may have been there, with another mode
        _give_to_owner_of(path, descriptor)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)


def _give_to_owner_of(path: Path, descriptor: int) -> None:
    """What root writes anew stays whose it was: the manager runs as another user, who must read it."""
    if os.geteuid() == 0:
        with suppress(FileNotFoundError):
            was = path.stat()
            os.fchown(descriptor, was.st_uid, was.st_gid)


def must_be_complete(config: NodeConfig) -> None:
    """ConfigError when something is missing without which no beat can be sent."""
    for key, how in (("private_key", "init"), ("web_url", "init"), ("node_id", "register")):
        if not getattr(config, key):
            raise ConfigError(f"{key}: not there yet; `nodepulse node {how}` writes it")


def from_values(values: Mapping[str, Any]) -> NodeConfig:
    """A configuration of what a file holds. ConfigError names the key."""
    for key, value in values.items():
        _check(key, value)
    return NodeConfig(**values)


def changed(config: NodeConfig, texts: Mapping[str, str]) -> NodeConfig:
    """The configuration with values as a person types them: numbers are read as such. ConfigError."""
    values = {key: _typed(key, text) for key, text in texts.items()}
    for key, value in values.items():
        _check(key, value)
    return replace(config, **values)


def _typed(key: str, text: str) -> Any:
    if key in _NUMBERS and re.fullmatch(r"\d{1,15}", text):
        return int(text)
    if key == "driver_options":
        try:
            return json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{key}: not JSON") from error
    return text


def _check(key: str, value: Any) -> None:
    if key in _TEXTS:
        if not isinstance(value, str) or not _TEXTS[key].fullmatch(value):
            raise ConfigError(f"{key}: not {_TEXTS[key].pattern}")
    elif key in _NUMBERS:
        low, high = _NUMBERS[key]
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{key}: not a whole number from {low} to {high}")
    elif key == "driver_options":
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise ConfigError(f"{key}: not an object of texts")
    else:
        raise ConfigError(f"{key}: there is no such key; known: {', '.join(KEYS)}")
