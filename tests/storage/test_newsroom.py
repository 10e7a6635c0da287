"""The notifier's steps over a real PostgreSQL: people's settings, large digests, two at once, a kill."""

from __future__ import annotations

import itertools
from functools import partial

import asyncpg
import msgspec
import pytest
import trio

from engine.core.newsroom import Policy
from engine.core.ports import NewNode
from engine.core.records import Event, event_id
from storage.bridge import await_host
from storage.ids import new_id
from storage.newsroom_writing import write
from storage.postgres_newsroom import PostgresNewsroom
from tests.contract.given import NOW, batch
from worker.deciding.step import step

MINUTE, DAY = 60_000, 24 * 3_600_000
AT_ONCE = Policy(project_delay_ms=0)


class World:
    """A project with nodes of Ann's, and ways to let things happen to them and see what is told."""

    def __init__(self, stores, url: str) -> None:
        self.stores, self.url, self.positions = stores, url, itertools.count(1)

    async def sql(self, method: str, *args):
        connection = await await_host(asyncpg.connect, self.url)
        try:
            return await await_host(getattr(connection, method), *args)
        finally:
            await await_host(connection.close)

    async def open(self) -> World:
        project = await self.stores.directory.create_project("acme", now_ms=NOW)
        self.project_id, self.ann, self.ops = project.project_id, new_id(), new_id()
        for user, name in ((self.ann, "ann"), (self.ops, "ops")):
            await self.sql(
                "execute",
                "insert into account (user_id, name, email, admin, created_ms) values ($1, $2, $3, $4, 1)",
                user,
                name,
                f"{name}@example.org",
                name == "ops",
            )
        return self

    async def nodes(self, count: int, *, region: str = "") -> list[str]:
        new = [
            NewNode(self.project_id, f"n{number}", "node", None, 60_000, (), owner_id=self.ann, region=region)
            for number in range(count)
        ]
        return [node.node_id for node in await self.stores.directory.create_nodes(new, now_ms=NOW)]

    async def channel(self, *, user: str | None = None, kinds: tuple[str, ...] = ()) -> str:
        channel_id = new_id()
        await self.sql(
            "execute",
            """
            insert into channel (channel_id, project_id, user_id, kind, target, event_kinds, created_ms)
            values ($1, $2, $3, 'mail', 'a@example.org', $4, 1)
            """,
            channel_id,
            None if user else self.project_id,
            user,
            list(kinds),
        )
        return channel_id

    def event(self, kind: str, node: str | None, at_ms: int, *, shard: int = 0) -> Event:
        return Event(
            event_id=event_id(kind, node or "", at_ms),
            kind=kind,
            shard=shard,
            project_id=self.project_id if node else None,
            node_id=node,
            workload_id=None,
            since_ms=at_ms,
            at_ms=at_ms,
        )

    async def happen(self, *events: Event) -> None:
        await self.stores.history.flush(
            msgspec.structs.replace(batch(events=events), position=next(self.positions))
        )

    async def decide(self, now_ms: int, *, policy: Policy = AT_ONCE, limit: int = 500, newsroom=None) -> None:
        """Steps until nothing is to be done now."""
        newsroom = newsroom or self.stores.newsroom
        for _ in range(200):
            decided = await newsroom.decide(step, policy=policy, now_ms=now_ms, limit=limit)
            due = decided.next_due_ms is not None and decided.next_due_ms <= now_ms
            if not (decided.more or due):
                return
        pytest.fail("the notifier never rests")

    async def told(self) -> list[tuple[str, str, str, int]]:
        """(channel, form, kind, count), in order of their making."""
        records = await self.sql(
            "fetch",
            """
            select channel_id::text, n.form, n.kind,
              (convert_from(n.body, 'UTF8')::json ->> 'count')::int
            from delivery join notice n using (notice_id) order by n.created_ms, 1, 3
            """,
        )
        return [tuple(record) for record in records]


@pytest.fixture
async def world(stores, postgres_url):
    return await World(stores, postgres_url).open()


async def test_people_are_told_of_their_nodes_by_their_own_settings(world):
    hook, mine = await world.channel(), await world.channel(user=world.ann)
    await world.sql(
        "execute",
        """
        insert into notification_setting (user_id, down_delay_s, quiet_from, quiet_to, time_zone)
        values ($1, 60, $2, $3, 'UTC')
        """,
        world.ann,
        "00:00",
        "00:00",
    )
    (node,) = await world.nodes(1)
    await world.happen(world.event("node.down", node, NOW))
    await world.decide(NOW + 1_000)
    assert await world.told() == [(hook, "event", "node.down", 1)]
    await world.decide(NOW + 61_000)
    assert (await world.told())[1:] == [(mine, "event", "node.down", 1)]
    await world.happen(world.event("node.up", node, NOW + 2 * MINUTE))
    await world.decide(NOW + 10 * MINUTE)
    assert sorted((await world.told())[2:]) == sorted((each, "event", "node.up", 1) for each in (hook, mine))


