"""Asking for the desired state and bringing it about, through the driver; reporting what runs.

What must be done is decided in plan.py. Each workload's step is its own: one that fails is told of and tried
again at the next asking, the others go on.
"""

from __future__ import annotations

import json
import logging
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import trio

from node.config import write_whole
from node.drivers.port import Driver, DriverError, ManifestError, Order
from node.manager.api import ApiError, ManagerApi
from node.manager.plan import Action, Desired, Install, Remove, Restart, plan
from node.manager.watching import Watching

log = logging.getLogger(__name__)
AT_ONCE = 4  # workloads that are changed side by side
RETRY_S_MIN, RETRY_S_MAX = 2.0, 300.0
SETTLE_S = 60.0  # beyond its start period: how long an update may take to be well before it is told of
SETTLE_LOOK_S = 0.2


@dataclass(slots=True)
class _Failed:
    """A workload's step that failed: not tried again before `again_s`, unless something else is desired."""

    desired: Desired | None
    times: int
    again_s: float
    why: str


class Reconciler:
    """`ask_now` asks at once; else every `every_s`. `path`: where the last answer is kept."""

    def __init__(
        self, api: ManagerApi, driver: Driver, watching: Watching, *, every_s: float, path: Path
    ) -> None:
        self._api, self._driver, self._watching = api, driver, watching
        self._every_s, self._path = every_s, path
        self._wanted = trio.Event()
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._busy: dict[str, trio.CancelScope] = {}  # by workload: ends the waiting for it to be well
        self._failed: dict[str, _Failed] = {}
        self.desired: dict[str, Desired] = {}
        self.fetched_s: float | None = None  # trio's clock
        self.error = ""
        self._load()

    def ask_now(self) -> None:
        """Something else may be desired."""
        self._wanted.set()

    async def restart_by_hand(self, workload_id: str) -> None:
        """End what runs and begin it anew, excused by nobody. DriverError, also while it is being changed."""
        running = self._driver.running().get(workload_id)
        if running is None:
            raise DriverError("the manager does not run it")
        if workload_id in self._busy:
            raise DriverError("it is being changed right now: try again when that is over")
        self._busy[workload_id] = trio.CancelScope()
        try:
            await self._driver.restart(workload_id, restarts=running.restarts)
        finally:
            del self._busy[workload_id]
            self.ask_now()  # what was desired of it meanwhile was left for later

    def errors(self) -> dict[str, str]:
        """Why workloads are not as desired, by id."""
        return {name: failed.why for name, failed in self._failed.items()}

    async def run(self) -> None:
        """Never returns. The first time it asks when `ask_now` is called, that is when a session is open."""
        await self._wanted.wait()
        failures = 0
        async with trio.open_nursery() as nursery:
            while True:
                self._wanted = trio.Event()
                failures = 0 if await self._ask(nursery) else failures + 1
                wait_s = _backoff_s(failures) if failures else self._every_s * (0.9 + 0.2 * random.random())
                soonest_s = min((one.again_s for one in self._failed.values()), default=float("inf"))
                with trio.move_on_at(min(trio.current_time() + wait_s, soonest_s)):
                    await self._wanted.wait()

    async def _ask(self, nursery: trio.Nursery) -> bool:
        """Fetch what is desired and begin what must be done; False: it could not be fetched."""
        try:
            desired = await self._api.desired()
        except ApiError as error:
            log.warning("the desired state is not known: %s", error)
            self.error = str(error)
            return False
        self.error, self.fetched_s = "", trio.current_time()
        before, self.desired = self.desired, {one.workload_id: one for one in desired}
        if before != self.desired:
            self._save()
        self._failed = {name: failed for name, failed in self._failed.items() if name in self.desired}
        for action in plan(desired, self._driver.running()):
            workload_id = _workload_of(action)
            if workload_id in self._busy:
                if _asked(before.get(workload_id)) != _asked(self.desired.get(workload_id)):
                    self._busy[workload_id].cancel()
            elif self._may_begin(workload_id):
                self._busy[workload_id] = trio.CancelScope()
                nursery.start_soon(self._step, action)
        return True

    def _may_begin(self, workload_id: str) -> bool:
        failed, desired = self._failed.get(workload_id), self.desired.get(workload_id)
        waits = failed is not None and failed.desired == desired and trio.current_time() < failed.again_s
        return not waits

    async def _step(self, action: Action) -> None:
        workload_id, desired = _workload_of(action), self.desired.get(_workload_of(action))
        try:
            async with self._limit:
                await self._carry_out(action)
        except (ApiError, DriverError, ManifestError) as error:
            log.error("workload %s: %s", workload_id, error)
            known = self._failed.get(workload_id)
            times = 1 if known is None else known.times + 1
            again_s = trio.current_time() + _backoff_s(times)
            self._failed[workload_id] = _Failed(desired, times, again_s, str(error))
        else:
            self._failed.pop(workload_id, None)
        del self._busy[workload_id]
        self.ask_now()  # something else may have been desired meanwhile, and the wait is planned anew

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Remove(workload_id):
                log.info("workload %s is no longer listed: removed", workload_id)
                await self._driver.remove(workload_id)
            case Install(desired):
                await self._install(desired)
            case Restart(desired):
                log.info("workload %s: restarted, as ordered", desired.workload_id)
                with self._watching.updating(desired.workload_id):
                    await self._driver.restart(desired.workload_id, restarts=desired.restarts)
                    await self._settle(desired.workload_id)
                    await self._tell(desired.workload_id)
            case _:
                await self._tell(action.workload_id)

    async def _install(self, desired: Desired) -> None:
        assert desired.digest is not None
        assert desired.version is not None
        manifest = await self._api.manifest(desired.workload_id, desired.digest)
        self._driver.check(manifest)  # before what runs is ended for it
        order = Order(
            workload_id=desired.workload_id,
            name=desired.name,
            version=desired.version,
            digest=desired.digest,
            manifest=manifest,
            restarts=desired.restarts,
        )
        log.info("workload %s: begun as version %s", desired.workload_id, desired.version)
        with self._watching.updating(desired.workload_id):
            await self._driver.apply(order)
            await self._settle(desired.workload_id)
            await self._tell(desired.workload_id)

    async def _settle(self, workload_id: str) -> None:
        """Wait until it is well; not for ever, and not when something else is desired of it by now."""
        spec = self._driver.running()[workload_id].health
        within_s = SETTLE_S + (0 if spec is None else spec.start_period_s)
        with self._busy[workload_id], trio.move_on_after(within_s):
            while self._watching.verdict(workload_id, updating=False).state != "healthy":  # noqa: ASYNC110
                await trio.sleep(SETTLE_LOOK_S)
            return
        log.warning("workload %s was changed and is not well yet", workload_id)

    async def _tell(self, workload_id: str) -> None:
        """Report what runs. Told before the beat that says so, the time between is excused as well."""
        running = self._driver.running().get(workload_id)
        if running is not None:
            await self._api.report(workload_id, version=running.version, restarts=running.restarts)

    # -- the last answer on disk --------------------------------------------------------------------

    def _save(self) -> None:
        try:
            write_whole(self._path, json.dumps([asdict(one) for one in self.desired.values()]).encode())
        except OSError as error:
            log.warning("the desired state cannot be kept: %s", error)

    def _load(self) -> None:
        """Names of workloads, until the server tells them again."""
        try:
            self.desired = {one["workload_id"]: Desired(**one) for one in json.loads(self._path.read_bytes())}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the last desired state cannot be used: %s", error)


def _asked(desired: Desired | None) -> Desired | None:
    """Without what was reported, which is no wish."""
    return None if desired is None else replace(desired, running_version=None)


def _backoff_s(failures: int) -> float:
    return min(RETRY_S_MIN * (1 << min(failures - 1, 16)), RETRY_S_MAX) * (0.8 + 0.4 * random.random())


def _workload_of(action: Action) -> str:
    match action:
        case Install(desired) | Restart(desired):
            return desired.workload_id
        case _:
            return action.workload_id
