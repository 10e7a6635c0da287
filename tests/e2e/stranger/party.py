"""The outside party: JSON over HTTP, signed sessions, and one node that beats when told to.

It waits for nothing but answers, and judges nothing; the tests do.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.stranger.frames import HEALTHY, Ack, beat, read_ack

SILENCE_S = 0.4


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and `code` of a problem+json answer."""
        assert self.headers["content-type"].startswith("application/problem+json"), self
        return self.status, self.json["code"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class Door:
    """One host and port that speaks HTTP."""

    def __init__(self, address: str, *, bearer: str = "") -> None:
        self.address, self.bearer = address.removeprefix("http://"), bearer

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on its own connection; anything but bytes goes as JSON."""
        own = {"authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        own |= {"content-type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, body=sent, headers={**own, **(headers or {})})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        reply = self.ask("GET", path)
        assert reply.status == 200, (path, reply)
        return reply.json


def session_request(made: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """The signed body of `POST /v1/sessions`; `changed` fields are signed as changed, but not `signature`."""
    asked = {
        "node_id": made["node_id"],
        "sent_at": rfc3339(now_ms()),
        "nonce": os.urandom(16).hex(),
        "manager_version": "stranger/1",
        **changed,
    }
    text = "\n".join(
        ["nodepulse-session-v1", *(str(asked[k]) for k in ("node_id", "sent_at", "nonce", "manager_version"))]
    )
    signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(made["private_key"]))
    return {"signature": signer.sign(text.encode()).hex(), **asked}


class Node:
    """One node of `admin provision`, with the session it opened last."""

    def __init__(self, web: Door, made: Mapping[str, Any]) -> None:
        self.web, self.made, self.node_id = web, made, made["node_id"]
        self.workloads: list[str] = list(made["workloads"])
        self._last_seq = 0
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self) -> None:
        self.udp.close()

    def open(self) -> dict[str, Any]:
        """A new session; its one element."""
        reply = self.web.ask("POST", "/v1/sessions", session_request(self.made))
        assert reply.status == 201, reply
        (self.session,) = reply.json["sessions"]
        self.key, self.row = bytes.fromhex(self.session["key"]), self.session["row"]
        self.generation, self.token = self.session["generation"], self.session["token"]
        self.slots = {entry["workload_id"]: entry["slot"] for entry in self.session["slots"]}
        host, port = self.session["endpoints"]["udp"].rsplit(":", 1)
        self.target = (host, int(port))
        self.beats = Door(self.session["endpoints"]["http"])
        return self.session

    def next_seq(self) -> int:
        self._last_seq = max(self._last_seq + 1, now_ms() << 16)
        return self._last_seq

    def frame(self, states: Mapping[int, int] | None = None, **over: Any) -> bytes:
        """A BEAT of this session, everything healthy; `over` changes single fields."""
        fields = {"row": self.row, "generation": self.generation, **over}
        fields.setdefault("seq", 0)
        if "seq" not in over:
            fields["seq"] = self.next_seq()
        key = fields.pop("key", self.key)
        said = dict.fromkeys(self.slots.values(), HEALTHY) if states is None else states
        return beat(key, states=said, **fields)

    def send(self, frame: bytes) -> None:
        self.udp.sendto(frame, self.target)

    def hear(self, *, within_s: float = 5.0, key: bytes | None = None) -> Ack | None:
        """The next datagram as an ACK; None when nothing came."""
        self.udp.settimeout(within_s)
        try:
            data = self.udp.recv(2048)
        except TimeoutError:
            return None
        return read_ack(self.key if key is None else key, data)

    def beat(self, states: Mapping[int, int] | None = None, **over: Any) -> Ack:
        """Send one BEAT by UDP; its ACK, which must come and must echo it."""
        frame = self.frame(states, **over)
        self.send(frame)
        ack = self.hear(key=over.get("key"))
        assert ack is not None, "no ACK"
        sent = (int.from_bytes(frame[2:4]), int.from_bytes(frame[4:8]), int.from_bytes(frame[8:16]))
        assert (ack.generation, ack.row, ack.seq) == sent
        return ack

    def say(self, body: Any, *, token: str | None = None) -> Reply:
        """One beat on the JSON path."""
        bearer = {"authorization": f"Bearer {self.token if token is None else token}"}
        return self.beats.ask("POST", "/v1/beats", body, headers=bearer)

    def state(self) -> str:
        return self.web.get(f"/v1/nodes/{self.node_id}")["state"]

    def workload_state(self, index: int = 0) -> str:
        return self.web.get(f"/v1/workloads/{self.workloads[index]}")["state"]

    def uptime(self, frm: int, to: int, *, index: int = 0) -> dict[str, Any]:
        query = f"from={quote(rfc3339(frm))}&to={quote(rfc3339(to))}&intervals=true"
        return self.web.get(f"/v1/workloads/{self.workloads[index]}/uptime?{query}")
