"""What a test holds of the pretended API server: starting, killing, replacing tokens, switching faults on."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from node.drivers.kubernetes_install import RULES
from tests.node.kube_api.certificates import make_certificates

TOP = Path(__file__).parents[3]
NAMESPACE = "nodepulse"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:nodepulse-node"
START_S = 20.0


class KubeApiDouble:
    """One cluster in a folder; killed and started again it has what it had, at the same address."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        make_certificates(folder)
        self.folder = folder
        self.account = folder / "account"  # as it is mounted into a pod
        self.account.mkdir()
        (self.account / "namespace").write_text(NAMESPACE)
        (self.account / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self.new_token("first")
        self.allow([dict(rule) for rule in RULES])
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._process: subprocess.Popen[bytes] | None = None

    # -- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "tests.node.kube_api.server", str(self.folder), str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": str(TOP)}, stdout=log, stderr=log
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            try:
                self.control("state")
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the pretended API server does not answer")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def reset(self) -> None:
        """As it was begun, and empty."""
        if self._process is None:
            self.start()
        (self.account / "ca.crt").write_bytes((self.folder / "ca.crt").read_bytes())
        self.new_token("first")
        self.allow([dict(rule) for rule in RULES])
        self.control("empty")

    # -- whom it believes ---------------------------------------------------------------------------

    def new_token(self, token: str) -> None:
        """From now on this token, and no other of the service account, is good."""
        tokens = {token: ACCOUNT, "admin": "system:admin"}
        _write(self.folder / "tokens.json", json.dumps(tokens))
        _write(self.account / "token", token)

    def allow(self, rules: Any) -> None:
        """The role of the service account."""
        _write(self.folder / "rules.json", json.dumps({ACCOUNT: rules, "system:admin": "*"}))

    def environment(self) -> dict[str, str]:
        """What a pod of this cluster has."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "NODEPULSE_SERVICE_ACCOUNT_DIR": str(self.account),
        }

    # -- asking it ----------------------------------------------------------------------------------

    def control(self, what: str, body: Any = None) -> Any:
        return self._call("POST", f"/-/{what}", body, {})[1]

    def fail(self, *faults: dict[str, Any]) -> None:
        """Have the next requests fail: verb, resource, times; code, cut, raw, hang_s; `after`: once done."""
        self.control("faults", list(faults))

    def ask(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """As the cluster's admin."""
        return self._call(method, path, body, {"Authorization": "Bearer admin", "Content-Type": kind})

    def all(self, resource: str) -> list[dict[str, Any]]:
        base = "/apis/apps/v1" if resource == "deployments" else "/api/v1"
        found: list[dict[str, Any]] = self.ask("GET", f"{base}/namespaces/{NAMESPACE}/{resource}")[1]["items"]
        return found

    def pods(self, workload_id: str) -> list[dict[str, Any]]:
        return [
            one
            for one in self.all("pods")
            if one["metadata"]["labels"].get("nodepulse/workload") == workload_id
        ]

    def deployment(self, workload_id: str) -> dict[str, Any] | None:
        for one in self.all("deployments"):
            if one["metadata"]["name"] == f"np-{workload_id}":
                return one
        return None

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self._tls) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def _write(path: Path, text: str) -> None:
    """At once, as a mounted volume is changed."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
