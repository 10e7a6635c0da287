"""What the parsers of all commands share: the words that each takes, and the configuration they name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from node.commands.ending import USAGE, CommandError
from node.config import ConfigError, NodeConfig, default_path, load

Run = Callable[[argparse.Namespace], int]
Commands = Any  # what add_subparsers returns; argparse keeps the name of its class to itself
_RUNS = re.compile(
    r"(?P<kind>[a-z0-9][a-z0-9-]{0,62})(:(?P<name>[^:]{0,200})(:(?P<licence>[0-9A-Fa-f-]{36}))?)?"
)


class Help(argparse.RawDescriptionHelpFormatter):
    """Help that begins as that of every other command of the product does."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


class Parser(argparse.ArgumentParser):
    """Says with a wrong word where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n  {self.prog} --help\n")


def command(commands: Commands, name: str, run: Run, text: str, **more: Any) -> argparse.ArgumentParser:
    """A command with --config and --json; `run` gets what was typed and returns the exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, formatter_class=Help, allow_abbrev=False, **more
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the node's configuration file")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def group(commands: Commands, name: str, text: str) -> Commands:
    """A word before further words."""
    parser = commands.add_parser(name, help=text, description=text, formatter_class=Help, allow_abbrev=False)
    return parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)


def with_key(parser: argparse.ArgumentParser) -> None:
    """For a command that asks the web API as a person."""
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        help="the operator's API key; - reads standard input; else NODEPULSE_API_KEY, else you are asked",
    )


def path_of(args: argparse.Namespace) -> Path:
    return args.config if args.config is not None else default_path()


def config_of(args: argparse.Namespace) -> NodeConfig:
    """The configuration as the manager sees it. CommandError."""
    try:
        return load(path_of(args))
    except ConfigError as error:
        raise misconfigured(error) from error


def config_in_file(args: argparse.Namespace) -> NodeConfig:
    """The configuration without what the environment says, which must not get into the file. CommandError."""
    try:
        return load(path_of(args), {})
    except ConfigError as error:
        raise misconfigured(error) from error


def misconfigured(error: ConfigError) -> CommandError:
    return CommandError(str(error).replace("nodepulse node", "{prog}"), code=USAGE)


def runs(text: str) -> dict[str, str]:
    """KIND[:NAME[:LICENCE_ID]] as the web API takes a workload; the name is the kind's if none is given."""
    found = _RUNS.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND[:NAME[:LICENCE_ID]]")
    workload = {"kind": found["kind"], "name": found["name"] or found["kind"]}
    return {**workload, "licence_id": found["licence"]} if found["licence"] else workload
