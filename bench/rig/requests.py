"""HTTP requests as the clients of the beat listener send them, ready to be written."""

from __future__ import annotations

import json
import time

import numpy as np

from bench.rig.engine_child import SECRETS
from bench.rig.frames import GENERATION, make_frames
from engine.core.keys import Capability, Token
from engine.rows import id_of

_LATER_MS = 86_400_000
_HOST = b"host: 127.0.0.1\r\n"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def json_beats(rows: int, workloads: int) -> list[bytes]:
    """One JSON beat per row, all its workloads healthy. They may be sent any number of times."""
    return [_json_beat(row, workloads) for row in range(rows)]


def _json_beat(row: int, workloads: int) -> bytes:
    token = SECRETS.make_token(Token(row, GENERATION, now_ms() + _LATER_MS)).encode()
    first = row * workloads
    states = {id_of(row, first + slot): "healthy" for slot in range(workloads)}
    body = json.dumps({"workloads": states}, separators=(",", ":")).encode()
    head = b"POST /v1/beats HTTP/1.1\r\n" + _HOST + b"authorization: Bearer " + token
    return head + b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def pings(rows: int) -> list[bytes]:
    """One ping per row."""
    return [
        b"GET /ping/%s HTTP/1.1\r\n" % str(SECRETS.make_capability(Capability(row, GENERATION))).encode()
        + _HOST
        + b"\r\n"
        for row in range(rows)
    ]


def binary_beats(count: int, *, rows: int, frames: int = 1) -> list[bytes]:
    """`count` requests of `frames` BEATs of one workload, for the rows in turn; to be sent once each."""
    row = np.arange(count * frames) % rows
    seq = (np.int64(now_ms()) << 16) + np.arange(count * frames) // rows
    made = make_frames(row, seq=seq.astype(np.uint64), workloads=1, no_ack=False)
    bodies = made.reshape(count, -1)
    head = b"POST /v1/beats HTTP/1.1\r\n" + _HOST + b"content-type: application/octet-stream\r\n"
    head += b"content-length: %d\r\n\r\n" % bodies.shape[1]
    return [head + body.tobytes() for body in bodies]
