"""Publishing over real PostgreSQL: every seal to every target at least once, whatever fails or is killed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from engine.core.publication import RETRY_MS_MAX, retry_ms
from engine.core.sealed import DAY_MS, Seal, statement_text
from storage.open import AllStores
from tests.sealing import make_day, seal_days, tell_view, yesterday_ms
from worker.publish_settings import PublishEvmSettings, PublishSettings
from worker.publish_targets import Published, UnpublishedError
from worker.publisher import LEASE_MARGIN_MS, RootPublisher


class Place:
    """A target that keeps what it gets. `fails`: how often it does not before."""

    def __init__(self, *, fails: int = 0) -> None:
        self.got: list[str] = []
        self.fails = fails

    async def __call__(self, seal: Seal) -> Published:
        await trio.lowlevel.checkpoint()
        if self.fails:
            self.fails -= 1
            raise UnpublishedError("HTTP 503")
        self.got.append(statement_text(seal).decode())
        return Published("kept")


class Clock:
    def __init__(self) -> None:
        self.ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.ms


async def sealed_days(stores: AllStores, *, days: int = 3) -> list[Seal]:
    project = await stores.directory.create_project("alpha", now_ms=1)
    await tell_view(stores)
    await make_day(stores, project.project_id, nodes=1, day_ms=yesterday_ms() - (days - 1) * DAY_MS)
    seals = await seal_days(stores)
    assert len(seals) == days
    return seals


def publisher(stores: AllStores, clock: Callable[[], int], **settings: object) -> RootPublisher:
    made = PublishSettings(timeout_s=1.0, **settings)  # type: ignore[arg-type]
    return RootPublisher(stores.publications, made, now_ms=clock, wall_ms=clock)


async def states(stores: AllStores, seals: list[Seal]) -> list[tuple[str, int, str]]:
    return [
        (found.state, found.attempts, found.note)
        for seal in seals
        for found in await stores.publications.of_seal(seal.seal_no)
    ]


async def test_every_seal_is_published_once_oldest_first_those_of_before_too(stores: AllStores) -> None:
    seals = await sealed_days(stores)
    place, clock = Place(), Clock()
    worker = publisher(stores, clock)
    assert await worker.publish_due("file", place) == 3
    assert await worker.publish_due("file", place) == 0
    assert place.got == [statement_text(seal).decode() for seal in seals]
    assert await states(stores, seals) == [("done", 1, "kept")] * 3
    assert worker.statistics().published_total == {"file": 3}


async def test_a_target_that_fails_is_tried_again_later_and_holds_back_no_other(stores: AllStores) -> None:
    seals = await sealed_days(stores, days=2)
    place, other, clock = Place(fails=3), Place(), Clock()
    worker = publisher(stores, clock)
    await worker.publish_due("webhook", place)
    await worker.publish_due("file", other)
    assert (len(place.got), len(other.got)) == (0, 2)
    assert ("due", 1, "HTTP 503") in await states(stores, seals)
    assert worker.statistics().failing == {"webhook": 1, "file": 0}
    assert await worker.publish_due("webhook", place) == 0
    clock.ms += retry_ms(1)
    await worker.publish_due("webhook", place)
    clock.ms += retry_ms(2)
    await worker.publish_due("webhook", place)
    assert sorted(place.got) == sorted(statement_text(seal).decode() for seal in seals)


async def test_many_workers_publish_each_seal_once(stores: AllStores) -> None:
    await sealed_days(stores, days=6)
    place, clock = Place(), Clock()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(publisher(stores, clock).publish_due, "s3", place)
    assert len(place.got) == len(set(place.got)) == 6


async def test_what_a_killed_worker_had_in_hand_is_taken_over_when_its_lease_ends(
    stores: AllStores,
) -> None:
    (seal,) = await sealed_days(stores, days=1)
    place, clock = Place(), Clock()
    worker = publisher(stores, clock)

    async def killed(_seal: Seal) -> Published:
        raise KeyError("a bug, or a kill: nothing is written down")

    with pytest.raises(KeyError):
        await worker.publish_due("file", killed)
    assert await worker.publish_due("file", place) == 0
    clock.ms += 1_000 + LEASE_MARGIN_MS
    assert await worker.publish_due("file", place) == 1
    assert await states(stores, [seal]) == [("done", 2, "kept")]


async def test_a_late_failure_does_not_undo_what_another_worker_has_done(stores: AllStores) -> None:
    (seal,) = await sealed_days(stores, days=1)
    publications, clock = stores.publications, Clock()
    await publications.fill(["file"], now_ms=clock())
    first = await publications.claim("file", now_ms=clock(), lease_ms=1)
    clock.ms += 1
    second = await publications.claim("file", now_ms=clock(), lease_ms=60_000)
    assert first is not None
    assert second is not None
    await publications.failed(first[1], note="late", due_ms=clock(), now_ms=clock())
    assert await publications.claim("file", now_ms=clock(), lease_ms=1) is None
    await publications.done(second[1], note="kept", prepared=None, now_ms=clock())
    await publications.failed(second[1], note="late", due_ms=clock(), now_ms=clock())
    assert await states(stores, [seal]) == [("done", 2, "kept")]


async def test_one_that_does_not_answer_is_given_up_for_this_time(stores: AllStores) -> None:
    (seal,) = await sealed_days(stores, days=1)

    async def hangs(_seal: Seal) -> Published:
        await trio.sleep_forever()
        raise AssertionError

    await publisher(stores, Clock()).publish_due("webhook", hangs)
    assert await states(stores, [seal]) == [("due", 1, "no answer within 1 s")]


async def test_as_it_runs_it_publishes_at_all_targets_that_are_set(stores: AllStores, tmp_path: Path) -> None:
    (seal,) = await sealed_days(stores, days=1)
    path = tmp_path / "roots.jsonl"
    worker = publisher(stores, Clock(), file=str(path), evm=PublishEvmSettings(to="0x" + "11" * 20))
    await _until(worker.run, lambda: _all_done(stores, seal, 2))
    assert path.read_text() == statement_text(seal).decode() + "\n"
    evm, _ = await stores.publications.of_seal(seal.seal_no)
    assert evm.prepared is not None


async def _all_done(stores: AllStores, seal: Seal, many: int) -> bool:
    found = await stores.publications.of_seal(seal.seal_no)
    return len(found) == many and all(each.state == "done" for each in found)


async def _until(run: Callable[[], Awaitable[None]], holds: Callable[[], Awaitable[bool]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(10):
            while not await holds():  # noqa: ASYNC110 - the store must be asked
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


def test_waits_grow_to_an_hour_and_no_further() -> None:
    assert [retry_ms(attempts) for attempts in (1, 2, 3)] == [5_000, 10_000, 20_000]
    assert retry_ms(1_000_000) == RETRY_MS_MAX == 3_600_000
