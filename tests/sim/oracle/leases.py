"""Who held each licence when, and who stood by (LIVENESS.md 5, docs/decisions/0060): the slow way.

All that was ever said of a licence, by every run of it on every shard, is put in one line by time and walked
through once, with everything known. No horizon, no lag, no epoch that is guessed: those are the product's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.sim.history import Row, Slot
from tests.sim.oracle.base import FOREVER, state_in
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.rules import Beat
from tests.sim.oracle.verdicts import Stretch, bans, required_by, stretches_of, windows_of_node, without

SALE_LAG_MS = 600_000  # how late a run may hear that its licence was sold: a freeze, and a moment
RELEASE, BIND, CLAIM = range(3)  # at one time in this order


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The registry put this workload under this licence in [from_ms, to_ms); None = it still is."""

    licence_id: str
    workload_id: str
    from_ms: int
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One lease; `to_ms` None = it goes on."""

    licence_id: str
    epoch: int
    workload_id: str
    from_ms: int
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """The workload was bound and another one held its licence."""

    workload_id: str
    holder: str
    from_ms: int
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something said of a licence. A release without a workload is a sale."""

    at_ms: int
    rank: int
    workload_id: str = ""


@dataclass(slots=True)
class Licence:
    """One licence as it is walked through."""

    licence_id: str
    held: list[Held] = field(default_factory=list)
    standby: list[Standby] = field(default_factory=list)
    bound: dict[str, int] = field(default_factory=dict)  # workload: since when
    holder: str | None = None
    since_ms: int = 0
    seller: str | None = None  # ran under it when it was sold, and nobody claimed it since
    sold_ms: int = 0
    resumed: list[tuple[int, str]] = field(default_factory=list)  # as the product has it

    def take(self, act: Act, ended: Mapping[str, int]) -> None:
        if act.rank == BIND:
            self.bound[act.workload_id] = act.at_ms
        elif act.rank == CLAIM and self.holder is None and act.workload_id in self.bound:
            self._grant(act)
        elif act.rank == RELEASE:
            if self.holder is not None and act.workload_id == "":
                self.seller, self.sold_ms = self.holder, act.at_ms
            if self.holder is not None and act.workload_id in ("", self.holder):
                self._end(act.at_ms)
            if ended.get(act.workload_id) == act.at_ms and act.workload_id in self.bound:
                self._unbind(act.workload_id, act.at_ms)

    def _grant(self, act: Act) -> None:
        self.holder, self.since_ms = act.workload_id, act.at_ms
        if act.workload_id == self.seller:
            later = [one for one in self.resumed if act.at_ms <= one[0] <= self.sold_ms + SALE_LAG_MS]
            if later:  # 0060: what it beat before it heard of the sale was not said, but for the last
                self.since_ms, self.holder = min(later)
        self.seller = None

    def _end(self, at_ms: int | None) -> None:
        holder = self.holder
        assert holder is not None
        if at_ms is None or at_ms > self.since_ms:
            self.held.append(
                Held(
                    licence_id=self.licence_id,
                    epoch=len(self.held) + 1,
                    workload_id=holder,
                    from_ms=self.since_ms,
                    to_ms=at_ms,
                )
            )
            for other in self.bound:
                if other != holder:
                    self._stood_by(other, at_ms)
        self.holder = None

    def _unbind(self, workload_id: str, at_ms: int) -> None:
        if self.holder is not None:
            self._stood_by(workload_id, at_ms)
        del self.bound[workload_id]

    def _stood_by(self, workload_id: str, to_ms: int | None) -> None:
        from_ms = max(self.since_ms, self.bound[workload_id])
        if to_ms is None or from_ms < to_ms:
            holder = self.holder or ""
            self.standby.append(Standby(workload_id=workload_id, holder=holder, from_ms=from_ms, to_ms=to_ms))

    def close(self) -> None:
        if self.holder is not None:
            self._end(None)


