"""Child processes of a bench: orders as JSON lines on their stdin, answers as JSON lines on their stdout.

What is measured runs in a process of its own, so that its processor time is nobody else's.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

ANSWER_S_MAX = 120.0
STOP_S_MAX = 60.0


class ChildFailedError(Exception):
    """A child ended, or did not answer in time."""


class Child:
    """A running child. `pid` is for reading its processor time and memory."""

    def __init__(self, command: Sequence[str], *, fds: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=tuple(fds)
        )
        self.name = " ".join(command[:4])
        self.pid = self._process.pid
        self._rest = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(force=kind is not None)

    def tell(self, do: str, **arguments: Any) -> None:
        """Give an order."""
        self.line(json.dumps({"do": do, **arguments}))

    def line(self, text: str) -> None:
        """Give an order in the child's own words."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildFailedError(f"{self.name} has ended ({self._process.poll()})") from error

    def answer(self, *, timeout_s: float = ANSWER_S_MAX) -> dict[str, Any]:
        """Its next answer. ChildFailedError."""
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ChildFailedError(f"{self.name} did not answer within {timeout_s:.0f} s")
            piece = os.read(out, 65_536)
            if not piece:
                raise ChildFailedError(f"{self.name} ended with {self._process.wait()}")
            self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, do: str, *, timeout_s: float = ANSWER_S_MAX, **arguments: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.tell(do, **arguments)
        return self.answer(timeout_s=timeout_s)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()

    def stop(self, *, force: bool = False) -> None:
        """End it: by closing its stdin, which every child takes as its order to stop, or by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if force:
            self._process.kill()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            force = True  # it is gone already; what it had not yet read does not matter
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            if not force:
                raise ChildFailedError(f"{self.name} did not stop within {STOP_S_MAX:.0f} s") from None
        finally:
            self._process.stdout.close()


def python_child(module: str, options: dict[str, Any], *, fds: Sequence[int] = ()) -> Child:
    """Run a module of ours; it gets the options as its one argument."""
    return Child([sys.executable, "-P", "-m", module, json.dumps(options)], fds=fds)


def say(**answer: Any) -> None:
    """A child's answer."""
    print(json.dumps(answer), flush=True)


def serve_orders(handlers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """A plain child's life: answer orders one after the other until stdin closes."""
    for order in _orders():
        say(**handlers[order.pop("do")](**order))


def _orders() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)
