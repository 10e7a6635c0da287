"""`demo`: a whole network that lives and misbehaves, to be looked at in a browser and as a live table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click
import trio
from rich.live import Live

from nodepulse.commands.demo_table import Watched, table, words
from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import json_option, print_json
from nodepulse.commands.stores import now_ms
from nodepulse.config import Config
from nodepulse.demo_installation import passing_installation
from nodepulse.demo_receiver import NoticeReceiver
from nodepulse.demo_story import DemoStory
from nodepulse.fleet import Fleet
from nodepulse.provision import provision
from nodepulse.readiness import reached_at
from nodepulse.runfolder import effective_of, is_served
from storage.bridge import run_on_uvloop
from storage.open import AllStores, open_stores

CLEAN_UP_S = 15.0
LOOK_S = 0.5
PROJECT = "demo"
RESTLESS = 8  # machines that fall soon; among them some of the operator's who is shown


@click.command()
@click.option("--nodes", type=click.IntRange(1, 2_000), default=60, show_default=True)
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
    """Show a living network in the browser: nodes fall and return, a day is sealed and paid. Ctrl-C ends it.

    Where a serve runs on the data folder, its table alone is shown, of nodes of a project of its own there;
    else a whole installation is started in a passing folder, which goes with it.
    """
    with ExitStack() as closing:
        config = sources.configured()
        passing = not is_served(config.folder)
        if passing:
            config = closing.enter_context(passing_installation(lambda text: click.echo(text, err=True)))
        else:
            config = effective_of(config.folder)
        show = _Show(config, interval_ms=interval_ms, seed=seed, quiet=as_json)

        async def main() -> int:
            with trio.move_on_after(seconds if seconds is not None else float("inf")):
                await show.run(nodes=nodes, workloads=workloads, passing=passing)
            return 0

        run_on_uvloop(main)
    if as_json:
        print_json(show.summary())


class _Show:
    """The fleet, its story, and what is watched of it."""

    def __init__(self, config: Config, *, interval_ms: int, seed: int, quiet: bool) -> None:
        self._config = config
        self._interval_ms = interval_ms
        self._seed = seed
        self._quiet = quiet
        self._receiver = NoticeReceiver()
        self._story: DemoStory | None = None
        self._fleet: Fleet | None = None
        self._watched: Watched | None = None

    async def run(self, *, nodes: int, workloads: int, passing: bool) -> None:
        config = self._config
        async with open_stores(config.database, config.redis) as stores, trio.open_nursery() as nursery:
            made: list[dict[str, Any]] = []
            if passing:
                told_at = await nursery.start(self._receiver.serve)
                self._story = DemoStory(stores, config, now_ms=lambda: now_ms(config))
                made += await self._story.prepare(interval_ms=self._interval_ms, told_at=told_at)
            made += await self._provision(stores, nodes=nodes, workloads=workloads)
            if self._story is not None:
                await self._story.own(PROJECT)
                nursery.start_soon(self._story.run)
            self._fleet = Fleet(
                made,
                url=f"http://{reached_at(config.web.host, config.web.port)}",
                interval_ms=self._interval_ms,
                seed=self._seed,
                restless=RESTLESS,
            )
            self._watched = await Watched.of(stores, config, self._fleet.machines)
            try:
                nursery.start_soon(self._fleet.run)
                await self._look()
            finally:
                if not passing:
                    await self._clean_up(stores)

    async def _provision(self, stores: AllStores, *, nodes: int, workloads: int) -> list[dict[str, Any]]:
        made = await provision(
            stores.directory,
            project=PROJECT,
            nodes=nodes,
            workloads=workloads,
            interval_ms=self._interval_ms,
            now_ms=now_ms(self._config),
        )
        described: list[dict[str, Any]] = made["nodes"]
        return described

    async def _clean_up(self, stores: AllStores) -> None:
        """Machines that are gone for good are not down: revoke them."""
        assert self._fleet is not None
        with trio.move_on_after(CLEAN_UP_S, shield=True):
            for machine in self._fleet.machines:
                await stores.directory.revoke_node(machine.node_id, now_ms=now_ms(self._config))

    async def _look(self) -> None:
        assert self._watched is not None
        if self._story is not None:
            click.echo(words(self._story), err=self._quiet)
        told = 0
        with _live(wanted=not self._quiet and sys.stdout.isatty()) as live:
            while True:
                await self._watched.look()
                if live is not None:
                    live.update(table(self._watched, self._fleet, self._story, self._receiver))
                elif self._story is not None:
                    for paid in self._story.paid[told:]:
                        click.echo(
                            f"{paid.project}: {paid.day} is sealed, {paid.points} points are paid", err=True
                        )
                    told = len(self._story.paid)
                await trio.sleep(LOOK_S)

    def summary(self) -> dict[str, Any]:
        """The same for programs."""
        watched, story = self._watched, self._story
        return {
            "fleet": {} if self._fleet is None else self._fleet.statistics(),
            "states": {} if watched is None else dict(watched.states),
            "events": {} if watched is None else dict(watched.kinds),
            "notices": dict(self._receiver.kinds),
            "paid": [] if story is None else [paid._asdict() for paid in story.paid],
        }


@contextmanager
def _live(*, wanted: bool) -> Iterator[Live | None]:
    """The table on a terminal; nothing where there is none."""
    if not wanted:
        yield None
        return
    with Live(refresh_per_second=4, screen=True) as live:
        yield live
