"""Supervision of stages of servants: restart, giving up, the order of the stop. Servants here are fakes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from nodepulse.supervise import Death, Patience, StartFailedError, Supervisor

PATIENCE = Patience(intensity=3, period_s=10.0, attempts_max=5)


class Fake:
    """A servant that dies when told to and writes down what happens to it."""

    def __init__(
        self, name: str, told: list[str], *, listens: bool = True, stop_takes_s: float = 0.0
    ) -> None:
        self.name = name
        self.has_listened = False
        self.start_fails = False
        self._told = told
        self._listens = listens
        self._stop_takes_s = stop_takes_s
        self._ended = trio.Event()

    async def start(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.start_fails:
            raise StartFailedError("no memory")
        self._told.append(f"start {self.name}")
        self.has_listened = self._listens
        self._ended = trio.Event()

    async def wait(self) -> Death:
        await self._ended.wait()
        return self._death

    def die(self) -> None:
        """By somebody else's force."""
        self._die(Death("killed by SIGKILL", by_force=True))

    def crash(self) -> None:
        self._die(Death("exit code 1", by_force=False))

    def _die(self, death: Death) -> None:
        self._death = death
        self._ended.set()

    async def stop(self, *, within_s: float) -> bool:
        await trio.sleep(min(self._stop_takes_s, within_s))
        self._told.append(f"stop {self.name}")
        return self._stop_takes_s <= within_s


@pytest.fixture
def told() -> list[str]:
    return []


async def test_a_servant_that_dies_is_started_again_and_its_sibling_notices_nothing(told, nursery):
    one, other = Fake("one", told), Fake("other", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one, other], stop_s=1)
    await trio.testing.wait_all_tasks_blocked()
    one.die()
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["start one", "start other", "start one"]
    assert supervisor.statistics()["restarts_total"] == {"one": 1, "other": 0}
    await supervisor.stop()


async def test_stages_stop_from_right_to_left_and_each_only_after_the_one_to_its_right(
    told, nursery, autojump_clock
):
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([Fake("store", told)], stop_s=5)
    await supervisor.start([Fake("engine-0", told), Fake("engine-1", told, stop_takes_s=2)], stop_s=5)
    await supervisor.start([Fake("web", told, stop_takes_s=3)], stop_s=5)
    told.clear()
    began = trio.current_time()
    assert await supervisor.stop()
    assert told == ["stop web", "stop engine-0", "stop engine-1", "stop store"]
    assert trio.current_time() - began == pytest.approx(5.0)


async def test_a_servant_that_must_be_forced_makes_the_stop_out_of_order(told, nursery, autojump_clock):
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([Fake("one", told), Fake("stuck", told, stop_takes_s=60)], stop_s=5)
    assert not await supervisor.stop()


async def test_more_deaths_in_the_period_than_the_intensity_make_it_give_up(told, nursery, autojump_clock):
    one = Fake("one", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=1)
    for deaths in range(1, 5):
        assert not supervisor.gave_up.is_set(), f"before death {deaths}"
        one.die()
        await trio.sleep(1)
    assert supervisor.gave_up.is_set()
    assert supervisor.reason == "one died 4 times in 10 s, lastly: killed by SIGKILL"
    assert told.count("start one") == 4
    assert await supervisor.stop()


async def test_a_servant_that_listens_and_crashes_every_few_seconds_is_given_up(
    told, nursery, autojump_clock
):
    """Never more than two deaths in a period, and yet it serves nobody."""
    one = Fake("one", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=1)
    for crashes in range(1, 5):
        assert not supervisor.gave_up.is_set(), f"before crash {crashes}"
        await trio.sleep(6)
        one.crash()
        await trio.testing.wait_all_tasks_blocked()
    assert supervisor.gave_up.is_set()
    assert supervisor.reason == (
        "one died 4 times in a row, each within 10 s of its start, lastly: exit code 1"
    )
    assert await supervisor.stop()


async def test_a_life_longer_than_the_period_forgives_the_crashes_before_it(told, nursery, autojump_clock):
    one = Fake("one", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=1)
    for _ in range(10):
        for life_s in (6, 6, 6, 10):
            await trio.sleep(life_s)
            one.crash()
            await trio.testing.wait_all_tasks_blocked()
    assert not supervisor.gave_up.is_set()
    await supervisor.stop()


async def test_kills_by_force_neither_count_as_crashes_nor_forgive_them(told, nursery, autojump_clock):
    one = Fake("one", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=1)
    for end in (one.crash, one.die) * 3:
        await trio.sleep(6)
        end()
        await trio.testing.wait_all_tasks_blocked()
    assert not supervisor.gave_up.is_set()
    await trio.sleep(6)
    one.crash()
    with trio.fail_after(1):
        await supervisor.gave_up.wait()
    await supervisor.stop()


async def test_deaths_spread_over_more_than_the_period_are_forgiven(told, nursery, autojump_clock):
    one = Fake("one", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=1)
    for _ in range(20):
        one.die()
        await trio.sleep(4)
    assert not supervisor.gave_up.is_set()
    await supervisor.stop()


async def test_a_servant_that_never_listens_is_given_up_after_the_attempts(told, nursery, autojump_clock):
    never = Fake("never", told, listens=False)
    supervisor = Supervisor(nursery, Patience(intensity=100, period_s=1, attempts_max=5))
    await supervisor.start([never], stop_s=1)
    for _ in range(5):
        assert not supervisor.gave_up.is_set()
        never.die()
        await trio.sleep(10)
    assert supervisor.gave_up.is_set()
    assert "before it listened" in supervisor.reason
    await supervisor.stop()


async def test_a_restart_that_fails_is_tried_again_until_patience_ends(told, nursery, autojump_clock):
    one = Fake("one", told)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=1)
    one.start_fails = True
    one.die()
    with trio.fail_after(60):
        await supervisor.gave_up.wait()
    assert "died 4 times" in supervisor.reason
    await supervisor.stop()


async def test_nothing_is_restarted_once_the_stop_has_begun(told, nursery, autojump_clock):
    one, slow = Fake("one", told), Fake("slow", told, stop_takes_s=3)
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([one], stop_s=5)
    await supervisor.start([slow], stop_s=5)
    nursery.start_soon(supervisor.stop)
    await trio.sleep(1)
    slow.die()
    await trio.sleep(10)
    assert told == ["start one", "start slow", "stop slow", "stop one"]


async def test_the_stop_runs_to_its_end_though_everything_around_it_is_cancelled(told, autojump_clock):
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, PATIENCE)
        try:
            await supervisor.start([Fake("one", told, stop_takes_s=2)], stop_s=5)
            nursery.cancel_scope.cancel()
            await trio.sleep_forever()
        finally:
            await supervisor.stop()
    assert told[-1] == "stop one"


async def test_a_failing_first_start_leaves_the_stages_before_it_to_be_stopped(told, nursery):
    broken = Fake("broken", told)
    broken.start_fails = True
    supervisor = Supervisor(nursery, PATIENCE)
    await supervisor.start([Fake("store", told)], stop_s=1)
    with pytest.raises(StartFailedError, match="no memory"):
        await supervisor.start([broken], stop_s=1)
    await supervisor.stop()
    assert told == ["start store", "stop broken", "stop store"]
