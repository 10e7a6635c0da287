"""Requests by credential and key: taken on once, answered once, and taken on again after a crash."""

from __future__ import annotations

import pytest
import trio

from engine.core.idempotency import KEPT_MS, Answered, Begun, BusyError, OtherRequestError
from storage.ids import is_id
from storage.open import AllStores

NOW = 1_790_000_000_000
LEASE = 60_000
ASKED, OTHER = b"a" * 32, b"b" * 32


async def begin(stores: AllStores, *, by="me", key="k", asked=ASKED, now_ms=NOW) -> Begun | Answered:
    return await stores.idempotency.begin(by, key, request_sha256=asked, now_ms=now_ms, lease_ms=LEASE)


async def finish(stores: AllStores, begun: Begun | Answered, answer: bytes = b"", *, by="me") -> bool:
    assert isinstance(begun, Begun)
    return await stores.idempotency.finish(by, "k", lease_ms=begun.lease_ms, status=201, answer=answer)


async def release(stores: AllStores, begun: Begun | Answered) -> None:
    assert isinstance(begun, Begun)
    await stores.idempotency.release("me", "k", lease_ms=begun.lease_ms)


async def forget(stores: AllStores, begun: Begun | Answered) -> None:
    assert isinstance(begun, Begun)
    await stores.idempotency.forget("me", "k", lease_ms=begun.lease_ms)


async def test_a_request_is_taken_on_once_and_then_answered(stores: AllStores):
    begun = await begin(stores)
    assert isinstance(begun, Begun)
    assert is_id(begun.made_id)
    with pytest.raises(BusyError):
        await begin(stores)
    assert await finish(stores, begun, b"sealed")
    assert await begin(stores) == Answered(201, b"sealed")
    assert await begin(stores, now_ms=NOW + 10 * LEASE) == Answered(201, b"sealed")


async def test_another_request_under_the_same_key_is_told_so_at_any_time(stores: AllStores):
    begun = await begin(stores)
    with pytest.raises(OtherRequestError):
        await begin(stores, asked=OTHER)
    with pytest.raises(OtherRequestError):
        await begin(stores, asked=OTHER, now_ms=NOW + 2 * LEASE)
    assert await finish(stores, begun)
    with pytest.raises(OtherRequestError):
        await begin(stores, asked=OTHER)


async def test_each_credential_has_keys_of_its_own(stores: AllStores):
    mine, theirs = await begin(stores), await begin(stores, by="you")
    assert isinstance(mine, Begun)
    assert isinstance(theirs, Begun)
    assert mine.made_id != theirs.made_id
    assert await finish(stores, mine, b"mine")
    with pytest.raises(BusyError):
        await begin(stores, by="you")


async def test_of_many_at_once_one_is_taken_on(stores: AllStores):
    found: list[Begun | Answered | None] = []

    async def attempt() -> None:
        try:
            found.append(await begin(stores))
        except BusyError:
            found.append(None)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    assert sum(isinstance(one, Begun) for one in found) == 1
    assert found.count(None) == 7


async def test_after_a_crash_it_is_taken_on_again_under_the_same_id_once_the_lease_is_over(stores: AllStores):
    first = await begin(stores)
    with pytest.raises(BusyError):
        await begin(stores, now_ms=NOW + LEASE)
    again = await begin(stores, now_ms=NOW + LEASE + 1)
    assert isinstance(first, Begun)
    assert isinstance(again, Begun)
    assert again.made_id == first.made_id
    with pytest.raises(BusyError):
        await begin(stores, now_ms=NOW + LEASE + 2)


async def test_what_ended_without_an_answer_is_taken_on_at_once_under_the_same_id(stores: AllStores):
    first = await begin(stores)
    await release(stores, first)
    again = await begin(stores)
    assert again == first
    assert await finish(stores, again)
    await release(stores, again)
    assert await begin(stores) == Answered(201, b"")


async def test_what_was_refused_is_forgotten_but_never_what_was_answered(stores: AllStores):
    first = await begin(stores)
    await forget(stores, first)
    second = await begin(stores, asked=OTHER)
    assert isinstance(second, Begun)
    assert second != first
    assert await finish(stores, second)
    await forget(stores, second)
    assert await begin(stores, asked=OTHER) == Answered(201, b"")


async def test_of_two_runs_only_the_answer_of_the_one_that_holds_the_lease_counts(stores: AllStores):
    """Somebody worked on for longer than the lease, and another took the request on."""
    slow = await begin(stores)
    quick = await begin(stores, now_ms=NOW + LEASE + 1)
    assert slow.made_id == quick.made_id
    assert not await finish(stores, slow, b"slow")
    assert await finish(stores, quick, b"quick")
    assert not await finish(stores, slow, b"slow")
    assert await begin(stores) == Answered(201, b"quick")


async def test_a_run_that_lost_its_lease_ends_nothing_of_the_one_that_has_it(stores: AllStores):
    slow = await begin(stores)
    quick = await begin(stores, now_ms=NOW + LEASE + 1)
    for give_up in (release, forget):
        await give_up(stores, slow)
        with pytest.raises(BusyError):
            await begin(stores, now_ms=NOW + LEASE + 2)
    assert await finish(stores, quick, b"quick")
    assert await begin(stores) == Answered(201, b"quick")


async def test_requests_are_pruned_after_a_day_portion_by_portion(stores: AllStores):
    for number in range(5):
        await begin(stores, key=f"old {number}", now_ms=NOW)
    await begin(stores, key="new", now_ms=NOW + 2)
    prune = stores.idempotency.prune
    assert await prune(now_ms=NOW + KEPT_MS, limit=10) == 0
    assert [await prune(now_ms=NOW + KEPT_MS + 1, limit=3) for _ in range(3)] == [3, 2, 0]
    with pytest.raises(BusyError):
        await begin(stores, key="new", now_ms=NOW + 3)
