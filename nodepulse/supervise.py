"""Keeping servants running, and stopping them in order.

A servant is anything that can be started again: a process of ours (process.py), an embedded server
(stores.py). One that dies is restarted alone; one that keeps dying makes the supervisor give up. Stages start
left to right and stop right to left. What the servants are is none of this file's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
import trio

log = structlog.get_logger()
PAUSE_S_MIN = 0.05  # before a servant that never listened is started again: doubled each time ...
PAUSE_S_MAX = 1.0  # ... up to this


class StartFailedError(Exception):
    """A servant could not be started; the text says why."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a servant ended. `by_force`: by SIGKILL, which is somebody else's doing."""

    how: str
    by_force: bool


class Servant(Protocol):
    """Something that runs, ends, and can be started again."""

    name: str

    async def start(self) -> None:
        """Start it. StartFailedError."""
        ...

    async def wait(self) -> Death:
        """Return when it has ended without being asked to."""
        ...

    @property
    def has_listened(self) -> bool:
        """Whether it got as far as serving since its last start."""
        ...

    async def stop(self, *, within_s: float) -> bool:
        """Ask it to stop, force it after `within_s`. True when it stopped in order (or did not run)."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a servant may die: `intensity` times in `period_s`, `attempts_max` in a row unserved.

    And `intensity` times in a row each within `period_s` of its start, by itself: one that dies every few
    seconds would else be started for ever. Deaths by force are not among these: what is killed every few
    seconds must come back each time.
    """

    intensity: int
    period_s: float
    attempts_max: int


@dataclass(slots=True)
class _Kept:
    servant: Servant
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    deaths: deque[float] = field(default_factory=deque)  # bounded: older than the period are dropped
    unserved: int = 0
    short_lives: int = 0  # in a row
    started_at: float = field(default_factory=trio.current_time)
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class _Stage:
    kept: list[_Kept]
    stop_s: float


class Supervisor:
    """One-for-one supervision of stages of servants, inside the nursery of whoever opens it."""

    def __init__(self, nursery: trio.Nursery, patience: Patience) -> None:
        self._nursery = nursery
        self._patience = patience
        self._stages: list[_Stage] = []
        self.gave_up = trio.Event()
        self.reason = ""

    async def start(self, servants: Sequence[Servant], *, stop_s: float) -> None:
        """Start a further stage, to the right of those running. StartFailedError from the first start."""
        stage = _Stage([], stop_s)
        self._stages.append(stage)
        for servant in servants:
            kept = _Kept(servant)
            stage.kept.append(kept)  # first: a start that is cancelled half-way must still be stopped
            await servant.start()
            log.info("child.started", child=servant.name)
            self._nursery.start_soon(self._keep, kept)

    async def stop(self) -> bool:
        """Stop all stages, right to left. True when everything stopped in order. Runs even if cancelled."""
        in_order = True
        with trio.CancelScope(shield=True):
            while self._stages:
                stage = self._stages.pop()
                results: list[bool] = []
                async with trio.open_nursery() as nursery:
                    for kept in stage.kept:
                        kept.scope.cancel()  # nobody restarts it from here on
                        nursery.start_soon(_stop_one, kept.servant, stage.stop_s, results)
                in_order &= all(results)
        return in_order

    def statistics(self) -> dict[str, dict[str, float]]:
        """Restarts by child, for `/metrics`."""
        kept = [one for stage in self._stages for one in stage.kept]
        return {
            "restarts_total": {one.servant.name: one.restarts for one in kept},
            "listened": {one.servant.name: float(one.servant.has_listened) for one in kept},
        }

    async def _keep(self, kept: _Kept) -> None:
        with kept.scope:
            while True:
                death = await kept.servant.wait()
                if not self._may_restart(kept, death) or not await self._start_again(kept):
                    return

    def _may_restart(self, kept: _Kept, death: Death) -> bool:
        now, period_s = trio.current_time(), self._patience.period_s
        kept.deaths.append(now)
        while kept.deaths[0] <= now - period_s:
            kept.deaths.popleft()
        kept.unserved = 0 if kept.servant.has_listened else kept.unserved + 1
        if now - kept.started_at >= period_s:
            kept.short_lives = 0
        elif not death.by_force:
            kept.short_lives += 1
        log.error("child.died", child=kept.servant.name, how=death.how, deaths=len(kept.deaths))
        if len(kept.deaths) > self._patience.intensity:
            self._give_up(kept, f"died {len(kept.deaths)} times in {period_s:g} s, lastly: {death.how}")
        elif kept.unserved >= self._patience.attempts_max:
            self._give_up(
                kept, f"died {kept.unserved} times in a row before it listened, lastly: {death.how}"
            )
        elif kept.short_lives > self._patience.intensity:
            often = f"died {kept.short_lives} times in a row, each within {period_s:g} s of its start"
            self._give_up(kept, f"{often}, lastly: {death.how}")
        return not self.gave_up.is_set()

    def _give_up(self, kept: _Kept, why: str) -> None:
        self.reason = f"{kept.servant.name} {why}"
        log.critical("supervisor.gave_up", child=kept.servant.name, why=why)
        self.gave_up.set()

    async def _start_again(self, kept: _Kept) -> bool:
        while True:
            if kept.unserved:
                await trio.sleep(min(PAUSE_S_MAX, PAUSE_S_MIN * 2**kept.unserved))
            kept.restarts += 1
            kept.started_at = trio.current_time()
            try:
                await kept.servant.start()
            except StartFailedError as error:
                if not self._may_restart(kept, Death(str(error), by_force=False)):
                    return False
            else:
                log.info("child.restarted", child=kept.servant.name, restarts=kept.restarts)
                return True


async def _stop_one(servant: Servant, within_s: float, results: list[bool]) -> None:
    in_order = await servant.stop(within_s=within_s)
    log.info("child.stopped", child=servant.name, in_order=in_order)
    results.append(in_order)
