"""Embedded servers as servants: what is told to the guard, and force when their own patience is too long."""

from __future__ import annotations

import signal
import sys

import pytest
import trio

from nodepulse.stores import StoreServant
from nodepulse.supervise import Death, StartFailedError
from storage.binaries import EmbeddedServerError

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
)
OBEDIENT = "import time; print(1, flush=True); time.sleep(600)"


class FakeServer:
    """Behaves as storage.embedded.EmbeddedServer, with a program of our choice."""

    name = "fake"
    stop_steps = ((signal.SIGINT, 60.0),)

    def __init__(self, source: str) -> None:
        self.process: trio.Process | None = None
        self._source = source

    async def start(self) -> None:
        if not self._source:
            raise EmbeddedServerError("no program")
        self.process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", self._source], stdout=-1, stderr=-3
        )
        await self.process.stdout.receive_some()

    async def wait(self) -> int:
        return await self.process.wait()

    async def stop(self) -> None:
        with trio.CancelScope(shield=True):
            self.process.send_signal(signal.SIGINT)
            await self.process.wait()
            await self.process.stdout.aclose()


class FakeGuard:
    def __init__(self) -> None:
        self.watched: set[int] = set()

    def watch_store(self, pid: int, steps: object) -> None:
        self.watched.add(pid)

    def forget(self, pid: int) -> None:
        self.watched.discard(pid)


async def started(source: str) -> tuple[StoreServant, FakeGuard]:
    guard = FakeGuard()
    servant = StoreServant(FakeServer(source), guard)
    assert not servant.has_listened
    await servant.start()
    return servant, guard


async def test_a_server_that_stops_in_time_stopped_in_order():
    servant, guard = await started(OBEDIENT)
    assert servant.has_listened
    assert guard.watched == {servant.server.process.pid}
    with trio.fail_after(30):
        assert await servant.stop(within_s=20)


async def test_a_server_whose_own_patience_is_longer_than_ours_is_forced():
    servant, _ = await started(STUBBORN)
    with trio.fail_after(30):
        assert not await servant.stop(within_s=0.7)
    assert servant.server.process.returncode == -signal.SIGQUIT


async def test_one_that_died_is_told_in_words_and_forgotten_by_the_guard():
    servant, guard = await started(OBEDIENT)
    servant.server.process.kill()
    assert await servant.wait() == Death("killed by SIGKILL", by_force=True)
    assert guard.watched == set()
    await servant.server.process.stdout.aclose()


async def test_a_server_that_cannot_start_is_a_failed_start():
    with pytest.raises(StartFailedError, match="no program"):
        await started("")
