"""A body of concatenated BEATs: split by the shards that own the rows, ACKs gathered in the frames' order.

What a frame says is not looked at here, only the row in it (bytes 4 to 7), which is where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from engine.door import Door
from np1.codec import ACK_BYTE, FRAME_BYTES, Code

FRAMES_MAX = 1024  # in one request (WIRE.md)
_ROW_OFFSET = 4


class ForwardFrames(Protocol):
    """How frames reach the shard that owns them; None instead of ACKs: not taken, BUSY."""

    def forward_frames(
        self, shard: int, frames: bytes, t_ms: int, reply: Callable[[bytes | None], None]
    ) -> None: ...


def submit_frames(
    frames: bytes,
    t_ms: int,
    *,
    door: Door,
    forwarder: ForwardFrames | None,
    busy_retry_ms: int,
    reply: Callable[[bytes], None],
    source: int = 0,
) -> None:
    """Bring n frames (n * 48 bytes) to their owners; `reply` gets n * 48 bytes once all have answered.

    `source`: whom they came from (clones.source_of). Many at once come from a relay, and so does nobody.
    """
    shards = door.shards()
    if len(frames) > FRAME_BYTES:
        source = 0
    if shards == 1:
        door.submit_frames(frames, t_ms, reply, source=source)
        return
    if len(frames) == FRAME_BYTES:
        row = int.from_bytes(frames[_ROW_OFFSET : _ROW_OFFSET + 4], "big")
        if door.owns(row):
            door.submit_frames(frames, t_ms, reply, source=source)
            return
    batch = np.frombuffer(frames, dtype=np.uint8).reshape(-1, FRAME_BYTES)
    rows = batch[:, _ROW_OFFSET : _ROW_OFFSET + 4].copy().view(">u4").ravel()
    owners = rows % np.uint32(shards)
    gathered = _Gathered(batch, t_ms, busy_retry_ms=busy_retry_ms, reply=reply)
    groups = [np.flatnonzero(owners == shard) for shard in np.unique(owners)]
    gathered.waiting = len(groups)
    for places in groups:
        group = batch[places].tobytes()
        take = gathered.taker(places)
        first = int(rows[places[0]])
        if door.owns(first):
            door.submit_frames(group, t_ms, take)
        elif forwarder is None:
            take(None)
        else:
            forwarder.forward_frames(first % shards, group, t_ms, take)


class _Gathered:
    """ACKs of one request, put where their frames stood."""

    def __init__(
        self,
        batch: np.ndarray,
        t_ms: int,
        *,
        busy_retry_ms: int,
        reply: Callable[[bytes], None],
    ) -> None:
        self._batch = batch
        self._t_ms = t_ms
        self._busy_retry_ms = busy_retry_ms
        self._reply = reply
        self._acks = np.zeros_like(batch)
        self.waiting = 0

    def taker(self, places: np.ndarray) -> Callable[[bytes | None], None]:
        """What one owner calls with the ACKs of the frames at `places`."""

        def take(acks: bytes | None) -> None:
            if acks is None:
                acks = busy_acks(self._batch[places], self._t_ms, next_ms=self._busy_retry_ms)
            self._acks[places] = np.frombuffer(acks, dtype=np.uint8).reshape(-1, FRAME_BYTES)
            self.waiting -= 1
            if not self.waiting:
                self._reply(self._acks.tobytes())

        return take


def busy_acks(batch: np.ndarray, t_ms: int, *, next_ms: int) -> bytes:
    """Code 7 for frames (shape (n, 48), u1) whose owner could not be reached, with 16 zero bytes for a tag.

    Only the owner has the keys, so nobody else can sign. To a client that checks tags it is no answer, and it
    tries again, as it should; 48 zero bytes instead would send every client to open a new session.
    """
    acks = np.zeros_like(batch)
    acks[:, 0] = ACK_BYTE
    acks[:, 1] = Code.BUSY
    acks[:, 2:16] = batch[:, 2:16]  # generation, row and seq stand where they stand in the BEAT
    acks[:, 16:24] = np.frombuffer(t_ms.to_bytes(8, "big"), dtype=np.uint8)
    acks[:, 24:28] = np.frombuffer(next_ms.to_bytes(4, "big"), dtype=np.uint8)
    return acks.tobytes()
