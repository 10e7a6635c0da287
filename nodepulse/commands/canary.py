"""`canary`: as a child of `serve`, or alone on another machine, which sees what the nodes see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import trio

from nodepulse.canary import ensure_canaries, read_keys, run_canaries
from nodepulse.child import Listening, run_process
from nodepulse.commands.options import Sources
from nodepulse.commands.processes import child_options, observe
from nodepulse.commands.stores import now_ms
from nodepulse.config import Config
from nodepulse.limits import ConfigError, Problem
from nodepulse.readiness import reached_at
from nodepulse.runfolder import read_effective
from storage.open import open_stores


@click.command()
@click.option(
    "--keys", type=click.Path(path_type=Path), help="canary.json of the installation's data folder."
)
@child_options
def canary(*, keys: Path | None, **how: Any) -> None:
    """Beat from outside. Alone it wants canary.url and a copy of the installation's canary.json."""
    child = how["config_file"] is not None
    sources: Sources = how["sources"]
    config = read_effective(Path(how["config_file"])) if child else sources.configured()
    file = keys or config.folder / "canary.json"
    observe(config, "canary")
    if not child and (not config.canary.url or not file.exists()):
        advice = f"and the keys ({file}) are needed; serve makes them when canary.count is above 0"
        raise ConfigError([Problem("canary.url", advice)])

    async def live(stop: trio.Event, listening: Listening) -> None:
        found = await _of_serve(config, file) if child else read_keys(file)
        await run_canaries(_url(config), found, listening=listening, stop=stop)

    raise SystemExit(run_process(live, parent_fd=how["parent_fd"], ready_fd=how["ready_fd"]))


async def _of_serve(config: Config, file: Path) -> Any:
    async with open_stores(config.database, config.redis) as stores:
        return await ensure_canaries(
            stores.directory,
            file,
            count=config.canary.count,
            interval_ms=config.canary.interval_ms,
            now_ms=now_ms(config),
        )


def _url(config: Config) -> str:
    return config.canary.url or f"http://{reached_at(config.web.host, config.web.port)}"
