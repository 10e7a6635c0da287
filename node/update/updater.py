"""The task beside the manager that keeps it up to date: looking, installing, handing over.

It looks every so often, and at once when told by the Unix socket (`POST /update`). It hands over only right
after a credited beat: the new manager then has until the end of what that beat vouches for.
"""

from __future__ import annotations

import logging
import os
import random
import time
from dataclasses import asdict
from typing import Any

import trio

from node.config import NodeConfig
from node.manager.api import ApiError
from node.manager.manager import Manager
from node.update.apply import install, judged
from node.update.command import Launch
from node.update.release import UpdateError
from node.update.source import from_answer, published
from node.update.store import Known, Updates
from node.update.trial import BEATEN, Trial
from node.version import VERSION
from np1.session import rfc3339_of_ms

log = logging.getLogger(__name__)
RETRY_S = 600.0  # after a look that failed, and before one that was nobody's fault is tried again
ASIDE_S = 1.0  # what is asked for in that time is one look


class Updater:
    """launch: how this process was begun."""

    def __init__(self, config: NodeConfig, launch: Launch) -> None:
        self._config, self._launch = config, launch
        self._updates = Updates(config.data_path)
        self._asked = trio.Event()
        self._checked_ms: int | None = None
        self._published: str | None = None
        self._why = ""

    def ask(self) -> None:
        """Look at once."""
        self._asked.set()

    def status(self) -> dict[str, Any]:
        """For people: `why` says why the published release is not taken."""
        try:
            known = self._updates.known()
        except UpdateError as error:
            known = Known()
            self._why = str(error)
        return {
            "from": self._config.update_url or ("backend" if self._config.update_key else "nowhere"),
            "checked_at": None if self._checked_ms is None else rfc3339_of_ms(self._checked_ms),
            "published": self._published,
            "staged": known.staged or None,
            "on_trial": self._launch.trial is not None,
            "previous": known.previous or None,
            "why": self._why,
            "taken_back": [
                {"version": name, "why": one.why, "at": rfc3339_of_ms(one.at_ms), "again": not one.certain}
                for name, one in known.failed.items()
            ],
        }

    async def run(self, manager: Manager) -> None:
        """Until cancelled, or the manager hands over."""
        manager.updater = self
        if self._launch.trial is not None:
            await self._say_when_beating(manager, self._launch.trial)
            return
        if not self._config.update_key:
            return
        try:
            await self._settle(manager)
        except UpdateError as error:
            self._why = str(error)
            log.error("no updates: %s", error)
            return
        while True:
            await self._once(manager)
            await self._wait()

    async def _say_when_beating(self, manager: Manager, pipe: int) -> None:
        while not await manager.wait_beating(timeout_s=3_600):
            log.warning("not heard yet")
        os.write(pipe, BEATEN)
        os.close(pipe)
        manager.hand_over([])

    async def _settle(self, manager: Manager) -> None:
        """What an earlier trial has left: one that was cut off, one that may not have been to blame."""
        known = self._updates.known()
        if known.trying:
            why = "its trial was cut off: it, or the machine, was killed"
            self._updates.fail(known.trying, why=why, certain=True, now_ms=time.time_ns() // 1_000_000)
            log.error("the manager %s is taken back: %s", known.trying, why)
        doubtful = [name for name, one in known.failed.items() if not one.certain]
        if not await manager.wait_beating(timeout_s=self._config.update_beats_within_s):
            return  # a release may be what mends it
        for version in doubtful:
            self._updates.blame(version)
            log.error("the manager %s is not tried again: this one beats", version)

    async def _once(self, manager: Manager) -> None:
        """Look, install, hand over."""
        self._asked = trio.Event()
        try:
            if not self._updates.known().staged:
                await self._look(manager)
            staged = self._updates.known().staged
        except (UpdateError, ApiError) as error:
            if self._why != str(error):
                log.warning("no update: %s", error)
            self._why = str(error)
            return
        if staged:
            await self._hand_over(manager, staged)

    async def _look(self, manager: Manager) -> None:
        config = self._config
        if config.update_url:
            release = await trio.to_thread.run_sync(published, config, abandon_on_cancel=True)
        else:
            release = from_answer(config, await manager.release())
        self._checked_ms = time.time_ns() // 1_000_000
        self._published = None if release is None else release.version
        wanted = judged(config, release, VERSION, anyway=False)
        self._why = ""
        if wanted is not None:
            log.info("the manager %s is published: installing it", wanted.version)
            await trio.to_thread.run_sync(install, config, wanted, abandon_on_cancel=True)

    async def _hand_over(self, manager: Manager, version: str) -> None:
        trial = Trial(
            data_path=str(self._config.data_path),
            version=version,
            running=VERSION,
            within_s=self._config.update_beats_within_s,
            launch=asdict(self._launch),
        )
        # One that failed once while nobody was heard is tried only when we are.
        failed_once = version in self._updates.known().failed
        within_s = float("inf") if failed_once else self._config.update_beats_within_s
        with trio.move_on_after(within_s):
            await manager.wait_next_beat()
        manager.hand_over(trial.command())

    async def _wait(self) -> None:
        every_s: float = self._config.update_every_s or float("inf")
        if self._why and self._config.update_every_s:
            every_s = min(every_s, RETRY_S)
        with trio.move_on_after(every_s * (0.9 + 0.2 * random.random())):
            await self._asked.wait()
            await trio.sleep(ASIDE_S)
