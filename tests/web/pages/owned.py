"""An owner's day for tests of pages: workloads that lived yesterday, a rule of that day, and its seal."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from tests.sealing import Day, make_day, seal_days, system_ms
from tests.web.control import Control

RULE = {"micro_points_per_paid_s": 100, "daily_cap_micro_points": 8_000_000}


async def wait_view(control: Control) -> None:
    """Until the app follows the live view, and that reaches beyond the last midnight."""
    with trio.fail_after(10):
        while (head := control.app.backend.heads.head(0)) is None or head.watermark_ms < system_ms() - 60_000:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def unsettle(control: Control, day: Day) -> None:
    """Who held which licence on that day is not settled, until `lease_say` is empty again."""
    await wait_view(control)
    await control.sql(
        "insert into lease_say (workload_id, at_ms, what) values ($1, $2, 'claim')",
        day.workload_ids[0],
        day.day_ms,
    )


async def a_day(control: Control, *, rule: dict[str, Any] | None = RULE, sealed: bool = True) -> Day:
    """Yesterday with two nodes of two workloads, olga's; with this rule in force."""
    day = await make_day(control.stores, control.alpha.project_id, owner_id=control.users["olga"])
    if rule is not None:
        await control.sql(
            "insert into project_policy values ($1, '2020-01-01', 1, 'native', true, $2, 1, '')",
            control.alpha.project_id,
            msgspec.json.encode(rule).decode(),
        )
    if sealed:
        await control.stores.lease_settling.settle(shards=1, now_ms=day.day_ms + 2 * 86_400_000)
        await seal_days(control.stores)
    return day
