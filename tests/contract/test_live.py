"""The live view: what a shard wrote is read whole, under the header it was written with, on both stores."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import trio

from engine.core.liveview import ROW_BYTES, ROW_DTYPE, SLOT_BYTES, SLOT_DTYPE, decode
from engine.core.records import BASE_UP, NODE_STATES, LiveSlot, ShardHead
from tests.contract.given import NOW, make_event


def head(shard: int = 0, **more) -> ShardHead:
    given = {
        "shard": shard,
        "shards": 1,
        "epoch": "one",
        "watermark_ms": NOW,
        "registry_position": 3,
        "rows": 2,
        "degraded": False,
        "wall_ms": NOW,
    }
    return ShardHead(**{**given, **more})


def row_record(*, slot_base: int = 0, slot_count: int = 1, state: str = "up") -> bytes:
    record = np.zeros(1, ROW_DTYPE)
    record["state"] = NODE_STATES.index(state)
    record["generation"], record["ttl_ms"], record["last_t_ms"], record["since_ms"] = 4, 90_000, NOW, NOW - 5
    record["slot_base"], record["slot_count"] = slot_base, slot_count
    return record.tobytes()


def slot_record(*, own_t_ms: int = 0, started_ms: int = NOW - 9) -> bytes:
    record = np.zeros(1, SLOT_DTYPE)
    record["kind"], record["ttl_ms"], record["started_ms"] = BASE_UP, 90_000, started_ms
    record["own_t_ms"], record["first_report_ms"] = own_t_ms, NOW - 9
    return record.tobytes()


async def started(stores, *heads: ShardHead) -> None:
    for one in heads:
        await stores.live.reset(one)
        assert await stores.live.write(one, rows=[], slots=[])


async def test_there_is_no_view_at_first_and_none_can_be_written_without_a_reset(stores):
    assert await stores.live.heads() == {}
    assert await stores.live.read(0, shards=1) is None
    assert not await stores.live.write(head(), rows=[(0, row_record())], slots=[])
    assert await stores.live.heads() == {}


async def test_a_row_is_read_with_its_slots_under_its_header(stores):
    await started(stores, head())
    rows = [(ROW_BYTES, row_record(slot_base=2, slot_count=2))]
    slots = [(2 * SLOT_BYTES, slot_record()), (3 * SLOT_BYTES, slot_record(own_t_ms=NOW - 1))]
    assert await stores.live.write(head(watermark_ms=NOW + 7), rows=rows, slots=slots)
    found, node = await stores.live.read(1, shards=1)
    assert found == head(watermark_ms=NOW + 7)
    assert (node.state, node.generation, node.ttl_ms, node.last_t_ms) == ("up", 4, 90_000, NOW)
    assert node.since_ms == NOW - 5
    assert node.slots == {
        0: LiveSlot(BASE_UP, 90_000, NOW - 9, NOW, NOW - 9),
        1: LiveSlot(BASE_UP, 90_000, NOW - 9, NOW - 1, NOW - 9),
    }


async def test_a_row_never_heard_of_is_told_with_the_header_alone(stores):
    await started(stores, head())
    assert await stores.live.read(9, shards=1) == (head(), None)
    await stores.live.write(head(), rows=[(2 * ROW_BYTES, row_record())], slots=[(0, slot_record())])
    assert await stores.live.read(0, shards=1) == (head(), None)


async def test_a_row_without_slots_is_a_row(stores):
    await started(stores, head())
    await stores.live.write(head(), rows=[(0, row_record(slot_count=0, state="stopped"))], slots=[])
    _, node = await stores.live.read(0, shards=1)
    assert (node.state, node.slots) == ("stopped", {})


async def test_a_page_of_many_records_is_cut_at_the_record(stores):
    await started(stores, head())
    page = b"".join(row_record(slot_base=number) for number in range(20))
    slots = b"".join(slot_record(started_ms=NOW + number) for number in range(20))
    await stores.live.write(head(), rows=[(0, page)], slots=[(0, slots)])
    _, node = await stores.live.read(13, shards=1)
    assert node.slots[0].started_ms == NOW + 13


async def test_many_pages_in_one_write_all_arrive(stores):
    await started(stores, head())
    places = range(0, 3_000, 3)
    await stores.live.write(
        head(),
        rows=[(number * ROW_BYTES, row_record(slot_base=number)) for number in places],
        slots=[(number * SLOT_BYTES, slot_record(started_ms=NOW + number)) for number in places],
    )
    for number in (0, 3, 1_500, 2_997):
        _, node = await stores.live.read(number, shards=1)
        assert node.slots[0].started_ms == NOW + number


async def test_shards_have_their_own_views(stores):
    one, two = head(0, shards=2), head(1, shards=2, watermark_ms=NOW - 3)
    await started(stores, one, two)
    assert await stores.live.heads() == {0: one, 1: two}
    await stores.live.write(two, rows=[(2 * ROW_BYTES, row_record())], slots=[(0, slot_record())])
    found, node = await stores.live.read(5, shards=2)
    assert (found, node.state) == (two, "up")
    assert await stores.live.read(4, shards=2) == (one, None)


async def test_many_rows_are_read_at_once_without_their_slots(stores):
    one, two = head(0, shards=2), head(1, shards=2, watermark_ms=NOW - 3)
    await started(stores, one, two)
    await stores.live.write(one, rows=[(ROW_BYTES, row_record(state="down"))], slots=[(0, slot_record())])
    await stores.live.write(two, rows=[(2 * ROW_BYTES, row_record())], slots=[(0, slot_record())])
    found = await stores.live.read_rows([0, 2, 5, 2_000_001], shards=2)
    assert {row: where for row, (where, _) in found.items()} == {0: one, 2: one, 5: two, 2_000_001: two}
    assert (found[0][1], found[2_000_001][1]) == (None, None)
    for row in (2, 5):
        alone = await stores.live.read(row, shards=2)
        assert found[row][1] == msgspec.structs.replace(alone[1], slots={})
    assert await stores.live.read_rows([], shards=2) == {}


async def test_rows_of_a_shard_without_a_header_are_left_out_of_many(stores):
    await started(stores, head(1, shards=2))
    assert set(await stores.live.read_rows([0, 1, 2, 3], shards=2)) == {1, 3}
    assert await stores.live.read_rows([0, 1, 2], shards=3) == {}


async def test_a_view_of_another_epoch_is_not_written_into(stores):
    await started(stores, head())
    await stores.live.write(head(), rows=[(0, row_record())], slots=[(0, slot_record())])
    late = head(epoch="zero", watermark_ms=NOW + 100)
    assert not await stores.live.write(late, rows=[(0, row_record(state="down"))], slots=[])
    found, node = await stores.live.read(0, shards=1)
    assert (found, node.state) == (head(), "up")


async def test_a_reset_empties_the_view_and_does_not_tell_a_watermark(stores):
    await started(stores, head())
    await stores.live.write(head(), rows=[(0, row_record())], slots=[(0, slot_record())])
    await stores.live.reset(head(epoch="two"))
    untold = msgspec.structs.replace(head(epoch="two"), watermark_ms=0)
    assert await stores.live.read(0, shards=1) == (untold, None)
    assert not await stores.live.write(head(), rows=[], slots=[])
    assert await stores.live.write(head(epoch="two"), rows=[], slots=[])


async def test_what_a_larger_number_of_shards_left_behind_is_not_told(stores):
    await started(stores, *(head(shard, shards=3, epoch="old") for shard in range(3)))
    fresh = head(0, shards=1, wall_ms=NOW + 1_000)
    await started(stores, fresh)
    assert await stores.live.heads() == {0: fresh}
    assert await stores.live.read(1, shards=1) == (fresh, None)
    assert await stores.live.read(0, shards=3) is None


async def test_the_header_keeps_all_it_says(stores):
    whole = head(degraded=True, provisional_from_ms=NOW - 1, registry_position=2**40)
    await started(stores, whole)
    assert await stores.live.heads() == {0: whole}


async def test_announced_events_end_the_wait_of_all_who_wait(stores):
    heard: list[int] = []

    async def listen(number: int) -> None:
        await stores.live.wait_events(math.inf)
        heard.append(number)

    with trio.fail_after(10):
        await stores.live.wait_events(0.01)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(listen, number)
            while len(heard) < 3:
                await stores.live.announce_events([make_event(len(heard))])
                await trio.sleep(0.01)


async def test_what_was_announced_between_two_waits_is_not_slept_through(stores):
    with trio.fail_after(20):
        # The first waits bring the listener up.
        async with trio.open_nursery() as nursery:

            async def wake() -> None:
                while True:
                    await stores.live.announce_events([make_event()])
                    await trio.sleep(0.01)

            nursery.start_soon(wake)
            await stores.live.wait_events(math.inf)
            nursery.cancel_scope.cancel()
        await stores.live.wait_events(0.2)
        await stores.live.announce_events([make_event(1)])
        await trio.sleep(0.2)  # busy elsewhere while the news come in
        before = trio.current_time()
        await stores.live.wait_events(10)
        assert trio.current_time() - before < 5


async def test_announcing_nothing_or_a_great_many_is_fine(stores):
    await stores.live.announce_events([])
    await stores.live.announce_events(make_event(number) for number in range(1_234))


async def test_a_page_of_rows_is_the_same_as_each_row_read_alone(stores):
    shard = head(1, shards=2)
    await started(stores, shard)
    rows = [
        (1 * ROW_BYTES, row_record(slot_base=4, slot_count=2, state="down")),
        (2 * ROW_BYTES, row_record(slot_base=6, slot_count=1)),
        (3 * ROW_BYTES, row_record(slot_base=0, slot_count=0)),
        (6 * ROW_BYTES, row_record(slot_base=1, slot_count=3)),
    ]
    slots = [(at * SLOT_BYTES, slot_record(started_ms=NOW + at)) for at in range(7)]
    assert await stores.live.write(shard, rows=rows, slots=slots)
    indices = [0, 1, 2, 3, 6, 2_000_000]
    page = await stores.live.read_page(1, indices, shards=2)
    assert page.head == shard
    assert page.first_slot.tolist() == [0, 0, 2, 3, 3, 6]
    for place, index in enumerate(indices):
        _, node = await stores.live.read(index * 2 + 1, shards=2)
        record = page.rows[place : place + 1].tobytes()
        assert (node is None) == (not record.strip(b"\0"))
        if node is not None:
            first = page.first_slot[place]
            mine = page.slots[first : first + int(page.rows["slot_count"][place])]
            assert decode(record, mine.tobytes()) == node


async def test_a_page_of_slots_that_were_not_written_yet_says_nothing_of_them(stores):
    await started(stores, head())
    await stores.live.write(head(), rows=[(0, row_record(slot_base=3, slot_count=2))], slots=[])
    page = await stores.live.read_page(0, [0], shards=1)
    assert page.slots.tobytes() == bytes(2 * SLOT_BYTES)


async def test_there_is_no_page_without_a_header_or_of_another_number_of_shards(stores):
    await started(stores, head(1, shards=2))
    assert await stores.live.read_page(0, [0], shards=2) is None
    assert await stores.live.read_page(1, [0], shards=3) is None
    assert len((await stores.live.read_page(1, [], shards=2)).rows) == 0
