"""The beats that were never acknowledged, kept for the backfill: bounded, oldest first.

An entry is what one beat said at one moment. Tries of one beat that say the same are one entry; a try that
is credited takes its own entry and those of the tries before it. When the bound is reached the oldest
entry is dropped and counted: the newest are the ones that a server may still take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from np1.session import BACKFILL_BEATS_MAX, BackfillBeat

BACKLOG_BEATS_MAX = BACKFILL_BEATS_MAX


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int  # of the beat, rising
    try_number: int  # of its first try that said this
    beat: BackfillBeat


class Backlog:
    """What was sent and not yet credited."""

    def __init__(self, beats_max: int = BACKLOG_BEATS_MAX) -> None:
        self._entries: deque[_Entry] = deque()
        self._beats_max = beats_max
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def sent(self, number: int, try_number: int, beat: BackfillBeat) -> None:
        """Note a try of beat `number`; both numbers rise."""
        last = self._entries[-1] if self._entries else None
        if last is not None and last.number == number and _says(last.beat) == _says(beat):
            return
        if len(self._entries) >= self._beats_max:
            self._entries.popleft()
            self.dropped += 1
        self._entries.append(_Entry(number, try_number, beat))

    def credited(self, number: int, try_number: int) -> None:
        """A try was credited: what it and the tries of the same beat before it said is known."""
        self._drop(number, last_try=try_number)

    def forget(self, number: int) -> None:
        """Drop a beat whose time is known to be wrong."""
        self._drop(number, last_try=None)

    def settled(self, running: int | None) -> list[BackfillBeat]:
        """All entries, oldest first, but those of the beat that may still be credited by the next try."""
        return [entry.beat for entry in self._entries if entry.number != running]

    def of(self, number: int) -> list[BackfillBeat]:
        """What is kept of one beat, which is the newest."""
        newest = takewhile(lambda entry: entry.number == number, reversed(self._entries))
        return [entry.beat for entry in newest][::-1]

    def handed_in(self, beats: Iterable[BackfillBeat]) -> None:
        """A backfill has brought these to the server."""
        done = set(beats)
        self._entries = deque(entry for entry in self._entries if entry.beat not in done)

    def _drop(self, number: int, *, last_try: int | None) -> None:
        """Drop a beat's entries, those of later tries excepted. Looks no further back than to that beat."""
        newer = []
        while self._entries and self._entries[-1].number >= number:
            entry = self._entries.pop()
            if entry.number > number or (last_try is not None and entry.try_number > last_try):
                newer.append(entry)
        self._entries.extend(reversed(newer))


def _says(beat: BackfillBeat) -> tuple[int, int, int]:
    return beat.plane0, beat.plane1, beat.generation
