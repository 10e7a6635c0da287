"""Maintenance windows of whole nodes, as the verdict knows them (LIVENESS.md 4): when they open and close.

What a window does to accounting is `compose`'s; windows of single workloads do nothing to a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy.typing as npt

from engine.core.records import Window
from engine.core.step import MAINTENANCE, NEW, STOPPED, NodeChange, WindowClosed, WindowOpened


class Windows:
    """Windows that are open or to come, by row index."""

    def __init__(self) -> None:
        self._windows: dict[int, list[Window]] = {}

    def replace(self, index: int, windows: Iterable[Window]) -> None:
        """The row's windows as the registry has them now; those of single workloads are passed over."""
        own = [window for window in windows if window.workload_id is None]
        if own or index in self._windows:
            self._windows[index] = own  # none left: `changes` closes the one that is open

    def held(self) -> dict[int, list[Window]]:
        """All of them, by row index."""
        return {index: list(windows) for index, windows in self._windows.items()}

    def restore(self, held: dict[int, list[Window]]) -> None:
        """Take over what was held before a restart."""
        self._windows.update(held)

    def changes(
        self, now_ms: int, states: npt.NDArray[Any], silence_from: Callable[[int], int]
    ) -> list[tuple[int, NodeChange]]:
        """Rows whose window opens or closes by now. A closed window is forgotten.

        One that opened and closed while nobody could judge has passed all the same: deadlines start afresh,
        unless silence is counted from a later time already (`silence_from` of a row index) or not at all.
        """
        found: list[tuple[int, NodeChange]] = []
        for index, windows in list(self._windows.items()):
            open_now = [window for window in windows if window.from_ms <= now_ms < window.to_ms]
            if open_now and states[index] != MAINTENANCE:
                found.append((index, WindowOpened(min(window.from_ms for window in open_now))))
            elif not open_now and states[index] == MAINTENANCE:
                ended = [window.to_ms for window in windows if window.to_ms <= now_ms]
                found.append((index, WindowClosed(max(ended, default=now_ms))))
            elif not open_now and states[index] not in (NEW, STOPPED):
                passed = [window for window in windows if silence_from(index) < window.to_ms <= now_ms]
                if passed:
                    found.append((index, WindowOpened(min(window.from_ms for window in passed))))
                    found.append((index, WindowClosed(max(window.to_ms for window in passed))))
            left = [window for window in windows if window.to_ms > now_ms]
            if left:
                self._windows[index] = left
            elif states[index] != MAINTENANCE:
                del self._windows[index]
        return found
