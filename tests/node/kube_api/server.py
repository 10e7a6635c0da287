"""The API server as a process: HTTPS, bearer tokens or client certificates, roles, and faults switched on.

``python -m tests.node.kube_api.server FOLDER PORT``. FOLDER has the certificates, `tokens.json` (token: user,
read for each request, so that they can be replaced) and `rules.json` (user: a Role's rules; `*`: everything).
Faults are put to /-/faults. What is kept is objects.py's.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.node.kube_api.cluster import Cluster
from tests.node.kube_api.discovery import DISCOVERY
from tests.node.kube_api.objects import GROUPS, KINDS, Key, Objects, RefusedError

TICK_S = 0.03
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
NAMESPACES = {"nodepulse"}


class ApiServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.lock = folder, threading.Lock()
        self.objects = Objects(folder / "state.json")
        self.faults: list[dict[str, Any]] = []
        self.requests: list[list[Any]] = []
        super().__init__(("127.0.0.1", port), Handler)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.tls.load_verify_locations(folder / "ca.crt")
        self.tls.verify_mode = ssl.CERT_OPTIONAL

    def get_request(self) -> tuple[Any, Any]:
        made, address = super().get_request()
        return self.tls.wrap_socket(made, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""

    def run_cluster(self) -> None:
        cluster = Cluster(self.objects)
        while True:
            with self.lock:
                cluster.step(time.monotonic())
            time.sleep(TICK_S)


class Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path.startswith("/-/"):
            self._reply(200, self._control(parts.path, body))
            return
        if parts.path in DISCOVERY and self.command == "GET":
            self._reply(200, DISCOVERY[parts.path])
            return
        try:
            resource, namespace, name = _address(parts.path)
            verb = VERBS.get(self.command, "")
            verb = "list" if verb == "get" and not name else verb
            user = self._user()
            self.server.requests.append([verb, resource, name, user, time.monotonic()])
            fault = self._fault(verb, resource, name)
            if fault and not fault.get("after") and self._fails(fault):
                return
            self._must_be_allowed(user, verb, resource, namespace)
            with self.server.lock:
                code, answer = self._carry_out(verb, (resource, namespace, name), query, body, user)
            if fault and fault.get("after") and self._fails(fault):
                return
            self._reply(code, answer)
        except RefusedError as error:
            self._reply(error.code, _status(error))

    # -- who and whether ----------------------------------------------------------------------------

    def _user(self) -> str:
        shown = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        if shown:
            return str(dict(part[0] for part in shown["subject"])["commonName"])
        kind, _, token = (self.headers.get("authorization") or "").partition(" ")
        tokens = json.loads((self.server.folder / "tokens.json").read_text())
        if kind != "Bearer" or token not in tokens:
            raise RefusedError(401, "Unauthorized")
        return str(tokens[token])

    def _must_be_allowed(self, user: str, verb: str, resource: str, namespace: str) -> None:
        rules = json.loads((self.server.folder / "rules.json").read_text()).get(user, [])
        group = GROUPS[resource]
        if rules == "*" or any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in rules
        ):
            return
        full = f"{resource}.{group}" if group else resource
        raise RefusedError(
            403,
            f'{full} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{group}" '
            f'in the namespace "{namespace}"',
        )

    # -- faults -------------------------------------------------------------------------------------

    def _fault(self, verb: str, resource: str, name: str) -> dict[str, Any] | None:
        with self.server.lock:
            for fault in self.server.faults:
                asked = {"verb": verb, "resource": resource, "name": name}
                fits = all(fault.get(key, one) == one for key, one in asked.items())
                if fits and fault.get("times", 1) > 0:
                    fault["times"] = fault.get("times", 1) - 1
                    return dict(fault)
        return None

    def _fails(self, fault: dict[str, Any]) -> bool:
        """Whether the answer is the fault's."""
        time.sleep(fault.get("hang_s", 0))
        if fault.get("cut"):
            self.close_connection = True
            return True
        if fault.get("raw"):
            self._reply(200, fault["raw"])
            return True
        if "code" in fault:
            refused = RefusedError(fault["code"], fault.get("message", "switched on by the test"))
            after = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
            self._reply(fault["code"], _status(refused), after)
            return True
        return False

    def _control(self, path: str, body: bytes) -> Any:
        with self.server.lock:
            if path == "/-/faults":
                self.server.faults = json.loads(body)
            objects = self.server.objects
            if path == "/-/forget":
                self.server.requests.clear()
            if path == "/-/empty":
                self.server.faults = []
                for held in (self.server.requests, objects.all, objects.owners):
                    held.clear()
                objects.pods_made, objects.most_at_once = {}, {}
                objects.save()
            return {
                "requests": list(self.server.requests),
                "pods_made": objects.pods_made,
                "most_at_once": objects.most_at_once,
                "faults": self.server.faults,
            }

    # -- carrying out -------------------------------------------------------------------------------

    def _carry_out(
        self, verb: str, key: Key, query: dict[str, str], body: bytes, user: str
    ) -> tuple[int, Any]:
        objects = self.server.objects
        if key[1] not in NAMESPACES and verb in ("create", "patch"):
            raise RefusedError(404, f'namespaces "{key[1]}" not found')
        if "watch" in query:
            raise RefusedError(405, "watches are not pretended")
        if verb == "list":
            return 200, self._list(key, query)
        if verb == "get":
            objects.get(key)
            return 200, objects.shown(key)
        if verb == "patch":
            return self._patch(key, query, _json(body), user)
        if verb == "delete":
            objects.get(key)
            shown = objects.shown(key)
            options = _json(body) if body else {}
            objects.delete(key, foreground=options.get("propagationPolicy") == "Foreground")
            return 200, objects.shown(key) if key in objects.all else shown
        if verb == "create":
            made = _json(body)
            key = (key[0], key[1], str(made.get("metadata", {}).get("name", "")))
            objects.create(key, made, who=query.get("fieldManager", "unknown"))
            return 201, objects.shown(key)
        raise RefusedError(405, "the server does not allow this method on the requested resource")

    def _patch(self, key: Key, query: dict[str, str], body: Any, user: str) -> tuple[int, Any]:
        objects, kind = self.server.objects, self.headers.get("content-type")
        who = query.get("fieldManager", "")
        if kind == "application/apply-patch+yaml":
            if not who:
                raise RefusedError(400, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
            if body.get("metadata", {}).get("managedFields"):
                raise RefusedError(400, "metadata.managedFields must be nil")
            if body.get("metadata", {}).get("name") != key[2]:
                raise RefusedError(400, "the name of the object does not match the name on the URL")
            if key not in objects.all:  # documented: then `create` is needed as well
                self._must_be_allowed(user, "create", key[0], key[1])
            made = objects.apply(key, body, who=who, force=query.get("force") == "true")
            return 201 if made else 200, objects.shown(key)
        if kind == "application/merge-patch+json":
            objects.merge(key, body, who=who or "unknown")
            return 200, objects.shown(key)
        raise RefusedError(415, f"the body of the request was in an unknown format: {kind}")

    def _list(self, key: Key, query: dict[str, str]) -> Any:
        objects = self.server.objects
        wanted = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        keys = sorted(
            one
            for one, thing in objects.all.items()
            if one[:2] == key[:2] and wanted.items() <= thing["metadata"].get("labels", {}).items()
        )
        limit, begin = int(query.get("limit") or 0) or len(keys) + 1, 0
        if "continue" in query:
            token = json.loads(base64.urlsafe_b64decode(query["continue"]))
            begin = sum(list(one) <= token["after"] for one in keys)
        page = keys[begin : begin + limit]
        meta: dict[str, Any] = {"resourceVersion": str(objects.version)}
        if begin + limit < len(keys):
            told = json.dumps({"after": page[-1]}).encode()
            meta["continue"] = base64.urlsafe_b64encode(told).decode()
            meta["remainingItemCount"] = len(keys) - begin - limit
        version, kind = KINDS[key[0]]
        # The items of a list carry neither apiVersion nor kind.
        items = [
            {name: part for name, part in objects.shown(one).items() if name not in ("apiVersion", "kind")}
            for one in page
        ]
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": meta, "items": items}

    def _reply(self, code: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _address(path: str) -> Key:
    """Resource, namespace, name of a path."""
    for resource, base in (("deployments", "/apis/apps/v1"), ("pods", "/api/v1")):
        words = path.removeprefix(f"{base}/namespaces/").split("/")
        if path.startswith(base) and len(words) in (2, 3) and words[1] == resource:
            return resource, words[0], words[2] if len(words) == 3 else ""
    raise RefusedError(404, "the server could not find the requested resource")


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError(400, "the body is no object")
    return value


def _status(error: RefusedError) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "code": error.code,
    }


def main() -> None:
    server = ApiServer(Path(sys.argv[1]), int(sys.argv[2]))
    threading.Thread(target=server.run_cluster, daemon=True).start()
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
