"""Asking the manager that runs on this machine, over its Unix socket. Its answers are manager/status.py's."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, cast

from node.commands.ending import NOT_RUNNING, CommandError
from node.config import NodeConfig

ANSWER_S = 5.0
RESTART_S = 330.0  # a workload may take 300 s to end
ANSWER_BYTES_MAX = 4_194_304
SOCKET_PATH_BYTES_MAX = 107  # of the kernel's address


class NotRunningError(CommandError):
    """No manager listens on the socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"no manager runs here: nothing listens on {path}", advice="{prog} start", code=NOT_RUNNING
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


def ask(config: NodeConfig, method: str, where: str, *, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """The manager's answer. NotRunningError; CommandError when it refuses or does not answer."""
    path = config.socket_path
    if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
        raise CommandError(
            f"{path}: longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket's path may have",
            advice="{prog} config set health_socket /run/nodepulse-node.sock",
        )
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request(method, where, headers={"Connection": "close"})
        reply = connection.getresponse()
        body = reply.read(ANSWER_BYTES_MAX)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunningError(path) from error
    except PermissionError as error:
        raise CommandError(
            f"{path}: not yours to ask", advice="be root, or the user that the manager runs as"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise CommandError(f"the manager does not answer on {path}: {why}") from error
    finally:
        connection.close()
    answer = _object(body)
    if reply.status != 200:
        raise CommandError(str(answer.get("detail", f"the manager answered {reply.status}")))
    return answer


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise CommandError("the manager's answer is not JSON") from error
    if not isinstance(answer, dict):
        raise CommandError("the manager's answer is no object")
    return cast("dict[str, Any]", answer)


def status_of(config: NodeConfig) -> dict[str, Any]:
    """``GET /status``. As `ask`."""
    return ask(config, "GET", "/status")


def status_if_running(config: NodeConfig) -> dict[str, Any] | None:
    """None when no manager runs. CommandError when one runs and cannot be asked."""
    try:
        return status_of(config)
    except NotRunningError:
        return None
