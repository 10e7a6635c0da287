"""The command line: which commands there are, and how errors reach the person who typed.

Each command lives in `nodepulse/commands/` and is imported when it is called. What goes wrong in operation is
told in one line without a traceback; a traceback means a bug.
"""

from __future__ import annotations

import importlib
from typing import IO, Any

import click

from engine.core.version import VERSION

# command: (module, attribute, one line of help) - the help stands here so that --help imports nothing.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("processes", "serve", "Run the whole system on this machine."),
    "engine": ("processes", "engine", "Run one shard of the beat engine alone."),
    "web": ("processes", "web", "Run the web API alone."),
    "worker": ("processes", "worker", "Run the notifier and the deliveries alone."),
    "canary": ("canary", "canary", "Beat from outside through the installation's own door."),
    "db": ("db", "db", "Bring the database up to date, or fill it with a small network."),
    "admin": ("admin", "admin", "Every administrative act: people, projects, versions, nodes, keys, audit."),
    "node": ("node", "node", "The manager of this machine: set it up, run it, look at it."),
    "backup": ("backup", "backup", "Copy PostgreSQL, journals and keys into a folder, while it serves."),
    "restore": ("backup", "restore", "Bring a backup back, into an empty data folder and database."),
    "top": ("top", "top", "An installation in figures, live."),
    "bench": ("bench", "bench", "Measure a part of the product beside its peer."),
    "demo": ("demo", "demo", "A living network to look at in the browser, and a live table of it."),
    "release": ("manager_release", "release", "Build, sign and check releases of the node's manager."),
    "verify": ("verify", "verify", "Check proofs of uptime and receipts, offline."),
    "doctor": ("doctor", "doctor", "What is wrong with this machine or configuration."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"nodepulse.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader went away (`| head`): click's to handle
        except _operating_errors() as error:
            from nodepulse.limits import ConfigError

            raise (_Misconfigured if isinstance(error, ConfigError) else _Failed)(str(error)) from error


class _Failed(click.ClickException):
    """An operating error as the person sees it: its own words, no traceback, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"nodepulse: {line}", file=file, err=file is None)


class _Misconfigured(_Failed):
    """The configuration is wrong: exit code 2, as for wrong options."""

    exit_code = 2


def _operating_errors() -> tuple[type[Exception], ...]:
    """What can go wrong without a bug. Looked up when something did, so that nothing is imported before."""
    from engine.core.ports import (
        NodeRefusedError,
        RowFullError,
        StoreUnavailableError,
        WindowRefusedError,
    )
    from engine.sockets import PortTakenError
    from nodepulse.limits import ConfigError
    from nodepulse.runfolder import InUseError, NotServingError

    ours = (ConfigError, InUseError, NotServingError, PortTakenError, WindowRefusedError)
    return (*ours, StoreUnavailableError, NodeRefusedError, RowFullError, OSError)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="nodepulse")
def nodepulse() -> None:
    """NodePulse: heartbeats, liveness and uptime of a network of machines."""


def main() -> None:
    """The entry point of ``python -m nodepulse``."""
    nodepulse.main(prog_name="nodepulse")
