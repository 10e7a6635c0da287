"""`config get|set|show`: the node's configuration file. The private key is never shown and never typed."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from node.commands.asking import status_if_running
from node.commands.ending import FINE, USAGE, CommandError
from node.commands.output import print_json, show
from node.commands.words import (
    Commands,
    command,
    config_in_file,
    config_of,
    group,
    misconfigured,
    path_of,
)
from node.config import KEYS, ConfigError, NodeConfig, changed, save

SHOWN = tuple(key for key in KEYS if key != "private_key")


def add(commands: Commands) -> None:
    config = group(commands, "config", "Read and change the configuration file.")
    command(config, "show", run_show, "Show everything but the private key.")
    get = command(config, "get", run_get, "Print one value.")
    get.add_argument("key", metavar="KEY", choices=KEYS)
    change = command(config, "set", run_set, "Change one value.")
    change.add_argument("key", metavar="KEY", choices=KEYS)
    change.add_argument("value", metavar="VALUE")


def shown(config: NodeConfig) -> dict[str, Any]:
    """Without the private key."""
    values = asdict(config)
    return {key: values[key] for key in SHOWN}


def run_show(args: argparse.Namespace) -> int:
    config = config_of(args)
    show(
        {"config": str(path_of(args)), **shown(config), "has_private_key": bool(config.private_key)},
        as_json=args.as_json,
    )
    return FINE


def run_get(args: argparse.Namespace) -> int:
    if args.key == "private_key":
        raise CommandError("the private key is not shown", advice="{prog} info shows its public half")
    value = shown(config_of(args))[args.key]
    if args.as_json:
        print_json({args.key: value})
    else:
        print(json.dumps(value) if isinstance(value, dict) else value)
    return FINE


def run_set(args: argparse.Namespace) -> int:
    if args.key == "private_key":
        raise CommandError(
            "the private key is not taken from the command line, where others can read it",
            advice="{prog} init --force --private-key-file FILE",
            code=USAGE,
        )
    before = config_in_file(args)
    try:
        config = changed(before, {args.key: args.value})
        save(path_of(args), config)
    except ConfigError as error:
        raise misconfigured(error) from error
    except OSError as error:
        raise CommandError(f"{path_of(args)}: {error.strerror}") from error
    if args.as_json:
        print_json({args.key: shown(config)[args.key]})
    running = status_if_running(before)
    if running is not None:
        print(f"the manager reads it when it is told to: kill -HUP {running['pid']}", file=sys.stderr)
    return FINE
