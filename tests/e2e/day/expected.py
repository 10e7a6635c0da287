"""What a day must come to, worked out apart from the product: by the simulator's oracle and the rules alone.

From what the machines know (their acknowledged beats, what they handed in), and of the system only what it
alone can settle: its gaps and the windows that it opened. Leases are worked out here from LIVENESS.md 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.e2e.day.machine import Machine
from tests.sim.history import Gap, History, Lease, Record, Restart, Row, Session, Slot, Tick, Window
from tests.sim.oracle.compose import Composed
from tests.sim.oracle.oracle import Oracle

DAY_MS = 86_400_000


@dataclass
class Facts:
    """What the system settles: gaps by shard, windows by node, lives by workload, and sales of licences."""

    shards: int
    gaps: Mapping[int, Sequence[Gap]]
    windows: Mapping[str, Sequence[Window]]
    created_ms: Mapping[str, int]
    released_ms: Mapping[str, Sequence[int]] = field(default_factory=dict)  # by licence: sold then


def standby_of(
    machines: Sequence[Machine], *, released_ms: Sequence[int] = ()
) -> dict[str, list[tuple[int, int | None]]]:
    """When each of the runs of one licence was on standby: another one held it (LIVENESS.md 5).

    All runs beat with the same interval; the holder gives it up by STOPPING, or when the licence is sold.
    """
    said: list[tuple[int, int, str]] = [(at_ms, 0, "") for at_ms in released_ms]
    for machine in machines:
        for frame in machine.frames:
            said.append((frame.t_ms, 0 if frame.stopping else 1, machine.workload_id))
    spans: dict[str, list[tuple[int, int | None]]] = {machine.workload_id: [] for machine in machines}
    holder = ""
    for at_ms, beats, who in sorted(said):
        if not beats and holder and who in ("", holder):
            for other in spans.keys() - {holder}:
                begun_ms, _ = spans[other].pop()
                spans[other].append((begun_ms, at_ms))
            holder = ""
        elif beats and not holder:
            holder = who
            for other in spans.keys() - {holder}:
                spans[other].append((at_ms, None))
    return spans


class Expected:
    """The oracle over the whole story: one history per shard."""

    def __init__(
        self,
        machines: Sequence[Machine],
        facts: Facts,
        *,
        licences: Mapping[str, Sequence[Machine]],
        as_of_ms: int,
    ) -> None:
        self._facts = facts
        self._standby: dict[str, list[tuple[int, int | None]]] = {}
        for licence_id, runs in licences.items():
            self._standby |= standby_of(runs, released_ms=facts.released_ms.get(licence_id, ()))
        self._oracles = {
            shard: Oracle(self._history(shard, machines, as_of_ms)) for shard in range(facts.shards)
        }
        self._shard_of = {machine.workload_id: machine.row % facts.shards for machine in machines}

    def of(self, workload_id: str, from_ms: int, to_ms: int) -> Composed:
        """What [from_ms, to_ms) was."""
        oracle = self._oracles[self._shard_of[workload_id]]
        return oracle.compose(workload_id, from_ms=from_ms, to_ms=to_ms)

    def paid_ms(self, workload_id: str, from_ms: int, to_ms: int) -> int:
        ms = self.of(workload_id, from_ms, to_ms).ms
        return ms["up"] + ms["maintenance"] + ms["claimed_up"]

    def _history(self, shard: int, machines: Sequence[Machine], as_of_ms: int) -> History:
        mine = [machine for machine in machines if machine.row % self._facts.shards == shard]
        records: list[tuple[int, int, Record]] = []
        for machine in mine:
            records += [(frame.t_ms, 2, frame) for frame in machine.frames]
        for gap in self._facts.gaps.get(shard, ()):
            if gap.cause in ("crash", "restart"):
                records.append((gap.to_ms, 0, Tick(at_ms=gap.from_ms)))
                records.append((gap.to_ms, 0, Restart(at_ms=gap.to_ms)))
            records.append((gap.to_ms, 1, gap))
        ordered = [record for _, _, record in sorted(records, key=lambda one: one[:2])]
        rows = tuple(self._row(machine) for machine in mine)
        return History(shard=shard, rows=rows, records=tuple(ordered), as_of_ms=as_of_ms)

    def _row(self, machine: Machine) -> Row:
        created_ms = self._facts.created_ms[machine.workload_id]
        grant = machine.node.grant
        session = Session(
            generation=grant.generation,
            opened_ms=created_ms,
            expires_ms=created_ms + DAY_MS,
            interval_ms=grant.interval_ms,
            ttl_ms=grant.ttl_ms,
            mask=1,
        )
        leases = tuple(
            Lease(workload_id=machine.workload_id, from_ms=from_ms, to_ms=to_ms)
            for from_ms, to_ms in self._standby.get(machine.workload_id, ())
        )
        return Row(
            row=machine.row,
            node_id=machine.node_id,
            project_id="",
            interval_ms=grant.interval_ms,
            slots=(Slot(slot=0, workload_id=machine.workload_id, created_ms=created_ms),),
            sessions=(session,),
            windows=tuple(self._facts.windows.get(machine.node_id, ())),
            leases=leases,
            claims=tuple(machine.claims),
        )
