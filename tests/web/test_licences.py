"""Collections, licences, owners over time and balances as the API tells them, on the real stores."""

from __future__ import annotations

from engine.core.inventory import Block, Collection, NewCollection, Pass, Purse, Token
from engine.core.people import Act
from storage.ids import new_id
from tests.web.control import Control
from web.main import system_ms

CONTRACT = "0x" + "ab" * 20
MINUTE = 60_000


async def wallet(control: Control, name: str) -> str:
    (record,) = await control.sql("select wallet from account where user_id = $1", control.users[name])
    return str(record["wallet"])


async def collection(control: Control, **fields: object) -> Collection:
    """A collection of alpha, made by nobody in particular."""
    new = {"project_id": control.alpha.project_id, "chain_id": 1, "contract": CONTRACT, "standard": "erc721"}
    act = Act(actor="test", now_ms=system_ms(), request_id="", made_id=new_id())
    return await control.stores.inventory.add_collection(NewCollection(**new | fields), act=act)


async def passed(control: Control, of: Collection, number: int, *seen: Token | Purse, ago_ms: int) -> None:
    """A whole pass at a block of that age."""
    sync, now = control.stores.inventory_sync, system_ms()
    (there,) = [each for each in await sync.living() if each.collection_id == of.collection_id]
    block = Block(number, f"0x{number:064x}", now - ago_ms)
    await sync.apply(there, Pass(block=block, whole=True, seen=seen), now_ms=now)


async def test_a_collection_is_made_once_however_its_address_is_written(control: Control):
    body = {"chain_id": 1, "contract": CONTRACT.upper().replace("0X", "0x"), "standard": "erc721"}
    made = await control.ask("POST", "/v1/projects/alpha/collections", by="owner", json=body, key="k")
    again = await control.ask("POST", "/v1/projects/alpha/collections", by="owner", json=body, key="k")
    other = await control.ask("POST", "/v1/projects/beta/collections", by="foreign", json=body)
    assert (made.status, made.json["contract"]) == (201, CONTRACT)
    assert again.json == made.json
    assert (other.status, other.json["code"]) == (409, "collection_exists")
    source = made.json["source"]
    assert (source["stale"], source["synced_block"], source["error"]) == (True, None, "")
    (entry,) = await control.sql("select action, subject from audit")
    assert tuple(entry) == ("collection.create", made.json["collection_id"])


async def test_what_cannot_be_read_is_refused_when_it_is_made(control: Control):
    good = {"chain_id": 1, "contract": CONTRACT, "standard": "erc20"}
    for wrong, status in (
        ({"contract": "0x12"}, 400),
        ({"chain_id": 0}, 400),
        ({"chain_id": 1 << 60}, 400),
        ({"standard": "erc1155"}, 400),
        ({"subgraph_url": "ftp://example.org/"}, 400),
        ({"subgraph_url": "https://user@example.org/"}, 422),
        ({"subgraph_url": "https://example.org:99999/"}, 422),
        ({"subgraph_url": "https:///nothing"}, 422),
        ({"preset": "eip721"}, 422),
        ({"name": "a\0b"}, 400),
    ):
        answer = await control.ask("POST", "/v1/projects/alpha/collections", by="owner", json=good | wrong)
        assert answer.status == status, wrong


async def test_only_those_who_run_the_project_see_its_subgraph_and_may_change_it(control: Control):
    made = await collection(control, subgraph_url="https://example.org/api/KEY/subgraphs")
    path = f"/v1/projects/alpha/collections/{made.collection_id}"
    seen = {
        by: (await control.ask("GET", "/v1/projects/alpha/collections", by=by)).json["items"][0]
        for by in ("admin", "owner", "paul", "olga")
    }
    assert [seen[by]["subgraph_url"] is None for by in seen] == [False, False, False, True]
    for by, status in (("olga", 403), ("foreign", 404), ("sam", 403), ("paul", 200)):
        answer = await control.ask("PATCH", path, by=by, json={"name": "licences"})
        assert answer.status == status, by
    changed = await control.ask("PATCH", path, by="owner", json={"retired": True, "preset": "eip721"})
    assert (changed.json["name"], changed.json["preset"]) == ("licences", "eip721")
    assert changed.json["retired_at"] is not None
    details = [record["detail"] for record in await control.sql("select detail from audit order by seq")]
    assert not any("KEY" in detail for detail in details)


async def test_licences_are_seen_by_wallet_and_by_project(control: Control):
    olga, sam = await wallet(control, "olga"), await wallet(control, "sam")
    made = await collection(control)
    await passed(control, made, 10, Token(1, olga), Token(2, sam), Token(2**255, olga), ago_ms=1_000)

    async def tokens(by: str, query: str = "") -> list[str]:
        answer = await control.ask("GET", f"/v1/licences{query}", by=by)
        assert answer.status == 200
        return [item["token_id"] for item in answer.json["items"]]

    everything = ["1", "2", str(2**255)]
    assert await tokens("admin") == await tokens("owner") == await tokens("paul") == everything
    assert await tokens("foreign") == []
    assert await tokens("olga") == ["1", str(2**255)]
    assert await tokens("sam") == ["2"]
    assert await tokens("owner", f"?owner={sam.upper().replace('0X', '0x')}") == ["2"]
    assert await tokens("owner", f"?collection={new_id()}") == []
    assert await tokens("admin", "?project=beta") == []
    assert await tokens("olga", "?project=alpha&bound=false") == ["1", str(2**255)]
    assert await tokens("olga", "?bound=true") == []
    await control.sql(
        "update workload set licence_id = (select licence_id from licence where token_id = 1)"
        " where workload_id = $1",
        control.node.workload_ids[0],
    )
    assert await tokens("olga", "?bound=true") == ["1"]
    for bad in ("?owner=0x1", "?bound=yes", "?collection=x", "?after=x", "?limit=0"):
        assert (await control.ask("GET", f"/v1/licences{bad}", by="olga")).status == 400


