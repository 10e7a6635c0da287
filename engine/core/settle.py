"""Who holds a licence: what was said of it, in order of time, becomes leases (LIVENESS.md 5).

Pure: one licence at a time, what is known of it and what was said in, its leases and standbys out. When all
that lies before a time has been said is the caller's to know (storage/postgres_settle.py); in which order it
came is then of no account. Why the rules read as they do: docs/decisions/0060-licence-leases.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from engine.core.leases import Binding, LeaseSpan, StandbySpan

# What ends a lease. All but a sale are of one workload: they end its lease alone.
RELEASES = frozenset({"stopped", "lost", "absent", "retired", "unbound", "sold"})
_BINDS = frozenset({"bound", "unbound", "retired"})


class Said(NamedTuple):
    """`what`: claim, bound or one of RELEASES. `workload_id` is empty for a sale."""

    at_ms: int
    what: str
    workload_id: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a licence before a step.

    `lease`: the newest, whether it ended or not. `claimed`: of its epoch, when which other run first claimed.
    `settled_ms`: everything up to here was decided. `bindings`: those of the times in question.
    """

    licence_id: str
    lease: LeaseSpan | None = None
    claimed: Mapping[str, int] = {}
    settled_ms: int = 0
    bindings: tuple[Binding, ...] = ()


class Settled(NamedTuple):
    """What a step made of it.

    `leases`: those that began or ended, as they are now, by epoch. `epochs`: those whose standbys are to be
    written anew; `standbys`: all that these have. `conflicts`: runs that claimed what another one holds, once
    per epoch and run. `moved`: whether engines must hear of it.
    """

    standing: Standing
    leases: list[LeaseSpan]
    epochs: list[int]
    standbys: list[StandbySpan]
    conflicts: list[StandbySpan]
    moved: bool


def settle(standing: Standing, says: Iterable[Said], horizon_ms: int) -> Settled:
    """Take everything said of a licence up to `horizon_ms`, which nothing older may follow.

    What does follow and is older all the same (a change by people that took its time to be stored, a replay)
    is judged at `settled_ms`: what was decided stays. Said twice it changes nothing.
    """
    step = _Step(standing)
    for say in sorted(says, key=_order):
        step.take(say)
    step.touched &= step.lease is not None
    epochs = sorted({*step.changed, *([step.lease.epoch] if step.lease and step.touched else [])})
    standbys = [
        span
        for epoch in epochs
        for span in _standbys(
            step.of_epoch(epoch), standing.bindings, step.claimed.get(epoch, {}), horizon_ms
        )
    ]
    after = msgspec.structs.replace(
        standing,
        lease=step.lease,
        claimed=step.claimed.get(step.lease.epoch, {}) if step.lease else {},
        settled_ms=max(standing.settled_ms, horizon_ms),
    )
    return Settled(
        after,
        [step.changed[epoch] for epoch in sorted(step.changed)],
        epochs,
        standbys,
        step.conflicts,
        bool(step.changed) or step.rebound,
    )


def _order(say: Said) -> tuple[int, int, str]:
    """By time; what ends a lease before what begins one; ties by workload id."""
    return say.at_ms, 0 if say.what in RELEASES else 1 if say.what == "bound" else 2, say.workload_id


class _Step:
    """One licence while its says are taken."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self.lease = standing.lease
        self.changed: dict[int, LeaseSpan] = {}  # by epoch
        self.claimed: dict[int, dict[str, int]] = {}
        if standing.lease is not None:
            self.claimed[standing.lease.epoch] = dict(standing.claimed)
        self.conflicts: list[StandbySpan] = []
        self.touched = False  # standbys of the newest lease are others now
        self.rebound = False

    def of_epoch(self, epoch: int) -> LeaseSpan:
        found = self.changed.get(epoch, self.lease)
        assert found is not None
        assert found.epoch == epoch
        return found

    def take(self, say: Said) -> None:
        at_ms = max(say.at_ms, self._standing.settled_ms)
        if say.what in _BINDS:
            self.touched = self.rebound = True
        if say.what in RELEASES:
            self._release(say, at_ms)
        elif say.what == "claim":
            self._claim(say, at_ms)

    def _release(self, say: Said, at_ms: int) -> None:
        lease = self.lease
        if lease is None or lease.to_ms is not None:
            return
        if say.what != "sold" and say.workload_id != lease.holder_id:
            return
        # At the very time of the grant it came before it: who says it again must not end what followed. One
        # that is no longer bound holds nothing, whatever the clock of whoever unbound it says.
        if say.at_ms > lease.from_ms or say.what in _BINDS:
            to_ms = max(at_ms, lease.from_ms)
            self._put(msgspec.structs.replace(lease, to_ms=to_ms, ended=say.what))

    def _claim(self, say: Said, at_ms: int) -> None:
        lease = self.lease
        if not self._bound(say, at_ms):
            return
        if lease is not None and lease.to_ms is None:
            self._stand_by(lease, say)
        elif lease is None or lease.to_ms is None or say.at_ms >= lease.to_ms:
            # A beat from before the release was another run's time: only the next one counts.
            self._put(
                LeaseSpan(
                    licence_id=self._standing.licence_id,
                    epoch=lease.epoch + 1 if lease else 1,
                    holder_id=say.workload_id,
                    from_ms=at_ms,
                    to_ms=None,
                )
            )

    def _stand_by(self, lease: LeaseSpan, say: Said) -> None:
        claimed = self.claimed.setdefault(lease.epoch, {})
        if say.workload_id == lease.holder_id or say.workload_id in claimed or say.at_ms < lease.from_ms:
            return
        claimed[say.workload_id] = say.at_ms
        self.touched = True
        self.conflicts.append(
            StandbySpan(
                workload_id=say.workload_id,
                licence_id=lease.licence_id,
                epoch=lease.epoch,
                holder_id=lease.holder_id,
                from_ms=say.at_ms,
                to_ms=None,
                claimed_ms=say.at_ms,
            )
        )

    def _bound(self, say: Said, at_ms: int) -> bool:
        """Whether the workload was bound to the licence when it beat, and still is when that counts."""
        return any(
            each.workload_id == say.workload_id
            and each.from_ms <= say.at_ms
            and (each.to_ms is None or each.to_ms > at_ms)
            for each in self._standing.bindings
        )

    def _put(self, lease: LeaseSpan) -> None:
        self.lease = self.changed[lease.epoch] = lease


def _standbys(
    lease: LeaseSpan, bindings: Sequence[Binding], claimed: Mapping[str, int], horizon_ms: int
) -> list[StandbySpan]:
    """When whom it kept waiting: every other run bound to the licence, as far as that is decided."""
    spans = []
    for each in bindings:
        if each.workload_id == lease.holder_id or each.from_ms > horizon_ms:
            continue
        from_ms = max(lease.from_ms, each.from_ms)
        ends = [to_ms for to_ms in (lease.to_ms, each.to_ms) if to_ms is not None and to_ms <= horizon_ms]
        to_ms = min(ends, default=None)
        if to_ms is not None and to_ms <= from_ms:
            continue  # zero lengths are dropped
        spans.append(
            StandbySpan(
                workload_id=each.workload_id,
                licence_id=lease.licence_id,
                epoch=lease.epoch,
                holder_id=lease.holder_id,
                from_ms=from_ms,
                to_ms=to_ms,
                claimed_ms=claimed.get(each.workload_id),
            )
        )
    return spans