class Leases:
    """`lost`: per row of each shard the times at which the engine was seen to enter LOST. They decide only
    where LIVENESS.md leaves it open whether a verdict came before the next beat. `resumed`: per licence when
    leases began, and whose: believed only where the first to beat after a sale is the run that held it until
    then, since it does not know yet and says no more than its last beat (0060)."""

    def __init__(
        self,
        shards: Iterable[Oracle],
        bindings: Iterable[Binding],
        *,
        sold: Iterable[tuple[str, int]] = (),
        lost: Mapping[tuple[int, int], list[int]] | None = None,
        resumed: Mapping[str, list[tuple[int, str]]] | None = None,
    ) -> None:
        self.bindings = sorted(bindings, key=lambda b: (b.from_ms, b.workload_id))
        self._sold = sorted(sold)
        self._lost = lost or {}
        self._resumed = resumed or {}
        self._place: dict[str, tuple[Oracle, Row, Slot]] = {}
        for shard in shards:
            for workload_id in shard.workloads():
                row, slot = shard.place(workload_id)
                self._place[workload_id] = (shard, row, slot)
        self.licences = {b.licence_id: self._walk(b.licence_id) for b in self.bindings}

    def held(self, licence_id: str) -> list[Held]:
        return self.licences[licence_id].held

    def standby(self, workload_id: str) -> list[Standby]:
        found = [s for x in self.licences.values() for s in x.standby if s.workload_id == workload_id]
        return sorted(found, key=lambda s: s.from_ms)

    def _walk(self, licence_id: str) -> Licence:
        licence = Licence(licence_id, resumed=self._resumed.get(licence_id, []))
        ours = [b for b in self.bindings if b.licence_id == licence_id]
        ended = {b.workload_id: b.to_ms for b in ours if b.to_ms is not None}
        acts = [Act(at_ms=at, rank=RELEASE) for of, at in self._sold if of == licence_id]
        for b in ours:
            acts.append(Act(at_ms=b.from_ms, rank=BIND, workload_id=b.workload_id))
            if b.to_ms is not None:
                acts.append(Act(at_ms=b.to_ms, rank=RELEASE, workload_id=b.workload_id))
            acts += self.said_by(b.workload_id)
        for act in sorted(set(acts), key=lambda a: (a.at_ms, a.rank, a.workload_id)):
            licence.take(act, ended)
        licence.close()
        return licence

    def said_by(self, workload_id: str) -> list[Act]:
        """Claims and releases of one run, from its beats and its silences."""
        shard, row, slot = self._place[workload_id]
        beats = shard.beats(row)
        claims = {b.t_ms for b in beats if state_in(b, slot.slot) not in (None, "absent")}
        let_go = {b.t_ms for b in beats if shard.rules.stops(b)}
        claims -= let_go  # beats and stops in one millisecond: claims nothing
        let_go |= self._lost_at(shard, row, beats) | absent_at(shard, row, slot.slot, beats)
        acts = [Act(at_ms=at, rank=CLAIM, workload_id=workload_id) for at in claims]
        return acts + [Act(at_ms=at, rank=RELEASE, workload_id=workload_id) for at in let_go]

    def _lost_at(self, shard: Oracle, row: Row, beats: list[Beat]) -> set[int]:
        """The deadlines that ended in LOST: not when that was noticed."""
        about, found = shard.circumstances(row), set()
        end_ms = min(about.as_of_ms, FOREVER if row.retired_ms is None else row.retired_ms)
        for place, beat in enumerate(beats):
            if shard.rules.stops(beat):
                continue
            follower = beats[place + 1].t_ms if place + 1 < len(beats) else None
            for stretch in stretches_of(about, beat, min(end_ms, follower or end_ms) + 1):
                due = shard.rules.lost_at(stretch.anchor_ms, beat.ttl_ms)
                if due < stretch.end_ms and self._was_lost(shard, row, beat, follower, stretch, due):
                    found.add(due)
        return found

    def _was_lost(
        self, shard: Oracle, row: Row, beat: Beat, follower: int | None, stretch: Stretch, due: int
    ) -> bool:
        about = shard.circumstances(row)
        may = without((due, stretch.end_ms), bans(about, beat.ttl_ms, strict=False))
        if not may:
            return False
        held = bans(about, beat.ttl_ms, strict=True)
        by = required_by(about, may, held, stretch.anchor_ms, 0)
        if by is not None and by < (about.as_of_ms if follower is None else follower):
            return True
        seen = self._lost.get((shard.history.shard, row.row), [])
        return any(due <= at <= stretch.end_ms for at in seen)


def absent_at(shard: Oracle, row: Row, slot: int, beats: list[Beat]) -> set[int]:
    """When a workload had been reported absent for 10 intervals: counted from the first frame that says so,
    while its node is heard; a window of the node puts the deadline off, a gap and 60 s after it hold
    it back (0060)."""
    about, found = shard.circumstances(row), set()
    since: int | None = None
    certain_ms = (
        0  # before this nobody could have said so: the node was not heard, or its interval was longer
    )
    for place, beat in enumerate(beats):
        before = beats[place - 1] if place else None
        if before is None or before.ttl_ms != beat.ttl_ms or not shard.rules.covers(before, beat.t_ms):
            certain_ms = beat.t_ms
        state = state_in(beat, slot)
        if shard.rules.stops(beat) or state not in (None, "absent"):
            since = None
            continue
        if state == "absent" and since is None:
            since = beat.t_ms
        if since is None:
            continue
        next_ms = beats[place + 1].t_ms if place + 1 < len(beats) else about.as_of_ms
        heard_ms = min(next_ms, shard.rules.coverage_end(beat))
        for a, b in without((beat.t_ms, heard_ms), windows_of_node(row)):
            window_end = max((end for _, end in windows_of_node(row) if end <= a), default=0)
            due = max(shard.rules.lost_at(max(since, window_end), beat.ttl_ms), certain_ms)
            if due < b and without((max(due, a), b), bans(about, 0, strict=False)):
                found.add(due)
    return found