async def test_lists_of_licences_go_by_cursor(control: Control):
    made = await collection(control)
    await passed(control, made, 10, *(Token(n, CONTRACT) for n in range(5)), ago_ms=0)
    path, tokens = "/v1/licences?limit=2&project=alpha", []
    while path:
        answer = await control.ask("GET", path, by="owner")
        tokens += [item["token_id"] for item in answer.json["items"]]
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert tokens == ["0", "1", "2", "3", "4"]


async def test_a_stranger_finds_no_licence_and_its_owner_does(control: Control):
    made = await collection(control)
    await passed(control, made, 10, Token(1, await wallet(control, "olga")), ago_ms=0)
    licence = (await control.ask("GET", "/v1/licences")).json["items"][0]
    for suffix in ("", "/owners"):
        path = f"/v1/licences/{licence['licence_id']}{suffix}"
        statuses = [
            (await control.ask("GET", path, by=by)).status
            for by in ("admin", "owner", "paul", "olga", "sam", "foreign")
        ]
        assert statuses == [200, 200, 200, 200, 404, 404]
        assert (await control.ask("GET", f"/v1/licences/x{suffix}")).status == 404


async def test_the_owners_of_a_licence_are_told_over_time(control: Control):
    olga, sam = await wallet(control, "olga"), await wallet(control, "sam")
    made = await collection(control)
    await passed(control, made, 10, Token(1, olga), ago_ms=3 * MINUTE)
    await passed(control, made, 11, Token(1, sam), ago_ms=2 * MINUTE)
    await passed(control, made, 12, Token(1, olga), ago_ms=1 * MINUTE)
    licence = (await control.ask("GET", "/v1/licences")).json["items"][0]
    path = f"/v1/licences/{licence['licence_id']}/owners"
    items = (await control.ask("GET", path)).json["items"]
    assert [(item["owner"], item["block"]) for item in items] == [(olga, None), (sam, 11), (olga, 12)]
    assert (items[0]["from"], items[2]["to"]) == (None, None)
    assert items[0]["to"] == items[1]["from"]
    assert items[1]["to"] == items[2]["from"]

    async def owner_at(at: str) -> list[str]:
        return [item["owner"] for item in (await control.ask("GET", f"{path}?at={at}")).json["items"]]

    assert await owner_at("2001-01-01T00:00:00Z") == [olga]
    assert await owner_at(items[1]["from"]) == [sam]
    assert await owner_at(items[2]["from"]) == [olga]
    assert await owner_at("2999-01-01T00:00:00Z") == [olga]
    page = await control.ask("GET", f"{path}?limit=1")
    rest = await control.ask("GET", f"{path}?limit=9&after={page.json['next_cursor']}")
    assert page.json["items"] + rest.json["items"] == items
    assert (await control.ask("GET", f"{path}?at=yesterday")).status == 400
    assert (await control.ask("GET", f"{path}?after=x")).status == 400


async def test_every_answer_says_how_old_it_is_and_what_is_wrong(control: Control):
    made = await collection(control)
    await passed(control, made, 10, Token(1, CONTRACT), ago_ms=MINUTE)
    fresh = (await control.ask("GET", "/v1/licences")).json["sources"][0]
    assert (fresh["stale"], fresh["error"], fresh["synced_block"]) == (False, "", 10)
    assert MINUTE <= fresh["age_ms"] < 2 * MINUTE
    await control.stores.inventory_sync.failed(made.collection_id, "the subgraph does not answer")
    await control.sql("update collection set block_ms = block_ms - 3600000")
    licence = (await control.ask("GET", "/v1/licences")).json["items"][0]
    answer = (await control.ask("GET", f"/v1/licences/{licence['licence_id']}")).json
    assert answer["owner"] == CONTRACT
    assert answer["source"]["stale"] is True
    assert answer["source"]["error"] == "the subgraph does not answer"
    assert answer["source"]["age_ms"] > 3_600_000


async def test_a_person_has_the_licences_and_balances_of_their_wallet(control: Control):
    olga = await wallet(control, "olga")
    made = await collection(control)
    coins = await collection(control, contract="0x" + "cd" * 20, standard="erc20", name="coins")
    await passed(control, made, 10, Token(1, olga), Token(2, CONTRACT), ago_ms=0)
    await passed(control, coins, 10, Purse(olga, 10**30), Purse(CONTRACT, 1), ago_ms=0)
    path = f"/v1/users/{control.users['olga']}"
    for by in ("olga", "admin"):
        licences = (await control.ask("GET", f"{path}/licences", by=by)).json
        balances = (await control.ask("GET", f"{path}/balances", by=by)).json
        assert [item["token_id"] for item in licences["items"]] == ["1"]
        assert [(item["name"], item["amount"]) for item in balances["items"]] == [("coins", str(10**30))]
        assert balances["sources"][0]["synced_block"] == 10
    for by, status in (("sam", 404), ("owner", 403)):
        assert (await control.ask("GET", f"{path}/licences", by=by)).status == status
        assert (await control.ask("GET", f"{path}/balances", by=by)).status == status


async def test_without_a_wallet_there_is_nothing_and_no_error(control: Control):
    made = await collection(control)
    await passed(control, made, 10, Token(1, CONTRACT), ago_ms=0)
    await control.sql("update account set wallet = null where user_id = $1", control.users["olga"])
    path = f"/v1/users/{control.users['olga']}"
    for what in (f"{path}/licences", f"{path}/balances", "/v1/licences"):
        answer = await control.ask("GET", what, by="olga")
        assert (answer.status, answer.json["items"]) == (200, [])
