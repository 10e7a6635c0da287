"""Options that commands share, and the configuration they lead to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from nodepulse.config import Config, load_config
from nodepulse.limits import ConfigError, Problem, parse_address

Command = Callable[..., Any]


def config_options(command: Command) -> Command:
    """Add --config, --data-dir and --set; the command gets `sources`, to be given to `configured`."""

    @click.option("--config", "file", type=click.Path(path_type=Path), help="YAML file.")
    @click.option("--data-dir", help="Folder for the journal, secrets and embedded stores.")
    @click.option("--set", "sets", multiple=True, metavar="KEY.PATH=VALUE", help="Set any key; repeatable.")
    @wraps(command)
    def with_sources(
        *args: Any, file: Path | None, data_dir: str | None, sets: tuple[str, ...], **options: Any
    ) -> Any:
        return command(*args, sources=Sources(file, data_dir, sets), **options)

    return with_sources


class Sources:
    """Where a command's configuration comes from."""

    def __init__(self, file: Path | None, data_dir: str | None, sets: tuple[str, ...]) -> None:
        self._file = file
        self._data_dir = data_dir
        self._sets = sets

    def configured(self, **options: str | int | None) -> Config:
        """Everything put together; `options` by key path with ``__`` for the dot. ConfigError."""
        paths = {key.replace("__", "."): value for key, value in options.items()}
        return load_config(
            file=self._file,
            environ=os.environ,
            sets=self._sets,
            options={"data_dir": self._data_dir, **paths},
        )


def address_option(text: str | None, option: str) -> tuple[str | None, int | None]:
    """A HOST:PORT option as host and port; both None when it was not given. ConfigError."""
    if text is None:
        return None, None
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError([Problem(option, str(error))]) from error


def slug_option(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """A project slug as the database takes it."""
    if text is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise click.BadParameter(f"{text!r} is no project slug: a-z, 0-9 and -, at most 63 characters")
    return text
