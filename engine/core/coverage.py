"""What the base rows of one workload tell about its beats (LIVENESS.md 1 to 3).

Here: rows put in order, and the questions that forgiveness and claims ask of beats, answered from rows
alone, because beats are not stored. Not here: gaps (forgiveness.py) and what an instant counts as
(compose.py).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import msgspec

from engine.core.records import BASE_NONE, BASE_STOPPED, BaseInterval

OPEN_END = 2**62  # the end of what has not ended: an open STOPPED row, an undecided gap


class Coverage:
    """The rows of one workload, in order and without overlap, and the beats that they prove.

    Why rows suffice. Let a row be [a, b):
    - a is a beat: every row is started by one.
    - A row is ended by a differing beat, which starts the next row (b = its start), or lapses, and then its
      last beat was at b - ttl, all its beats having one ttl. An open row is given with end last t + ttl, so
      the same holds. STOPPED has no ttl: its end is always a beat.
    - Inside [a, b) every instant x has a last beat t <= x, of this row, with x < t + ttl. So "the last beat
      at or before x is not STOPPING and x < t + ttl" says just that x lies in a row that is not STOPPED;
      which of the row's beats it was, nobody needs to know. Its ttl is the row's.
    - The first beat at or after the end of a gap starts a new row, and so does the first beat after a lapse.
      So the first beat after a gap, and the first beat at all after an uncovered instant, are row starts.
    - Not to be seen: beats inside a row that merely prolong it. All of them lie in [a, b), where nothing is
      silent, and none is the first after a gap's end: no rule asks for them. In a STOPPED row they change
      nothing either, because all of it up to the next beat is `stopped`.
    - Not to be seen, too: a beat of the node's row that says nothing of this workload (a frame of the
      previous generation, honoured for 60 s more, whose map lacks the slot). It counts as no beat here.

    `rows` may come in any order and twice; of rows with one start the longer counts (the live view may be
    ahead of the store, or behind), and a row ends where the next one starts. BASE_NONE says nothing.
    """

    __slots__ = ("_beats", "_starts", "rows")

    def __init__(self, rows: Iterable[BaseInterval]) -> None:
        self.rows = _in_order(rows)
        self._starts = [row.started_ms for row in self.rows]
        self._beats = _known_beats(self.rows)

    def row_at(self, at_ms: int) -> BaseInterval | None:
        """The row that holds this instant; None: silent."""
        index = bisect_right(self._starts, at_ms) - 1
        if index < 0 or at_ms >= self.rows[index].ended_ms:
            return None
        return self.rows[index]

    def vouched_at(self, at_ms: int) -> bool:
        """Whether the last beat at or before this instant was not STOPPING and holds until after it."""
        row = self.row_at(at_ms)
        return row is not None and row.kind != BASE_STOPPED

    def ttl_before(self, at_ms: int) -> int:
        """The ttl of the last beat before this instant; 0 when there was none."""
        index = bisect_left(self._starts, at_ms) - 1
        return self.rows[index].ttl_ms if index >= 0 else 0

    def next_beat(self, at_ms: int) -> int | None:
        """The first known beat at or after this instant."""
        index = bisect_left(self._beats, at_ms)
        return self._beats[index] if index < len(self._beats) else None

    def previous_beat(self, at_ms: int) -> int | None:
        """The last known beat at or before this instant."""
        index = bisect_right(self._beats, at_ms) - 1
        return self._beats[index] if index >= 0 else None

    def beat_within(self, from_ms: int, to_ms: int) -> bool:
        """Whether a beat is known in [from_ms, to_ms)."""
        beat_ms = self.next_beat(from_ms)
        return beat_ms is not None and beat_ms < to_ms


def _in_order(rows: Iterable[BaseInterval]) -> list[BaseInterval]:
    by_start: dict[int, BaseInterval] = {}
    for row in rows:
        if row.kind == BASE_NONE or row.ended_ms <= row.started_ms:
            continue
        known = by_start.get(row.started_ms)
        if known is None or row.ended_ms >= known.ended_ms:
            by_start[row.started_ms] = row
    ordered = [by_start[start] for start in sorted(by_start)]
    for index in range(len(ordered) - 1):
        next_start = ordered[index + 1].started_ms
        if ordered[index].ended_ms > next_start:
            ordered[index] = msgspec.structs.replace(ordered[index], ended_ms=next_start)
    return ordered


def _known_beats(rows: list[BaseInterval]) -> list[int]:
    beats = {row.started_ms for row in rows}
    for row in rows:
        if row.ended_ms in beats or row.ended_ms == OPEN_END:
            continue
        beats.add(
            row.ended_ms if row.kind == BASE_STOPPED else max(row.started_ms, row.ended_ms - row.ttl_ms)
        )
    return sorted(beats)
