"""One node's client, written for tests: it sends when told to, and says exactly what came back.

It knows no rules of when to send; the product's own clients (`node/`) do. Bytes are np1's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from np1.codec import FRAME_BYTES, Ack, Beat, State, decode_ack, encode_beat, planes
from np1.session import SessionGrant, SessionRequest, parse_session_answer
from tests.e2e.api import Api, Reply, now_ms, rfc3339

ACK_S = 3.0


class SilenceError(Exception):
    """No ACK came in time."""


def ask_session(api: Api, made: Mapping[str, Any], *, ahead_ms: int = 0) -> Reply:
    """`POST /v1/sessions` for a node as `admin provision` printed it; `ahead_ms`: what the server's clock
    is known to be ahead of ours."""
    asked = SessionRequest(
        node_id=made["node_id"],
        sent_at=rfc3339(now_ms() + ahead_ms),
        nonce=os.urandom(16).hex(),
        manager_version="e2e/1",
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(made["private_key"]))
    return api.request(
        "POST",
        "/v1/sessions",
        body=asked.body(key.sign(asked.signed_bytes())),
        headers={"content-type": "application/json"},
    )


def open_session(api: Api, made: Mapping[str, Any], *, ahead_ms: int = 0) -> tuple[SessionGrant, int]:
    """A session and the server's clock less ours, ms, of which `ahead_ms` is known."""
    before = now_ms()
    reply = ask_session(api, made, ahead_ms=ahead_ms)
    assert reply.status == 201, (reply.status, reply.body)
    answer = parse_session_answer(reply.body)
    return answer.grant, answer.server_ms - (before + now_ms()) // 2


class Node:
    """A node with an open session."""

    def __init__(self, api: Api, made: Mapping[str, Any], *, ahead_ms: int = 0) -> None:
        self.api, self.made = api, made
        self.node_id: str = made["node_id"]
        self.workloads: list[str] = made["workloads"]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.acks: list[Ack] = []
        self._seq = 0
        self._ahead_ms = ahead_ms
        self.open()

    def open(self) -> None:
        """A new session."""
        self.grant, self._ahead_ms = open_session(self.api, self.made, ahead_ms=self._ahead_ms)
        host, _, port = self.grant.udp.rpartition(":")
        self.socket.connect((host, int(port)))

    def next_seq(self) -> int:
        self._seq = max(self._seq + 1, (now_ms() + self._ahead_ms) << 16)
        return self._seq

    def frame(
        self, states: Mapping[int, State] | None = None, *, flags: int = 0, seq: int | None = None
    ) -> bytes:
        """A BEAT; by default all workloads are healthy."""
        said = {slot: State.HEALTHY for slot, _ in self.grant.slots} if states is None else states
        plane0, plane1 = planes(said)
        beat = Beat(
            flags,
            self.grant.generation,
            self.grant.row,
            self.next_seq() if seq is None else seq,
            plane0,
            plane1,
        )
        return encode_beat(beat, self.grant.key)

    def beat(self, states: Mapping[int, State] | None = None, *, flags: int = 0) -> Ack:
        """Send a BEAT and return its ACK. SilenceError."""
        return self.exchange(self.frame(states, flags=flags))

    def exchange(self, frame: bytes, *, within_s: float = ACK_S) -> Ack:
        """Send these bytes as a datagram and return the ACK that echoes their seq. SilenceError."""
        self.socket.send(frame)
        self.socket.settimeout(within_s)
        while True:
            try:
                data = self.socket.recv(2 * FRAME_BYTES)
            except TimeoutError:
                raise SilenceError from None
            ack = decode_ack(data, self.grant.key, row=self.grant.row)
            if ack.seq == int.from_bytes(frame[8:16], "big"):
                self.acks.append(ack)
                return ack

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
