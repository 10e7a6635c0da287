"""Whatever a subgraph does, the last known owners stand, the collection says what is wrong, and it heals."""

from __future__ import annotations

import pytest
import trio

from engine.core.inventory import (
    Block,
    Collection,
    CollectionChange,
    Pass,
    PassOvertakenError,
    Token,
)
from engine.core.people import Act
from storage.open import AllStores
from tests.worker.following import ANN, BOB, CARL, Following, following
from tests.worker.graph_server import BLOCK_MS, Fault
from worker.ownership.forms import EIP721
from worker.ownership.graphql import ANSWER_BYTES_MAX, retry_after_s
from worker.ownership.schedule import backoff_s, sweep_is_due
from worker.settings import OwnershipSettings

DAY_MS = 86_400_000
A_DAY = DAY_MS // BLOCK_MS + 300  # blocks


def row(data: dict) -> dict:
    return data["erc721Tokens"][0]


def edited(change) -> Fault:
    """A fault that changes the first token of a page."""
    return Fault(edit=lambda data: change(row(data)))


def twice(data: dict) -> None:
    data["erc721Tokens"].append(dict(row(data)))


def twice_by_another_id(data: dict) -> None:
    data["erc721Tokens"].append({**row(data), "id": "0xff"})


def meta(**changes: object) -> Fault:
    return Fault(edit=lambda data: data["_meta"]["block"].update(changes))


FAULTS = {
    "too many requests": (Fault(status=429), "HTTP 429"),
    "a server error": (Fault(status=503, body=b"<html>"), "HTTP 503"),
    "a wrong key": (Fault(status=401), "is its key right"),
    "a redirect": (Fault(status=302, headers={"location": "http://127.0.0.1/"}), "redirects"),
    "half the JSON": (Fault(cut_json=True), "not whole JSON"),
    "half the answer": (Fault(cut_connection=True), "RemoteProtocolError"),
    "another's page": (Fault(body=b"<html>hello</html>"), "not whole JSON"),
    "a list": (Fault(body=b"[]"), "no JSON object"),
    "no data": (Fault(body=b'{"data": null}'), "no data"),
    "too much nesting": (Fault(body=b"[" * 100_000), "not whole JSON"),
    "errors in a 200": (Fault(error="store error: \x1b[31mred\n"), "the subgraph says: store error:"),
    "a hanging server": (Fault(hang=True), "no answer within"),
    "no block": (Fault(edit=lambda data: data.pop("_meta")), "no _meta"),
    "a block without a time": (meta(timestamp=None), "block.timestamp is None"),
    "a block without a hash": (meta(hash=None), "block.hash is None"),
    "a negative block": (meta(number=-1), "block.number"),
    "a block of text": (meta(number="7"), "block.number is '7'"),
    "no tokens": (Fault(edit=lambda data: data.pop("erc721Tokens")), "no erc721Tokens"),
    "tokens that are no list": (Fault(edit=lambda data: data.update(erc721Tokens={})), "no list"),
    "a token that is a text": (Fault(edit=lambda data: data.update(erc721Tokens=["x"])), "no id"),
    "no owner": (edited(lambda token: token.pop("owner")), "no owner"),
    "an owner who is null": (edited(lambda token: token.update(owner=None)), "no owner.id"),
    "an owner who is a text": (edited(lambda token: token.update(owner=ANN)), "no owner.id"),
    "an owner that is no address": (
        edited(lambda token: token.update(owner={"id": "0xnobody"})),
        "owner.id is",
    ),
    "a token that is a number": (edited(lambda token: token.update(identifier=7.5)), "identifier is 7.5"),
    "a token that is negative": (edited(lambda token: token.update(identifier="-1")), "identifier is '-1'"),
    "a token that is too large": (edited(lambda token: token.update(identifier=str(2**256))), "2**256"),
    "another's contract": (edited(lambda token: token["contract"].update(id=BOB)), "another contract"),
    "an id twice": (Fault(edit=twice), "comes after"),
    "a token twice": (Fault(edit=twice_by_another_id), "is there twice"),
}


