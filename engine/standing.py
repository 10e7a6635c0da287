"""What a shard says of licences, and whom it answers STANDBY (LIVENESS.md 5).

It decides nothing: a beat of a licensed workload that does not hold its licence is said with its time, and so
is that a workload stopped, was lost, or is absent for long. What becomes of it comes back with the registry.
Unlicensed rows cost one byte per beat, which lies in the row's cache line; holders no more than that.

A release is said of every licensed slot, also of one that does not hold as far as we know: the grant may be
on its way. From then on its beats are said again until the registry tells of a newer lease.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.core.records import SAY_ABSENT, SAY_CLAIM, SAY_LOST, SAY_STOPPED, RowSpec
from engine.core.step import LOST, UP
from engine.entries import Entries
from np1.codec import FLAG_STOPPING

Array = npt.NDArray[Any]

CONTENDS, STANDBY = 1, 2  # bits of `leasing`


def contend(table: Entries, index: Array, beats: Array, t: Array, leasing: Array) -> Array:
    """Say the claims in a batch; the positions of beats to be answered STANDBY.

    index, beats, t, leasing: of each beat its row, itself, its recorded time, its row's `leasing`.
    """
    rows = table.row
    at = np.flatnonzero((leasing & CONTENDS != 0) & (beats["flags"] & FLAG_STOPPING == 0))
    if len(at):
        row = index[at]
        claims = rows.licensed[row] & ~rows.holds[row] & beats["slots"][at]
        claims &= beats["plane0"][at] | beats["plane1"][at]
        slot, owner, number = table.slots_of(row)
        said = claims[owner] >> number.astype(np.uint64) & np.uint64(1) != 0
        # One that stopped at this very time comes back with its next beat.
        let_go_now = {(place, at_ms) for place, at_ms, what in table.says if what != SAY_CLAIM}
        for place, at_ms in zip(slot[said].tolist(), t[at][owner[said]].tolist(), strict=True):
            if (place, at_ms) not in let_go_now:
                table.says.append((place, at_ms, SAY_CLAIM))
    waits = np.flatnonzero(leasing & STANDBY)
    told: Array = waits[rows.standby[index[waits]] & beats["slots"][waits] != 0]
    return told


def let_go_stopped(table: Entries, index: Array, t: Array) -> None:
    """Rows stop (indexes, times, shape (n,)): their workloads let go. Called before the stop is stored."""
    rows = table.row
    licensed = (rows.licensed[index] != 0) & (rows.stopped[index] == 0)
    for row, at_ms in zip(index[licensed].tolist(), t[licensed].tolist(), strict=True):
        let_go(table, row, int(rows.licensed[row]), at_ms, SAY_STOPPED)


def let_go(table: Entries, index: int, mask: int, at_ms: int, what: int) -> None:
    """Say of these licensed slots of a row that they let their licences go; their next beats contend."""
    if not mask:
        return
    base = int(table.row.slot_base[index])
    for number in _numbers(mask):
        table.says.append((base + number, at_ms, what))
        table.slot.away_ms[base + number] = -at_ms
    if table.absent:
        table.absent -= {base + number for number in _numbers(mask)}
    table.row.holds[index] &= np.uint64(~mask & 2**64 - 1)
    _set_leasing(table, index)


def note_absence(table: Entries, at: Array, when: Array, state: Array, licensed: Array) -> None:
    """Beats spoke of these slots (indexes, times, states, whether licensed; shape (n,)): who is absent."""
    away = table.slot.away_ms
    gone = licensed & (state == 0) & (away[at] == 0)
    back = licensed & (state != 0) & (away[at] > 0)
    away[at[gone]], away[at[back]] = when[gone], 0
    if table.absent is not None:
        table.absent.update(at[gone].tolist())
        table.absent.difference_update(at[back].tolist())


def let_go_absent(table: Entries, judged_ms: int) -> None:
    """Say so of workloads that frames of a living node have not reported for 10 intervals."""
    rows, slots = table.row, table.slot
    if table.absent is None:
        table.absent = set(np.flatnonzero(slots.away_ms[: table.slots] > 0).tolist())
    if not table.absent:
        return
    at = np.fromiter(table.absent, np.int64, len(table.absent))
    row = slots.row_index[at].astype(np.int64)
    since = np.maximum(slots.away_ms[at], rows.window_end_ms[row])
    deadline = since + 10 * (2 * rows.ttl_ms[row].astype(np.int64) // 3)
    # Of one that was not heard then, when it is heard again: up to the deadline all counts as said before.
    deadline = np.maximum(deadline, rows.since_ms[row])
    over = (deadline <= judged_ms) & (rows.state[row] == UP)
    for slot, index, at_ms in zip(
        at[over].tolist(), row[over].tolist(), deadline[over].tolist(), strict=True
    ):
        let_go(table, index, 1 << slot - int(rows.slot_base[index]), at_ms, SAY_ABSENT)


def take_standing(table: Entries, index: int, spec: RowSpec) -> None:
    """Bring a row's licences up to its spec."""
    rows = table.row
    held_before = int(rows.holds[index])
    licensed = holds = standby = 0
    for place in spec.slots:
        if not place.licensed or spec.retired:
            continue
        bit = 1 << place.slot
        licensed |= bit
        standby |= bit if place.standby else 0
        if place.held_from_ms and _still_holds(table, index, place.slot, place.held_from_ms):
            holds |= bit
    rows.licensed[index] = np.uint64(licensed)
    rows.holds[index], rows.standby[index] = np.uint64(holds), np.uint64(standby)
    _set_leasing(table, index)
    _claim_after_release(table, index, held_before & licensed & ~holds)


def _still_holds(table: Entries, index: int, number: int, held_from_ms: int) -> bool:
    """Whether the lease that the registry tells of is newer than the one that we let go."""
    rows, slot = table.row, int(table.row.slot_base[index]) + number
    away_ms = int(table.slot.away_ms[slot])
    if away_ms < 0 and held_from_ms <= -away_ms:
        # Perhaps it was said before the grant: said again it is the same, or ends what it could not end then.
        what = SAY_STOPPED if rows.stopped[index] else SAY_LOST if rows.state[index] == LOST else SAY_ABSENT
        table.says.append((slot, max(-away_ms, held_from_ms + 1), what))
        return False
    if away_ms < 0:
        table.slot.away_ms[slot] = 0
        if not _reported(table, index) >> number & 1:  # it beat, was absent again, and then came the grant
            table.slot.away_ms[slot] = max(held_from_ms, int(rows.last_t_ms[index]))
            table.absent = None
    return True


def _claim_after_release(table: Entries, index: int, mask: int) -> None:
    """A lease ended elsewhere (a sale): beats since then were not said, for the run held it for all we knew.

    The last one is said now. From before the release it counts for nothing.
    """
    base, at_ms = int(table.row.slot_base[index]), int(table.row.last_t_ms[index])
    for number in _numbers(mask & _reported(table, index)):
        table.says.append((base + number, at_ms, SAY_CLAIM))


def _reported(table: Entries, index: int) -> int:
    """Slots that the row's last beat reported in a state other than absent; none when it stopped."""
    rows = table.row
    if rows.stopped[index] or not rows.last_t_ms[index]:
        return 0
    return int(rows.slots[index]) & (int(rows.plane0[index]) | int(rows.plane1[index]))


def _set_leasing(table: Entries, index: int) -> None:
    rows = table.row
    contends = int(rows.licensed[index]) & ~int(rows.holds[index])
    rows.leasing[index] = (CONTENDS if contends else 0) | (STANDBY if rows.standby[index] else 0)


def _numbers(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
