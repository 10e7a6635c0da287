"""The manager as a whole: its parts in one nursery, and what is asked of it from outside.

It is no more than wiring: beats are np1's and handing_in.py's, the desired state reconcile.py's, health
watching.py's. How it is started and which signals end it, is main.py's.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from node.calls import NodeEvent, SessionRefused, StateName
from node.client import NodeClient
from node.config import NodeConfig
from node.drivers.port import Driver, DriverError
from node.health import REPORTED
from node.identity import NodeIdentity
from node.manager.api import ManagerApi
from node.manager.handing_in import HandingIn, load_session, save_session
from node.manager.kept_beats import KeptBeats
from node.manager.local_http import LocalRefusalError, LocalServer, Request
from node.manager.reconcile import Reconciler
from node.manager.status import beats_status, desired_status, process_status, workloads_status
from node.manager.watching import Watching
from np1.codec import Code
from np1.effects import Credited, PathChanged, SessionOpened
from np1.effects import Path as Way

log = logging.getLogger(__name__)
TELL_S = 0.25  # how old the states in a beat may be
STOP_BEAT_S = 5.0
DETAIL_MAX = 500
_PATH = re.compile(r"/(health|workloads)/([^/]{1,300})(/restart)?")


class Updating(Protocol):
    """Who keeps the manager itself up to date, for those who ask from outside."""

    def ask(self) -> None:
        """Look for a release at once."""

    def status(self) -> dict[str, Any]:
        """For people."""


class Manager:
    """One node's manager. environment: of probes by command; `driver` has it for the workloads.

    tasks: what else runs beside it, given the manager: the updater does (`release`, `wait_beating`,
    `hand_over` are for it).
    """

    def __init__(
        self,
        config: NodeConfig,
        driver: Driver,
        *,
        version: str,
        environment: Mapping[str, str],
        tls: ssl.SSLContext | None = None,
        tasks: Sequence[Callable[[Manager], Awaitable[None]]] = (),
    ) -> None:
        folder = config.data_path
        self.config, self.driver, self.version = config, driver, version
        self._tasks = tasks
        self.updater: Updating | None = None  # says so itself
        self._session_path = folder / "session.json"
        self._client = NodeClient(
            config.web_url,
            node_id=config.node_id,
            private_key=config.private_key,
            manager_version=version,
            on_event=self._on_event,
            tls=tls,
            resume=load_session(self._session_path),
        )
        identity = NodeIdentity(config.node_id, config.private_key)
        self._api = ManagerApi(config.web_url, identity, token=self._token, tls=tls)
        self._kept = KeptBeats(
            folder / "beats", bytes_max=config.backlog_bytes_max, age_s_max=config.backlog_age_s_max
        )
        self._handing_in = HandingIn(self._client, self._api, self._kept)
        self._watching = Watching(
            driver, folder / "reports.json", ttl_s=config.health_ttl_s, environment=environment
        )
        self._reconciler = Reconciler(
            self._api,
            driver,
            self._watching,
            every_s=config.desired_every_s,
            path=folder / "desired.json",
        )
        self._local = LocalServer(
            self._handle, host=config.health_host, port=config.health_port, socket_path=config.socket_path
        )
        self._began_s = trio.current_time()
        self._last_ack: tuple[Code, Way, float] | None = None
        self._refused = ""  # why no session was opened the last time
        self._ends = trio.Event()
        self._successor: Sequence[str] | None = None
        self._stopping = False

    # -- life ---------------------------------------------------------------------------------------

    async def run(self) -> Sequence[str] | None:
        """Until `stop` or `hand_over`: None, or the command that takes our place. OSError, DriverError."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.driver.run)
                await nursery.start(self._local.run)
                for task in (self._watching.run, self._handing_in.run, self._reconciler.run):
                    nursery.start_soon(task)
                nursery.start_soon(self._tell_states)
                nursery.start_soon(self._client.run)
                for extra in self._tasks:
                    nursery.start_soon(extra, self)
                log.info("the manager %s runs for node %s", self.version, self.config.node_id)
                await self._ends.wait()
                if self._successor is None:
                    await self._stop_all()
                nursery.cancel_scope.cancel()
        finally:
            self._handing_in.follow()
            self._watching.save()
            self._kept.close()
        return self._successor

    def stop(self) -> None:
        """An orderly stop: the server is told first, then the workloads are ended."""
        self._ends.set()

    def hand_over(self, command: Sequence[str]) -> None:
        """Make room for another manager: nobody is told, the workloads run on, `run` returns the command.

        An empty one: for a manager that others begin.
        """
        self._successor = list(command)
        self._ends.set()

    async def _stop_all(self) -> None:
        self._stopping = True
        told = await self._client.stop(timeout_s=STOP_BEAT_S)
        log.info("stopping; the server %s", "knows" if told else "could not be told")
        try:
            await self.driver.stop_all()
        except DriverError as error:
            log.error("workloads may run on: %s", error)

    # -- for the tasks beside it --------------------------------------------------------------------

    async def release(self) -> dict[str, str] | None:
        """The release that this manager should be, None if there is none. ApiError."""
        return await self._api.release()

    async def wait_beating(self, *, timeout_s: float) -> bool:
        """Whether a beat of this process is credited within that time."""
        with trio.move_on_after(timeout_s):
            await self._client.wait_until(lambda _: self._last_ack is not None)
        return self._last_ack is not None

    async def wait_next_beat(self) -> None:
        """Return right after the next credited beat."""
        before = self._last_ack
        await self._client.wait_until(lambda _: self._last_ack is not before)

    # -- beats --------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        grant = self._client.grant
        return None if grant is None else grant.token

    def _on_event(self, event: NodeEvent) -> None:
        match event:
            case Credited(ack, way):
                self._last_ack = (ack.code, way, trio.current_time())
                self._handing_in.heard()
                if ack.code is Code.RESYNC:
                    self._reconciler.ask_now()
            case SessionOpened():
                self._refused = ""
                log.info("session of generation %d", event.generation)
                save_session(self._session_path, self._client)
                self._reconciler.ask_now()
            case SessionRefused():
                self._refused = event.detail
                log.warning("no session: %s", event.detail)
            case PathChanged(way):
                log.warning("beats go by %s now", way)
            case _:
                log.debug("%s", event)

    async def _tell_states(self) -> None:
        """Have each beat say how the workloads are when it leaves."""
        while True:
            self._client.set_states({name: self._watching.verdict(name).state for name in self._ids()})
            await trio.sleep(TELL_S)

    def _ids(self) -> set[str]:
        grant = self._client.grant
        slots = () if grant is None else (name for _, name in grant.slots)
        return {*slots} or {*self._reconciler.desired, *self.driver.running()}

    # -- asked from outside -------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Any:
        route = (request.method, request.path)
        if route == ("GET", "/healthz"):
            return self._healthz()
        found = _PATH.fullmatch(request.path)
        if found and found[1] == "health" and not found[3]:
            if request.method != "POST":
                raise LocalRefusalError(405, "POST it")
            return self._take_report(found[2], request.body)
        if not request.private:
            raise LocalRefusalError(404, "not on this port; more is on the Unix socket")
        if route == ("GET", "/status"):
            return self.status()
        if route == ("POST", "/update"):
            if self.updater is None:
                raise LocalRefusalError(409, "this manager does not update itself")
            self.updater.ask()
            return {"asked": True}
        if route == ("POST", "/reconcile"):
            self._reconciler.ask_now()
            return {"asked": True}
        if found and found[3] and request.method == "POST":
            return await self._restart(self._id_of(found[2]))
        raise LocalRefusalError(404, "there is no such path")

    def status(self) -> dict[str, Any]:
        """Everything that people are told."""
        state = "stopping" if self._stopping else "beating" if self._is_heard() else "connecting"
        return {
            **process_status(self.version, self._began_s),
            "state": state,
            "error": self._refused,
            "node_id": self.config.node_id,
            "web_url": self.config.web_url,
            "driver": self.config.driver,
            "driver_error": self.driver.trouble(),
            **beats_status(self._client, self._kept, self._handing_in, self._last_ack),
            "desired": desired_status(self._reconciler),
            "update": None if self.updater is None else self.updater.status(),
            "workloads": workloads_status(self._reconciler, self.driver, self._watching),
        }

    def _is_heard(self) -> bool:
        """An acknowledgement came in the last three intervals."""
        interval_ms = self._client.statistics().interval_ms
        if self._last_ack is None or interval_ms is None:
            return False
        return trio.current_time() < self._last_ack[2] + 3 * interval_ms / 1000

    def _healthz(self) -> dict[str, Any]:
        if not self._is_heard():
            raise LocalRefusalError(503, "no beat was acknowledged in the last three intervals")
        return {"state": "beating"}

    def _take_report(self, name: str, body: bytes) -> dict[str, Any]:
        workload_id = self._id_of(name)
        try:
            said = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise LocalRefusalError(400, "the body is not JSON") from error
        state = said.get("state") if isinstance(said, dict) else None
        if state not in REPORTED:
            raise LocalRefusalError(400, f"state: not one of {', '.join(REPORTED)}")
        detail = said.get("detail", "")
        if not isinstance(detail, str):
            raise LocalRefusalError(400, "detail: not a text")
        told: StateName = state
        self._watching.report(workload_id, told, detail[:DETAIL_MAX])
        return {"workload_id": workload_id, "state": told, "ttl_s": self.config.health_ttl_s}

    async def _restart(self, workload_id: str) -> dict[str, Any]:
        """By who may use the Unix socket: an operator's own doing, so nothing is excused."""
        try:
            await self._reconciler.restart_by_hand(workload_id)
        except DriverError as error:
            raise LocalRefusalError(409, str(error)) from error
        return {"workload_id": workload_id, "restarted": True}

    def _id_of(self, name: str) -> str:
        """A workload's id by its name or id. LocalRefusalError when there is none, or more than one."""
        ids = self._ids() | self._reconciler.desired.keys()
        if name in ids:
            return name
        named = [one.workload_id for one in self._reconciler.desired.values() if one.name == name]
        if len(named) > 1:
            raise LocalRefusalError(409, f"{len(named)} workloads have this name: use the id")
        if not named:
            raise LocalRefusalError(404, "there is no such workload on this node")
        return named[0]