async def settled(world: Following) -> None:
    """Books with three tokens, of which two were then sold on the chain."""
    world.chain.mine(20, owners={1: ANN, 2: ANN, 3: ANN})
    await world.turn()
    world.chain.mine(owners={1: BOB, 2: BOB})
    world.asked()


async def test_every_fault_leaves_the_last_known_owners_and_is_told(stores: AllStores):
    async with following(stores, timeout_s=1.5) as world:
        await settled(world)
        before = await world.collection()
        for name, (fault, words) in FAULTS.items():
            world.server.faults = [fault] * 2  # also where it is asked again without the older block
            after = await world.turn()
            world.server.faults.clear()
            assert words in after.sync_error, name
            assert after.sync_error.isprintable(), name
            assert (after.synced_block, after.checked_ms) == (before.synced_block, before.checked_ms), name
            assert await world.owners() == {1: ANN, 2: ANN, 3: ANN}, name
        assert (await world.turn()).sync_error == ""
        assert await world.owners() == {1: BOB, 2: BOB, 3: ANN}
        assert world.bugs == []


async def test_a_fault_in_the_middle_of_a_full_pass_applies_nothing_of_it(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(2_500), ANN))
        world.server.faults = [None, None, Fault(cut_json=True)]
        assert "not whole JSON" in (await world.turn()).sync_error
        assert await world.owners() == {}
        assert (await world.turn()).sync_error == ""
        assert len(await world.owners()) == 2_500


async def test_what_passes_by_itself_is_tried_again_within_the_pass(stores: AllStores):
    async with following(stores, waits_s=(0.0, 0.0)) as world:
        world.chain.mine(owners=dict.fromkeys(range(1_500), ANN))
        world.server.faults = [Fault(status=429), Fault(cut_connection=True), None, Fault(status=502)]
        assert (await world.turn()).sync_error == ""
        assert world.asked() == 3 + 3
        assert len(await world.owners()) == 1_500


async def test_one_who_wants_to_be_left_alone_for_long_is(stores: AllStores):
    async with following(stores, waits_s=(0.0, 0.0)) as world:
        world.server.faults = [Fault(status=429, headers={"retry-after": "3600"})]
        await world.turn()
        assert world.asked() == 1
        await world.turn()
        assert world.asked() == 0


async def test_pages_that_are_shorter_than_they_might_be_are_all_read(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(50), ANN))
        world.server.page_items_max = 7
        await world.turn()
        assert len(await world.owners()) == 50
        assert world.asked() == 8 + 1


async def test_an_empty_page_in_the_middle_burns_nothing(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(50), ANN))
        await world.look()
        world.server.page_items_max = 7
        world.server.faults = [None, Fault(edit=lambda data: data["erc721Tokens"].clear())]
        world.chain.mine(A_DAY)
        assert "pages were cut" in (await world.turn()).sync_error
        assert set((await world.owners()).values()) == {ANN}


async def test_a_subgraph_with_indexing_errors_is_not_believed(stores: AllStores):
    async with following(stores) as world:
        await settled(world)
        world.server.indexing_errors = True
        assert "indexing errors" in (await world.turn()).sync_error
        assert (await world.owners())[1] == ANN


async def test_a_subgraph_that_stands_still_is_stale(stores: AllStores):
    async with following(stores) as world:
        await settled(world)
        world.later_ms = 3_600_000
        assert "does not follow the chain" in (await world.turn()).sync_error
        assert (await world.owners())[1] == ANN


