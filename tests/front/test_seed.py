"""`db seed`: a network that can be believed, made once, and never in anybody's way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from engine.core.keys import load_secrets
from engine.core.ports import NodeRecord
from engine.core.records import INTERVAL_DTYPE, FlushBatch
from nodepulse.seed_history import DAY_MS, HOUR_MS, history_of
from storage.open import AllStores
from tests.front.administered import Administered


@pytest.fixture(scope="module")
def seeded(cli: Administered) -> dict[str, Any]:
    """What the first run printed, on a database in which an engine had come as far as position 41."""

    async def flush(stores: AllStores) -> None:
        empty = np.empty(0, INTERVAL_DTYPE)
        await stores.history.flush(FlushBatch(shard=0, position=41, watermark_ms=1_000, intervals=empty))

    cli.on_stores(flush)
    done = cli.type("db", "seed", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_two_projects_with_nodes_in_five_regions_and_checks(cli, seeded):
    assert (seeded["project"], seeded["projects"]) == ("edge-ai", ["edge-ai", "grid-storage"])
    mine = [node for node in seeded["nodes"] if node["project"] == "edge-ai"]
    assert len({node["name"] for node in mine}) == 20
    assert {len(node["workloads"]) for node in mine} == {1, 2, 3, 4, 5}
    assert len({node["region"] for node in seeded["nodes"]}) == 5
    assert all({"node_id", "name", "private_key", "workloads"} <= set(node) for node in seeded["nodes"])
    assert len(cli.admin("node", "list", "--kind", "check")["nodes"]) == len(seeded["checks"]) == 3
    token = seeded["checks"][0]["ping_url"].rpartition("/")[2]
    assert load_secrets(cli.folder / "secrets.json").read_capability(token).generation == 1


def test_kinds_have_versions_of_which_one_reaches_a_tenth(cli, seeded):
    versions = cli.admin("version", "list", "--project", "edge-ai", "--kind", "gateway")["versions"]
    assert [(one["version"], one["rollout_percent"]) for one in versions] == [
        ("1.3.0", 0),
        ("1.4.0", 100),
        ("1.5.0", 10),
    ]
    outdated = cli.admin("workload", "list", "--project", "edge-ai", "--version", "1.3.0")["workloads"]
    assert {one["kind"] for one in outdated} >= {"inference"}
    [policy] = cli.admin("project", "policy", "list", "edge-ai")["policies"]
    assert policy["in_force"] is True


def test_people_own_and_operate(cli, seeded):
    [owner] = cli.admin("project", "owner", "list", "edge-ai")["owners"]
    assert cli.admin("user", "show", owner["user_id"])["email"] == "petra@edge-ai.example"
    operators = {node["owner_id"] for node in cli.admin("node", "list", "--kind", "node")["nodes"]}
    assert len(operators) == 3
    assert all(cli.admin("user", "show", one)["wallet"] for one in operators)
    assert {key["scope"] for key in seeded["keys"]} == {"admin", "project", "user"}
    assert seeded["api_key"] == seeded["keys"][0]["api_key"]


def test_each_workload_has_a_licence_and_one_was_sold_at_noon_yesterday(cli, seeded):
    bound = cli.admin("licence", "list", "--bound", "--limit", 1_000)["licences"]
    workloads = {workload for node in seeded["nodes"] for workload in node["workloads"]}
    assert {one for licence in bound for one in licence["workload_ids"]} == workloads
    before, after = cli.admin("licence", "owners", seeded["sold_licence"])["owners"]
    assert before["owner"] != after["owner"]
    noon = datetime.fromisoformat(after["from"])
    assert (noon.hour, noon.minute, datetime.now(UTC) - noon < timedelta(days=2)) == (12, 0, True)
    [told] = cli.admin("collection", "sync-status", "--project", "edge-ai")["collections"]
    assert (told["stale"], told["error"]) == (False, "")


def test_yesterday_has_uptime_falls_illness_and_one_gap(cli, seeded):
    first = seeded["nodes"][0]
    row = cli.admin("node", "show", first["node_id"])["row"]
    today_ms = int(datetime.now(UTC).timestamp() * 1000) // DAY_MS * DAY_MS

    async def read(stores: AllStores) -> tuple[list[Any], list[Any], list[Any]]:
        rows = await stores.history.intervals(first["workloads"][0], today_ms - DAY_MS, today_ms + DAY_MS)
        gaps = await stores.history.gaps(row, today_ms - DAY_MS, today_ms + DAY_MS)
        events = await stores.history.events(project_id=None, after=0, limit=1_000)
        return rows, gaps, [event for _, event in events]

    rows, gaps, events = cli.on_stores(read)
    assert sum(one.ended_ms - max(one.started_ms, today_ms - DAY_MS) for one in rows) > 20 * HOUR_MS
    assert len(gaps) == 1
    kinds = {event.kind for event in events}
    assert kinds == {"node.down", "node.up", "workload.down", "workload.up", "workload.below_minimum"}
    assert all(event.at_ms >= event.since_ms for event in events)
    shown = cli.admin("workload", "show", first["workloads"][0])
    assert shown["first_report_at"] > shown["created_at"]


def test_the_gap_is_of_one_row_only(cli, seeded):
    other = cli.admin("node", "show", seeded["nodes"][1]["node_id"])["row"]

    async def gaps(stores: AllStores) -> int:
        rows = [*range(other, other + 100), 2**31 - 2, 2**31 - 1 + other]
        return sum([len(await stores.history.gaps(row, 0, 2**60)) for row in rows])

    assert cli.on_stores(gaps) == 0


def test_no_engine_loses_its_place(cli, seeded):
    async def place(stores: AllStores) -> tuple[int, int]:
        return await stores.history.flushed_position(0), await stores.history.watermark(0)

    assert cli.on_stores(place) == (41, 1_000)


def test_nobody_is_told_of_what_is_long_over(cli, seeded):
    assert cli.admin("channel", "list", "--project", "edge-ai")["channels"][0]["kind"] == "webhook"
    assert all(".example" in one[0] for one in cli.sql("select target from channel"))
    assert cli.sql("select cursor from notifier") == cli.sql("select max(cursor) from event")


def test_what_was_seeded_is_in_the_audit_log_which_holds(cli, seeded):
    actions = {one["action"] for one in cli.admin("audit", "list", "--limit", 1_000)["entries"]}
    assert actions >= {"user.create", "project.create", "version.create", "node.create", "window.open"}
    assert cli.admin("audit", "verify")["holds"] is True


def test_a_second_run_makes_nothing_and_says_so(cli, seeded):
    before = cli.sql("select count(*) from node"), cli.sql("select count(*) from audit")
    again = json.loads(cli.type("db", "seed", "--json").out)
    assert (again["already_there"], again["nodes"], again["api_key"]) == (True, [], None)
    spoken = cli.type("db", "seed")
    assert (spoken.code, "has nodes already: nothing was made" in spoken.out) == (0, True)
    assert (cli.sql("select count(*) from node"), cli.sql("select count(*) from audit")) == before


def test_another_network_stands_beside_it_and_shares_its_people(cli, seeded):
    people = len(cli.admin("user", "list")["users"])
    done = cli.type("db", "seed", "--project", "north")
    assert done.code == 0, done.err
    assert "np_" in done.out
    assert "curl" in done.out
    assert len(cli.admin("node", "list", "--project", "north", "--kind", "node")["nodes"]) == 20
    assert len(cli.admin("user", "list")["users"]) == people
    assert cli.admin("project", "show", "north-storage")["name"] == "Grid Storage"


@pytest.mark.parametrize("since_midnight_ms", [0, 1, 5 * 60_000, 23 * HOUR_MS])
def test_history_is_in_order_and_ends_now_at_any_time_of_day(since_midnight_ms):
    now_ms = 1_800_000_000_000 // DAY_MS * DAY_MS + since_midnight_ms
    nodes = [
        NodeRecord(
            node_id=f"01980000-0000-7000-8000-0000000000{number:02x}",
            row=number,
            project_id="p",
            kind="node",
            name="",
            public_key=None,
            interval_ms=60_000,
            revoked=False,
            created_ms=0,
            workload_ids=tuple(f"01980000-0000-7000-8001-00000000{number:02x}0{w}" for w in range(5)),
        )
        for number in range(20)
    ]
    batch = history_of(nodes, now_ms=now_ms)
    rows = batch.intervals
    assert (rows["ended_ms"] > rows["started_ms"]).all()
    assert rows["ended_ms"].max() == now_ms
    of_one: dict[int, int] = {}
    for row in rows.tolist():
        assert row[3] >= of_one.get(row[1], 0), "rows of one workload do not overlap"
        of_one[row[1]] = row[4]
    assert len(of_one) == 100
    assert all(event.at_ms < now_ms for event in batch.events)
    assert len({event.event_id for event in batch.events}) == len(batch.events)
