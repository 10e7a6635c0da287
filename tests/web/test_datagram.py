"""Projects whose uptime comes from Datagram: what is answered then, and how nodes become known there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from engine.core.records import BASE_UP, FirstReport, Gap
from storage.datagram import Datagram
from storage.settings import DatagramSettings
from tests.contract.given import batch
from tests.storage import datagram_server as faults
from tests.storage.datagram_server import HOUR_MS, SECRET, TOKEN, DatagramServer, datagram_server
from tests.web.control import Answered, Control
from web.main import system_ms
from web.times import DAY_MS, format_rfc3339, parse_rfc3339


@pytest.fixture
def server() -> Iterator[DatagramServer]:
    with datagram_server() as made:
        yield made


@pytest.fixture
async def datagram(control: Control, server: DatagramServer) -> AsyncIterator[Datagram]:
    """The app asks the server; its workloads are ten days old."""
    settings = DatagramSettings(url=server.url, license_url=server.url, token=TOKEN, secret=SECRET)
    await control.sql("update workload set created_ms = $1", midnight(-10))
    async with Datagram(settings, clock=system_ms, retry_s=0.01) as source:
        control.app.backend.uptime_source = source
        yield source


def midnight(days: int) -> int:
    """The beginning of today (UTC), so many days later."""
    now_ms = system_ms()
    return now_ms - now_ms % DAY_MS + days * DAY_MS


def day_of(unix_ms: int) -> date:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).date()


async def decide(control: Control, from_day: int, source: str, *, pay_claims: bool = True) -> None:
    """Alpha's policy from so many days ago on."""
    await control.sql(
        """
        insert into project_policy (project_id, effective_from, revision, uptime_source, pay_claims, reward,
          created_ms, actor) values ($1, $2, 1, $3, $4, '{}', 1, 'test')
        """,
        control.alpha.project_id,
        day_of(midnight(from_day)),
        source,
        pay_claims,
    )


async def known_as(control: Control, name: str) -> None:
    await control.sql("update node set partner_node_id = $2 where node_id = $1", control.node.node_id, name)


async def ask(control: Control, from_ms: int, to_ms: int, *, slot: int = 0, more: str = "") -> Answered:
    window = f"from={format_rfc3339(from_ms)}&to={format_rfc3339(to_ms)}{more}"
    path = f"/v1/workloads/{control.node.workload_ids[slot]}/uptime?{window}"
    return await control.ask("GET", path, by="olga")


def some(answer: Answered) -> dict[str, int]:
    """The kinds that there are, after all that must hold of any answer."""
    told = answer.json
    assert answer.status == 200, told
    window_ms = parse_rfc3339(told["to"]) - parse_rfc3339(told["from"])
    assert sum(told["ms"].values()) == window_ms
    return {kind: ms for kind, ms in told["ms"].items() if ms}


def window_of(answer: Answered) -> tuple[int, int]:
    return parse_rfc3339(answer.json["from"]), parse_rfc3339(answer.json["to"])


