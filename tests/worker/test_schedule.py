"""The schedule on real PostgreSQL: each due time runs once, whatever dies, stops or is set back meanwhile."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from engine.core.ports import StoreUnavailableError
from engine.core.schedule import plan
from storage.open import AllStores
from storage.pool import Postgres
from storage.settings import DatabaseSettings
from tests.conftest import as_owner
from tests.worker.fakes import Failing, Killed
from tests.worker.schedules import TABLES, recording, scheduler
from worker.cron import due_times
from worker.schedule import LEASE_MS, Job, Later

MINUTE, DAY = 60_000, 86_400_000
T0 = 1_790_000_000_000 // DAY * DAY
TOP = Path(__file__).parents[2]


class World:
    """A database with the jobs' traces, and the clock of its workers."""

    def __init__(self, stores: AllStores, db: Postgres) -> None:
        self.stores, self.db = stores, db
        self.now_ms = T0

    def clock(self) -> int:
        return self.now_ms

    def job(self, name: str = "j", cron: str = "* * * * *", catch_up: str = "every", **options) -> Job:
        return Job(name, cron, catch_up, recording(self.db, name, worker="w", **options))

    def scheduler(self, *jobs: Job, **options):
        return scheduler(self.stores, *jobs, now_ms=self.clock, **options)

    async def rows(self, statement: str) -> list[tuple]:
        return [tuple(record) for record in await self.db.run(_fetch, statement)]

    async def recorded(self, job: str = "j") -> list[int]:
        found = await self.rows(f"select due_ms from recorded where job = '{job}' order by due_ms")
        return [due_ms for (due_ms,) in found]

    async def begun(self, job: str = "j") -> list[int]:
        found = await self.rows(f"select due_ms from begun where job = '{job}' order by due_ms")
        return [due_ms for (due_ms,) in found]

    async def done(self, job: str = "j") -> list[int]:
        found = await self.rows(
            f"select due_ms from schedule_run where state = 'done' and job = '{job}' order by due_ms"
        )
        return [due_ms for (due_ms,) in found]


async def _fetch(connection, statement: str):
    return await connection.fetch(statement)


async def _execute(connection, statement: str) -> None:
    await connection.execute(statement)


@pytest.fixture
async def here(stores: AllStores, postgres_url: str):
    db = Postgres(DatabaseSettings(url=as_owner(postgres_url)))
    await db.open()
    await db.run(_execute, TABLES)
    yield World(stores, db)
    with trio.CancelScope(shield=True):
        await db.close()


def minutes(first: int, last: int) -> list[int]:
    return [T0 + minute * MINUTE for minute in range(first, last + 1)]


async def test_a_job_runs_when_it_is_due_and_not_again(here: World):
    worker = here.scheduler(here.job())
    for now_ms in (T0, T0 + MINUTE - 1, T0 + MINUTE, T0 + MINUTE + 1, T0 + 2 * MINUTE):
        here.now_ms = now_ms
        await worker.run_once()
    assert await here.begun() == await here.recorded() == minutes(1, 2)
    assert worker.statistics().done_total == {"j": 2}


async def test_an_outage_of_three_days_is_caught_up_late_whole_or_by_the_newest(here: World):
    jobs = (here.job("reports", "0 6 * * *"), here.job("prunes", "*/5 * * * *", "newest"))
    worker = here.scheduler(*jobs)
    await worker.run_once()
    here.now_ms = T0 + 3 * DAY + 7 * 60 * MINUTE + 2
    for _ in range(3):
        await worker.run_once()
    six = 6 * 60 * MINUTE
    assert await here.begun("reports") == [T0 + day * DAY + six for day in range(4)]
    assert await here.begun("prunes") == [T0 + 3 * DAY + 7 * 60 * MINUTE]
    assert worker.statistics().lag_seconds == 0
    here.now_ms += 5 * MINUTE
    await worker.run_once()
    assert len(await here.begun("prunes")) == 2


async def test_two_workers_share_the_runs_and_none_runs_twice(here: World):
    here.now_ms = T0
    jobs = [here.job(f"j{number}", takes_s=0.002) for number in range(3)]
    workers = [here.scheduler(*jobs, worker=name) for name in "ab"]
    await workers[0].run_once()
    here.now_ms = T0 + 20 * MINUTE
    for _ in range(12):
        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(worker.run_once)
    for number in range(3):
        assert await here.begun(f"j{number}") == await here.done(f"j{number}") == minutes(1, 20)
    assert all(sum(worker.statistics().done_total.values()) for worker in workers), "both took part"


