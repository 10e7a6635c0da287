"""A small shard for tests: rows with known keys, frames made by the scalar codec."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from engine.core.beats import BEAT_DTYPE
from engine.core.keys import MasterSecrets
from engine.core.records import RowSpec, SessionSpec, SlotSpec
from engine.rows import apply_spec
from engine.table import Table
from np1.codec import Beat, encode_beat

SECRETS = MasterSecrets(secrets={1: b"master secret of the unit tests!"})
SALT = b"saltsalt"
T0 = 1_700_000_000_000
FAR = 10**15
PROJECT = str(uuid.UUID(int=7))


def session(generation: int = 1, *, slots: int = 0b11, ttl_ms: int = 90_000, **changes: Any) -> SessionSpec:
    values = {
        "generation": generation,
        "secret_id": 1,
        "salt": SALT,
        "opened_ms": T0 - 1_000,
        "expires_ms": FAR,
        "interval_ms": 60_000,
        "ttl_ms": ttl_ms,
        "slots": slots,
    }
    return SessionSpec(**{**values, **changes})


def spec(row: int, *, workloads: int = 2, **changes: Any) -> RowSpec:
    values: dict[str, Any] = {
        "row": row,
        "node_id": str(uuid.UUID(int=1000 + row)),
        "project_id": PROJECT,
        "kind": "node",
        "interval_ms": 60_000,
        "revoked": False,
        "retired": False,
        "capability_generation": 0,
        "slots": tuple(SlotSpec(s, workload(row, s), 0, None) for s in range(workloads)),
        "current": session(slots=(1 << workloads) - 1),
        "previous": None,
    }
    return RowSpec(**{**values, **changes})


def workload(row: int, slot: int) -> str:
    return str(uuid.UUID(int=(1 << 100) + row * 64 + slot))


def table(rows: int = 4, *, workloads: int = 2, shard: int = 0, shards: int = 1) -> Table:
    made = Table(shard=shard, shards=shards, rows=2, slots=2)
    for row in range(rows):
        if row % shards == shard:
            apply_spec(made, spec(row, workloads=workloads), SECRETS)
    return made


def key(row: int, generation: int = 1) -> bytes:
    return SECRETS.session_key(secret_id=1, row=row, generation=generation, salt=SALT)


def frame(
    row: int,
    t_ms: int = T0,
    *,
    counter: int = 0,
    plane0: int = 0b11,
    plane1: int = 0,
    flags: int = 0,
    generation: int = 1,
    with_key: bytes | None = None,
) -> bytes:
    beat = Beat(flags, generation, row, (t_ms << 16) | counter, plane0, plane1)
    return encode_beat(beat, with_key or key(row, generation))


def packed(*frames: bytes) -> tuple[Any, Any]:
    """Datagrams as the listener hands them on: (bytes (n, 64), lengths)."""
    raw = np.zeros((len(frames), 64), np.uint8)
    for number, data in enumerate(frames):
        cut = data[:64]
        raw[number, : len(cut)] = np.frombuffer(cut, np.uint8)
    return raw, np.array([len(data) for data in frames], np.uint32)


def beat(
    row: int,
    t_ms: int,
    *,
    plane0: int = 0b11,
    plane1: int = 0,
    slots: int = 0b11,
    ttl_ms: int = 90_000,
    stopping: bool = False,
) -> Any:
    """One accepted beat as journaled."""
    made = np.zeros(1, BEAT_DTYPE)
    made[0] = (row, 1, 2 if stopping else 0, 0, t_ms << 16, plane0, plane1, slots, t_ms, ttl_ms, 0)
    return made


def beats(*each: Any) -> Any:
    return np.concatenate(each)
