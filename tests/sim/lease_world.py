"""Several shards played side by side by the real engine, their licences settled by the product's own rules.

Each shard flushes when it likes; what it says goes to `Licensing`, which does in memory what
storage/postgres_settle.py does (the same `settle`, the same horizon); what is decided comes back to each
shard with the registry, a moment later. Which workloads share licences is drawn here, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np

from engine.core.beats import SAY_DTYPE
from engine.core.leases import Binding as Bound
from engine.core.leases import LeaseSpan, StandbySpan
from engine.core.records import SHARD_SAYS
from engine.core.settle import Said, settle
from engine.core.settle import Standing as Known
from engine.core.step import LOST
from engine.journal_blocks import Kind
from engine.rows import id_of
from tests.sim.engine_world import EngineWorld
from tests.sim.generate import DAY_MS, generate
from tests.sim.history import History, Row
from tests.sim.oracle.leases import Binding, Leases
from tests.sim.oracle.oracle import Oracle
from tests.sim.play import play
from tests.sim.registry_world import Standing, uuid_of

MIDNIGHT_MS = 20_000 * DAY_MS  # in which every generated world lies
Spans = list[tuple[int, int | None]]


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What happened to some shards, and what people did with licences. `sold`: (licence, when)."""

    seed: int
    shards: tuple[History, ...]
    bindings: tuple[Binding, ...]
    sold: tuple[tuple[str, int], ...]

    @property
    def as_of_ms(self) -> int:
        return self.shards[0].as_of_ms


def installation(seed: int, *, shards: int = 2, hours: float = 3.0) -> Installation:
    rng = Random(seed * 7 + 1)
    begin_ms = MIDNIGHT_MS - rng.randrange(1, int(hours * 3_600_000))
    histories = [_shard(seed * shards + shard, shard, shards, begin_ms, hours) for shard in range(shards)]
    as_of_ms = max(MIDNIGHT_MS, *(history.as_of_ms for history in histories)) + 3 * 3_600_000
    histories = [replace(history, as_of_ms=as_of_ms) for history in histories]
    bindings, sold = _licences(rng, histories, begin_ms, as_of_ms)
    return Installation(seed=seed, shards=tuple(histories), bindings=bindings, sold=sold)


def _shard(seed: int, shard: int, shards: int, begin_ms: int, hours: float) -> History:
    """As `history_of` in test_engine_agrees.py, with rows and ids of its own."""
    script = generate(seed, hours=hours, begin_ms=begin_ms)
    numbers = {row.row: row.row * shards + shard for row in script.rows}
    script = replace(
        script,
        rows=tuple(_named(row, shard, numbers[row.row]) for row in script.rows),
        arrivals=tuple(replace(arrival, row=numbers[arrival.row]) for arrival in script.arrivals),
        faults=tuple(
            replace(f, from_ms=max(f.from_ms, f.to_ms - 1_000)) if f.kind == "drops" else f
            for f in script.faults
        ),
    )
    return replace(play(script), shard=shard)


def _named(row: Row, shard: int, number: int) -> Row:
    def name(what: str) -> str:
        return uuid_of(f"{shard}/{what}")

    return replace(
        row,
        row=number,
        node_id=name(row.node_id),
        project_id=uuid_of(row.project_id),
        slots=tuple(replace(slot, workload_id=name(slot.workload_id)) for slot in row.slots),
        leases=(),
        windows=tuple(
            replace(w, workload_id=w.workload_id and name(w.workload_id))
            for w in row.windows
            if w.from_ms > row.slots[0].created_ms + 4_000_000
        ),
    )


