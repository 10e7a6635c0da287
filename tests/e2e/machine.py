"""A machine for tests: a real manager as a process of its own, with a folder and ports of its own.

Here: a node registered by its owner, starting and killing its manager, and asking it. What the workloads run
is the test's.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.config import NodeConfig, save
from tests.e2e.api import Api
from tests.e2e.system import TOP, System, all_pids, environment_of, eventually, signal_to

STOP_S = 15.0
MANAGER = (sys.executable, "-P", "-m", "node.manager")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def ask_socket(path: Path, method: str, where: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of one request to a manager's Unix socket."""
    connection = UnixConnection(path)
    try:
        connection.request(method, where, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Owner:
    """A project with kinds and versions, as its owner makes them."""

    def __init__(self, system: System, slug: str) -> None:
        self.system, self.slug = system, slug
        self.key: str = system.provision(slug, nodes=0)["api_key"]
        self.api = system.api_for(self.key)

    def make(self, path: str, body: Mapping[str, Any]) -> Any:
        reply = self.api.post(path, body, headers={"idempotency-key": uuid.uuid4().hex})
        assert reply.status in (201, 202), reply
        return reply.json

    def kind(self, slug: str) -> None:
        self.make(f"/v1/projects/{self.slug}/kinds", {"slug": slug})

    def offer(self, kind: str, version: str, manifest: Mapping[str, Any]) -> None:
        """To everybody at once."""
        body = {"version": version, "manifest": json.dumps(manifest), "rollout_percent": 100}
        self.make(f"/v1/projects/{self.slug}/kinds/{kind}/versions", body)

    def register(self, workloads: Mapping[str, str], *, interval_ms: int = 1_000) -> dict[str, Any]:
        """A node with these workloads, name: kind; the answer with its private key."""
        key = Ed25519PrivateKey.generate()
        body = {
            "project": self.slug,
            "name": uuid.uuid4().hex,
            "interval_ms": interval_ms,
            "public_key": key.public_key().public_bytes_raw().hex(),
            "workloads": [{"kind": kind, "name": name} for name, kind in workloads.items()],
        }
        return {**self.make("/v1/nodes", body), "private_key": key.private_bytes_raw().hex()}


class Machine:
    """One manager. `start`, use, `stop` or `kill`; started again it has the same folder."""

    def __init__(
        self,
        folder: Path,
        owner: Owner,
        made: Mapping[str, Any],
        *,
        command: Sequence[str] = MANAGER,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.owner, self.made, self._command = folder, owner, made, command
        self.node_id: str = made["node_id"]
        self.workloads = {one["name"]: one["workload_id"] for one in made["workloads"]}
        self.port = free_port()
        self.config = NodeConfig(
            node_id=self.node_id,
            private_key=made["private_key"],
            web_url=owner.system.web_url,
            project=owner.slug,
            data_dir=str(folder / "data"),
            health_port=self.port,
            **settings,
        )
        save(folder / "node.json", self.config)
        self.mark = f"MACHINE={uuid.uuid4().hex}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        name, _, value = self.mark.partition("=")
        with (self.folder / "manager.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, "--config", str(self.folder / "node.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(TOP), name: value},
            )
        eventually(self.answers, within_s=20, why=self.log)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with suppress(OSError):
            return self.ask("GET", "/status")[0] == 200
        return False

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End everything that this machine has begun."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for pid in self.processes():
            signal_to(pid, signal.SIGKILL)

    # -- looking at it ------------------------------------------------------------------------------

    def ask(self, method: str, where: str, body: object = None) -> tuple[int, Any]:
        """By the Unix socket."""
        return ask_socket(self.config.socket_path, method, where, body)

    def report(self, workload: str, state: str) -> None:
        """As a workload does, by the port."""
        reply = Api("127.0.0.1", self.port).post(f"/health/{workload}", {"state": state})
        assert reply.status == 200, reply

    def status(self) -> dict[str, Any]:
        status, answer = self.ask("GET", "/status")
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    def told(self, name: str) -> dict[str, Any]:
        """One workload, by name, as the manager tells of it."""
        (found,) = [one for one in self.status()["workloads"] if one["name"] == name]
        workload: dict[str, Any] = found
        return workload

    def seen(self, name: str) -> str:
        """One workload, by name, as the server sees it."""
        return self.owner.api.workload_state(self.workloads[name])

    def processes(self) -> list[int]:
        """Every living process that this machine has begun, its manager too."""
        return sorted(pid for pid in all_pids() if self.mark.encode() in environment_of(pid))

    def of(self, name: str) -> list[int]:
        """The living processes of one workload, by name."""
        word = f"NODEPULSE_WORKLOAD_ID={self.workloads[name]}".encode()
        return [pid for pid in self.processes() if word in environment_of(pid)]

    def log(self) -> str:
        return (self.folder / "manager.log").read_text(errors="replace")
