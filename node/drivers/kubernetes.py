"""The driver that runs workloads as Deployments of a Kubernetes cluster (K3s), through its API server.

The cluster runs them, begins crashed ones anew and remembers what was ordered; the driver makes, patches and
deletes Deployments, and looks every few seconds how they fare. While the API server is away what is known
stays known for a while, because workloads run on without it. Reasons: docs/decisions/0085.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from node.drivers.kubernetes_access import Access
from node.drivers.kubernetes_api import KubeApi, KubeError
from node.drivers.kubernetes_deployment import (
    BEGUN,
    ORDER,
    STOPPED,
    WORKLOAD,
    label_of,
    name_of,
    order_text,
    render,
    selector_of,
)
from node.drivers.kubernetes_manifest import parse_manifest
from node.drivers.kubernetes_view import Kept, View
from node.drivers.port import DriverError, ManifestError, Order, Phase, Running

log = logging.getLogger(__name__)
LOOK_S = 5.0  # between two readings while nothing changes
LOOK_SOON_S = 1.0  # and while a workload is being begun
FIRST_LOOK_S = 10.0  # how long a starting manager waits for a first reading before it goes on without
AWAY_S_MAX = 30.0  # between two tries to reach an API server that is away
BLIND_S = 300.0  # how long what was seen last holds; a cluster gives up a silent machine after as long
GONE_S = 30.0  # beyond its grace: how long a pod may take to be gone
GONE_LOOK_S = 0.5


class KubernetesDriver:
    """folder: for what must survive a restart. report_url, machine: as kubernetes_access.OPTIONS; or ""."""

    def __init__(
        self,
        folder: Path,
        access: Access,
        *,
        node_id: str,
        report_url: str = "",
        machine: str = "",
        request_s: float = 10.0,
    ) -> None:
        self._access, self._api = access, KubeApi(access, timeout_s=request_s)
        self._node = label_of(node_id)
        self._report_url, self._machine = report_url, machine
        self._path = folder / "kubernetes.json"
        self._opened: View | None = None
        self._wake = trio.Event()
        self._error = ""
        self._retry_after_s = 0.0
        self._seen_s: float | None = None  # when the cluster was last read
        self._began_s: float | None = None
        self._stopping = False

    # -- the port -----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._began_s = trio.current_time()
        failures = 0
        with trio.move_on_after(FIRST_LOOK_S):
            failures = 0 if await self._look() else 1
        if self._seen_s is None:
            self._error = self._error or f"the API server did not answer within {FIRST_LOOK_S:g} s"
        task_status.started()
        while True:
            with trio.move_on_after(self._wait_s(failures)):
                await trio.sleep(self._retry_after_s)  # not even a change makes us ask sooner
                await self._wake.wait()
            self._wake = trio.Event()
            failures = 0 if await self._look() else failures + 1

    def running(self) -> Mapping[str, Running]:
        last_s = self._began_s if self._seen_s is None else self._seen_s
        blind_s = 0 if not self._error or last_s is None else trio.current_time() - last_s
        blind = "" if blind_s < BLIND_S else f"not known for {blind_s:.0f} s: {self._error}"
        return self._view.running(blind=blind)

    def trouble(self) -> str:
        if not self._error:
            return ""
        last_s = self._began_s if self._seen_s is None else self._seen_s
        since = "" if last_s is None else f"for {trio.current_time() - last_s:.0f} s: "
        return f"{self._access.server}: {since}{self._error}"

    def statistics(self) -> dict[str, int]:
        """Requests of the API server, and how many workloads are kept."""
        return {**self._api.statistics(), "workloads": len(self._view.kept)}

    def check(self, manifest: str) -> None:
        parse_manifest(manifest)

    async def apply(self, order: Order) -> None:
        manifest = parse_manifest(order.manifest)
        whole = render(
            order,
            manifest,
            node=self._node,
            namespace=self._access.namespace,
            report_url=self._report_url,
            machine=self._machine,
        )
        name = name_of(order.workload_id)
        with self._changing(order.workload_id):
            answer = await self._api.apply(name, whole)
            if answer["metadata"].get("deletionTimestamp"):
                # It was on its way out and would take the change with it.
                await self._wait_gone("deployments", order.workload_id, manifest.stop_timeout_s)
                await self._api.apply(name, whole)
            self._view.ordered(order, manifest.health, stop_s=manifest.stop_timeout_s)

    async def restart(self, workload_id: str, *, restarts: int) -> None:
        kept = self._view.kept.get(workload_id)
        if kept is None:
            raise DriverError(f"there is no workload {workload_id}")
        order = replace(kept.order, restarts=restarts)
        annotations = {ORDER: order_text(order, kept.health)}
        with self._changing(workload_id):
            patch = {"metadata": {"annotations": annotations}, "spec": _begun_anew()}
            try:
                await self._api.merge(name_of(workload_id), patch)
            except KubeError as error:
                if error.status == 404:
                    del self._view.kept[workload_id]
                    raise DriverError("somebody has deleted its Deployment") from error
                raise
            self._view.ordered(order, kept.health, stop_s=kept.stop_s)

    async def remove(self, workload_id: str) -> None:
        kept = self._view.kept.get(workload_id)
        if kept is None:
            return
        with self._changing(workload_id):
            await self._api.delete(name_of(workload_id))
            self._view.kept.pop(workload_id, None)
            self._view.save()
            await self._wait_gone("deployments", workload_id, kept.stop_s)

    async def stop_all(self) -> None:
        self._stopping = True
        errors: list[str] = []
        async with trio.open_nursery() as nursery:
            for workload_id, kept in list(self._view.kept.items()):
                nursery.start_soon(self._stop, workload_id, kept, errors)
        if errors:
            raise DriverError("; ".join(errors))

    # -- looking ------------------------------------------------------------------------------------

    @property
    def _view(self) -> View:
        if self._opened is None:  # not before trio runs: it knows what moment it is
            self._opened = View(self._path)
        return self._opened

    async def _look(self) -> bool:
        """Read how everything fares; False when it cannot be read."""
        moment, selector = self._view.moment(), selector_of(self._node)
        try:
            deployments = await self._api.find("deployments", selector)
            pods = await self._api.find("pods", selector)
            self._view.take(deployments, pods, moment=moment)
            self._seen_s = trio.current_time()
            await self._resume()
        except KubeError as error:
            if str(error) != self._error:
                log.warning("%s", error)
            self._error, self._retry_after_s = str(error), min(error.retry_after_s or 0.0, AWAY_S_MAX)
            return False
        if self._error:
            log.info("the API server answers again")
        self._error, self._retry_after_s = "", 0.0
        return True

    async def _resume(self) -> None:
        """Begin what an orderly stop has ended: this is the start that follows it."""
        for workload_id, kept in list(self._view.kept.items()):
            if kept.stopped and not self._stopping:
                log.info("workload %s is begun again after the stop", workload_id)
                patch = {
                    "metadata": {"annotations": {STOPPED: None}},
                    "spec": {"replicas": 1, **_begun_anew()},
                }
                with self._view.changing(workload_id):
                    await self._api.merge(name_of(workload_id), patch)
                    self._view.ordered(kept.order, kept.health, stop_s=kept.stop_s)

    def _wait_s(self, failures: int) -> float:
        if failures:
            usual_s = min(LOOK_SOON_S * (1 << min(failures - 1, 16)), AWAY_S_MAX)
            return max(usual_s, self._retry_after_s) * (1 + 0.25 * random.random())
        changes = any(kept.known.phase is Phase.STARTING for kept in self._view.kept.values())
        return LOOK_SOON_S if changes else LOOK_S

    # -- changing -----------------------------------------------------------------------------------

    @contextmanager
    def _changing(self, workload_id: str) -> Iterator[None]:
        """While it is changed: readings do not interfere, refusals become the port's, a look follows."""
        try:
            with self._view.changing(workload_id):
                yield
        except KubeError as error:
            if error.status in (400, 422):  # the manifest is to blame, not the moment
                raise ManifestError(str(error)) from error
            raise DriverError(str(error)) from error
        finally:
            self._wake.set()

    async def _stop(self, workload_id: str, kept: Kept, errors: list[str]) -> None:
        """Scale it to nothing and wait until its pod is gone."""
        patch = {"metadata": {"annotations": {STOPPED: "true"}}, "spec": {"replicas": 0}}
        try:
            with self._changing(workload_id):
                await self._api.merge(name_of(workload_id), patch)
                await self._wait_gone("pods", workload_id, kept.stop_s)
        except (DriverError, ManifestError) as error:
            errors.append(f"workload {workload_id}: {error}")

    async def _wait_gone(self, resource: str, workload_id: str, stop_s: float) -> None:
        """Return when no such object is left; DriverError when that takes too long."""
        selector = f"{selector_of(self._node)},{WORKLOAD}={workload_id}"
        with trio.move_on_after(stop_s + GONE_S):
            while True:
                try:
                    if not await self._api.find(resource, selector):
                        return
                except KubeError as error:
                    if not error.passes:
                        raise
                await trio.sleep(GONE_LOOK_S)
        raise DriverError(f"it is being ended, but not gone after {stop_s + GONE_S:.0f} s")


def _begun_anew() -> dict[str, Any]:
    """A change of the template that does nothing but begin a new pod, as `kubectl rollout restart` does."""
    return {"template": {"metadata": {"annotations": {BEGUN: secrets.token_hex(8)}}}}
