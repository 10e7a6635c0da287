"""What the operator of the installation hears of gaps: gap.opened and gap.closed, with the cause.

Most gaps are known only when they are over: both are told at once then. Stalls and kernel drops come in
spells: the first of one is told by itself, those that follow within a minute of the one before are told
together, once a minute has passed without any, or after ten minutes of it. Gap records are gaps.py's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.core.records import Gap

QUIET_MS = 60_000
TOGETHER_MS_MAX = 600_000
_IN_SPELLS = frozenset({"stall", "drops"})
_WORDS = {
    "crash": "the engine was killed or crashed",
    "restart": "the engine was restarted",
    "stall": "the engine stalled",
    "drops": "the kernel dropped datagrams for want of buffer",
    "disk_full": "the journal could not be written",
    "degraded": "our own canaries were not heard",
    "lost_shard": "the shard was lost",
}


class Tells(Protocol):
    """`engine.decisions.Decisions`."""

    def gap_event(self, kind: str, cause: str, since_ms: int, at_ms: int, detail: str) -> None: ...


class _Spell(NamedTuple):
    """Gaps of one cause that follow each other; `untold`: how many of them, and their time in all."""

    last_end_ms: int
    first_ms: int = 0  # of the untold ones
    untold: int = 0
    total_ms: int = 0


class GapNews:
    """Of one shard. Times are those of the gaps; `tick` brings the present."""

    def __init__(self, tells: Tells) -> None:
        self._tells = tells
        self.lasting: dict[str, int] = {}  # begun and told, by cause
        self._spells: dict[str, _Spell] = {}

    def begin(self, cause: str, from_ms: int, now_ms: int) -> None:
        """One that is known before it is over."""
        if cause not in self.lasting:
            self.lasting[cause] = from_ms
            self._tell("gap.opened", cause, from_ms, now_ms, "it lasts")

    def end(self, gap: Gap) -> None:
        """One that is over."""
        if self.lasting.pop(gap.cause, None) is not None:
            self._tell("gap.closed", gap.cause, gap.to_ms, gap.to_ms, _lasted(gap.to_ms - gap.from_ms))
            return
        spell = self._spells.get(gap.cause)
        if spell is not None and gap.from_ms < spell.last_end_ms + QUIET_MS:
            first_ms = spell.first_ms if spell.untold else gap.from_ms
            total_ms = spell.total_ms + gap.to_ms - gap.from_ms
            self._spells[gap.cause] = _Spell(gap.to_ms, first_ms, spell.untold + 1, total_ms)
            return
        if spell is not None:
            self._tell_spell(gap.cause, spell, gap.to_ms)
        if gap.cause in _IN_SPELLS:
            self._spells[gap.cause] = _Spell(gap.to_ms)
        self._tell_pair(gap.cause, gap.from_ms, gap.to_ms, gap.to_ms, _lasted(gap.to_ms - gap.from_ms))

    def tick(self, now_ms: int, *, last: bool = False) -> None:
        """Tell what was gathered, where its time has come; all of it before the shard stops (`last`)."""
        for cause, spell in list(self._spells.items()):
            over = last or now_ms >= spell.last_end_ms + QUIET_MS
            if over or (spell.untold and now_ms >= spell.first_ms + TOGETHER_MS_MAX):
                self._tell_spell(cause, spell, now_ms)
                self._spells[cause] = _Spell(spell.last_end_ms)
            if over:
                del self._spells[cause]

    def _tell_spell(self, cause: str, spell: _Spell, now_ms: int) -> None:
        if spell.untold:
            said = f"{spell.untold} more, {_seconds(spell.total_ms)} in all"
            self._tell_pair(cause, spell.first_ms, spell.last_end_ms, now_ms, said)

    def _tell_pair(self, cause: str, from_ms: int, to_ms: int, now_ms: int, said: str) -> None:
        self._tell("gap.opened", cause, from_ms, now_ms, said)
        self._tell("gap.closed", cause, to_ms, now_ms, said)

    def _tell(self, kind: str, cause: str, since_ms: int, now_ms: int, said: str) -> None:
        self._tells.gap_event(kind, cause, since_ms, now_ms, f"{cause}: {_WORDS.get(cause, cause)}; {said}")


def _lasted(duration_ms: int) -> str:
    return f"for {_seconds(duration_ms)}"


def _seconds(duration_ms: int) -> str:
    return f"{duration_ms / 1000:.1f} s"
