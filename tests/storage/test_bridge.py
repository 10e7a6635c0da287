"""The hazards of the trio/uvloop bridge (DESIGN.md, decision 1), each as a test.

These tests are plain functions: each starts a run of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import trio
import uvloop

from storage.bridge import (
    Host,
    HostCancelledError,
    await_host,
    end_tasks,
    is_closed_transport,
    run_on_uvloop,
)

ROOT = Path(__file__).parents[2]


def test_the_host_loop_is_uvloop_and_the_result_comes_back():
    async def main() -> int:
        assert type(asyncio.get_running_loop()) is uvloop.Loop
        return 7

    assert run_on_uvloop(main) == 7


def test_a_loop_set_before_is_not_used():
    stock = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(stock)

    async def main() -> int:
        assert type(asyncio.get_running_loop()) is uvloop.Loop
        return 0

    try:
        assert run_on_uvloop(main) == 0
    finally:
        asyncio.set_event_loop(None)
        stock.close()


def test_the_hosts_thread_works_in_order_elsewhere_and_answers_here_with_what_was_raised():
    worked: list[int] = []
    told: list[tuple[int, str | None]] = []

    async def main() -> int:
        background, over = Host("test"), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def work(number: int) -> None:
            assert threading.get_ident() != here
            worked.append(number)
            if number == 1:
                raise OSError("planted")

        def done(number: int, error: BaseException | None) -> None:
            assert threading.get_ident() == here
            told.append((number, None if error is None else str(error)))
            if number == 2:
                token.run_sync_soon(over.set)

        for number in range(3):
            background.in_thread(partial(work, number), partial(done, number))
        assert worked == [] or told == [], "answers come in a later turn"
        await over.wait()
        background.close()
        return 0

    here = threading.get_ident()
    assert run_on_uvloop(main) == 0
    assert worked == [0, 1, 2]
    assert told == [(0, None), (1, "planted"), (2, None)]


def test_everything_runs_in_the_calling_thread():
    async def where() -> int:
        return threading.get_ident()

    async def main() -> int:
        assert await await_host(where) == threading.get_ident() == here
        return 0

    here = threading.get_ident()
    assert run_on_uvloop(main) == 0


def test_runs_can_follow_each_other_and_run_outside_the_main_thread():
    async def main() -> int:
        return await await_host(asyncio.sleep, 0, 1)

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.extend((run_on_uvloop(main), run_on_uvloop(main))))
    thread.start()
    thread.join()
    assert results == [1, 1]


def test_an_exception_of_the_host_crosses_with_its_type_and_traceback():
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("from the host")

    async def main() -> int:
        with pytest.raises(KeyError, match="from the host") as caught:
            await await_host(fails)
        assert any(entry.name == "fails" for entry in caught.traceback)
        return 0

    assert run_on_uvloop(main) == 0


def test_an_exception_of_main_comes_out_unwrapped():
    async def main() -> int:
        raise LookupError("from trio")

    with pytest.raises(LookupError, match="from trio"):
        run_on_uvloop(main)


def test_cancelling_the_trio_side_cancels_the_host_task_and_waits_for_its_end():
    trace: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            trace.append("host ended")

    async def main() -> int:
        with trio.move_on_after(0.01) as scope:
            await await_host(slow)
        trace.append("trio went on")
        assert scope.cancelled_caught
        return 0

    assert run_on_uvloop(main) == 0
    assert trace == ["host ended", "trio went on"]


def test_a_result_that_arrives_despite_the_cancellation_is_not_lost():
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "committed"
        raise AssertionError("the event is never set")

    async def main() -> int:
        with trio.move_on_after(0.01) as scope:
            assert await await_host(stubborn) == "committed"
        assert not scope.cancelled_caught
        return 0

    assert run_on_uvloop(main) == 0


def test_an_error_during_the_cancellation_is_what_comes_out():
    async def breaks() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise ConnectionError("lost while cancelled") from error

    async def main() -> int:
        with trio.move_on_after(0.01), pytest.raises(ConnectionError, match="lost while cancelled"):
            await await_host(breaks)
        return 0

    assert run_on_uvloop(main) == 0


def test_a_call_under_a_cancelled_scope_never_starts():
    started: list[bool] = []

    async def call() -> None:
        started.append(True)

    async def main() -> int:
        with trio.CancelScope() as scope:
            scope.cancel()
            await await_host(call)
        assert scope.cancelled_caught
        return 0

    assert run_on_uvloop(main) == 0
    assert started == []


def test_a_shielded_call_ends_although_its_surroundings_are_cancelled():
    async def main() -> int:
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.CancelScope(shield=True):
                assert await await_host(asyncio.sleep, 0.01, "flushed") == "flushed"
        return 0

    assert run_on_uvloop(main) == 0


def test_cancelled_by_the_host_is_an_error_and_no_trio_cancellation():
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> int:
        with trio.CancelScope() as scope, pytest.raises(HostCancelledError, match="cancels_itself"):
            await await_host(cancels_itself)
        assert not scope.cancelled_caught
        return 0

    assert run_on_uvloop(main) == 0


def test_a_host_callback_reaches_trio_through_the_token():
    async def main() -> int:
        token, heard = trio.lowlevel.current_trio_token(), trio.Event()
        asyncio.get_running_loop().call_later(0.01, token.run_sync_soon, heard.set)
        with trio.fail_after(5):
            await heard.wait()
        return 0

    assert run_on_uvloop(main) == 0


def test_context_variables_travel_to_the_host():
    request = contextvars.ContextVar("request", default="none")

    async def read() -> str:
        return request.get()

    async def main() -> int:
        request.set("42")
        assert await await_host(read) == "42"
        return 0

    assert run_on_uvloop(main) == 0


def test_many_calls_wait_side_by_side():
    async def main() -> int:
        results: list[int] = []

        async def one(number: int) -> None:
            results.append(await await_host(asyncio.sleep, 0.05, number))

        before = time.monotonic()
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(one, number)
        assert sorted(results) == list(range(500))
        return int(time.monotonic() - before > 5.0)  # one after the other it would be 25 s

    assert run_on_uvloop(main) == 0


def test_tasks_left_on_the_host_are_cancelled_and_awaited_at_the_end():
    trace: list[str] = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            trace.append("closed")

    async def main() -> int:
        held.append(asyncio.get_running_loop().create_task(background()))
        await await_host(asyncio.sleep, 0.01)
        return 0

    held: list[asyncio.Task[None]] = []
    assert run_on_uvloop(main) == 0
    assert trace == ["closed"]


def test_a_task_that_swallows_its_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr("storage.bridge.CANCEL_AGAIN_S", 0.01)
    swallowed: list[int] = []

    async def deaf(times: int) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(times)
                if swallowed.count(times) > times:
                    raise

    async def main() -> int:
        loop = asyncio.get_running_loop()
        named = loop.create_task(deaf(1))
        held.append(loop.create_task(deaf(2)))  # left to the end of the run
        await await_host(asyncio.sleep, 0.01)
        with trio.fail_after(5):
            await await_host(end_tasks, [named])
        assert named.cancelled()
        return 0

    held: list[asyncio.Task[None]] = []
    assert run_on_uvloop(main) == 0
    assert held[0].cancelled()
    assert (swallowed.count(1), swallowed.count(2)) == (2, 3)


def test_writing_to_a_transport_that_closed_is_told_as_uvloop_tells_it():
    async def write_after_close() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            _reader, writer = await asyncio.open_unix_connection(sock=ours)
            writer.transport.abort()
            await asyncio.sleep(0.01)
            writer.write(b"late")

    async def main() -> int:
        with pytest.raises(RuntimeError) as caught:
            await await_host(write_after_close)
        assert is_closed_transport(caught.value)
        assert not is_closed_transport(RuntimeError("another"))
        return 0

    assert run_on_uvloop(main) == 0


def test_outside_of_the_guest_run_there_is_no_host():
    async def main() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            await await_host(asyncio.sleep, 0)

    trio.run(main)


SIGNALLED = """
    import asyncio, signal, sys, trio
    from storage.bridge import await_host, run_on_uvloop

    async def flush(rows):
        await asyncio.sleep(0.3)
        print("flushed", rows, flush=True)

    async def own_receiver():
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as arriving:
            print("ready", flush=True)
            async for number in arriving:
                break
        with trio.CancelScope(shield=True):
            await await_host(flush, 3)
        print("got", int(number), flush=True)
        return 0

    async def without_receiver():
        print("ready", flush=True)
        try:
            # A call is pending on the host, and a timer keeps its callbacks busy when the signal comes.
            await await_host(asyncio.sleep, 60)
        finally:
            with trio.CancelScope(shield=True):
                await await_host(flush, 3)
        return 0

    async def busy():
        print("ready", flush=True)
        loop, stop = asyncio.get_running_loop(), False
        def spin():
            if not stop:
                sum(range(20000))
                loop.call_soon(spin)
        spin()
        try:
            await trio.sleep(60)
        finally:
            stop = True
            with trio.CancelScope(shield=True):
                await await_host(flush, 3)
        return 0

    sys.exit(run_on_uvloop(globals()[sys.argv[1]]))
"""


def run_and_signal(how: str, *numbers: signal.Signals) -> tuple[int, list[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SIGNALLED), how],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    for number in numbers:
        child.send_signal(number)
    out, err = child.communicate(timeout=20)
    return child.returncode, out.split("\n")[:-1], err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_taken_by_main_loses_no_flush(number: signal.Signals):
    assert run_and_signal("own_receiver", number) == (0, ["flushed 3", f"got {int(number)}"], "")


@pytest.mark.parametrize("how", ["without_receiver", "busy"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bare_signal_cancels_main_and_loses_no_flush(how: str, number: signal.Signals):
    assert run_and_signal(how, number) == (128 + number, ["flushed 3"], "")


def test_an_impatient_second_signal_loses_no_flush():
    code, lines, err = run_and_signal("without_receiver", signal.SIGTERM, signal.SIGINT, signal.SIGINT)
    assert (lines, err) == (["flushed 3"], "")
    assert code in (128 + signal.SIGTERM, 128 + signal.SIGINT)