async def test_a_digest_larger_than_a_step_is_one_message_and_all_of_it_is_told(world):
    hook = await world.channel()
    nodes = await world.nodes(130)
    await world.happen(*[world.event("node.down", node, NOW + number) for number, node in enumerate(nodes)])
    await world.decide(NOW + MINUTE, limit=20)
    assert await world.told() == [(hook, "digest", "node.down", 130)]
    assert (await world.stores.newsroom.waiting()).held == 0
    await world.decide(NOW + MINUTE + DAY, limit=20)
    assert (await world.told())[1:] == [(hook, "reminder", "node.down", 130)]
    assert await world.sql("fetchval", "select count(*) from news_telling") == 0
    await world.happen(*[world.event("node.up", node, NOW + 2 * DAY) for node in nodes])
    await world.decide(NOW + 2 * DAY + MINUTE, limit=20)
    assert (await world.told())[-1] == (hook, "digest", "node.up", 130)
    assert await world.sql("fetchval", "select count(*) from news_item") == 0


async def test_falls_gather_and_who_is_back_is_left_out(world):
    hook = await world.channel()
    a, b, c = await world.nodes(3)
    policy = Policy(project_delay_ms=5 * MINUTE)
    story = [("node.down", a, 0), ("node.down", b, 2), ("node.down", c, 4), ("node.up", b, 6)]
    for kind, node, minute in story:
        await world.happen(world.event(kind, node, NOW + minute * MINUTE))
        await world.decide(NOW + minute * MINUTE, policy=policy)
    await world.decide(NOW + 8 * MINUTE, policy=policy)
    assert await world.told() == []
    await world.decide(NOW + 9 * MINUTE, policy=policy)
    assert await world.told() == [(hook, "digest", "node.down", 2)]


async def test_news_of_one_kind_is_one_notice_at_once_and_one_digest_each_gathering_time(world):
    hook = await world.channel()
    (node,) = await world.nodes(1)
    for number in range(21):
        at_ms = NOW + number * MINUTE
        await world.happen(world.event("node.clone", node, at_ms))
        await world.decide(at_ms + 1_000)
    await world.decide(NOW + 60 * MINUTE)
    told = await world.told()
    assert [count for *_, count in told] == [1, 5, 5, 5, 5]
    assert {(channel, kind) for channel, _, kind, _ in told} == {(hook, "node.clone")}
    assert await world.sql("fetchval", "select count(*) from news_subject") == 0


async def test_a_licence_that_is_fought_over_is_told_of_a_few_times_and_then_again_when_it_is_over(world):
    hook = await world.channel()
    nodes = await world.nodes(2)
    for number in range(30):
        at_ms = NOW + number * 2_000
        conflict = world.event("licence.conflict", nodes[number % 2], at_ms)
        await world.happen(msgspec.structs.replace(conflict, detail="licence 7 is held by workload x"))
        await world.decide(at_ms + 1_000)
    for minute in (10, 31, 32, 40):
        await world.decide(NOW + minute * MINUTE)
    told = [(kind, count) for channel, _, kind, count in await world.told() if channel == hook]
    assert told == [
        ("licence.conflict", 1),
        ("licence.flapping", 1),
        ("licence.conflict", 4),
        ("licence.steady", 1),
    ]
    events = await world.stores.history.events(project_id=world.project_id, after=0, limit=100)
    assert [event.kind for _, event in events].count("licence.conflict") == 30
    assert await world.sql("fetchval", "select count(*) from news_item") == 0


async def test_what_is_believed_of_nodes_that_are_gone_is_forgotten(world):
    hook, gone = await world.channel(), await world.channel()
    nodes = await world.nodes(3)
    await world.happen(*[world.event("node.down", node, NOW) for node in nodes])
    await world.happen(world.event("shard.degraded", None, NOW + 1))
    await world.decide(NOW + 1_000)
    await world.sql("execute", "update news_item set lane = null, held_ms = null, due_ms = null")
    assert await world.stores.newsroom.prune(now_ms=NOW, limit=10) == 0
    await world.sql("execute", "update node set retired_ms = 1 where node_id = $1", nodes[0])
    await world.sql("execute", "update channel set removed_ms = 1 where channel_id = $1", gone)
    assert await world.stores.newsroom.prune(now_ms=NOW, limit=3) == 3
    assert await world.stores.newsroom.prune(now_ms=NOW, limit=3) == 1
    left = await world.sql("fetch", "select subject, channel_id::text from news_item")
    assert {tuple(row) for row in left} >= {(node, hook) for node in nodes[1:]}
    assert nodes[0] not in {row["subject"] for row in left}