async def test_a_project_on_datagram_answers_what_that_told_in_whole_hours(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    await decide(control, -20, "datagram")
    await known_as(control, "theirs")
    at = midnight(-3)
    server.up["theirs"] = [(at + HOUR_MS, at + 6 * HOUR_MS)]
    for slot in (0, 1):  # it knows nodes: what it says of one counts for all that runs on it
        answer = await ask(
            control, at + HOUR_MS + 17, at + 9 * HOUR_MS - 1, slot=slot, more="&intervals=true"
        )
        assert some(answer) == {"up": 5 * HOUR_MS, "silent": 2 * HOUR_MS}
        assert window_of(answer) == (at + HOUR_MS, at + 8 * HOUR_MS)
        told = answer.json
        assert (told["source"], told["granularity_ms"], told["provisional"]) == ("datagram", HOUR_MS, False)
        assert (told["paid_ms"], told["ratio"], told["as_of"]) == (5 * HOUR_MS, 5 / 7, told["to"])
        assert (told["intervals"], told["gaps"]) == ([], [])


async def test_the_window_is_cut_to_the_workloads_life_and_to_hours_that_are_over(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    await decide(control, -20, "datagram")
    await known_as(control, "theirs")
    server.up["theirs"] = [(0, 1 << 47)]
    born_ms = midnight(-4) + HOUR_MS // 2
    await control.sql("update workload set created_ms = $1", born_ms)
    answer = await control.ask("GET", f"/v1/workloads/{control.node.workload_ids[0]}/uptime", by="olga")
    now_ms = system_ms()
    assert window_of(answer) == (midnight(-4) + HOUR_MS, now_ms - now_ms % HOUR_MS)
    assert set(some(answer)) == {"up"}
    empty = await ask(control, midnight(-9), midnight(-8))
    assert (some(empty), empty.json["ratio"]) == ({}, None)
    assert (await ask(control, midnight(3), midnight(4))).status == 200


async def test_of_a_node_that_it_does_not_know_nothing_is_known_and_nobody_loses(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    await decide(control, -20, "datagram")
    at = midnight(-2)
    for _ in range(2):
        answer = await ask(control, at, at + DAY_MS)
        assert some(answer) == {"unobserved": DAY_MS}
        assert (answer.json["paid_ms"], answer.json["ratio"]) == (0, None)
        await known_as(control, "nobody there")
    assert len(server.asked) == 1  # before it had a name there, nobody was asked


async def test_a_window_over_both_sources_is_the_sum_of_both(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    """Native up to three days ago, Datagram for two days, native again since yesterday."""
    await decide(control, -3, "datagram")
    await decide(control, -1, "native")
    await known_as(control, "theirs")
    workload_id, start, end = control.node.workload_ids[0], midnight(-3), midnight(-1)
    server.up["theirs"] = [(start + 5 * HOUR_MS, start + 9 * HOUR_MS)]
    rows = (
        (workload_id, BASE_UP, start - 7_200_123, start + HOUR_MS),
        (workload_id, BASE_UP, end + 1_000, end + 5_000),
    )
    first = FirstReport(workload_id=workload_id, at_ms=start - 7_200_123)
    await control.stores.history.flush(
        batch(*rows, position=10_000, watermark_ms=system_ms(), first_reports=(first,))
    )
    answer = await ask(control, start - 7_200_123, end + 6_000, more="&intervals=true")
    assert some(answer) == {
        "up": 7_200_123 + 4 * HOUR_MS + 4_000,
        "silent": 44 * HOUR_MS + 2_000,
    }
    assert window_of(answer) == (start - 7_200_123, end + 6_000)
    assert (answer.json["source"], answer.json["granularity_ms"]) == ("mixed", HOUR_MS)
    assert [one["kind"] for one in answer.json["intervals"]] == ["up", "silent", "up", "silent"]
    parts = [
        await ask(control, *window)
        for window in ((start - 7_200_123, start), (start, end), (end, end + 6_000))
    ]
    assert [one.json["source"] for one in parts] == ["native", "datagram", "native"]
    assert sum(one.json["ms"]["up"] for one in parts) == answer.json["ms"]["up"]
    assert sum(one.json["paid_ms"] for one in parts) == answer.json["paid_ms"]


async def test_days_whose_policy_does_not_pay_for_claims_do_not(control: Control) -> None:
    """An hour before and an hour after midnight is claimed; only the older day pays for claims."""
    await decide(control, -20, "native")
    await decide(control, -1, "native", pay_claims=False)
    await control.sql("update workload set created_ms = $1", midnight(-10))
    workload_id, at = control.node.workload_ids[0], midnight(-1)
    g0, g1 = at - HOUR_MS, at + HOUR_MS
    rows = ((workload_id, BASE_UP, g0 - 60_000, g0 + 1), (workload_id, BASE_UP, g1, g1 + 90_000))
    await control.stores.history.flush(
        batch(
            *rows,
            position=10_000,
            watermark_ms=system_ms(),
            first_reports=(FirstReport(workload_id=workload_id, at_ms=g0 - 60_000),),
            gaps=(Gap(shard=0, from_ms=g0, to_ms=g1, cause="crash"),),
        )
    )
    await control.sql(
        "insert into claim (workload_id, at_ms, kind, ttl_ms) values ($1, $2, $3, $4)",
        workload_id,
        g0 + 1,
        BASE_UP,
        2 * HOUR_MS,
    )
    answer = await ask(control, g0, g1)
    assert some(answer) == {"up": 1, "claimed_up": 2 * HOUR_MS - 1}
    assert answer.json["paid_ms"] == HOUR_MS
    assert (answer.json["source"], answer.json["granularity_ms"]) == ("native", 1)
    assert answer.json["ratio"] == HOUR_MS / (2 * HOUR_MS)


async def test_when_it_cannot_be_asked_that_is_said_and_nothing_is_made_up(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    await decide(control, -20, "datagram")
    await known_as(control, "theirs")
    server.faults.extend([faults.status(500, "boom")] * 3)
    answer = await ask(control, midnight(-3), midnight(-2))
    assert (answer.status, answer.json["code"]) == (503, "uptime_source_away")
    assert "boom" in answer.json["detail"]
    assert answer.headers["retry-after"] == "60"
    server.faults.append(faults.status(429, retry_after="1200"))
    answer = await ask(control, midnight(-3), midnight(-2))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1201")
    control.app.backend.uptime_source = None
    answer = await ask(control, midnight(-3), midnight(-2))
    assert (answer.status, answer.json["code"]) == (409, "not_configured")
    assert "datagram.token" in answer.json["detail"]


# Becoming known there


async def register(control: Control, body: Any, *, by: str = "owner", node: str = "") -> Answered:
    path = f"/v1/nodes/{node or control.node.node_id}/datagram"
    return await control.ask("POST", path, by=by, json=body)


async def test_a_node_is_registered_there_once_and_then_asked_by_that_name(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    for by in ("owner", "paul", "admin"):
        answer = await register(control, {}, by=by)
        assert (answer.status, answer.json["partner_node_id"]) == (200, control.node.node_id)
    [asked] = server.asked
    assert (asked.path, asked.body) == ("/node/register", {"id": control.node.node_id, "secret": SECRET})
    renamed = await register(control, {"partner_node_id": "theirs"})
    assert renamed.json["partner_node_id"] == "theirs"
    seen = await control.ask("GET", f"/v1/nodes/{control.node.node_id}", by="olga")
    assert seen.json["partner_node_id"] == "theirs"
    found = await control.sql("select action, detail from audit where action = 'node.partner' order by seq")
    assert len(found) == 2
    assert SECRET not in str([row["detail"] for row in found])


async def test_who_may_not_run_the_project_registers_nothing_there(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    assert (await register(control, {}, by="olga")).status == 403
    for by in ("sam", "foreign"):
        assert (await register(control, {}, by=by)).status in (403, 404)
    assert server.asked == []


async def test_what_cannot_be_registered_is_told(
    control: Control, server: DatagramServer, datagram: Datagram
) -> None:
    await control.sql(
        "update node set partner_node_id = 'taken' where node_id = $1", control.foreign_node.node_id
    )
    taken = await register(control, {"partner_node_id": "taken"})
    assert (taken.status, taken.json["code"]) == (409, "partner_taken")
    for wrong in ("", "a b", "x" * 129, 7):
        answer = await register(control, {"partner_node_id": wrong})
        assert (answer.status, answer.json["code"]) == (400, "malformed")
    server.faults.append(faults.body(b'{"data": false}'))
    refused = await register(control, {})
    assert (refused.status, refused.json["code"]) == (503, "uptime_source_away")
    await control.sql("update node set retired_ms = 1 where node_id = $1", control.node.node_id)
    assert (await register(control, {})).json["code"] == "retired"
    control.app.backend.uptime_source = None
    assert (await register(control, {}, by="admin", node=control.foreign_node.node_id)).status == 409
