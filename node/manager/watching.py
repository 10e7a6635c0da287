"""What is known of the workloads' health: reports as they come, probes as they are made, marks of updates.

`verdicts` asks the pure function of health.py for each; nothing is judged here. Reports are kept on disk for
a manager that is killed: else those that it has not heard again yet would be absent in its first beat.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trio

from node.calls import StateName
from node.drivers.port import Driver, Phase, Running
from node.health import REPORTED, Probed, Report, Verdict, decide, probed
from node.health_probe import probe

log = logging.getLogger(__name__)
LOOK_S = 0.2  # how soon a new run is probed for the first time
SAVE_S = 5.0
REPORTS_BYTES_MAX = 1_048_576


class Watching:
    """ttl_s: how long a report holds. `path`: where reports are kept. Probes run with `environment`."""

    def __init__(self, driver: Driver, path: Path, *, ttl_s: float, environment: Mapping[str, str]) -> None:
        self._driver = driver
        self._path, self._ttl_s, self._environment = path, ttl_s, environment
        self._reports: dict[str, Report] = {}
        self._probes: dict[tuple[str, str], Probed] = {}  # by workload and run
        self._updating: set[str] = set()
        self._unsaved = False
        self._load()

    def report(self, workload_id: str, state: StateName, detail: str) -> None:
        """A workload said this of itself."""
        self._reports[workload_id] = Report(state, trio.current_time(), detail)
        self._unsaved = True

    @contextmanager
    def updating(self, workload_id: str) -> Iterator[None]:
        """An update or restart of it that was ordered is being carried out."""
        self._updating.add(workload_id)
        try:
            yield
        finally:
            self._updating.discard(workload_id)

    def verdict(self, workload_id: str, *, updating: bool | None = None) -> Verdict:
        """How it is now. updating: whether an order is being carried out; None: as is known."""
        running = self._driver.running().get(workload_id)
        known = Probed() if running is None else self._probes.get((workload_id, running.run), Probed())
        return decide(
            running=running,
            report=self._reports.get(workload_id),
            probe=known,
            updating=workload_id in self._updating if updating is None else updating,
            now_s=trio.current_time(),
            ttl_s=self._ttl_s,
        )

    async def run(self) -> None:
        """Probe what runs, each run by a task of its own, and keep the reports. Never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_reports)
            while True:
                runs = {(name, one.run) for name, one in self._driver.running().items() if _is_probed(one)}
                self._probes = {key: known for key, known in self._probes.items() if key in runs}
                for key in runs - self._probes.keys():
                    self._probes[key] = Probed()
                    nursery.start_soon(self._probe_run, *key)
                await trio.sleep(LOOK_S)

    async def _probe_run(self, workload_id: str, run: str) -> None:
        """Probe one run until another has taken its place."""
        while (workload_id, run) in self._probes:
            running = self._driver.running().get(workload_id)
            if running is None or running.run != run or running.health is None:
                return
            began_s = trio.current_time()
            failure = await probe(running.health, environment=self._environment, directory=Path("/"))
            known = self._probes.get((workload_id, run))
            if known is None:
                return
            self._probes[workload_id, run] = probed(known, running.health, failure=failure)
            await trio.sleep_until(began_s + running.health.interval_s)

    # -- reports on disk ----------------------------------------------------------------------------

    async def _keep_reports(self) -> None:
        while True:
            await trio.sleep(SAVE_S)
            if self._unsaved:
                self.save()

    def save(self) -> None:
        """Write the reports down, in wall time; unsynced, for after a power cut they are too old anyway."""
        behind_s = time.time() - trio.current_time()
        kept = {name: [one.state, one.at_s + behind_s, one.detail] for name, one in self._reports.items()}
        beside = self._path.with_name(self._path.name + ".new")
        try:
            beside.write_text(json.dumps(kept))
            beside.replace(self._path)
        except OSError as error:
            log.warning("reports cannot be kept: %s", error)
        self._unsaved = False

    def _load(self) -> None:
        """The reports of an earlier manager that are still valid."""
        try:
            kept = json.loads(self._path.read_bytes()[:REPORTS_BYTES_MAX])
            behind_s = time.time() - trio.current_time()
            now_s = trio.current_time()
            for name, (state, at_s, detail) in kept.items():
                age_s = now_s - (at_s - behind_s)
                if state in REPORTED and 0 <= age_s < self._ttl_s:
                    self._reports[name] = Report(state, now_s - age_s, str(detail))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("earlier reports cannot be used: %s", error)


def _is_probed(running: Running) -> bool:
    return running.health is not None and running.health.probes and running.phase is Phase.RUNNING
