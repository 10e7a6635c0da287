"""The registry of a simulated world: what `RowSpec` each row has at each time, and names for its ids."""

from __future__ import annotations

import uuid
from bisect import bisect_right, insort
from collections.abc import Callable
from typing import NamedTuple

from engine.core.keys import MasterSecrets
from engine.core.records import RowSpec, SessionSpec, SlotSpec, Window
from np1.codec import Ack, decode_ack
from tests.sim import history as told

SALT = b"saltsalt"
NEVER = 2**62


def uuid_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _created(slot: told.Slot) -> int:
    """When the shard learned of the slot, by its own clock."""
    return slot.created_ms if slot.created_known_ms is None else slot.created_known_ms


def _retired(slot: told.Slot) -> int:
    known = slot.retired_ms if slot.retired_known_ms is None else slot.retired_known_ms
    return NEVER if known is None else known


class Standing(NamedTuple):
    """A workload and its licence, as the registry has it at a time: see `SlotSpec`."""

    licensed: bool = False
    held_from_ms: int = 0
    standby: bool = False


class RegistryWorld:
    """Rows as they change over recorded time. `standing`: by workload, at the time of the question."""

    def __init__(
        self,
        rows: tuple[told.Row, ...],
        standing: Callable[[str, int], Standing] = lambda _workload_id, _now_ms: Standing(),
    ) -> None:
        self._standing = standing
        self.rows = {row.row: row for row in rows}
        self._applied: dict[int, RowSpec] = {}
        moments = {moment for row in rows for moment in self._moments(row)}
        self._moments_sorted = sorted(moments)

    @staticmethod
    def _moments(row: told.Row) -> list[int]:
        found = [session.opened_ms for session in row.sessions]
        found += [*row.revoked_ms, *(_created(slot) for slot in row.slots)]
        found += [_retired(slot) for slot in row.slots if slot.retired_ms is not None]
        return found + ([row.retired_ms] if row.retired_ms is not None else [])

    def next_change(self, after_ms: int) -> int | None:
        return next(iter(self._moments_sorted[bisect_right(self._moments_sorted, after_ms) :]), None)

    def announce(self, at_ms: int) -> None:
        """Something else than the rows changed: look at that time."""
        insort(self._moments_sorted, at_ms)

    def forget_applied(self) -> None:
        self._applied.clear()

    def specs_due(self, now_ms: int) -> list[RowSpec]:
        """The rows whose spec at this time differs from the one last applied."""
        due = []
        for row in self.rows.values():
            spec = self._spec(row, now_ms)
            if spec is not None and self._applied.get(row.row) != spec:
                self._applied[row.row] = spec
                due.append(spec)
        return due

    def _spec(self, row: told.Row, now_ms: int) -> RowSpec | None:
        slots = tuple(
            SlotSpec(
                slot.slot,
                slot.workload_id,
                slot.created_ms,
                slot.retired_ms if _retired(slot) <= now_ms else None,
                *self._standing(slot.workload_id, now_ms),
            )
            for slot in row.slots
            if _created(slot) <= now_ms or not row.sessions
        )
        if not slots:
            return None
        revoked = max((at for at in row.revoked_ms if at <= now_ms), default=-1)
        open_now = [s for s in row.sessions if revoked < s.opened_ms <= now_ms]
        return RowSpec(
            row=row.row,
            node_id=row.node_id,
            project_id=row.project_id,
            kind="node" if row.sessions else "check",
            interval_ms=row.interval_ms,
            revoked=False,
            retired=row.retired_ms is not None and row.retired_ms <= now_ms,
            capability_generation=0 if row.sessions else 1,
            slots=slots,
            current=self._session(open_now[-1]) if open_now else None,
            previous=self._session(open_now[-2]) if len(open_now) > 1 else None,
            windows=tuple(
                Window(
                    f"{row.row}-{number}",
                    window.workload_id,
                    window.from_ms,
                    window.to_ms,
                    window.own,
                )
                for number, window in enumerate(row.windows)
            ),
        )

    @staticmethod
    def _session(session: told.Session) -> SessionSpec:
        return SessionSpec(
            generation=session.generation,
            secret_id=1,
            salt=SALT,
            opened_ms=session.opened_ms,
            expires_ms=session.expires_ms,
            interval_ms=session.interval_ms,
            ttl_ms=session.ttl_ms,
            slots=session.mask,
        )

    def key(self, row: int, generation: int) -> bytes:
        return _SECRETS.session_key(secret_id=1, row=row, generation=generation, salt=SALT)

    def read_ack(self, row: int, generation: int, ack: bytes) -> Ack:
        return decode_ack(ack, self.key(row, generation))


_SECRETS = MasterSecrets(secrets={1: b"simulated master secret, 32 byte"})
