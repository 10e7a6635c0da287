"""`admin collection|licence|channel|datagram`: what is read from elsewhere, and where notices go."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.inventory import Block, Pass, Token
from storage.open import AllStores
from tests.front.administered import NOWHERE, Administered
from tests.storage.datagram_server import SECRET, TOKEN, datagram_server
from web.times import parse_rfc3339

CONTRACT = "0x" + "c" * 40
OLD, NEW = "0x" + "1" * 40, "0x" + "2" * 40
LOOKED, SOLD = "2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z"


@pytest.fixture(scope="module")
def collection(cli: Administered) -> dict[str, Any]:
    cli.admin("project", "create", "alpha")
    made = cli.admin(
        *("collection", "add", "--project", "alpha", "--chain-id", 1, "--contract", CONTRACT),
        *("--name", "Licences"),
    )
    assert cli.audited("collection.create")["subject"] == made["collection_id"]
    assert (made["contract"], made["standard"], made["subgraph_url"]) == (CONTRACT, "erc721", "")
    return made


@pytest.fixture(scope="module")
def sold(cli: Administered, collection: dict[str, Any]) -> str:
    """The id of a licence that was read, and then sold."""

    async def read(stores: AllStores) -> None:
        for number, at, owner in ((1, LOOKED, OLD), (2, SOLD, NEW)):
            now = await stores.inventory.collection(collection["collection_id"])
            assert now is not None
            block = Block(number, f"0x{number:064x}", parse_rfc3339(at))
            found = Pass(block=block, whole=number == 1, seen=[Token(7, owner)], before_hash=now.synced_hash)
            await stores.inventory_sync.apply(now, found, now_ms=block.ms)

    cli.on_stores(read)
    return cli.admin("licence", "list", "--project", "alpha")["licences"][0]["licence_id"]


def test_a_collection_is_listed_changed_and_retired(cli, collection):
    collection_id = collection["collection_id"]
    url = ("--subgraph-url", "https://subgraph.example/x")
    changed = cli.admin("collection", "change", collection_id, *url, "--preset", "eip721")
    assert (changed["subgraph_url"], changed["preset"]) == (url[1], "eip721")
    assert cli.audited("collection.change")["subject"] == collection_id
    cleared = cli.admin("collection", "change", collection_id, "--subgraph-url", "", "--preset", "")
    assert (cleared["subgraph_url"], cleared["preset"]) == ("", "")
    assert cli.admin("collection", "change", collection_id, "--retired")["retired_at"] is not None
    assert cli.admin("collection", "change", collection_id, "--not-retired")["retired_at"] is None
    [listed] = cli.admin("collection", "list", "--project", "alpha")["collections"]
    assert listed["collection_id"] == collection_id
    same = ("--project", "alpha", "--chain-id", 1, "--contract", CONTRACT)
    assert "in the inventory already; find it: admin collection list" in cli.refused(
        "collection", "add", *same
    )
    assert "no http or https URL" in cli.misused("collection", "change", collection_id, *url[:1], "x")
    assert "there is no collection" in cli.refused("collection", "change", NOWHERE, "--name", "x")


def test_it_is_told_how_far_a_collection_was_read(cli, sold):
    [told] = cli.admin("collection", "sync-status", "--project", "alpha")["collections"]
    assert (told["synced_block"], told["block_time"]) == (2, "2026-01-02T12:00:00.000Z")
    assert told["stale"] is True
    assert told["age_ms"] > 0


def test_a_licence_is_shown_with_its_owners_over_time(cli, sold):
    shown = cli.admin("licence", "show", sold)
    assert (shown["token_id"], shown["owner"], shown["workload_ids"]) == ("7", NEW, [])
    assert shown["known_at"] == "2026-01-02T12:00:00.000Z"
    owners = cli.admin("licence", "owners", sold)["owners"]
    assert [(one["owner"], one["from"], one["to"]) for one in owners] == [
        (OLD, None, "2026-01-02T12:00:00.000Z"),
        (NEW, "2026-01-02T12:00:00.000Z", None),
    ]
    [before] = cli.admin("licence", "owners", sold, "--at", "2026-01-02T11:59:59Z")["owners"]
    assert before["owner"] == OLD
    page = cli.admin("licence", "owners", sold, "--limit", 1)
    assert cli.admin("licence", "owners", sold, "--after", page["next_cursor"])["owners"] == owners[1:]
    assert cli.admin("licence", "leases", sold) == {"leases": [], "next_cursor": None}
    assert f"there is no licence {NOWHERE}; see: admin licence list" in cli.refused(
        "licence", "show", NOWHERE
    )


def test_a_workload_is_bound_to_a_licence_and_freed(cli, sold):
    node = cli.admin("node", "create", "--project", "alpha")
    workload = node["workloads"][0]
    assert cli.admin("workload", "bind", workload, sold)["licence_id"] == sold
    assert cli.audited("workload.change")["detail"] == {"licence_id": sold}
    [bound] = cli.admin("licence", "list", "--bound", "--owner", NEW)["licences"]
    assert bound["workload_ids"] == [workload]
    assert cli.admin("workload", "bind", workload, "--none")["licence_id"] is None
    assert cli.admin("licence", "list", "--bound")["licences"] == []
    assert "no such licence" in cli.refused("workload", "bind", workload, NOWHERE)
    assert "either LICENCE_ID or --none" in cli.misused("workload", "bind", workload)


def test_balances_of_a_wallet_are_listed(cli, collection):
    purse = "0x" + "3" * 40
    who = cli.admin("user", "create", "--wallet", purse)["user_id"]
    coins = cli.admin(
        *("collection", "add", "--project", "alpha", "--chain-id", 1, "--standard", "erc20"),
        *("--contract", "0x" + "e" * 40),
    )["collection_id"]
    cli.sql(
        "insert into balance (collection_id, owner, amount, block) values ($1, $2, 10::numeric ^ 30, 5)",
        coins,
        purse,
    )
    [balance] = cli.admin("user", "balances", who)["balances"]
    assert balance == {"collection_id": coins, "amount": str(10**30), "block": 5}


def test_channels_of_projects_and_people_are_added_listed_and_removed(cli, collection):
    hook = ("webhook", "https://example.org/hook")
    made = cli.admin("channel", "add", *hook, "--project", "alpha", "--event", "node.down")
    assert {"channel_id", "kind", "target", "secret"} <= set(made)
    assert made["secret"].startswith("whsec_")
    assert made["secret"] not in str(cli.audited("channel.create"))
    [listed] = cli.admin("channel", "list", "--project", "alpha")["channels"]
    assert (listed["channel_id"], listed["event_kinds"]) == (made["channel_id"], ["node.down"])
    assert "secret" not in listed
    removed = cli.admin("channel", "remove", made["channel_id"], "--project", "alpha")
    assert removed == {"channel_id": made["channel_id"], "removed": True}
    assert cli.audited("channel.remove")["subject"] == made["channel_id"]
    assert "there is no channel" in cli.refused("channel", "remove", made["channel_id"], "--project", "alpha")
    who = cli.admin("user", "create", "--email", "olga@example.org")["user_id"]
    mail = cli.admin("channel", "add", "mail", "olga@example.org", "--user", who)
    assert mail["secret"] is None
    assert [one["target"] for one in cli.admin("channel", "list", "--user", who)["channels"]] == [
        "olga@example.org"
    ]
    assert "either --project" in cli.misused("channel", "list")
    assert "no mail address" in cli.misused("channel", "add", "mail", "x", "--project", "alpha")


def test_datagram_is_asked_and_nodes_become_known_there(cli, collection):
    node = cli.admin("node", "create", "--project", "alpha")["node_id"]
    assert "datagram.token is not set" in cli.refused("datagram", "check")
    with datagram_server() as server:
        sets = [f"datagram.{name}={server.url}" for name in ("url", "license_url")]
        sets += [f"datagram.token={TOKEN}", f"datagram.secret={SECRET}"]
        where = [word for one in sets for word in ("--set", one)]
        made = cli.admin("datagram", "register", node, "--name", "dg-1", *where)
        assert made == {"node_id": node, "partner_node_id": "dg-1"}
        assert cli.audited("node.partner")["subject"] == node
        asked = len(server.asked)
        assert cli.admin("datagram", "register", node, "--name", "dg-1", *where) == made
        assert len(server.asked) == asked, "twice is the same as once"
        told = cli.admin("datagram", "check", *where)
        assert (told["nodes"], told["nodes_total"]) == (["dg-1"], 1)
        assert told["partner"]["name"] == "NodePulse"
        wrong = [*where, "--set", "datagram.token=wrong"]
        assert "HTTP 401" in cli.refused("datagram", "check", *wrong)
