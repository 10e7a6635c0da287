"""Plain beats (JSON, ping, push) that came one after the other, judged as one batch.

numpy takes as long for one beat as for a hundred, and each of these comes alone: they are gathered until
something else comes in between or a commit begins. Credentials were checked before; here it is asked whether
the generation they speak for still lives. Frames are `engine.core.verify`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.answers import Outcome, Waiting
from engine.core.beats import BEAT_DTYPE, ORIGIN_PLAIN
from engine.door import GONE, PlainAnswer, PlainBeat
from engine.pace import Pace
from engine.refusals import TOKEN, Refusals
from engine.sources import Sources
from engine.table import Table
from np1.codec import FLAG_STOPPING, Code

Array = npt.NDArray[Any]
Reply = Callable[[PlainAnswer], None]

_RESYNC_INSTEAD = (Code.OK, Code.EARLY, Code.STANDBY)
_ASKED_DTYPE = np.dtype(
    [
        ("row", "<u4"),
        ("generation", "<u2"),
        ("capability", "?"),
        ("flags", "u1"),
        ("plane0", "<u8"),
        ("plane1", "<u8"),
        ("t_ms", "<i8"),
        ("unknown_ids", "?"),
        ("source", "<u8"),
    ]
)
assert _ASKED_DTYPE.names == PlainBeat._fields


class PlainBeats:
    """Those that are not judged yet. `add` in order of arrival; `judge` makes them one submission."""

    def __init__(self, table: Table, pace: Pace, refusals: Refusals) -> None:
        self._table, self._pace, self._refusals = table, pace, refusals
        self._beats: list[PlainBeat] = []
        self._replies: list[Reply] = []

    def __len__(self) -> int:
        return len(self._beats)

    def add(self, beat: PlainBeat, reply: Reply) -> None:
        self._beats.append(beat)
        self._replies.append(reply)

    def oldest_ms(self) -> int | None:
        """Receive time of the oldest; forwarded ones come out of order."""
        return min((beat.t_ms for beat in self._beats), default=None)

    def judge(self, sources: Sources) -> Waiting:
        """All that were added, but for those whose generation is gone: they are told so now."""
        asked, replies = np.array(self._beats, _ASKED_DTYPE), self._replies
        self._beats, self._replies = [], []
        index = (asked["row"] // self._table.shards).astype(np.int64)
        live = self._live(asked, index)
        if not live.all():
            known = ~live & (asked["row"] % self._table.shards == self._table.shard)
            known &= index < self._table.rows
            self._refusals.add(index[known], TOKEN, asked["t_ms"][known])
            for position in np.flatnonzero(~live):
                replies[position](PlainAnswer(GONE, 0, 0, int(asked["t_ms"][position])))
            replies = [replies[position] for position in np.flatnonzero(live)]
            asked, index = asked[live], index[live]
        if asked["source"].any():
            sources.watch(index, asked["source"], int(asked["t_ms"].max()))
        unknown_ids = np.flatnonzero(asked["unknown_ids"])
        return Waiting(self._beats_of(asked, index), None, _decided(replies, unknown_ids))

    def _live(self, asked: Array, index: Array) -> Array:
        rows, generations = self._table.row, self._table.generation
        ours = (asked["row"] % self._table.shards == self._table.shard) & (index < self._table.rows)
        index = np.where(ours, index, 0)
        generation = asked["generation"].astype(np.int64)
        entry = 2 * index + (generation & 1)
        session = (generations.live[entry] == generation) & (rows.refused[index] == 0)
        session &= asked["t_ms"] < generations.until_ms[entry]
        capability = (generation != 0) & (rows.capability_generation[index] == generation)
        live: Array = ours & np.where(asked["capability"], capability, session)
        return live

    def _beats_of(self, asked: Array, index: Array) -> Array:
        rows, generations = self._table.row, self._table.generation
        entry = 2 * index + (asked["generation"] & 1)
        capability = asked["capability"]
        slots = np.where(capability, np.uint64(1), generations.map[entry])
        beats = np.zeros(len(asked), BEAT_DTYPE)
        beats["row"] = asked["row"]
        beats["generation"] = np.where(capability, rows.generation[index], asked["generation"])
        beats["flags"] = asked["flags"] & FLAG_STOPPING
        beats["origin"] = ORIGIN_PLAIN
        beats["plane0"], beats["plane1"] = asked["plane0"] & slots, asked["plane1"] & slots
        beats["slots"] = slots
        beats["t_ms"] = asked["t_ms"]
        session_ttl = np.where(capability, 0, generations.session_ttl_ms[entry])
        beats["ttl_ms"] = self._pace.ttls(rows.interval_ms[index], session_ttl)
        return beats


def _decided(replies: list[Reply], unknown_ids: Array) -> Callable[[Outcome], None]:
    """Tells each what became of its beat; `unknown_ids`: positions of those that named strange workloads."""

    def decided(what: Outcome) -> None:
        for position in unknown_ids:
            if what.codes[position] in _RESYNC_INSTEAD:
                what.codes[position] = Code.RESYNC
        ttl_ms = np.where(what.codes == Code.BUSY, 0, what.ttl_ms)
        told = zip(
            what.codes.tolist(), what.next_ms.tolist(), ttl_ms.tolist(), what.t_ms.tolist(), strict=True
        )
        for reply, said in zip(replies, told, strict=True):
            reply(PlainAnswer._make(said))

    return decided
