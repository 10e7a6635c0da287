"""A whole day, simulated: licences shared and sold, crashes, backfill, then seal, points and a correction.

The engine is the real one (engine_world.py), so are settling, sealing and the ledger; what must come of it is
worked out by tests/sim/oracle, to the millisecond and the micro-point.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from engine.core.records import KINDS
from storage.open import AllStores
from storage.seal_hours import decode_hours
from tests.sealing import new_sealer
from tests.sim.day_world import DAY, DAY_START_MS, DayWorld
from tests.sim.history import Window
from tests.sim.lease_world import LeaseWorld, installation
from tests.sim.oracle.day import DAY_MS, DayRow, counted_ms, points, shares
from tests.sim.oracle.leases import Held, Leases
from tests.web.control import Control
from tests.web.points_given import sums_match
from web.times import format_rfc3339

# Leases settled in one go, of all that was ever said, are the oracle's, too. Elsewhere they are PostgreSQL's:
# what the shards said rests on what they had heard, which was in several goes.
LEASES_AGREE = (0, 1)
SEALS = "/v1/projects/alpha/seals"
POINTS = "/v1/projects/alpha/points"


@pytest.fixture
async def control(stores: AllStores, postgres_url: str, nursery: trio.Nursery) -> AsyncIterator[Control]:
    """The app over real stores, without a pretended engine: the view is the simulated shards'."""
    made = Control(stores, postgres_url)
    await made.fill()
    yield made
    with trio.CancelScope(shield=True):
        await made.close()
    nursery.cancel_scope.cancel()


# Not played, until they are settled:
# 121, 157: a run lets go (STOPPING, LOST) and beats in one millisecond: granted and at once let go again.
# 160: absent for 10 intervals before the run heard of its grant (another shard was down): it keeps the lease.
# 130: this world flushes into the moment before a crash, which then begins elsewhere than its history says.
UNSETTLED = (121, 130, 157, 160)
SLOW = [
    pytest.param(n, marks=pytest.mark.slow)
    for n in range(100, 163)
    if n not in (105, 118) and n not in UNSETTLED
]


@pytest.mark.parametrize("seed", [105, 118, *SLOW])
def test_whoever_flushes_when_the_leases_are_the_oracles(seed: int, tmp_path: Path):
    world = LeaseWorld(installation(seed), tmp_path)
    world.play()
    assert world.disagreements() == []


# 6, 40: nothing lived before midnight, so there is no day to be sealed.
DAYS = [pytest.param(n, marks=pytest.mark.slow) for n in range(2, 62) if n not in (6, 40)]


@pytest.mark.parametrize("seed", [0, 1, *DAYS])
async def test_a_day_is_sealed_paid_and_corrected_as_the_oracle_says(
    control: Control, tmp_path: Path, seed: int
):
    played = LeaseWorld(installation(seed), tmp_path)
    played.play()
    day = DayWorld(control, played, pay_claims=seed % 3 != 2)
    await day.write()
    if seed in LEASES_AGREE:
        ours = {_lease(one) for one in await day.held()}
        theirs = {_lease(one) for one in _all_held(await day.leases())}
        assert sorted(ours - theirs) == sorted(theirs - ours) == []
    standbys = await day.standbys()
    rows = day.rows(standbys)
    await seal(day, 1)
    assert await sealed(control) == told(rows)
    await pay(day, rows)

    unpaid = next(iter(unpaid_span(rows)), None)
    if unpaid is None:
        return
    workload_id, from_ms, to_ms = unpaid
    span = {"from": format_rfc3339(from_ms), "to": format_rfc3339(to_ms)}
    body = {"reason": "our fault", "maintenances": [{"workload_id": workload_id, **span}]}
    asked = await control.ask("POST", f"{SEALS}/{DAY}/corrections", by="owner", json=body)
    assert asked.status == 202, asked
    await seal(day, 2)
    granted = Window(from_ms=from_ms, to_ms=to_ms, own=False, workload_id=workload_id)
    corrected = day.rows(standbys, granted=(granted,))
    assert corrected[workload_id].paid_ms >= rows[workload_id].paid_ms
    assert await sealed(control) == told(corrected)
    await pay(day, corrected, reason="our fault")


def _all_held(leases: Leases) -> list[Held]:
    return [one for licence in leases.licences.values() for one in licence.held]