async def test_a_job_that_fails_is_tried_again_later_and_holds_up_nobody(here: World):
    failing = [True]

    def fail(where: str, due_ms: int) -> None:
        if failing and where == "begun":
            raise ValueError("boom")

    worker = here.scheduler(here.job("bad", hook=fail), here.job("good"))
    await worker.run_once()
    here.now_ms = T0 + MINUTE
    await worker.run_once()
    await worker.run_once()
    assert await here.begun("bad") == minutes(1, 1)
    assert await here.recorded("good") == minutes(1, 1)
    (line,) = [line for line in await here.stores.schedule.lines(now_ms=here.now_ms) if line.job == "bad"]
    assert (line.outcome, line.note) == ("failed", "ValueError: boom")
    assert [job for _, job in worker.crashes] == ["bad"]
    failing.clear()
    here.now_ms += 30_000
    await worker.run_once()
    assert await here.recorded("bad") == minutes(1, 1)


async def test_a_job_that_must_wait_says_until_when(here: World):
    answers = [Later(T0 + 10 * MINUTE, "not sealed yet")]

    def wait(where: str, due_ms: int):
        return answers.pop() if answers and where == "begun" else None

    worker = here.scheduler(here.job(cron="1 0 * * *", hook=wait))
    await worker.run_once()
    for minute, expected in ((1, []), (9, []), (10, minutes(1, 1))):
        here.now_ms = T0 + minute * MINUTE
        await worker.run_once()
        assert await here.recorded() == expected
    statistics = worker.statistics()
    assert (statistics.waited_total, statistics.failed_total) == ({"j": 1}, {"j": 0})


async def test_a_worker_that_slept_between_looking_and_planning_plans_nothing_again(here: World):
    worker = here.scheduler(here.job())
    await worker.run_once()
    here.now_ms = T0 + MINUTE
    (seen,) = await here.stores.schedule.jobs()
    planned = plan(seen, due_times("* * * * *"), here.now_ms)
    for minute in (1, 2):
        here.now_ms = T0 + minute * MINUTE
        await worker.run_once()
    # Its run is long forgotten: nothing but the job itself can tell that it has been.
    await here.stores.schedule.prune(now_ms=here.now_ms + DAY, kept_ms=0, limit=10)
    assert await here.done() == minutes(2, 2)
    assert not await here.stores.schedule.advance(seen, planned)
    await worker.run_once()
    assert await here.begun() == minutes(1, 2)
    (now,) = await here.stores.schedule.jobs()
    assert now.next_ms == T0 + 3 * MINUTE


async def test_who_lost_the_lease_can_neither_finish_nor_put_back(here: World):
    await here.scheduler(here.job()).run_once()
    here.now_ms = T0 + MINUTE
    await here.scheduler()._plan()
    worker = here.scheduler(here.job())
    await worker._plan()
    port = here.stores.schedule
    lease = {"limit": 1, "lease_ms": 1_000}
    (first,) = await port.claim(["j"], now_ms=here.now_ms, worker="a", **lease)
    assert await port.claim(["j"], now_ms=here.now_ms + 999, worker="b", **lease) == []
    (second,) = await port.claim(["j"], now_ms=here.now_ms + 1_000, worker="b", **lease)
    assert not await port.renew(first, now_ms=here.now_ms, lease_ms=1_000)
    assert not await port.finish(first, now_ms=here.now_ms, note="mine")
    assert not await port.put_back(first, now_ms=here.now_ms, free_ms=0, note="mine", failed=True)
    assert await port.finish(second, now_ms=here.now_ms, note="")
    assert not await port.finish(second, now_ms=here.now_ms, note=""), "once"


async def test_a_long_run_keeps_its_lease_and_a_stopped_worker_gives_it_back(here: World):
    async def clocked(worker) -> None:
        await worker.run()

    begun = trio.Event()
    job = here.job(takes_s=30, hook=lambda where, due_ms: begun.set())
    await here.scheduler(job).run_once()
    here.now_ms = T0 + MINUTE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clocked, here.scheduler(job, lease_ms=2_000, renew_s=0.02))
        with trio.fail_after(5):
            await begun.wait()
        for _ in range(8):  # 12 seconds in which the lease would have ended six times
            here.now_ms += 1_500
            with trio.fail_after(5):
                wanted = [(here.now_ms + 2_000,)]
                while await here.rows("select free_ms from schedule_run") != wanted:  # noqa: ASYNC110 - a table
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert await here.recorded() == []
    await here.scheduler(here.job()).run_once()
    assert await here.recorded() == minutes(1, 1), "at once, not after the lease"


