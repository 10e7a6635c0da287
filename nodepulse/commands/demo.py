"""`demo`: a fleet that misbehaves, and what NodePulse says of it, side by side as a live table."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.core.records import NODE_STATES, Event
from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import json_option, print_json
from nodepulse.commands.stores import now_ms
from nodepulse.config import Config
from nodepulse.fleet import Fleet
from nodepulse.provision import provision
from nodepulse.readiness import is_ready, reached_at
from nodepulse.runfolder import effective_of, is_served
from storage.bridge import run_on_uvloop
from storage.open import Stores, open_stores

START_S = 60.0
STOP_S = 20.0
CLEAN_UP_S = 15.0
LOOK_S = 0.5
EVENTS_SHOWN = 12
EVENTS_PAGE = 500
PROJECT = "demo"


@click.command()
@click.option("--nodes", type=click.IntRange(1, 2_000), default=200, show_default=True)
@click.option("--workloads", type=click.IntRange(1, 64), default=5, show_default=True, help="Of each node.")
@click.option("--interval-ms", type=click.IntRange(1_000), default=1_000, show_default=True)
@click.option("--seconds", type=float, help="End after so long; else Ctrl-C ends it.")
@click.option("--seed", type=int, default=1, show_default=True, help="What the fleet does.")
@json_option
@config_options
def demo(
    *,
    nodes: int,
    workloads: int,
    interval_ms: int,
    seconds: float | None,
    seed: int,
    as_json: bool,
    sources: Sources,
) -> None:
    """Show a fleet that beats, fails and returns. Uses the serve of the data folder, or a passing one."""
    with _served(sources.configured()) as config:
        show = _Show(config, interval_ms=interval_ms, seed=seed)

        async def main() -> int:
            with trio.move_on_after(seconds if seconds is not None else float("inf")):
                await show.run(nodes=nodes, workloads=workloads, quiet=as_json)
            return 0

        run_on_uvloop(main)
    if as_json:
        print_json(show.summary())


class _Show:
    """The fleet, the stores' view of it, and the table."""

    def __init__(self, config: Config, *, interval_ms: int, seed: int) -> None:
        self._config = config
        self._interval_ms = interval_ms
        self._seed = seed
        self._states: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._last: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        self._doing: dict[str, int] = {}
        self._began = time.monotonic()

    async def run(self, *, nodes: int, workloads: int, quiet: bool) -> None:
        config = self._config
        async with open_stores(config.database, config.redis) as stores:
            made = await provision(
                stores.directory,
                project=PROJECT,
                nodes=nodes,
                workloads=workloads,
                interval_ms=self._interval_ms,
                now_ms=now_ms(config),
            )
            url = f"http://{reached_at(config.web.host, config.web.port)}"
            fleet = Fleet(made["nodes"], url=url, interval_ms=self._interval_ms, seed=self._seed)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fleet.run)
                    with _nothing() if quiet else Live(refresh_per_second=4, screen=True) as live:
                        await self._look(stores, fleet, live)
            finally:
                await self._clean_up(stores, fleet)

    async def _clean_up(self, stores: Stores, fleet: Fleet) -> None:
        """Machines that are gone for good are not down: revoke them."""
        with trio.move_on_after(CLEAN_UP_S, shield=True):
            for machine in fleet.machines:
                await stores.directory.revoke_node(machine.node_id, now_ms=now_ms(self._config))

    async def _look(self, stores: Stores, fleet: Fleet, live: Live | None) -> None:
        rows = await self._rows(stores, fleet)
        project = await stores.directory.project(PROJECT)
        assert project is not None
        owner = project.project_id
        cursor = await self._newest(stores, owner)
        while True:
            self._states = Counter([await self._state(stores, row) for row in rows])
            page = await stores.history.events(project_id=owner, after=cursor, limit=EVENTS_PAGE)
            for at, event in page:
                cursor = at
                self._kinds[event.kind] += 1
                self._last.append(event)
            self._doing = fleet.statistics()
            if live is not None:
                live.update(self.table())
            await trio.sleep(LOOK_S)

    async def _rows(self, stores: Stores, fleet: Fleet) -> list[int]:
        found = [await stores.directory.node(machine.node_id) for machine in fleet.machines]
        return [node.row for node in found if node is not None]

    async def _newest(self, stores: Stores, project_id: str) -> int:
        cursor = 0
        while page := await stores.history.events(project_id=project_id, after=cursor, limit=EVENTS_PAGE):
            cursor = page[-1][0]
        return cursor

    async def _state(self, stores: Stores, row: int) -> str:
        found = await stores.live.read(row, shards=self._config.engine.shards)
        return "new" if found is None or found[1] is None else found[1].state

    def table(self) -> Group:
        """The fleet beside what is said of it, and the newest events."""
        elapsed_s = time.monotonic() - self._began
        beats = self._doing.get("beats", 0)
        left = Table("the fleet", "machines")
        for doing in ("beating", "silent", "stopped"):
            left.add_row(doing, str(self._doing.get(doing, 0)))
        left.add_row("beats credited", f"{beats:,} ({beats / max(elapsed_s, 1):,.0f}/s)")
        right = Table("NodePulse says", "nodes")
        for state in NODE_STATES:
            right.add_row(state, str(self._states[state]))
        events = Table("at", "event", "node", "workloads", title="newest events", title_justify="left")
        for event in reversed(self._last):
            at = time.strftime("%H:%M:%S", time.gmtime(event.at_ms / 1000))
            events.add_row(at, event.kind, event.node_id or "", str(len(event.workloads) or ""))
        both = Table.grid(padding=(0, 4))
        both.add_row(left, right)
        head = Text(f"NodePulse demo, {elapsed_s:,.0f} s. Ctrl-C ends it.", style="bold")
        return Group(head, both, events)

    def summary(self) -> dict[str, Any]:
        """The same for programs."""
        return {"fleet": self._doing, "states": dict(self._states), "events": dict(self._kinds)}


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def _served(config: Config) -> Iterator[Config]:
    """The configuration of the serve on this folder, or of one on a passing folder, which ends with us."""
    if is_served(config.folder):
        yield effective_of(config.folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="nodepulse-demo-"))
    click.echo(f"nothing serves {config.folder}; starting a passing one in {folder}", err=True)
    options = ["--data-dir", str(folder), "--web", "127.0.0.1:0", "--beats", "127.0.0.1:0"]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "nodepulse", "serve", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo; serve is stopped in order afterwards
        )
    try:
        yield _wait_ready(server, folder)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOP_S)
        if code == 0:
            shutil.rmtree(folder)
        else:
            click.echo(f"serve ended with {code}; its log: {folder}/serve.log", err=True)


def _wait_ready(server: subprocess.Popen[bytes], folder: Path) -> Config:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        if (folder / "run" / "config.json").exists():
            config = effective_of(folder)
            if trio.run(is_ready, config.web.host, config.web.port):
                return config
        time.sleep(0.1)
    raise click.ClickException(f"the passing serve did not come up; its log: {folder}/serve.log")