async def test_what_flaps_is_recorded_once_and_told_once(world):
    hook = await world.channel()
    (node,) = await world.nodes(1)
    for number in range(9):
        kind = "node.up" if number % 2 else "node.down"
        await world.happen(world.event(kind, node, NOW + number * MINUTE))
        await world.decide(NOW + number * MINUTE + 1_000)
    assert (await world.stores.newsroom.waiting()).flapping == 1
    await world.decide(NOW + 40 * MINUTE)
    await world.decide(NOW + 41 * MINUTE)
    told = [kind for _, _, kind, _ in await world.told()]
    assert told == [
        "node.down",
        "node.up",
        "node.down",
        "node.up",
        "node.down",
        "node.flapping",
        "node.steady",
    ]
    events = await world.stores.history.events(project_id=world.project_id, after=0, limit=100)
    mine = [event.kind for _, event in events if event.kind not in ("node.down", "node.up")]
    assert mine == ["node.flapping", "node.steady"]
    assert (await world.stores.newsroom.waiting()).flapping == 0
    assert {channel for channel, *_ in await world.told()} == {hook}


async def test_operators_hear_of_a_region_that_falls_and_of_the_installation(world):
    ops = await world.channel(user=world.ops)
    nodes = await world.nodes(30, region="eu")
    await world.happen(
        *[world.event("node.down", node, NOW) for node in nodes], world.event("gap.opened", None, NOW)
    )
    await world.decide(NOW + 1_000)
    told = await world.told()
    assert [(channel, form, count) for channel, form, _, count in told] == [
        (ops, "digest", 3)
    ]  # and one ingress
    events = await world.stores.history.events(project_id=None, after=0, limit=100)
    (said,) = [event for _, event in events if event.kind == "region.down"]
    assert said.detail == "20 of 30 nodes of region eu fell within two minutes"


async def test_nothing_is_told_in_maintenance_or_of_a_shard_in_doubt(world):
    hook = await world.channel()
    a, b = await world.nodes(2)
    await world.sql(
        "execute",
        """
        insert into maintenance_window (window_id, node_id, from_ms, to_ms, own, created_ms)
        values ($1, $2, $3, $4, true, 1)
        """,
        new_id(),
        a,
        NOW - MINUTE,
        NOW + 10 * MINUTE,
    )
    await world.happen(world.event("shard.degraded", None, NOW, shard=1))
    await world.happen(world.event("node.down", a, NOW), world.event("node.down", b, NOW, shard=1))
    await world.decide(NOW + 5 * MINUTE)
    assert await world.told() == []
    await world.decide(NOW + 11 * MINUTE)
    assert await world.told() == [(hook, "event", "node.down", 1)]
    await world.happen(world.event("shard.recovered", None, NOW + 20 * MINUTE, shard=1))
    await world.decide(NOW + 21 * MINUTE)
    assert len(await world.told()) == 2


async def test_two_notifiers_at_once_tell_everything_once(world, postgres_url):
    hook = await world.channel()
    nodes = await world.nodes(60)
    await world.happen(*[world.event("node.down", node, NOW + number) for number, node in enumerate(nodes)])
    db = world.stores.newsroom._db
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            other = PostgresNewsroom(db)
            nursery.start_soon(partial(world.decide, NOW + MINUTE, limit=7, newsroom=other))
    assert await world.told() == [(hook, "digest", "node.down", 60)]


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("moment", range(1, 9))
async def test_killed_before_a_commit_nothing_of_a_step_remains(world, monkeypatch, moment):
    """The n-th step is lost after it has written everything; the next notifier does it again."""
    hook = await world.channel()
    nodes = await world.nodes(25)
    await world.happen(*[world.event("node.down", node, NOW + number) for number, node in enumerate(nodes)])
    steps = itertools.count(1)

    async def dying(*args):
        await write(*args)
        if next(steps) == moment:
            raise KilledError
        return 1

    monkeypatch.setattr("storage.postgres_newsroom.write", dying)
    with pytest.raises(KilledError):
        await world.decide(NOW + MINUTE, limit=6)
    await world.decide(NOW + MINUTE, limit=6)
    assert await world.told() == [(hook, "digest", "node.down", 25)]
    believed = await world.sql("fetchval", "select count(*) from news_item where lane = 'reminder'")
    assert believed == 25


async def test_a_channel_that_was_removed_is_told_nothing_of_what_it_waited_for(world):
    channel = await world.channel()
    (node,) = await world.nodes(1)
    policy = Policy(project_delay_ms=5 * MINUTE)
    await world.happen(world.event("node.down", node, NOW))
    await world.decide(NOW + 1_000, policy=policy)
    await world.sql(
        "execute", "update channel set disabled_ms = 1, removed_ms = 1 where channel_id = $1", channel
    )
    await world.decide(NOW + 6 * MINUTE, policy=policy)
    assert await world.told() == []
    assert await world.sql("fetchval", "select count(*) from news_item") == 0
