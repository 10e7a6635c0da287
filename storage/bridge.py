"""trio as a guest on a uvloop host loop, in one thread (DESIGN.md, decision 1).

Here is the whole border between the two worlds: `run_on_uvloop` starts both, `await_host` lets a trio task
wait for a coroutine of the host loop (asyncpg, redis.asyncio, `loop.create_server`). Only batches should
cross: each crossing costs turns of both loops. What asyncio code does is no business of this file.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from queue import Queue
from typing import Any, TypeVar

import outcome
import trio
import uvloop

T = TypeVar("T")

CANCEL_AGAIN_S = 1.0
ASKED_MAX = 16  # calls that wait for a `Host`; more is a fault of the caller


class HostCancelledError(Exception):
    """The host loop cancelled a call although nobody on the trio side had asked for that."""


def run_on_uvloop(async_main: Callable[[], Awaitable[int]]) -> int:
    """Run `async_main` under trio as a guest of a new uvloop loop; its result, to be used as exit code.

    SIGINT and SIGTERM belong to trio from the start: one that `async_main` does not take itself (by
    `trio.open_signal_receiver`) cancels it, and the result is then 128 + the signal's number. So a signal
    never tears the host loop down under a last flush. What `async_main` raises is raised here.
    """
    # Not asyncio.run or asyncio.Runner: they take SIGINT for themselves, and the first would silently make a
    # stock loop whatever loop had been set before.
    loop = uvloop.new_event_loop()
    assert isinstance(loop, uvloop.Loop)
    outcomes: list[outcome.Outcome[int]] = []

    def done(result: outcome.Outcome[int]) -> None:
        outcomes.append(result)
        loop.stop()

    try:
        trio.lowlevel.start_guest_run(
            _with_signals,
            async_main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=done,
            host_uses_signal_set_wakeup_fd=True,
        )
        loop.run_forever()
        _finish_host(loop)
    finally:
        loop.close()
    return outcomes[0].unwrap()


async def await_host(async_fn: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
    """Await ``async_fn(*args)`` on the host loop from a trio task.

    Cancelling the trio side cancels the asyncio task and waits until it has ended; if it ends with a result
    or an error of its own all the same, that comes out. HostCancelledError when the host cancelled it.
    """
    token = trio.lowlevel.current_trio_token()
    waiter = trio.lowlevel.current_task()
    cancelled: list[Callable[[], Any]] = []
    task = asyncio.get_running_loop().create_task(async_fn(*args))

    def wake(_task: asyncio.Task[T]) -> None:
        # Never reschedule directly: this callback runs in the host, outside of trio's run.
        token.run_sync_soon(trio.lowlevel.reschedule, waiter)

    def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        cancelled.append(raise_cancel)
        task.cancel()
        return trio.lowlevel.Abort.FAILED  # `wake` will come

    task.add_done_callback(wake)
    await trio.lowlevel.wait_task_rescheduled(abort)
    if not task.cancelled():
        return task.result()
    if cancelled:
        cancelled[0]()
    raise HostCancelledError(f"{getattr(async_fn, '__qualname__', async_fn)} was cancelled by the host loop")


class Host:
    """The host loop for the engine (`engine.host.Host`), with one thread for what blocks.

    For what happens hundreds of times a second: handing over costs a third of what it does with
    `trio.to_thread` here, because nothing of trio is woken. Make it on the loop's thread; `close` it once
    nothing more is asked.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: Queue[tuple[Callable[[], None], Callable[[BaseException | None], None]] | None]
        self._asked = Queue(ASKED_MAX)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def in_thread(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Do the work, one after the other, then say `done` on the loop, with what it raised. queue.Full."""
        self._asked.put_nowait((work, done))

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the loop's next turn."""
        self._loop.call_soon(callback)

    def when_readable(self, sock: socket.socket, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever something lies in the socket, until the returned function is called."""
        self._loop.add_reader(sock, callback)
        return lambda: self._forget(sock)

    def _forget(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)

    def close(self) -> None:
        """End the thread once everything asked is done."""
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            work, done = asked
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:  # noqa: BLE001 - `done` is told
                error = raised
            self._loop.call_soon_threadsafe(done, error)


def is_closed_transport(error: BaseException) -> bool:
    """Whether this is uvloop's way to say that the other side closed the connection a moment ago.

    A RuntimeError, where asyncio's own loop has a ConnectionResetError: both mean the same.
    """
    return isinstance(error, RuntimeError) and "the handler is closed" in str(error)


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """On the host: cancel these tasks until all have ended, however they end.

    Until, because libraries do swallow a cancellation: redis-py was seen to, when it came while a connection
    was being lost. A task that goes on as if nothing had been said is told again.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)


async def _with_signals(async_main: Callable[[], Awaitable[int]]) -> int:
    if threading.current_thread() is not threading.main_thread():
        return await async_main()  # signals are the main thread's
    taken: list[int] = []
    code = 0
    watching, watched, everything = trio.CancelScope(), trio.Event(), trio.CancelScope()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as arriving:

        async def cancel_on_signal() -> None:
            with watching:
                async for number in arriving:
                    taken.append(number)
                    everything.cancel()
            watched.set()

        # A system task, not a nursery: what `async_main` raises must not come out wrapped in a group.
        trio.lowlevel.spawn_system_task(cancel_on_signal)
        try:
            with everything:
                code = await async_main()
        finally:
            watching.cancel()
            with trio.CancelScope(shield=True):
                await watched.wait()  # it must be gone before the receiver closes
    return 128 + taken[0] if everything.cancelled_caught else code


def _finish_host(loop: uvloop.Loop) -> None:
    """Cancel what is left on the host loop and wait for it, as asyncio.run does."""
    left = asyncio.all_tasks(loop)
    loop.run_until_complete(end_tasks(left))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
