"""A task of the worker never dies in silence and never spins."""

import trio

from worker.restart import BACKOFF_S_MAX, BACKOFF_S_MIN, SETTLED_S, KeptTask, backoff_s


def test_backoff_doubles_up_to_its_bound():
    waits = [backoff_s(crashes) for crashes in range(1, 100)]
    assert waits[:4] == [BACKOFF_S_MIN, 1.0, 2.0, 4.0]
    assert max(waits) == waits[-1] == BACKOFF_S_MAX


class Crashing:
    def __init__(self, *lives_s: float) -> None:
        self.lives_s, self.starts = list(lives_s), []

    async def __call__(self) -> None:
        self.starts.append(trio.current_time())
        if not self.lives_s:
            return
        await trio.sleep(self.lives_s.pop(0))
        raise RuntimeError("bug")


async def test_a_task_that_crashes_is_reported_and_started_again_until_it_ends_by_itself(autojump_clock):
    reports, task = [], Crashing(0, 0, 0)
    kept = KeptTask(
        "notifier",
        task,
        report=lambda error, name: reports.append((str(error), name)),
        monotonic=trio.current_time,
    )
    await kept.run()
    assert reports == [("bug", "notifier")] * 3
    assert kept.crashes == 3
    assert not kept.running
    assert task.starts == [0.0, 0.5, 1.5, 3.5]


async def test_after_a_long_life_the_next_crash_counts_as_the_first(autojump_clock):
    task = Crashing(0, 0, SETTLED_S, 0)
    kept = KeptTask("notifier", task, report=lambda *_: None, monotonic=trio.current_time)
    await kept.run()
    waits = [b - a for a, b in zip(task.starts, task.starts[1:], strict=False)]
    assert waits == [0.5, 1.0, SETTLED_S + 0.5, 1.0]


async def test_cancelled_it_is_not_started_again(autojump_clock):
    task = Crashing(100)
    with trio.move_on_after(5) as scope:
        await KeptTask("notifier", task, report=lambda *_: None).run()
    assert scope.cancelled_caught
    assert len(task.starts) == 1
