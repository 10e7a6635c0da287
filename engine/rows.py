"""Registry specs into columns: what a change of the registry does to the table, and ids back out of it.

Applying the newest spec of a row is all a change is; applying it twice changes nothing. Seqs, verdicts and
open intervals are the table's own and outlive every change.
"""

from __future__ import annotations

import uuid

import numpy as np

from engine.columns import NEVER, RETIRED, REVOKED
from engine.core.keys import MasterSecrets
from engine.core.records import RowSpec, SessionSpec
from engine.core.timing import GENERATION_OVERLAP_MS, SLOTS_MAX
from engine.standing import take_standing
from engine.table import Table

_ROW_KINDS = {"node": 0, "check": 1, "canary": 2}
_HALF = (1 << 64) - 1


def apply_spec(table: Table, spec: RowSpec, secrets: MasterSecrets, *, seq_floor_ms: int = 0) -> int:
    """Bring the row up to the spec; its index.

    A session that names a master secret which we do not have is not taken, and counted in
    `table.unknown_secrets`: its frames are dropped, everything else goes on.

    seq_floor_ms: for generations not yet in the table, the time below which no seq is taken (WIRE.md, rule 2:
    where the last seq could not survive, it must lie after the shard's start). 0: none was ever accepted.
    """
    index = table.index_of(spec.row)
    table.take_rows(index + 1)
    rows = table.row
    rows.known[index] = 1
    rows.refused[index] = RETIRED if spec.retired else REVOKED if spec.revoked else 0
    rows.check[index] = _ROW_KINDS[spec.kind]
    rows.resync[index] = spec.resync
    rows.interval_ms[index] = spec.interval_ms
    rows.capability_generation[index] = 0 if spec.revoked or spec.retired else spec.capability_generation
    rows.node_hi[index], rows.node_lo[index] = halves(spec.node_id)
    rows.project[index] = table.project_number(spec.project_id)
    _apply_slots(table, index, spec)
    for parity in (0, 1):
        session = _session_of_parity(spec, parity)
        _apply_generation(table, 2 * index + parity, spec, session, secrets, seq_floor_ms)
    take_standing(table, index, spec)
    table.touch(index)
    return index


def _apply_slots(table: Table, index: int, spec: RowSpec) -> None:
    rows, slots = table.row, table.slot
    count = max((slot.slot for slot in spec.slots), default=-1) + 1
    if count > rows.slot_room[index]:
        old_base, old_count = int(rows.slot_base[index]), int(rows.slot_count[index])
        room = count if not old_count else min(SLOTS_MAX, max(count, 2 * old_count))
        base = table.take_slots(room)
        slots = table.slot
        for array in slots.arrays.values():
            array[base : base + old_count] = array[old_base : old_base + old_count]
        table.detached = [
            base + slot - old_base if old_base <= slot < old_base + old_count else slot
            for slot in table.detached
        ]
        slots.away_ms[old_base : old_base + old_count] = 0  # who is absent lies elsewhere now
        table.absent = None
        slots.row_index[base : base + room] = index
        rows.slot_base[index], rows.slot_room[index] = base, room
        for slot in range(base, base + room):
            table.touch_slot(slot)
    rows.slot_count[index] = count
    base, mask = int(rows.slot_base[index]), 0
    for place in spec.slots:
        slots.workload_hi[base + place.slot], slots.workload_lo[base + place.slot] = halves(place.workload_id)
        if place.retired_ms is None:
            mask |= 1 << place.slot
    rows.slots_now[index] = np.uint64(mask)


def _session_of_parity(spec: RowSpec, parity: int) -> SessionSpec | None:
    for session in (spec.current, spec.previous):
        if session is not None and session.generation & 1 == parity:
            return session
    return None


def _apply_generation(
    table: Table,
    entry: int,
    spec: RowSpec,
    session: SessionSpec | None,
    secrets: MasterSecrets,
    seq_floor_ms: int,
) -> None:
    columns = table.generation
    if session is None or spec.revoked or spec.retired:
        columns.live[entry] = -1
        return
    if session.secret_id not in secrets.secrets:
        table.unknown_secrets[session.secret_id] += 1
        columns.live[entry] = -1
        return
    key = secrets.session_key(
        secret_id=session.secret_id, row=spec.row, generation=session.generation, salt=session.salt
    )
    low, high = np.frombuffer(key, "<u8")
    # The same number with another key is another generation (a wrap, a new salt); the same key is the same
    # one, also after it was not taken for a while: what it said must not be said again.
    if not (columns.key0[entry] == low and columns.key1[entry] == high):
        columns.last_seq[entry] = np.uint64(seq_floor_ms << 16)
        columns.heard[entry] = 0
        table.row.hot[entry // 2] = 1  # its first beat is a change: the live view tells the generation
    away = int(NEVER)
    if session is not spec.current and spec.current is not None:
        away = spec.current.opened_ms + GENERATION_OVERLAP_MS
    until = min(session.expires_ms, away)
    life = session.expires_ms - session.opened_ms
    columns.key0[entry], columns.key1[entry] = low, high
    columns.live[entry] = session.generation
    columns.newest[entry] = session is spec.current
    columns.until_ms[entry] = columns.until_near_ms[entry] = until
    columns.until_away_ms[entry] = away
    columns.rekey_ms[entry] = session.expires_ms - life // 10
    columns.map[entry] = np.uint64(session.slots)
    columns.session_ttl_ms[entry] = session.ttl_ms


def halves(text: str) -> tuple[np.uint64, np.uint64]:
    """A UUID as two big-endian halves."""
    value = uuid.UUID(text).int
    return np.uint64(value >> 64), np.uint64(value & _HALF)


def id_of(high: int, low: int) -> str:
    """The canonical text of a UUID's halves."""
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def node_id(table: Table, index: int) -> str:
    return id_of(int(table.row.node_hi[index]), int(table.row.node_lo[index]))


def workload_id(table: Table, slot: int) -> str:
    return id_of(int(table.slot.workload_hi[slot]), int(table.slot.workload_lo[slot]))


def workload_ids(table: Table, index: int, *, now_only: bool = True) -> tuple[str, ...]:
    """The workloads of a row, by slot; those retired left out unless asked for."""
    base, count = int(table.row.slot_base[index]), int(table.row.slot_count[index])
    mask = int(table.row.slots_now[index]) if now_only else -1
    return tuple(workload_id(table, base + slot) for slot in range(count) if mask >> slot & 1)
