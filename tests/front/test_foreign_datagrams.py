"""Datagrams of other shards' rows: brought to their owners, and only what was asked for comes back by UDP."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.http_frames import busy_acks
from nodepulse.engine_process import _ForeignDatagrams
from np1.codec import FLAG_NO_ACK, Beat, Code, encode_beat

KEY = bytes(16)


class Fake:
    """Stands for the shard, its listener and its forwarder; the owners answer with the codes given."""

    def __init__(self, codes: dict[int, Code]) -> None:
        self.codes = codes
        self.table = SimpleNamespace(shards=3)
        self.listeners = [self]
        self.owners: list[int] = []
        self.sent: list[tuple[int, int, int]] = []

    def forward_frames(self, owner: int, frames: bytes, t_ms: int, reply: Any) -> None:
        self.owners.append(owner)
        acks = np.frombuffer(
            busy_acks(np.frombuffer(frames, np.uint8).reshape(-1, 48), t_ms, next_ms=1), np.uint8
        )
        acks = acks.reshape(-1, 48).copy()
        for ack in acks:
            ack[1] = self.codes[int.from_bytes(ack[4:8].tobytes(), "big")]
        reply(acks.tobytes())

    def send(self, frames: Any, names: Any) -> None:
        for frame, name in zip(frames, names, strict=True):
            self.sent.append((int.from_bytes(frame[4:8].tobytes(), "big"), int(frame[1]), int(name[0])))


def test_a_quiet_datagram_that_was_taken_gets_no_ack_and_any_other_goes_back_to_its_sender():
    fake: Any = Fake({1: Code.OK, 2: Code.EARLY, 4: Code.OK, 5: Code.STALE, 7: Code.BUSY})
    flags = {1: FLAG_NO_ACK, 2: FLAG_NO_ACK, 4: 0, 5: FLAG_NO_ACK, 7: 0}
    frames = b"".join(encode_beat(Beat(flag, 1, row, 1, 1, 0), KEY) for row, flag in flags.items())
    names = np.zeros((5, 28), np.uint8)
    names[:, 0] = list(flags)
    _ForeignDatagrams(fake, fake)(np.frombuffer(frames, np.uint8).reshape(-1, 48), names, 1_000)
    assert sorted(fake.owners) == [1, 2]
    assert sorted(fake.sent) == [(4, Code.OK, 4), (5, Code.STALE, 5), (7, Code.BUSY, 7)]
