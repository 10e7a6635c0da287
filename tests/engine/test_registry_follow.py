"""Following the registry: the first load, changes in their order, and what happens while Postgres is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine import snapshot
from engine.core.keys import MasterSecrets
from engine.core.ports import NewNode, StoreUnavailableError
from engine.core.records import Window
from engine.journal_blocks import Kind, read
from engine.registry_follow import RegistryBlock, RegistryFollower
from engine.rows import apply_spec
from engine.settings import FlushSettings
from np1.codec import Code
from storage.memory import MemoryWorld, memory_stores_of
from tests.engine.rows_world import FAR, SECRETS, T0, frame, spec
from tests.engine.shard_world import Bench, snapshot_of


class Following:
    """A bench that follows a registry in memory."""

    def __init__(self, directory: Path) -> None:
        self.world = MemoryWorld(now_ms=lambda: T0)
        self.stores = memory_stores_of(self.world)
        self.appended = 0
        self.away: list[bool] = []
        self.unknown: list[int] = []
        self.sessions: dict[int, Any] = {}
        self.revive(directory)

    def revive(self, directory: Path) -> None:
        """The shard (again), as its folder has it."""
        self.bench = bench = Bench(directory)
        self.follower = RegistryFollower(
            self.stores.registry,
            bench.table,
            bench.windows,
            bench.journal,
            SECRETS,
            FlushSettings(registry_poll_ms=250),
            position=bench.recovered.registry_position,
            now_ms=lambda: bench.now_ms,
            appended=self._appended,
            away=self.away.append,
            unknown_secret=self.unknown.append,
        )

    def _appended(self) -> None:
        self.appended += 1
        self.bench.commit()

    async def add(self, count: int = 1, *, workloads: int = 2) -> None:
        project = await self.stores.directory.create_project("p", now_ms=T0)
        new = NewNode(project.project_id, "n", "node", None, 60_000, ("w",) * workloads)
        for node in await self.stores.directory.create_nodes([new] * count, now_ms=T0):
            await self.open(node.row)

    async def open(self, row: int, *, secret_id: int = 1) -> None:
        _, session, _ = await self.stores.directory.open_session(
            self.world.rows[row],
            nonce=f"{row} {len(self.world.nonces)}",
            nonce_expires_ms=FAR,
            rate_per_min=1_000,
            now_ms=T0,
            life_ms=86_400_000,
            secret_id=secret_id,
        )
        self.sessions[row] = session

    def frame(self, row: int, at_ms: int = T0, **values: Any) -> bytes:
        session = self.sessions[row]
        with_key = SECRETS.session_key(secret_id=1, row=row, generation=session.generation, salt=session.salt)
        return frame(row, at_ms, generation=session.generation, with_key=with_key, **values)

    def beat(self, row: int, at_ms: int = T0, **values: Any) -> int:
        self.bench.replies.clear()
        self.bench.send(self.frame(row, at_ms, **values), at_ms=at_ms)
        self.bench.commit()
        return self.bench.codes()[0]

    def blocks(self) -> list[RegistryBlock]:
        kinds = frozenset({Kind.REGISTRY})
        found = read(self.bench.directory, 0, kinds=kinds)
        return [msgspec.msgpack.decode(block.payload, type=RegistryBlock) for block in found]


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def following(tmp_path: Path) -> Following:
    return Following(tmp_path)


async def test_a_first_load_brings_every_row_and_the_position_it_was_read_at(following: Following):
    await following.add(3)
    assert not following.follower.loaded
    await following.follower.load(seq_floor_ms=T0 - 1)
    assert following.follower.loaded
    assert following.follower.position == 3
    assert [following.beat(row) for row in range(3)] == [Code.OK] * 3
    assert [block.position for block in following.blocks()] == [0, 3]


async def test_on_a_fresh_journal_no_seq_from_before_the_shards_start_is_taken(following: Following):
    await following.add()
    await following.follower.load(seq_floor_ms=T0)
    assert following.beat(0, T0 - 1) == Code.STALE
    assert following.beat(0, T0) == Code.STALE, "it must lie after the start"
    assert following.beat(0, T0, counter=1) == Code.OK


async def test_a_session_opened_after_the_start_has_no_floor(following: Following):
    await following.add()
    await following.follower.load(seq_floor_ms=T0)
    await following.open(0)
    await following.follower.catch_up()
    assert following.beat(0, T0 - 80_000) == Code.OK


async def test_changes_are_journaled_applied_and_told_to_the_committer(following: Following):
    await following.add(2)
    await following.follower.load(seq_floor_ms=0)
    before = following.appended
    await following.stores.directory.revoke_node(following.world.rows[1], now_ms=T0)
    assert following.beat(1) == Code.OK, "not known yet"
    await following.follower.catch_up()
    assert following.appended == before + 1
    assert following.follower.position == 3
    assert following.beat(1, T0 + 1_000) == -1
    assert following.beat(0) == Code.OK
    assert [spec.row for spec in following.blocks()[-1].specs] == [1]


async def test_without_changes_nothing_is_written(following: Following):
    await following.add()
    await following.follower.load(seq_floor_ms=0)
    before = following.appended
    for _ in range(5):
        await following.follower.catch_up()
    assert following.appended == before


async def test_changes_of_other_shards_move_the_position_only(tmp_path: Path):
    following = Following(tmp_path)
    following.bench.table.shards = 2
    await following.add(4)
    await following.follower.load(seq_floor_ms=0)
    await following.open(1)
    await following.follower.catch_up()
    assert following.follower.position == 5
    assert following.bench.table.rows == 2
    assert len(following.blocks()) == 2


async def test_many_changes_are_caught_up_in_pages(following: Following):
    await following.add(3)
    await following.follower.load(seq_floor_ms=0)
    following.world.changed_rows += [0, 1, 2] * 1_000
    await following.follower.catch_up()
    assert following.follower.position == 3_003
    assert len(following.blocks()) == 2 + 3


async def test_after_a_restart_it_goes_on_at_the_position_of_the_journal(
    following: Following, tmp_path: Path
):
    await following.add(2)
    await following.follower.load(seq_floor_ms=0)
    assert following.beat(0, T0, counter=5) == Code.OK
    following.revive(tmp_path)
    assert following.follower.loaded
    assert following.follower.position == 2
    assert following.beat(0, T0, counter=5) == Code.STALE, "sessions and seqs are known without Postgres"
    await following.open(1)
    await following.follower.catch_up()
    assert following.follower.position == 3
    assert following.beat(1) == Code.OK


async def test_a_load_that_breaks_off_is_begun_again_and_forgets_no_seq(following: Following):
    await following.add(2)
    feed: Any = following.stores.registry
    inner = feed.load

    async def broken(**_shard: int) -> Any:
        yield [following.world.spec(0)]
        raise StoreUnavailableError("gone")

    feed.load = broken
    with pytest.raises(StoreUnavailableError):
        await following.follower.load(seq_floor_ms=0)
    assert not following.follower.loaded
    assert following.beat(0, T0, counter=5) == Code.OK
    feed.load = inner
    await following.follower.load(seq_floor_ms=T0 + 50_000)
    assert following.beat(0, T0, counter=5) == Code.STALE
    assert following.beat(0, T0, counter=6) == Code.EARLY, "the floor is not for what is known already"


async def test_away_and_back_are_told_once_each_and_nothing_is_missed(
    following: Following, autojump_clock: MockClock
):
    await following.add(2)
    await following.follower.load(seq_floor_ms=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.follower.run)
        await trio.sleep(1)
        following.world.postgres_away = True
        await trio.sleep(10)
        assert following.follower.statistics().away
        assert following.beat(0) == Code.OK, "beats go on"
        following.world.postgres_away = False
        await following.open(1)
        await trio.sleep(1.5)
        assert following.follower.position == 3
        assert following.beat(1) == Code.OK
        nursery.cancel_scope.cancel()
    assert following.away == [True, False]


async def test_a_session_that_expires_while_the_registry_is_away_is_honoured_until_it_is_back(
    following: Following, tmp_path: Path
):
    day_ms = 86_400_000
    await following.add(2)
    await following.follower.load(seq_floor_ms=0)
    newer = following.sessions[0]
    await following.open(0)
    await following.follower.catch_up()
    older, following.sessions[0] = newer, following.sessions[0]
    following.follower.set_away(away=True)
    assert following.beat(0, T0 + 2 * day_ms) == Code.REKEY
    snapshot.write(tmp_path, snapshot_of(following.bench))
    following.revive(tmp_path)
    following.follower.set_away(away=True)
    assert following.beat(0, T0 + 2 * day_ms + 60_000) == Code.REKEY
    following.sessions[0], newer = older, following.sessions[0]
    assert following.beat(0, T0 + 2 * day_ms + 60_001) == -1, (
        "the overlap of an older one is over all the same"
    )
    following.sessions[0] = newer
    following.follower.set_away(away=False)
    assert following.beat(0, T0 + 2 * day_ms + 120_000) == -1
    assert following.beat(1, T0 + day_ms - 1) == Code.REKEY, "its last millisecond"
    following.follower.set_away(away=True)
    snapshot.write(tmp_path, snapshot_of(following.bench))
    following.revive(tmp_path)
    assert following.beat(1, T0 + day_ms + 1) == -1, "the registry is there"


async def test_a_hint_brings_a_change_at_once_and_without_one_it_is_there_within_the_poll(
    following: Following, autojump_clock: MockClock
):
    await following.add()
    await following.follower.load(seq_floor_ms=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.follower.run)
        await trio.sleep(1)
        await following.open(0)
        await trio.sleep(0.001)
        assert following.follower.position == 2
        following.world.changed_rows.append(0)  # committed, and nobody told
        await trio.sleep(0.26)
        assert following.follower.position == 3
        nursery.cancel_scope.cancel()


async def test_sessions_of_an_unknown_secret_are_not_taken_told_once_and_everything_else_goes_on(
    following: Following, tmp_path: Path
):
    await following.add(3)
    await following.follower.load(seq_floor_ms=0)
    known = following.sessions[1]
    for row in (0, 1):
        await following.open(row, secret_id=9)
    await following.follower.catch_up()
    assert following.unknown == [9]
    assert following.follower.statistics().unknown_secrets == {9: 2}
    assert following.beat(0) == -1
    assert following.beat(2) == Code.OK
    following.sessions[1] = known
    assert following.beat(1) == Code.OK, "the previous session goes on"
    assert following.bench.intake.statistics().rejected == {"generation": 1}
    following.revive(tmp_path)
    assert following.bench.table.row.last_t_ms[:3].tolist() == [0, T0, T0]
    assert following.unknown == [9]
    await following.follower.catch_up()
    assert following.unknown == [9, 9], "each life tells it once, also of what its journal brought"


def test_a_session_whose_secret_was_missing_for_a_while_takes_no_seq_twice(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.learn(spec(0))
    bench.beats([0], T0)
    without = MasterSecrets(secrets={2: b"x" * 32})
    apply_spec(bench.table, spec(0), without)
    bench.beats([0], T0)
    apply_spec(bench.table, spec(0), SECRETS)
    bench.beats([0], T0)
    assert bench.codes() == [Code.OK, -1, Code.STALE]


async def test_windows_come_with_the_spec_of_their_row(following: Following):
    await following.add()
    await following.follower.load(seq_floor_ms=0)
    node_id = following.world.rows[0]
    window = await following.stores.directory.open_window(
        node_id, None, from_ms=T0 + 5, to_ms=T0 + 60_005, own=True, now_ms=T0
    )
    await following.follower.catch_up()
    assert following.bench.windows.held() == {0: [window]}
    assert isinstance(window, Window)


async def test_a_workload_added_or_retired_is_answered_resync_until_the_session_is_opened_anew(
    following: Following,
):
    await following.add()
    await following.follower.load(seq_floor_ms=0)
    assert following.beat(0) == Code.OK
    await following.stores.directory.add_workload(following.world.rows[0], name="w3", now_ms=T0)
    await following.follower.catch_up()
    assert following.beat(0, T0 + 60_000) == Code.RESYNC
    await following.open(0)
    await following.follower.catch_up()
    assert following.beat(0, T0 + 120_000, plane0=0b111) == Code.OK


async def test_statistics_tell_the_position_and_the_rows_applied(following: Following):
    await following.add(3)
    await following.follower.load(seq_floor_ms=0)
    figures = following.follower.statistics()
    assert (figures.position, figures.applied_rows, figures.away, figures.loaded) == (3, 3, False, True)
