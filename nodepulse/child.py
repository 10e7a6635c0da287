"""How a process of ours lives: what makes it stop, how it says that it listens, what its exit code means.

Under `serve` a child gets two pipes. The one whose other end only serve holds reads EOF when serve is gone,
however it died: the child then stops in order. Into the other it writes one line when it listens.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from nodepulse.systemd import feed_watchdog, notify
from storage.bridge import run_on_uvloop
from storage.observe import capture, close_sentry

log = structlog.get_logger()
Listening = Callable[[str], None]
Serve = Callable[[trio.Event, Listening], Awaitable[None]]


def run_process(serve: Serve, *, parent_fd: int | None = None, ready_fd: int | None = None) -> int:
    """Run ``serve(stop, listening)`` until it returns; the exit code.

    `stop` is set by SIGTERM, SIGINT or the parent's death; a second signal cancels. 0: stopped in order,
    1: crashed (the crash is in the log).
    """
    raise_descriptor_limit()
    for fd in (parent_fd, ready_fd):
        if fd is not None:
            os.set_inheritable(fd, False)
    try:
        return run_on_uvloop(lambda: _live(serve, parent_fd, ready_fd))
    except Exception as error:
        log.critical("crashed", exc_info=error)
        capture(error)
        return 1
    finally:
        close_sentry()


def raise_descriptor_limit() -> None:
    """Take all the descriptors that we may have: a login's usual 1,024 are few connections."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _live(serve: Serve, parent_fd: int | None, ready_fd: int | None) -> int:
    stop = trio.Event()

    def listening(text: str) -> None:
        log.info("listening", where=text)
        if ready_fd is not None:
            os.write(ready_fd, text.encode() + b"\n")
        else:
            notify(f"READY=1\nSTATUS={text}")

    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signals, stop, nursery.cancel_scope)
        if parent_fd is not None:
            nursery.start_soon(_stop_on_parent_death, parent_fd, stop)
        else:
            nursery.start_soon(feed_watchdog)  # a unit of its own; under serve the unit is serve's
        await serve(stop, listening)
        nursery.cancel_scope.cancel()
    log.info("stopped")
    return 0


async def stop_on_signals(
    stop: trio.Event,
    everything: trio.CancelScope,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Set `stop` at the first SIGTERM or SIGINT, cancel `everything` at the second."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as arriving:
        task_status.started()
        async for number in arriving:
            log.info("stopping", signal=signal.Signals(number).name)
            if stop.is_set():
                everything.cancel()
            stop.set()


async def _stop_on_parent_death(parent_fd: int, stop: trio.Event) -> None:
    os.set_blocking(parent_fd, False)
    while True:
        await trio.lowlevel.wait_readable(parent_fd)
        if not os.read(parent_fd, 1):
            break
    log.warning("parent_died", advice="stopping: nobody is left to restart this process")
    stop.set()
