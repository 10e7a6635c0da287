"""Starting the manager: which installed version runs, and with an updater beside it.

`start` is what commands call, in the program that was installed and in each version that was installed since,
which are begun with the same words. The former begins the newest version that has proved itself here, in
place; the latter know by their environment that they were chosen.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import trio

from node.config import ConfigError, default_path, load
from node.manager.main import Tasks, run_manager
from node.manager.manager import Manager
from node.update.command import LAUNCH, Launch, base_command, become
from node.update.release import UpdateError, read
from node.update.store import Updates
from node.update.updater import Updater
from node.version import VERSION

log = logging.getLogger(__name__)


def start(path: Path, *, tasks: Tasks = (), words: Sequence[str] = ()) -> int:
    """Run the manager until it ends; the exit code, as `run_manager`'s.

    path: of the configuration. words: what was typed after the program's name to get here; default: what
    begins a manager with this configuration and nothing more.
    """
    words = list(words) or ["manager", "--config", str(path.absolute())]
    again = base_command(words)
    text = os.environ.pop(LAUNCH, None)  # no business of what is started from here
    try:
        config = load(path)
    except ConfigError:
        return run_manager(path)  # which says what is wrong
    if text is None:
        launch = Launch(base=VERSION, words=words)
        version = _installed(config.data_path, config.update_key)
        if version is not None:
            become(*launch.command(Updates(config.data_path), version))
    else:
        launch = Launch.of(text, words)
    own = [*tasks, _stop] if launch.stop else [*tasks, Updater(config, launch).run]
    return run_manager(path, tasks=own, command=again)


def _installed(data_path: Path, key: str) -> str | None:
    """The installed version that is to run; None: this very program."""
    updates = Updates(data_path)
    try:
        version = updates.chosen(VERSION)
        if version is not None:
            updates.must_be_whole(version, read(updates.release_text(version), key))
    except UpdateError as error:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        log.error("%s; %s runs instead", error, VERSION)
        return None
    return version


async def _stop(manager: Manager) -> None:
    """The one before was told to stop when it had just made room."""
    await trio.lowlevel.checkpoint()
    manager.stop()


def main() -> int:
    """``python -m node.manager``."""
    parser = argparse.ArgumentParser(prog="node.manager", description=__doc__)
    parser.add_argument("--config", type=Path, default=default_path())
    return start(parser.parse_args().config)
