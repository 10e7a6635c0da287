"""Whose points are: by paid time between the owners of a licence, else the operator's, else the machine's."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest

from engine.core.amounts import points_of_micro
from engine.core.sealed import DAY_MS
from storage.ids import new_id
from tests.web.control import Control
from tests.web.points_given import PATH, Row, body, nodes, seal, sums_match

HALF_MS = DAY_MS // 2
SELLER, BUYER, OTHER = ("0x" + digit * 40 for digit in "abc")
LICENCE, SECOND = new_id(), new_id()


async def shares(control: Control, row: Row) -> dict[tuple[str, str], int]:
    found = await control.sql(
        "select kind, beneficiary, micro_points from points_share where workload_id = $1", row.workload_id
    )
    return {(kind, beneficiary): micro for kind, beneficiary, micro in found}


async def commit(control: Control, *rows: tuple[Row, int], **more: Any) -> Any:
    given = body(*((row, points_of_micro(micro)) for row, micro in rows), **more)
    answer = await control.ask("POST", PATH, by="owner", json=given)
    assert answer.status == 201, answer
    return answer.json


# name: (operator, paid ms, held, micro-points, expected)
Case = tuple[str | None, int, tuple[tuple[str, str, int], ...], int, dict[tuple[str, str], int]]
CASES: dict[str, Case] = {
    "without a licence the operator has it": ("olga", DAY_MS, (), 7, {("user", "olga"): 7}),
    "without an operator the machine has it": (None, DAY_MS, (), 7, {("node", "self"): 7}),
    "a licence held all day pays its owner": (
        "olga",
        DAY_MS,
        ((LICENCE, SELLER, DAY_MS),),
        7,
        {("wallet", SELLER): 7},
    ),
    "sold at noon, it pays seller and buyer, the odd one to the earlier": (
        "olga",
        DAY_MS,
        ((LICENCE, SELLER, HALF_MS), (LICENCE, BUYER, HALF_MS)),
        7,
        {("wallet", SELLER): 4, ("wallet", BUYER): 3},
    ),
    "by paid time, not by time": (
        None,
        4,
        ((LICENCE, SELLER, 1), (LICENCE, BUYER, 3)),
        100,
        {("wallet", SELLER): 25, ("wallet", BUYER): 75},
    ),
    "the largest remainders get what is left": (
        None,
        100,
        ((LICENCE, SELLER, 33), (LICENCE, BUYER, 33), (SECOND, OTHER, 34)),
        10,
        {("wallet", SELLER): 3, ("wallet", BUYER): 3, ("wallet", OTHER): 4},
    ),
    "sold and bought back is one share": (
        None,
        6,
        ((LICENCE, SELLER, 2), (LICENCE, BUYER, 3), (LICENCE, SELLER, 1)),
        6,
        {("wallet", SELLER): 3, ("wallet", BUYER): 3},
    ),
    "what nobody held is nobody's": (
        "olga",
        DAY_MS,
        ((LICENCE, SELLER, HALF_MS),),
        8,
        {("wallet", SELLER): 4, ("nobody", ""): 4},
    ),
    "where nothing was paid it goes by held time": (
        None,
        0,
        ((LICENCE, SELLER, 0), (LICENCE, BUYER, 0)),
        9,
        {("wallet", SELLER): 5, ("wallet", BUYER): 4},
    ),
    "the greatest amounts are split exactly": (
        None,
        3,
        ((LICENCE, SELLER, 1), (LICENCE, BUYER, 2)),
        10**18 - 1,
        {("wallet", SELLER): 333333333333333333, ("wallet", BUYER): 666666666666666666},
    ),
    "of nothing there are no shares": (None, DAY_MS, ((LICENCE, SELLER, DAY_MS),), 0, {}),
}


async def test_whose_points_are(control: Control) -> None:
    rows = []
    for operator, paid_ms, held, _micro, _expected in CASES.values():
        [row] = await nodes(control, 1, owner=operator)
        rows.append(row._replace(paid_ms=paid_ms, held=held))
    await seal(control, rows)
    amounts = [micro for _, _, _, micro, _ in CASES.values()]
    await commit(control, *zip(rows, amounts, strict=True))
    for row, (name, (*_, expected)) in zip(rows, CASES.items(), strict=True):
        known = {"olga": control.users["olga"], "self": row.node_id}
        told = {(kind, known.get(who, who)): micro for (kind, who), micro in expected.items()}
        assert await shares(control, row) == told, name
    await sums_match(control)


async def test_rows_shares_and_totals_match_after_random_commits_and_corrections(control: Control) -> None:
    """And every share is its exact part, rounded up or down by less than one."""
    draw = random.Random(4)
    rows = [row for operator in ("olga", None) for row in await nodes(control, 12, owner=operator)]
    days = [f"2026-01-{day:02}" for day in range(1, 6)]
    for day in days:
        await seal(control, [_drawn(draw, row) for row in rows], day=day)
    committed: set[str] = set()
    for _ in range(25):
        day = draw.choice(days)
        chosen = draw.sample(rows, draw.randint(1, len(rows)))
        given = [(row, draw.choice((0, 1, draw.randrange(10**7), draw.randrange(10**18)))) for row in chosen]
        made = await commit(control, *given, day=day, reason="again" if day in committed else "")
        committed.add(day)
        assert made["total_points"] == points_of_micro(sum(micro for _, micro in given))
    await sums_match(control)
    wrong = await control.sql(
        """
        select s.* from points_share s join points p using (commit_id, workload_id)
          join points_commit c using (commit_id)
          join sealed_row r on r.seal_no = c.seal_no and r.workload_id = s.workload_id,
          lateral (
            select sum((h ->> 'paid_ms')::numeric) as mine from jsonb_array_elements(r.held::jsonb) h
            where h ->> 'owner' = s.beneficiary and h ->> 'licence_id' = s.licence_id::text
          ) held
        where s.kind = 'wallet' and r.paid_ms > 0
          and abs(s.micro_points::numeric * r.paid_ms - p.micro_points * held.mine) >= r.paid_ms
        """
    )
    assert wrong == []
    total = (await control.ask("GET", PATH)).json["total_points"]
    assert total == await _summed(control, PATH, "points")
    assert total == await _summed(control, f"{PATH}/workloads", "points")
    assert total == await _summed(control, f"{PATH}/days", "total_points")
    licensed = await control.sql(
        "select sum(licence_micro_points) from points_total join points_commit c using (commit_id) where not"
        " exists (select 1 from points_commit n where n.day = c.day and n.revision > c.revision)"
    )
    assert points_of_micro(int(licensed[0][0])) == await _summed(control, f"{PATH}/licences", "points")


def _drawn(draw: random.Random, row: Row) -> Row:
    """The row with some licences of some owners; now and then part of it is nobody's."""
    owners = [
        (draw.choice((LICENCE, SECOND)), draw.choice((SELLER, BUYER, OTHER)))
        for _ in range(draw.randint(0, 4))
    ]
    held = tuple((*owner, draw.choice((0, 1, draw.randrange(DAY_MS // 4)))) for owner in owners)
    paid_ms = sum(ms for *_, ms in held) + draw.choice((0, 0, 1, 5_000))
    return row._replace(paid_ms=paid_ms, held=held)


async def _summed(control: Control, path: str, field: str) -> str:
    """The sum over all pages of a list."""
    total, after = 0, ""
    while True:
        page = (await control.ask("GET", f"{path}?limit=3{after}")).json
        total += sum(int(Fraction(item[field]) * 10**6) for item in page["items"])
        if page["next_cursor"] is None:
            return points_of_micro(total)
        after = f"&after={page['next_cursor']}"


@pytest.mark.parametrize(
    "table", ["points", "points_commit", "points_share", "points_total", "points_correction"]
)
async def test_the_ledger_refuses_every_change(control: Control, table: str) -> None:
    for statement in (
        f"update {table} set commit_id = null",
        f"delete from {table}",
        f"truncate {table} cascade",
    ):
        with pytest.raises(Exception, match="append-only"):
            await control.sql(statement)