async def test_a_worker_that_is_killed_in_the_middle_of_a_job_loses_it_to_another(
    here: World, postgres_url: str, valkey_url: str
):
    await here.scheduler(Job("slow", "* * * * *", "every", here.job("slow").run)).run_once()
    due_ms = T0 + MINUTE

    def start(name: str, takes_s: str) -> subprocess.Popen:
        arguments = [as_owner(postgres_url), valkey_url, name, str(due_ms), takes_s, "1000"]
        return subprocess.Popen([sys.executable, "-m", "tests.worker.schedules", *arguments], cwd=TOP)

    async def until(statement: str, expected: list[tuple]) -> None:
        with trio.fail_after(20):
            while await here.rows(statement) != expected:  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)

    processes = []
    try:
        processes.append(start("first", "60"))
        await until("select worker from begun", [("first",)])
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        processes.append(start("second", "0"))
        await until("select worker, due_ms from recorded", [("second", due_ms)])
        await until("select state from schedule_run", [("done",)])
        assert await here.rows("select worker, due_ms from begun") == [("first", due_ms), ("second", due_ms)]
    finally:
        for process in processes:
            process.kill()
            process.wait()


SEEDS = range(12)


async def test_whatever_dies_and_whatever_clocks_say_each_due_time_is_done_once(here: World):
    for seed in SEEDS:
        await here.db.run(_execute, "truncate schedule_run, schedule_job, begun, recorded")
        await _one_world(here, random.Random(seed), seed)


async def _one_world(here: World, chance: random.Random, seed: int) -> None:
    here.now_ms = T0
    await here.scheduler(here.job("every"), here.job("newest", catch_up="newest")).run_once()
    latest, crashes = T0, 0
    for _ in range(chance.randint(6, 16)):
        here.now_ms = max(T0 - 5 * MINUTE, here.now_ms + chance.choice((-3, 0, 1, 1, 2, 7)) * MINUTE // 2)
        latest = max(latest, here.now_ms)
        crashes += await _live_and_maybe_die(here, chance)
    here.now_ms = latest + LEASE_MS + MINUTE
    expected = [T0 + minute * MINUTE for minute in range(1, (here.now_ms - T0) // MINUTE + 1)]
    quiet = here.scheduler(here.job("every"), here.job("newest", catch_up="newest"))
    while sorted(await here.done("every")) != expected:
        await quiet.run_once()
    await quiet.run_once()  # the newest is planned after what was in hand of it is done
    assert await here.recorded("every") == expected, seed
    newest = await here.done("newest")
    assert newest == await here.recorded("newest"), seed
    assert newest[-1] == expected[-1], seed
    repeated = len(await here.begun("every")) - len(expected)
    assert repeated <= crashes * 4, f"seed {seed}: only what a crash cut short is begun again"


async def _live_and_maybe_die(here: World, chance: random.Random) -> int:
    """One look of one or two workers, which may be killed anywhere, or find the store away; how many were."""
    fate = chance.choice(("lives", "dies", "dies", "away"))
    error = {"dies": Killed("9"), "away": StoreUnavailableError("away")}.get(fate)
    port = Failing(
        here.stores.schedule, at=chance.randint(1, 8), after=chance.random() < 0.5, count=[0], error=error
    )

    def die(where: str, due_ms: int) -> None:
        if fate == "dies" and chance.random() < 0.2:
            raise Killed("9")

    jobs = here.job("every", hook=die), here.job("newest", catch_up="newest", hook=die)
    workers = [here.scheduler(*jobs) for _ in range(chance.randint(1, 2))]
    workers[0]._schedule = port
    ends = 0

    async def live(worker) -> None:
        nonlocal ends
        try:
            await worker.run_once()
        except* (Killed, StoreUnavailableError):
            ends += 1

    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(live, worker)
    return ends


@pytest.mark.parametrize("expression", ["", "x", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *"])
def test_what_is_no_cron_expression_is_refused_at_the_start(expression):
    with pytest.raises(ValueError, match=r"cron expression|never comes"):
        due_times(expression)


def test_due_times_are_in_utc_and_the_moment_itself_has_come():
    due = due_times("0 6 * * 1")  # Mondays
    monday = 1_789_970_400_000  # 2026-09-21 06:00 UTC
    assert due.after(monday - 1) == due.until(monday) == due.until(monday + 1) == monday
    assert due.after(monday) == monday + 7 * DAY
    assert due.until(monday - 1) == monday - 7 * DAY
