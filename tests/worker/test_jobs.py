"""The worker's own jobs on real PostgreSQL: what expires goes, what is owed to people stays."""

from __future__ import annotations

import pytest

from engine.core.news import Notice
from engine.core.sending import Settled
from storage.open import AllStores
from storage.pool import Postgres
from storage.settings import DatabaseSettings
from worker.cron import due_times
from worker.jobs import prunes
from worker.pruner import PRUNE_ROWS_MAX, pruning
from worker.settings import RetentionSettings

DAY = 86_400_000
NOW = 1_790_000_000_000


@pytest.fixture
async def db(stores: AllStores, postgres_url: str):
    opened = Postgres(DatabaseSettings(url=postgres_url))
    await opened.open()
    yield opened
    await opened.close()


async def _fetch(connection, statement: str, *values: object):
    return await connection.fetch(statement, *values)


async def test_a_job_prunes_portion_by_portion_until_nothing_is_left():
    left, asked = [2 * PRUNE_ROWS_MAX + 1], []

    async def prune(*, now_ms: int, limit: int) -> int:
        asked.append((now_ms, limit))
        gone = min(left[0], limit)
        left[0] -= gone
        return gone

    note = await pruning(prune)(due_ms=NOW - DAY, first_ms=NOW, now_ms=NOW)
    assert note == f"{2 * PRUNE_ROWS_MAX + 1} rows"
    assert asked == [(NOW, PRUNE_ROWS_MAX)] * 4


async def test_what_was_told_long_ago_goes_and_what_is_owed_stays(stores: AllStores, db: Postgres):
    project = await stores.directory.create_project("acme", now_ms=NOW)
    channel = await stores.outbox.add_channel(
        project.project_id, kind="mail", target="a@example.org", secret="", now_ms=NOW
    )
    for name in ("old", "dead", "due", "new"):
        told = Notice(notice_id=name, form="test", kind="test", at_ms=NOW, since_ms=NOW)
        await stores.outbox.put([(told, channel.channel_id)], now_ms=NOW)
    claimed = {each.notice.notice_id: each.delivery_id for each in await claim_all(stores)}
    early = [Settled(claimed["old"], "sent", ""), Settled(claimed["dead"], "dead", "")]
    await stores.sending.settle(early, now_ms=NOW)
    await stores.sending.settle([Settled(claimed["new"], "sent", "")], now_ms=NOW + DAY)
    kept = RetentionSettings(deliveries_days=90)
    (job,) = [job for job in prunes(stores, kept) if job.name == "prune-deliveries"]
    assert await job.run(due_ms=NOW, first_ms=NOW, now_ms=NOW + 90 * DAY) == "0 rows"
    assert await job.run(due_ms=NOW, first_ms=NOW, now_ms=NOW + 90 * DAY + 1) == "4 rows"
    notices = await db.run(_fetch, "select notice_id from notice order by notice_id")
    assert [record["notice_id"] for record in notices] == ["due", "new"]


async def claim_all(stores: AllStores):
    return await stores.sending.claim(kind="mail", limit=10, now_ms=NOW, lease_ms=1_000)


async def test_runs_that_are_done_are_forgotten_but_of_each_job_the_newest(stores: AllStores, db: Postgres):
    await db.run(
        _fetch, "insert into schedule_job values ('j', '* * * * *', 'newest', 0, 1), ('k', '', 'every', 0, 1)"
    )
    await db.run(
        _fetch,
        """
        insert into schedule_run (job, due_ms, state, free_ms, ended_ms)
        values ('j', 1, 'done', 1, 1), ('j', 2, 'done', 2, 2), ('k', 1, 'due', 1, 1), ('k', 2, 'done', 2, 2)
        """,
    )
    (job,) = [job for job in prunes(stores, RetentionSettings()) if job.name == "prune-schedule"]
    assert await job.run(due_ms=0, first_ms=0, now_ms=NOW) == "1 rows"
    left = await db.run(_fetch, "select job, due_ms from schedule_run order by job, due_ms")
    assert [tuple(record) for record in left] == [("j", 2), ("k", 1), ("k", 2)]


async def test_every_prune_runs_on_an_empty_database_and_has_a_cron_expression_that_comes(stores: AllStores):
    jobs = prunes(stores, RetentionSettings())
    assert len({job.name for job in jobs}) == len(jobs) > 5
    for job in jobs:
        assert due_times(job.cron).after(NOW) > NOW
        assert await job.run(due_ms=NOW, first_ms=NOW, now_ms=NOW) == "0 rows"
