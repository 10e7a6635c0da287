"""`status`, `info`, `version`, `update`: how the manager is, what this node is, what it should become."""

from __future__ import annotations

import argparse
import platform
from typing import Any

from node.commands.asking import status_if_running, status_of
from node.commands.configuring import shown
from node.commands.ending import FINE, UNREACHABLE, CommandError
from node.commands.output import cell, print_json, printable, show, show_rows
from node.commands.setting_up import public_key
from node.commands.words import Commands, command, config_of, path_of
from node.config import ConfigError, NodeConfig, load
from node.version import VERSION

COLUMNS = ("name", "state", "version", "desired_version", "phase", "since", "crashes", "why")


def add(commands: Commands) -> None:
    command(
        commands, "status", run_status, "How the manager and its workloads are; 0 only while it is heard."
    )
    command(commands, "info", run_info, "What this node is: id, public key, folders, versions.")
    command(commands, "version", run_version, "The version of this program, and of the manager that runs.")
    update = command(commands, "update", run_update, "Update the manager to the published release.")
    update.add_argument("--check", action="store_true", help="only say whether there is one")
    update.add_argument(
        "--anyway", action="store_true", help="also an older release, or one that failed here before"
    )
    update.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="until the new one has proved itself"
    )


# -- status -----------------------------------------------------------------------------------------


def run_status(args: argparse.Namespace) -> int:
    status = status_of(config_of(args))
    if args.as_json:
        print_json(status)
    else:
        _print_status(status)
    return FINE if status["state"] == "beating" else UNREACHABLE


def _print_status(status: dict[str, Any]) -> None:
    session, last, backlog = status["session"], status["last_ack"], status["backlog"]
    lines = {
        "manager": f"{status['state']}, pid {status['pid']} since {status['started_at']}",
        "version": status["version"],
        "node": f"{status['node_id']} at {status['web_url']}",
        "beats": f"{status['frames_sent']} sent, by {status['via']}",
        "last_answer": "none yet" if last is None else f"{last['code']} at {last['at']} by {last['via']}",
        "session": "none yet"
        if session is None
        else f"generation {session['generation']}, a beat each {session['interval_ms']} ms,"
        f" until {session['expires_at']}",
        "missed": f"{backlog['beats']} beats wait to be handed in, {backlog['dropped']} were dropped",
        "desired": f"fetched at {status['desired']['fetched_at'] or '-'}",
        "driver": status["driver"],
    }
    if status.get("driver_error"):
        lines["driver"] += f"; {printable(status['driver_error'])}"
    if status["error"]:
        lines["no_session"] = status["error"]
    if status["desired"]["error"]:
        lines["desired"] += f"; {status['desired']['error']}"
    update = {name: value for name, value in (status["update"] or {}).items() if value}
    if update:
        lines["update"] = cell(update)
    show(lines, as_json=False)
    print()
    print_workloads(status["workloads"])
    for one in status["workloads"]:
        if one["error"]:
            print(f"{printable(one['name'])}: {printable(one['error'])}")


def print_workloads(workloads: list[dict[str, Any]]) -> None:
    rows = [{column: one[column] for column in COLUMNS} for one in workloads]
    show_rows(rows, empty="no workloads yet; `workload add` puts one on this node")


# -- info and version -------------------------------------------------------------------------------


def run_info(args: argparse.Namespace) -> int:
    config = config_of(args)
    status = status_if_running(config)
    kept = ("node_id", "project", "web_url", "driver", "data_dir")
    values = shown(config)
    show(
        {
            **{name: values[name] for name in kept},
            "data_dir": str(config.data_path),
            "config": str(path_of(args)),
            "socket": str(config.socket_path),
            "health_port": config.health_port,
            "public_key": public_key(config),
            "version": VERSION,
            "manager": None if status is None else status["state"],
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        as_json=args.as_json,
    )
    return FINE


def run_version(args: argparse.Namespace) -> int:
    running = _running_version(args)
    if args.as_json:
        print_json({"version": VERSION, "manager": running})
    else:
        print(
            f"nodepulse-node {VERSION}"
            + (f"; the manager that runs: {printable(running)}" if running else "")
        )
    return FINE


def _running_version(args: argparse.Namespace) -> str | None:
    """None when none runs, or there is no telling: a version must be told on any machine."""
    try:
        status = status_if_running(load(path_of(args)))
    except (ConfigError, CommandError):
        return None
    return None if status is None else str(status["version"])


# -- update -----------------------------------------------------------------------------------------


def run_update(args: argparse.Namespace) -> int:
    from node.update.apply import apply, check, running_version
    from node.update.release import UpdateError

    config = config_of(args)
    try:
        before = running_version(config)
        release = check(config, anyway=args.anyway)
        told: dict[str, Any] = {"version": before, "release": release.version if release else None}
        if release is not None and not args.check:
            told["applied"] = apply(config, release)
    except UpdateError as error:
        raise CommandError(str(error), advice=_after(config)) from error
    if "applied" in told and args.wait:
        _wait(config, told, timeout_s=args.wait)
    show(told, as_json=args.as_json)
    return FINE


def _wait(config: NodeConfig, told: dict[str, Any], *, timeout_s: float) -> None:
    """CommandError unless the new version stays."""
    from node.update.apply import wait_outcome
    from node.update.release import UpdateError

    try:
        outcome, why = wait_outcome(config, told["release"], timeout_s=timeout_s)
    except UpdateError as error:
        raise CommandError(str(error)) from error
    told["outcome"] = outcome
    if outcome == "taken back":
        raise CommandError(f"{told['release']} was taken back: {why}", advice="what was before runs again")
    if outcome == "undecided":
        raise CommandError(
            f"{told['release']} has not proved itself within {timeout_s:g} s",
            advice="{prog} status tells what becomes of it",
            code=UNREACHABLE,
        )


def _after(config: NodeConfig) -> str:
    if not config.update_key:
        return "{prog} config set update_key KEY: the public key of whose releases are to be believed"
    return "the manager that runs goes on as it is"
