"""The kubernetes driver running against the pretended API server: what the tests of its parts share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.drivers.kubernetes import KubernetesDriver
from node.drivers.kubernetes_access import find_access
from node.drivers.port import Order, Running
from tests.node.kube_api.double import KubeApiDouble

NODE_ID = "node-1"
WITHIN_S = 10.0
LOOK_S = 0.05


def manifest(image: str = "registry.test/well:1.0.0", **more: Any) -> str:
    return json.dumps({"image": image, "stop_timeout_s": 1, **more})


def order(workload_id: str, text: str | None = None, *, version: str = "1.0.0", restarts: int = 0) -> Order:
    text = text or manifest()
    return Order(
        workload_id=workload_id,
        name=f"the {workload_id}",
        version=version,
        digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        manifest=text,
        restarts=restarts,
    )


@asynccontextmanager
async def driving(
    double: KubeApiDouble, folder: Path, *, node_id: str = NODE_ID, **options: str
) -> AsyncIterator[KubernetesDriver]:
    """A driver that runs; leaving it ends nothing that runs in the cluster, as a killed manager does."""
    access = find_access(options, double.environment())
    driver = KubernetesDriver(folder, access, node_id=node_id, request_s=2.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run)
        yield driver
        nursery.cancel_scope.cancel()


async def until(
    ready: Callable[[], Any], *, within_s: float = WITHIN_S, why: Callable[[], Any] = str
) -> None:
    """Wait until it is so. What is asked of the API server is asked in this thread: it is another process."""
    with trio.move_on_after(within_s):
        while not ready():  # noqa: ASYNC110 - another process is asked
            await trio.sleep(LOOK_S)
        return
    raise AssertionError(why())


async def phase(driver: KubernetesDriver, workload_id: str, wanted: str, **more: Any) -> Running:
    """Wait until the driver says so of a workload."""

    def fits() -> bool:
        found = driver.running().get(workload_id)
        return (
            found is not None
            and found.phase == wanted
            and all(getattr(found, k) == v for k, v in more.items())
        )

    await until(fits, why=lambda: (driver.running().get(workload_id), driver.trouble()))
    return driver.running()[workload_id]
