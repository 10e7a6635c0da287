"""A small real backend on loopback: sessions and beats over HTTP, beats over UDP, in threads of its own.

It verifies signatures, then answers as tests/np1/world.py's FakeServer does. What a test wants to see is
written down; what it wants to break is a switch.
"""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from np1.codec import FRAME_BYTES
from np1.session import Refusal, SessionRequest, ms_of_rfc3339, rfc3339_of_ms
from tests.np1.world import FakeServer

SEED = bytes(range(32))
NODE_ID = "019aa8e6-1c00-7000-8000-00000000002a"


class Backend:
    """Use as a context. `answers_udp`, `session_reply` (bytes to send instead) may be changed at any time."""

    def __init__(
        self, *, port=0, interval_ms=1_000, next_ms=500, answers_udp=True, udp_host="127.0.0.1", tls=None
    ):
        self.server = FakeServer(interval_ms=interval_ms)
        self.next_ms = next_ms
        self.answers_udp = answers_udp
        self.session_reply = None
        self.lock = threading.Lock()
        self.versions = []
        self.public_key = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.settimeout(0.02)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.http.daemon_threads = True
        self.scheme = "http"
        if tls is not None:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
            self.scheme = "https"
        self.udp_endpoint = f"{udp_host}:{self.udp.getsockname()[1]}"
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}),
            threading.Thread(target=self._serve_udp),
        ]

    @property
    def port(self):
        return self.http.server_address[1]

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def recorded(self):
        with self.lock:
            return list(self.server.recorded)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.http.shutdown()
        for thread in self._threads:
            thread.join()
        self.http.server_close()
        self.udp.close()

    def take(self, frame, *, over_http):
        with self.lock:
            return self.server.take(frame, time.time_ns() // 1_000_000, http=over_http, next_ms=self.next_ms)

    def _serve_udp(self):
        while not self._over.is_set():
            try:
                frame, address = self.udp.recvfrom(2_048)
            except TimeoutError:
                continue
            reply = self.take(frame, over_http=False) if self.answers_udp else None
            if reply is not None:
                self.udp.sendto(reply, address)

    def open_session(self, body):
        """(status, JSON) of ``POST /v1/sessions``."""
        asked = json.loads(body)
        signature = bytes.fromhex(asked.pop("signature"))
        request = SessionRequest(**asked)
        try:
            self.public_key.verify(signature, request.signed_bytes())
        except InvalidSignature:
            return 401, {"code": "unauthorized"}
        if request.node_id != NODE_ID:
            return 401, {"code": "unauthorized"}
        self.versions.append(request.manager_version)
        with self.lock:
            outcome = self.server.open_session(ms_of_rfc3339(request.sent_at), time.time_ns() // 1_000_000)
        if isinstance(outcome, Refusal):
            return 503, {"code": "unavailable"}
        grant = replace(outcome.grant, udp=self.udp_endpoint, http=f"http://127.0.0.1:{self.port}")
        session = {
            "row": grant.row,
            "generation": grant.generation,
            "key": grant.key.hex(),
            "token": grant.token,
            "expires_at": rfc3339_of_ms(grant.expires_ms),
            "interval_ms": grant.interval_ms,
            "ttl_ms": grant.ttl_ms,
            "endpoints": {"udp": grant.udp, "http": grant.http},
            "slots": [{"slot": slot, "workload_id": name} for slot, name in grant.slots],
        }
        return 201, {"sessions": [session], "server_ms": outcome.server_ms}

    def _handler(self):
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/sessions":
                    status, answer = backend.open_session(body)
                    reply = backend.session_reply or json.dumps(answer).encode()
                elif self.path == "/v1/beats" and len(body) == FRAME_BYTES:
                    status, reply = 200, backend.take(body, over_http=True)
                else:
                    status, reply = 404, b"{}"
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                """Say nothing."""

        return Handler
