"""A world of beats and faults, and two slow ways to ask it: what the engine would write, and what is true.

`rows_of` writes base rows as LIVENESS.md 2 has the engine write them. `Oracle` answers single instants from
the beats themselves, by the words of LIVENESS.md 2 and 3, looking at everything each time. It shares no code
with `engine.core.compose` but the records and the arithmetic of ttl; compose sees the rows, the oracle never.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from engine.core.compose import OPEN_END, Composition, compose
from engine.core.records import (
    BASE_STOPPED,
    BASE_UNHEALTHY,
    BASE_UP,
    BASE_UPDATING,
    BaseInterval,
    Claim,
    Gap,
    Lease,
    Window,
)

CODES = {
    "up": BASE_UP,
    "updating": BASE_UPDATING,
    "unhealthy": BASE_UNHEALTHY,
    "absent": BASE_UNHEALTHY,
    "stopped": BASE_STOPPED,
}


class Beat(NamedTuple):
    """An accepted beat: its receive time, what it says of the workload, its ttl."""

    t: int
    says: str = "up"
    ttl: int = 90_000


@dataclass(frozen=True)
class World:
    """Everything that is known of one workload. Beats in journal order."""

    beats: tuple[Beat, ...] = ()
    gaps: tuple[Gap, ...] = ()
    leases: tuple[Lease, ...] = ()
    windows: tuple[Window, ...] = ()
    claims: tuple[Claim, ...] = ()
    life: tuple[int, int | None] = (0, None)
    as_of: int = 0
    asked: tuple[int, int] = (0, 0)
    rows: tuple[BaseInterval, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(rows_of(self.beats, self.gaps)))

    @property
    def first_report(self) -> int | None:
        return min((beat.t for beat in self.beats if beat.says not in ("absent", "stopped")), default=None)

    def composed(self, **changes: object) -> Composition:
        asked = {
            "base": self.rows,
            "gaps": self.gaps,
            "leases": self.leases,
            "maintenances": self.windows,
            "claims": self.claims,
            "life": self.life,
            "first_report": self.first_report,
            "as_of": self.as_of,
            "from_ms": self.asked[0],
            "to_ms": self.asked[1],
        }
        return compose(**{**asked, **changes})  # type: ignore[arg-type]


def rows_of(beats: tuple[Beat, ...], gaps: tuple[Gap, ...]) -> list[BaseInterval]:
    """The base rows that an engine writes for these beats, the open one last with its uncut end."""
    rows: list[BaseInterval] = []
    start = last = None  # beats that started and last prolonged the open row
    for beat in beats:
        if last is not None:
            lapses = OPEN_END if last.says == "stopped" else last.t + last.ttl
            differs = (CODES[last.says], last.ttl) != (CODES[beat.says], beat.ttl)
            first_after_gap = any(last.t < gap.to_ms <= beat.t for gap in gaps)
            if beat.t < lapses and not differs and not first_after_gap:
                last = beat
                continue
            rows.append(BaseInterval(CODES[start.says], start.t, min(lapses, beat.t), start.ttl))
        start = last = beat
    if last is not None:
        ended = OPEN_END if last.says == "stopped" else last.t + last.ttl
        rows.append(BaseInterval(CODES[start.says], start.t, ended, start.ttl))
    return [row for row in rows if row.started_ms < row.ended_ms]


def interval(ttl: int) -> int:
    return 2 * ttl // 3


def grace(ttl: int) -> int:
    return max(60_000, 5 * interval(ttl))


class Merged(NamedTuple):
    parts: list[Gap]

    @property
    def g0(self) -> int:
        return min(part.from_ms for part in self.parts)

    @property
    def g1(self) -> int:
        return max(part.to_ms for part in self.parts)

    @property
    def only_drops(self) -> bool:
        return all(part.cause == "drops" for part in self.parts)


class Oracle:
    """What is true at an instant of this world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.beats = world.beats
        lasting = [gap for gap in world.gaps if gap.from_ms < gap.to_ms]  # zero lengths are dropped
        gaps = sorted(lasting, key=lambda gap: (gap.from_ms, gap.to_ms))
        self.decided = self.merge([gap for gap in gaps if gap.to_ms < OPEN_END])
        self.all = self.merge(gaps)

    def last_beat(self, at: int) -> Beat | None:
        """The last beat at or before an instant, in journal order."""
        found = None
        for beat in self.beats:
            if beat.t <= at:
                found = beat
        return found

    def first_beat(self, at: int) -> int | None:
        return min((beat.t for beat in self.beats if beat.t >= at), default=None)

    def beat_in(self, from_ms: int, to_ms: int) -> bool:
        return any(from_ms <= beat.t < to_ms for beat in self.beats)

    def covered(self, at: int) -> bool:
        beat = self.last_beat(at)
        return beat is not None and beat.says != "stopped" and at < beat.t + beat.ttl

    def base(self, at: int) -> str:
        beat = self.last_beat(at)
        if beat is None or (beat.says != "stopped" and at >= beat.t + beat.ttl):
            return "silent"
        return "unhealthy" if beat.says == "absent" else beat.says

    def grace_of(self, merged: Merged) -> int:
        before = self.last_beat(merged.g1 - 1)
        ttl = before.ttl if before else 0
        return interval(ttl) if merged.only_drops else grace(ttl)

    def merge(self, gaps: list[Gap]) -> list[Merged]:
        """Merged: starts before the previous gap's g1 + grace, with no beat in [that g1, its start)."""
        merged: list[Merged] = []
        for gap in gaps:
            last = merged[-1] if merged else None
            if (
                last
                and gap.from_ms < last.g1 + self.grace_of(last)
                and not self.beat_in(last.g1, gap.from_ms)
            ):
                last.parts.append(gap)
            else:
                merged.append(Merged([gap]))
        return merged

    def start(self, merged: Merged) -> int | None:
        if self.covered(merged.g0):
            return merged.g0
        with_beats = [part.from_ms for part in merged.parts if self.beat_in(part.from_ms, part.to_ms)]
        return min(with_beats, default=None)

    def bound(self, merged: Merged) -> int:
        """The first beat must come before this."""
        if self.covered(merged.g1) and not merged.only_drops:
            return merged.g1 + self.last_beat(merged.g1).ttl
        return merged.g1 + self.grace_of(merged)

    def excused_by(self, merged: Merged, at: int) -> str:
        """Whether this gap forgives silence at this instant: yes, no, or perhaps."""
        start, f = self.start(merged), self.first_beat(merged.g1)
        if start is None or at < start:
            return "no"
        if at < merged.g1 < OPEN_END and not merged.only_drops:
            return "yes"
        if f is None:
            return "perhaps" if self.world.as_of < self.bound(merged) else "no"
        return "yes" if at < f < self.bound(merged) else "no"

    def excuse(self, at: int) -> str:
        """Whether silence at this instant is forgiven: yes, no, or perhaps."""
        answers = {self.excused_by(merged, at) for merged in self.decided}
        # What rests on a gap that is not decided yet is not certain.
        answers |= {self.excused_by(merged, at) for merged in self.all if merged.g1 == OPEN_END}
        return "yes" if "yes" in answers else "perhaps" if "perhaps" in answers else "no"

    def claim(self, at: int) -> str | None:
        """The claim that speaks of this instant: the latest before it, first stored, not cut by a beat."""
        times = [claim.at_ms for claim in self.world.claims if claim.at_ms <= at]
        if not times:
            return None
        claim = next(claim for claim in self.world.claims if claim.at_ms == max(times))
        if at >= claim.at_ms + claim.ttl_ms or self.beat_in(claim.at_ms, at + 1):
            return None
        return {BASE_UP: "claimed_up", BASE_UPDATING: "claimed_updating"}.get(claim.kind, "claimed_unhealthy")

    def kind(self, at: int) -> tuple[str, bool]:
        """What an instant counts as, and whether that is provisional."""
        world = self.world
        if world.first_report is None or at < world.first_report:
            return "silent", False
        base = self.base(at)
        excuse = self.excuse(at) if base == "silent" else "no"
        claim = self.claim(at) if excuse != "no" else None
        provisional = excuse == "perhaps"
        windows = {window.own for window in world.windows if window.from_ms <= at < window.to_ms}
        if any(lease.from_ms <= at and (lease.to_ms is None or at < lease.to_ms) for lease in world.leases):
            return "standby", False
        if base == "up":
            return "up", False
        if claim == "claimed_up":
            return claim, provisional
        if False in windows:
            return "maintenance", False
        if base == "updating":
            return base, False
        if claim is not None:
            return claim, provisional
        if base != "silent":
            return base, False
        if excuse != "no":
            return "unobserved", provisional
        return ("maintenance_own" if True in windows else "silent"), False