def _licences(
    rng: Random, histories: Sequence[History], begin_ms: int, end_ms: int
) -> tuple[tuple[Binding, ...], tuple[tuple[str, int], ...]]:
    """Who shares which licence when: most workloads from birth, some later, some change over."""
    slots = [slot for history in histories for row in history.rows for slot in row.slots]
    rng.shuffle(slots)
    number = max(1, len(slots) // 4)
    names = [uuid_of(f"licence {each}") for each in range(number)]
    bindings = []
    for place, slot in enumerate(slots):
        if rng.random() < 0.1:
            continue
        from_ms, to_ms = slot.created_ms, slot.retired_ms
        last_ms = end_ms if to_ms is None else to_ms
        if rng.random() < 0.2 and from_ms + 1 < last_ms:
            from_ms = rng.randrange(from_ms + 1, last_ms)
        licence_id = names[place % number]
        if rng.random() < 0.2 and from_ms + 2 < last_ms and number > 1:
            changed_ms = rng.randrange(from_ms + 1, last_ms)
            bindings.append(
                Binding(
                    licence_id=licence_id, workload_id=slot.workload_id, from_ms=from_ms, to_ms=changed_ms
                )
            )
            others = [name for name in names if name != licence_id]
            licence_id, from_ms = rng.choice(others), changed_ms
        if to_ms is None or from_ms < to_ms:
            bindings.append(
                Binding(licence_id=licence_id, workload_id=slot.workload_id, from_ms=from_ms, to_ms=to_ms)
            )
    sold = [
        (name, rng.randrange(begin_ms, end_ms)) for name in names for _ in range(rng.choice([0, 1, 1, 2]))
    ]
    return tuple(bindings), tuple(sorted(sold, key=lambda one: one[1]))


class Licensing:
    """Leases of an installation, as PostgreSQL keeps and settles them."""

    def __init__(self, installed: Installation) -> None:
        self._bindings = installed.bindings
        self._told_ms = dict.fromkeys(range(len(installed.shards)), 0)
        self._says: list[tuple[str, Said]] = []  # of a workload, or of a licence that was sold
        self._known = {b.licence_id: Known(licence_id=b.licence_id) for b in installed.bindings}
        self.leases: dict[tuple[str, int], LeaseSpan] = {}
        self.standbys: dict[tuple[str, int], list[StandbySpan]] = {}
        self.people = sorted(_people(installed), key=lambda one: one[0])
        self._people = list(self.people)

    @property
    def told_ms(self) -> int:
        return min(self._told_ms.values())

    def next_change(self) -> int | None:
        """When people change something next."""
        return self._people[0][0] if self._people else None

    def change(self) -> None:
        at_ms, what, licence_id, workload_id = self._people.pop(0)
        self._says.append((licence_id, Said(at_ms, what, workload_id)))

    def told(self, shard: int, says: Iterable[Said], leases_ms: int) -> None:
        for say in says:
            licence_id = next((b.licence_id for b in self._bound(say.workload_id, say.at_ms)), "")
            if licence_id:
                self._says.append((licence_id, say))
        self._told_ms[shard] = max(self._told_ms[shard], leases_ms)

    def settle(self, now_ms: int) -> bool:
        """Settle what every shard has told of; whether shards must hear of it."""
        horizon_ms = self.told_ms
        due = {one for one in self._says if one[1].at_ms <= horizon_ms}
        self._says = [one for one in self._says if one[1].at_ms > horizon_ms]
        moved = False
        for licence_id in sorted({licence_id for licence_id, _ in due if licence_id in self._known}):
            bindings = tuple(
                Bound(
                    b.workload_id,
                    licence_id,
                    b.from_ms,
                    b.to_ms if b.to_ms is not None and b.to_ms <= now_ms else None,
                )
                for b in self._bindings
                if b.licence_id == licence_id and b.from_ms <= now_ms
            )
            standing = Known(
                licence_id=licence_id,
                lease=self._known[licence_id].lease,
                claimed=self._known[licence_id].claimed,
                settled_ms=self._known[licence_id].settled_ms,
                bindings=bindings,
            )
            done = settle(standing, [say for of, say in due if of == licence_id], horizon_ms)
            self._known[licence_id] = done.standing
            self.leases.update({(licence_id, one.epoch): one for one in done.leases})
            self.standbys.update({(licence_id, epoch): [] for epoch in done.epochs})
            for one in done.standbys:
                self.standbys[licence_id, one.epoch].append(one)
            moved = moved or done.moved
        return moved

    def _bound(self, workload_id: str, at_ms: int) -> list[Binding]:
        return [
            b
            for b in self._bindings
            if b.workload_id == workload_id and b.from_ms <= at_ms and (b.to_ms is None or b.to_ms > at_ms)
        ]

    def standing(self, workload_id: str, now_ms: int) -> Standing:
        bound = self._bound(workload_id, now_ms)
        if not bound:
            return Standing()
        lease = self._known[bound[0].licence_id].lease
        if lease is None or lease.to_ms is not None:
            return Standing(True)
        mine = lease.holder_id == workload_id
        return Standing(True, lease.from_ms if mine else 0, not mine)


def _people(installed: Installation) -> list[tuple[int, str, str, str]]:
    retired = {s.workload_id: s.retired_ms for h in installed.shards for r in h.rows for s in r.slots}
    found = [(at_ms, "sold", licence_id, "") for licence_id, at_ms in installed.sold]
    for b in installed.bindings:
        found.append((b.from_ms, "bound", b.licence_id, b.workload_id))
        if b.to_ms is not None:
            what = "retired" if b.to_ms == retired[b.workload_id] else "unbound"
            found.append((b.to_ms, what, b.licence_id, b.workload_id))
    return found


@dataclass
class LeaseWorld:
    """Plays an installation. `heard`: per workload when its shard took it for a standby."""

    installed: Installation
    directory: Path
    prompt: bool = True  # what is said is flushed at once, not when a shard likes
    flush_every_ms: tuple[int, ...] = (250, 1_000, 5_000, 60_000, 600_000)
    heard: dict[str, Spans] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.licensing = Licensing(self.installed)
        self.worlds = []
        for history in self.installed.shards:
            directory = self.directory / str(history.shard)
            directory.mkdir()
            self.worlds.append(
                EngineWorld(history, directory, shards=len(self.installed.shards), standing=self._standing)
            )
        self._flushed = [0] * len(self.worlds)
        for binding in self.installed.bindings:
            for world in self.worlds:
                world.registry.announce(binding.from_ms)
                if binding.to_ms is not None:
                    world.registry.announce(binding.to_ms)

    def _standing(self, workload_id: str, now_ms: int) -> Standing:
        found = self.licensing.standing(workload_id, now_ms)
        spans = self.heard.setdefault(workload_id, [])
        is_heard = bool(spans) and spans[-1][1] is None
        if found.standby and not is_heard:
            spans.append((now_ms, None))
        elif is_heard and not found.standby:
            spans[-1] = (spans[-1][0], now_ms)
        return found

    def play(self) -> None:
        rng = Random(self.installed.seed)
        steps = [world.steps() for world in self.worlds]
        records = [next(each) for each in steps]
        flushes = [min(records) + rng.randrange(1_000) for _ in self.worlds]
        while (at_ms := min(*records, *flushes)) <= self.installed.as_of_ms:
            people_ms = self.licensing.next_change()
            if people_ms is not None and people_ms <= at_ms:
                self.licensing.change()
            elif min(flushes) == at_ms:
                shard = flushes.index(at_ms)
                self.flush(shard, at_ms, rng)
                flushes[shard] = at_ms + rng.choice(self.flush_every_ms) + rng.randrange(50)
            else:
                shard = records.index(at_ms)
                records[shard] = max(at_ms, next(steps[shard], self.installed.as_of_ms + 1))
                if self.prompt:
                    soon = [at_ms + rng.randrange(250, 750) for _ in flushes]
                    flushes = [min(pair) for pair in zip(flushes, soon, strict=True)]
        for shard in range(len(self.worlds)):
            self.flush(shard, self.installed.as_of_ms, rng)

    def flush(self, shard: int, now_ms: int, rng: Random) -> None:
        """What a flusher and a settler do, where the shard can."""
        world = self.worlds[shard]
        if world.dead(now_ms) or world.files.full:
            return
        world.advance(now_ms)
        if world.engine.dying:
            return
        said_ms = world.engine.said_ms()
        journal = world.engine.journal
        says = []
        for block in journal.outputs(self._flushed[shard], journal.committed):
            if block.kind == Kind.SAYS:
                for high, low, at_ms, what, _ in np.frombuffer(block.payload, SAY_DTYPE).tolist():
                    says.append(Said(at_ms, SHARD_SAYS[what], id_of(high, low)))
        self._flushed[shard] = journal.committed
        self.licensing.told(shard, says, said_ms)
        if self.licensing.settle(now_ms):
            for other in self.worlds:
                other.registry.announce(now_ms + rng.randrange(1, 1_500))

    def oracle(self, *, resumed: Mapping[str, list[tuple[int, str]]] | None = None) -> Leases:
        """What LIVENESS.md says of these shards. `resumed`: see `Leases`; the engine's own if not given."""
        lost: dict[tuple[int, int], list[int]] = {}
        for world in self.worlds:
            for row, state, at_ms in world.reached:
                if state == LOST:
                    lost.setdefault((world.history.shard, row), []).append(at_ms)
        if resumed is None:
            ours: dict[str, list[tuple[int, str]]] = {}
            for (licence_id, _), one in self.licensing.leases.items():
                ours.setdefault(licence_id, []).append((one.from_ms, one.holder_id))
            resumed = ours
        return Leases(
            [Oracle(history) for history in self.installed.shards],
            self.installed.bindings,
            sold=self.installed.sold,
            lost=lost,
            resumed=resumed,
        )

    def disagreements(self) -> list[str]:
        """Leases and standbys, up to where everything is settled."""
        oracle, until_ms = self.oracle(), self.licensing.told_ms
        found = []
        for licence_id in oracle.licences:
            ours = [
                (one.holder_id, one.from_ms, one.to_ms)
                for (of, _), one in sorted(self.licensing.leases.items())
                if of == licence_id
            ]
            theirs = [(one.workload_id, one.from_ms, one.to_ms) for one in oracle.held(licence_id)]
            found += _differ(f"leases of {licence_id}", _cut(ours, until_ms), _cut(theirs, until_ms))
        for workload_id in {b.workload_id for b in self.installed.bindings}:
            ours = [
                (one.holder_id, one.from_ms, one.to_ms)
                for spans in self.licensing.standbys.values()
                for one in spans
                if one.workload_id == workload_id
            ]
            theirs = [(one.holder, one.from_ms, one.to_ms) for one in oracle.standby(workload_id)]
            found += _differ(f"standby of {workload_id}", _cut(ours, until_ms), _cut(theirs, until_ms))
        return found


def _cut(spans: Iterable[tuple[str, int, int | None]], until_ms: int) -> list[tuple[str, int, int]]:
    cut = [(who, a, until_ms if b is None else min(b, until_ms)) for who, a, b in spans]
    return sorted((one for one in cut if one[1] < one[2]), key=lambda one: one[1])


def _differ(what: str, ours: list[tuple[str, int, int]], theirs: list[tuple[str, int, int]]) -> list[str]:
    if ours == theirs:
        return []
    only_ours = [one for one in ours if one not in theirs]
    only_theirs = [one for one in theirs if one not in ours]
    return [f"{what}: the engine says {only_ours}, the oracle {only_theirs}"]
