"""The driver that runs workloads as processes: one task keeps each, by its restart policy.

A process outlives the manager: its output goes to files, and the next manager finds and keeps it (adopts it)
rather than starting it twice. Folder, record and spawning are process_child.py's, output files rotation.py's.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.drivers.pids import end_group, end_remains, wait_ended
from node.drivers.port import DriverError, ManifestError, Order, Origin, Phase, Running
from node.drivers.process_child import (
    WORKLOAD_ID,
    Child,
    Record,
    WorkloadFolder,
    must_be_runnable,
    new_run,
)
from node.drivers.process_manifest import ProcessManifest, parse_manifest
from node.drivers.rotation import rotate

log = logging.getLogger(__name__)
BACKOFF_S_MIN, BACKOFF_S_MAX = 1.0, 60.0
STEADY_S = 60.0  # who ran so long is not in a crash loop
ROTATE_S = 5.0
REMOVED_MAX = 16  # folders of removed workloads that are kept, for who wants his files back
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def backoff_s(crashes: int) -> float:
    """How long to wait before the next try after so many crashes in a row: 1 s, doubled, at most 60 s."""
    return min(BACKOFF_S_MIN * (1 << min(crashes - 1, 16)), BACKOFF_S_MAX)


def starts_again(manifest: ProcessManifest, code: int | None) -> bool:
    """Whether an end with this code, which nobody ordered, is followed by another run. None: not known."""
    return manifest.restart == "always" or (manifest.restart == "on-failure" and code != 0)


@dataclass(slots=True, kw_only=True)
class _Kept:
    """One workload: what it is, how it is, and the task that keeps it."""

    folder: WorkloadFolder
    order: Order
    manifest: ProcessManifest
    child: Child | None = None
    run: str = ""
    phase: Phase = Phase.STARTING
    origin: Origin = Origin.ORDERED
    since_s: float = field(default_factory=trio.current_time)
    detail: str = ""
    crashes: int = 0
    in_a_row: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    left: trio.Event = field(default_factory=trio.Event)

    def turn(self, phase: Phase, detail: str = "") -> None:
        self.phase, self.detail, self.since_s = phase, detail, trio.current_time()


class ProcessDriver:
    """folder: what must survive a restart of the manager. environment: of every workload."""

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str],
        log_bytes_max: int,
        log_files: int,
    ) -> None:
        self._folder, self._removed = folder / "workloads", folder / "removed"
        self._environment = dict(environment)
        self._log_bytes_max, self._log_files = log_bytes_max, log_files
        self._kept: dict[str, _Kept] = {}
        self._nursery: trio.Nursery | None = None

    # -- the port -----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._make_folders()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for path in sorted(self._folder.iterdir()):
                await self._take_up(WorkloadFolder(path))
            task_status.started()
            while True:
                await trio.sleep(ROTATE_S)
                await trio.to_thread.run_sync(self._rotate_logs)

    def running(self) -> Mapping[str, Running]:
        return {
            name: Running(
                workload_id=name,
                name=kept.order.name,
                version=kept.order.version,
                digest=kept.order.digest,
                restarts=kept.order.restarts,
                phase=kept.phase,
                origin=kept.origin,
                since_s=kept.since_s,
                run=kept.run,
                detail=kept.detail,
                crashes=kept.crashes,
                pid=None if kept.child is None else kept.child.pid,
                health=kept.manifest.health,
            )
            for name, kept in self._kept.items()
        }

    def trouble(self) -> str:
        return ""  # what fails here fails for one workload, which says so itself

    def check(self, manifest: str) -> None:
        must_be_runnable(parse_manifest(manifest), self._environment)

    async def apply(self, order: Order) -> None:
        if not _ID.fullmatch(order.workload_id):
            raise ManifestError(f"not an id that can name a folder: {order.workload_id!r}")
        manifest = parse_manifest(order.manifest)
        must_be_runnable(manifest, self._environment)
        await self._end(order.workload_id)
        folder = WorkloadFolder(self._folder / order.workload_id)
        self._begin(_Kept(folder=folder, order=order, manifest=manifest))

    async def restart(self, workload_id: str, *, restarts: int) -> None:
        kept = self._kept.get(workload_id)
        if kept is None:
            raise DriverError(f"there is no workload {workload_id}")
        await self._end(workload_id)
        order = replace(kept.order, restarts=restarts)
        self._begin(_Kept(folder=kept.folder, order=order, manifest=kept.manifest, crashes=kept.crashes))

    async def remove(self, workload_id: str) -> None:
        kept = self._kept.get(workload_id)
        if kept is None:
            return
        await self._end(workload_id)
        del self._kept[workload_id]
        self._put_away(kept.folder)

    async def stop_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for workload_id in self._kept:
                nursery.start_soon(self._end, workload_id)

    # -- beginning and ending -----------------------------------------------------------------------

    def _make_folders(self) -> None:
        try:
            for folder in (self._folder, self._removed):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise DriverError(str(error)) from error

    async def _take_up(self, folder: WorkloadFolder) -> None:
        """What an earlier manager was told, and the process if it still runs."""
        try:
            record = folder.read()
            manifest = parse_manifest(record.order.manifest)
        except (DriverError, ManifestError) as error:
            log.error("a workload is set aside until it is ordered again: %s", error)
            stray = folder.find_unrecorded()
            if stray is not None:
                await end_group(stray.pid, stray.who, timeout_s=BACKOFF_S_MIN)
            return
        kept = _Kept(folder=folder, order=record.order, manifest=manifest)
        kept.run, kept.child = record.run, folder.find(record)
        if kept.child is not None:
            kept.origin = Origin.ADOPTED
            kept.turn(Phase.RUNNING)
        elif record.ended:
            kept.turn(Phase.FAILED if record.failed else Phase.COMPLETED, record.ended)
            kept.left.set()
        self._kept[record.order.workload_id] = kept
        if not record.ended or kept.child is not None:
            self._start(kept)

    def _begin(self, kept: _Kept) -> None:
        """Write it down, then keep it: killed between the two, the next manager begins it."""
        kept.folder.write(Record(order=kept.order))
        self._kept[kept.order.workload_id] = kept
        self._start(kept)

    def _start(self, kept: _Kept) -> None:
        if self._nursery is None:
            raise DriverError("the driver is not running")
        self._nursery.start_soon(self._keep, kept)

    async def _end(self, workload_id: str) -> None:
        """End the process, if there is one; nobody keeps the workload after."""
        kept = self._kept.get(workload_id)
        if kept is None:
            return
        kept.scope.cancel()
        if not kept.left.is_set():
            await kept.left.wait()
        if kept.child is not None:
            await end_group(kept.child.pid, kept.child.who, timeout_s=kept.manifest.stop_timeout_s)
            kept.child = None
        kept.turn(Phase.STARTING, "stopped")

    def _put_away(self, folder: WorkloadFolder) -> None:
        """A removed workload's files are kept a while beside the others."""
        try:
            folder.path.rename(self._removed / f"{time.time_ns() // 1_000_000}-{folder.path.name}")
            for old in sorted(self._removed.iterdir())[:-REMOVED_MAX]:
                _delete(old)
        except OSError as error:
            raise DriverError(str(error)) from error

    # -- keeping ------------------------------------------------------------------------------------

    async def _keep(self, kept: _Kept) -> None:
        """The life of one workload: run, end, wait, again. Cancelled, it leaves the process as it is."""
        try:
            with kept.scope:
                while True:
                    if kept.child is None and not self._spawn(kept):
                        await self._wait_after_crash(kept, kept.detail)
                        continue
                    assert kept.child is not None
                    began_s = trio.current_time()
                    code = await wait_ended(kept.child.pid, kept.child.who)
                    end_remains(kept.child.pid)
                    kept.child = None
                    if trio.current_time() - began_s >= STEADY_S:
                        kept.in_a_row = 0
                    if not starts_again(kept.manifest, code):
                        self._has_ended(kept, code)
                        return
                    await self._wait_after_crash(kept, _told(code))
        finally:
            kept.left.set()

    def _spawn(self, kept: _Kept) -> bool:
        """Begin the next run; False, with the reason in its detail, when the system refuses."""
        kept.run = new_run()
        record = Record(order=kept.order, run=kept.run)
        try:
            kept.folder.write(record)  # before: by this run's name it is found, should we die now
            kept.child = kept.folder.spawn(kept.manifest, self._environment_of(kept), run=kept.run)
        except DriverError as error:
            kept.detail = str(error)
            return False
        self._write(kept, replace(record, who=kept.child.who))
        kept.origin = Origin.CRASHED if kept.in_a_row else Origin.ORDERED
        kept.turn(Phase.RUNNING)
        return True

    def _environment_of(self, kept: _Kept) -> dict[str, str]:
        names = {WORKLOAD_ID: kept.order.workload_id, "NODEPULSE_WORKLOAD": kept.order.name}
        return {**self._environment, **names}

    async def _wait_after_crash(self, kept: _Kept, why: str) -> None:
        kept.crashes += 1
        kept.in_a_row += 1
        wait_s = backoff_s(kept.in_a_row)
        kept.turn(Phase.FAILED, f"{why}; begun again after {wait_s:g} s")
        await trio.sleep(wait_s)

    def _has_ended(self, kept: _Kept, code: int | None) -> None:
        """It is not begun again, whatever becomes of the manager."""
        failed = code != 0
        kept.turn(Phase.FAILED if failed else Phase.COMPLETED, _told(code))
        self._write(kept, Record(order=kept.order, run=kept.run, ended=kept.detail, failed=failed))

    def _write(self, kept: _Kept, record: Record) -> None:
        """What a later manager would know better with, but can do without."""
        try:
            kept.folder.write(record)
        except DriverError as error:
            log.error("%s", error)

    def _rotate_logs(self) -> None:
        for kept in list(self._kept.values()):
            for log in kept.folder.logs:
                rotate(log, bytes_max=self._log_bytes_max, files=self._log_files)


def _told(code: int | None) -> str:
    if code is None:
        return "ended, nobody saw how"
    return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _delete(path: Path) -> None:
    for inner in path.iterdir():
        if inner.is_dir() and not inner.is_symlink():
            _delete(inner)
        else:
            inner.unlink()
    path.rmdir()
