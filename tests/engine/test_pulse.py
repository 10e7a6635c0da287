"""Waking trio from outside its run."""

from __future__ import annotations

import asyncio

import trio
from trio.testing import wait_all_tasks_blocked

from engine.pulse import Pulse
from storage.bridge import run_on_uvloop


async def test_everyone_who_waits_is_woken_and_a_pulse_that_nobody_awaits_is_forgotten():
    pulse, woken = Pulse(), []

    async def wait(name: str) -> None:
        await pulse.wait()
        woken.append(name)

    pulse.give()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "one")
        nursery.start_soon(wait, "other")
        await wait_all_tasks_blocked()
        assert woken == []
        pulse.give()
    assert sorted(woken) == ["one", "other"]


def test_the_host_loop_wakes_a_trio_that_sleeps():
    async def main() -> int:

        pulse = Pulse()
        asyncio.get_running_loop().call_later(0.05, pulse.give)
        with trio.fail_after(5):
            await pulse.wait()
        return 0

    assert run_on_uvloop(main) == 0