def _lease(one: Held) -> tuple[str, int, int | None, str]:
    return one.licence_id, one.from_ms, one.to_ms, one.workload_id


async def seal(day: DayWorld, revision: int) -> None:
    control, as_of_ms = day.control, day.installed.as_of_ms
    sealer = new_sealer(control.stores, shards=2, now_ms=lambda: as_of_ms, after_ms=600_000)
    done = await sealer.run_once()
    assert [(one.day, one.revision) for one in done] == [(DAY, revision)], sealer.waiting_for()


Told = dict[str, tuple[object, ...]]


def told(rows: dict[str, DayRow]) -> Told:
    """The oracle's rows in the form of `sealed`."""
    return {
        workload_id: (
            row.from_ms,
            row.to_ms,
            {kind: ms for kind, ms in row.ms.items() if ms},
            row.paid_ms,
            [(p.licence_id, p.owner, p.from_ms, p.to_ms, p.paid_ms) for p in row.held],
            [{kind: ms for kind, ms in hour.items() if ms} for hour in row.hours],
        )
        for workload_id, row in rows.items()
    }


async def sealed(control: Control) -> Told:
    """The newest seal's rows; the kinds of each sum to its window."""
    seal = await control.stores.seals.seal(control.alpha.project_id, DAY)
    assert seal is not None
    rows = await control.stores.seals.rows(seal, after_place=-1, limit=1_000)
    coded = await control.sql(
        "select workload_id::text, hours from sealed_row where seal_no = $1", seal.seal_no
    )
    hours = {workload_id: decode_hours(bytes(each)).tolist() for workload_id, each in coded}
    found: Told = {}
    for _, row in rows:
        assert sum(row.ms) == row.to_ms - row.from_ms
        found[row.workload_id] = (
            row.from_ms,
            row.to_ms,
            _named(row.ms),
            row.paid_ms,
            [(h.licence_id, h.owner, h.from_ms, h.to_ms, h.paid_ms) for h in row.held],
            [_named(hour) for hour in hours[row.workload_id]],
        )
    return found


def _named(ms: Sequence[int]) -> dict[str, int]:
    return {kind: value for kind, value in zip(KINDS, ms, strict=True) if value}


async def pay(day: DayWorld, rows: dict[str, DayRow], *, reason: str | None = None) -> None:
    """Commit what is suggested; rows and beneficiaries get what the oracle says."""
    control = day.control
    body = {"day": DAY} if reason is None else {"day": DAY, "reason": reason}
    made = await control.ask("POST", f"{POINTS}/suggested", by="owner", json=body)
    assert made.status == 201, made
    commit = made.json["commit_id"]
    expected_points: dict[str, int] = {}
    expected_totals: dict[str, int] = {}
    for history in day.installed.shards:
        for place in history.rows:
            for slot in place.slots:
                row = rows.get(slot.workload_id)
                if row is None:
                    continue
                worth = points(day.rule, counted_ms(day.rule, row), day.kind_of(slot))
                expected_points[slot.workload_id] = worth
                otherwise = day.operator_of(place) or place.node_id
                whose = shares(row, worth, otherwise=otherwise, licensed_only=day.rule.licensed_only)
                for (_, who), amount in whose.items():
                    expected_totals[who] = expected_totals.get(who, 0) + amount
    found = await control.sql(
        "select workload_id::text, micro_points from points where commit_id = $1", commit
    )
    assert {tuple(each) for each in found} == set(expected_points.items())
    totals = await control.sql(
        "select kind, beneficiary, micro_points from points_total where commit_id = $1", commit
    )
    assert {who or kind: int(amount) for kind, who, amount in totals} == expected_totals
    await sums_match(control)


def unpaid_span(rows: dict[str, DayRow]) -> list[tuple[str, int, int]]:
    """An hour's part of a life that was silent throughout."""
    found = []
    for workload_id, row in sorted(rows.items()):
        for hour, ms in enumerate(row.hours):
            start_ms = DAY_START_MS + hour * 3_600_000
            if ms["silent"] == 3_600_000 and start_ms + 3_600_000 <= DAY_START_MS + DAY_MS:
                found.append((workload_id, start_ms + 1, start_ms + 3_599_998))
    return found