async def test_a_subgraph_whose_blocks_run_back_is_not_believed(stores: AllStores):
    async with following(stores) as world:
        await settled(world)
        await world.look()
        world.server.behind_blocks = 5
        assert "has only indexed up to block number 16" in (await world.turn()).sync_error
        assert (await world.owners())[1] == BOB
        # Nor is one that does not say so itself.
        there = world.chain.blocks[10]
        lie = {"number": 10, "hash": there.hash, "timestamp": world.chain.head.ms // 1000}
        world.server.behind_blocks, world.server.faults = 0, [meta(**lie)]
        assert "before block 21, read earlier" in (await world.turn()).sync_error


async def test_a_collection_that_nobody_reads_says_so(stores: AllStores):
    async with following(stores, url="") as world:
        assert "no subgraph" in (await world.turn()).sync_error


async def test_a_form_of_ones_own_that_is_not_written_is_told(stores: AllStores):
    async with following(stores, preset="custom") as world:
        assert "worker.ownership.custom.query is empty" in (await world.turn()).sync_error


async def test_more_tokens_than_allowed_are_refused(stores: AllStores):
    async with following(stores, tokens_max=10) as world:
        world.chain.mine(owners=dict.fromkeys(range(11), ANN))
        assert "more than 10" in (await world.turn()).sync_error
        assert await world.owners() == {}


async def test_an_answer_without_end_is_not_read(stores: AllStores):
    async with following(stores) as world:
        world.server.faults = [Fault(body=b" " * (ANSWER_BYTES_MAX + 1))]
        assert f"more than {ANSWER_BYTES_MAX} bytes" in (await world.turn()).sync_error


# The guard and the keys.


async def test_a_projects_own_subgraph_may_not_lie_in_our_network(stores: AllStores):
    async with following(stores, own_url="http://SERVER/openzeppelin") as world:
        assert "public addresses" in (await world.turn()).sync_error
        assert world.asked() == 0


async def test_unless_the_installation_lets_it(stores: AllStores):
    async with following(stores, own_url="http://SERVER/openzeppelin", allow_private=True) as world:
        world.chain.mine(owners={1: ANN})
        assert (await world.turn()).sync_error == ""
        assert await world.owners() == {1: ANN}


@pytest.mark.parametrize(
    ("origin", "sent"),
    [
        ("http://SERVER", True),
        ("https://SERVER", False),
        ("http://127.0.0.1", False),
        ("http://gateway.thegraph.com", False),
    ],
)
async def test_a_key_goes_to_its_origin_only_and_into_no_log(
    stores: AllStores, origin: str, sent: bool, capsys: pytest.CaptureFixture[str]
):
    async with following(stores, keys={origin: "SECRET"}) as world:
        world.server.faults = [Fault(status=401)]
        assert "SECRET" not in (await world.turn()).sync_error
        headers, _ = world.server.requests[0]
        assert headers.get("authorization") == ("Bearer SECRET" if sent else None)
    assert "SECRET" not in "".join(capsys.readouterr())


def test_keys_are_read_from_the_configuration():
    settings = OwnershipSettings(keys="https://A.example/=k1 http://b:8000=k=2")
    assert settings.keys_by_origin == {"https://a.example": "k1", "http://b:8000": "k=2"}
    with pytest.raises(ValueError, match="must be https://host=KEY") as caught:
        _ = OwnershipSettings(keys="SECRET").keys_by_origin
    assert "SECRET" not in str(caught.value)


# When, and who.


async def test_two_workers_look_at_a_collection_one_at_a_time(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        async with world.stores.inventory_sync.holding(world.collection_id) as mine:
            assert mine
            async with world.stores.inventory_sync.holding(world.collection_id) as yours:
                assert not yours
            await world.turn()
            assert world.asked() == 0
        other = world.new_task()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run_once)
            nursery.start_soon(world.task.run_once)
        assert world.asked() == 2  # one pass: a page and its end
        assert await world.owners() == {1: ANN}


async def test_a_pass_that_another_one_overtook_is_not_written(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        before = await world.collection()
        await world.look()
        late = Pass(block=Block(1, "0x" + "0" * 64, 1), whole=True, seen=[Token(1, CARL)])
        with pytest.raises(PassOvertakenError):
            await stores.inventory_sync.apply(before, late, now_ms=1)
        assert await world.owners() == {1: ANN}


async def test_a_collection_is_looked_at_when_its_time_has_come_and_no_more_when_retired(stores: AllStores):
    async with following(stores, poll_s=60.0) as world:
        world.chain.mine(owners={1: ANN})
        await world.task.run_once()
        assert world.asked() == 2
        world.later_ms = 59_999
        await world.task.run_once()
        assert world.asked() == 0
        world.later_ms = 60_000
        await world.task.run_once()
        assert world.asked() == 2
        act = Act(actor="test", now_ms=1, request_id="", made_id="")
        await stores.inventory.change_collection(world.collection_id, CollectionChange(retired=True), act=act)
        await world.turn()
        assert world.asked() == 0


async def test_a_full_pass_that_fails_does_not_keep_changes_from_being_seen(stores: AllStores):
    async with following(stores) as world:
        await settled(world)
        world.chain.mine(A_DAY)
        world.server.faults = [Fault(status=500)]
        assert "HTTP 500" in (await world.turn()).sync_error
        healed = await world.turn()
        assert (healed.sync_error, healed.synced_block) == ("", world.chain.head.number)
        assert await world.owners() == {1: BOB, 2: BOB, 3: ANN}
        assert healed.swept_ms is not None
        assert healed.swept_ms < world.now_ms() - DAY_MS  # the full pass is tried again in an hour


async def test_once_a_night_everything_is_read(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN, 2: BOB})
        await world.turn()
        world.chain.mine(A_DAY, owners={2: None})
        await world.turn()
        assert await world.owners() == {1: ANN, 2: None}
        assert world.task.statistics().full_passes_total == 2


async def test_a_bug_with_one_collection_is_reported_and_written_into_it(stores: AllStores, monkeypatch):
    async with following(stores) as world:
        monkeypatch.setattr("worker.ownership.looks.read_page", lambda *a, **k: 1 / 0)
        assert "internal error: ZeroDivisionError" in (await world.turn()).sync_error
        assert [type(error) for error in world.bugs] == [ZeroDivisionError]


async def test_the_metrics_tell_age_queries_and_failures(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        await world.turn()
        world.server.faults = [Fault(status=500)] * 2
        await world.turn()
        await world.task.run_once()
        found = world.task.statistics()
        assert (found.collections, found.looks_total, found.failures_total) == (1, 1, 2)
        assert (found.queries_total, found.changes_total) == (4, 1)
        assert found.oldest_age_seconds == 7.0
        assert found.failing == 1


def collection_swept(swept_ms: int | None) -> Collection:
    return Collection(
        collection_id="",
        project_id="",
        chain_id=1,
        contract="",
        standard="erc721",
        name="",
        subgraph_url="",
        preset="",
        created_ms=0,
        swept_ms=swept_ms,
    )


def test_a_sweep_is_due_once_after_each_nights_hour():
    for now_h, swept_h, due in ((2, -1, False), (3, 2, True), (3, 3, False), (26, 3, False), (27, 3, True)):
        made = collection_swept(10 * DAY_MS + swept_h * 3_600_000)
        assert sweep_is_due(made, 10 * DAY_MS + now_h * 3_600_000, 3) is due
    assert sweep_is_due(collection_swept(None), 10 * DAY_MS, 3)


def test_waits_grow_to_a_bound():
    assert [backoff_s(failures) for failures in (1, 2, 3, 6, 100)] == [30, 60, 120, 900, 900]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("9" * 30, 86_400.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None):
    assert retry_after_s(text, 1_700_000_000_000) == seconds


def test_the_query_of_each_preset_asks_for_one_block_and_never_skips():
    assert EIP721.query.count("block: $block") == 2
    assert "skip" not in EIP721.query
