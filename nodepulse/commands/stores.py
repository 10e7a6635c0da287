"""How a command reaches the stores: those of the `serve` that runs on a data folder, or those configured."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from engine.core.ports import Project
from nodepulse.commands.options import Sources
from nodepulse.config import Config
from nodepulse.runfolder import effective_of, is_served
from storage.bridge import run_on_uvloop
from storage.open import AllStores, Stores, open_stores

T = TypeVar("T")


def on_stores(sources: Sources, work: Callable[[AllStores, Config], Awaitable[T]]) -> T:
    """What ``await work(stores, config)`` returns. NotServingError, StoreUnavailableError."""
    config = reachable(sources.configured())
    results: list[T] = []

    async def main() -> int:
        async with open_stores(database=config.database, redis=config.redis) as stores:
            results.append(await work(stores, config))
        return 0

    code = run_on_uvloop(main)
    if code:
        raise SystemExit(code)  # a signal
    return results[0]


def reachable(config: Config) -> Config:
    """The configuration with the stores' URLs: a running `serve` tells those of its embedded ones."""
    if is_served(config.folder) or not (config.database.url and config.redis.url):
        return effective_of(config.folder)
    return config


async def project_of(stores: Stores, slug: str) -> Project:
    """The project of this slug. ClickException when there is none."""
    found = await stores.directory.project(slug)
    if found is None:
        raise click.ClickException(f"there is no project {slug!r}; make it: admin project create {slug}")
    return found


def now_ms(config: Config) -> int:
    """The installation's clock, unix ms."""
    return time.time_ns() // 1_000_000 + config.clock_ahead_s * 1_000
