"""`manager`, `start`, `stop`: running the manager in this process, in the background, and ending it.

`start` and `stop` may be said twice: what is as it should be is fine. Under a service manager `manager` is
what runs; it tells systemd when it is ready, if it is asked to.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from node.commands.asking import status_if_running, status_of
from node.commands.ending import BUSY, FAILED, FINE, UNREACHABLE, USAGE, CommandError
from node.commands.output import print_json
from node.commands.words import Commands, command, config_of, misconfigured, path_of
from node.config import ConfigError, NodeConfig, must_be_complete

START_S = 20.0
STOP_S = 330.0  # a workload may take 300 s to end
HAND_OVER_S = 15.0
LOOK_S = 0.1
LOG = "manager.log"  # in the data folder, as node/manager/beside.py has it
TAIL_BYTES = 2_000
# What run_manager returns, as this program's exit codes.
ENDINGS = {0: FINE, 1: FAILED, 2: USAGE, 3: BUSY}


def add(commands: Commands) -> None:
    command(commands, "manager", run_here, "Run the manager in the foreground.")
    start = command(commands, "start", run_start, "Start the manager in the background.")
    start.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="until a beat is acknowledged; 4 if none is",
    )
    stop = command(commands, "stop", run_stop, "Stop the manager and its workloads in order.")
    stop.add_argument("--timeout", type=float, default=STOP_S, metavar="SECONDS")


def run_here(args: argparse.Namespace) -> int:
    _must_be_complete(config_of(args))
    from node.update.launch import start

    return ENDINGS[start(path_of(args))]


def _must_be_complete(config: NodeConfig) -> None:
    try:
        must_be_complete(config)
    except ConfigError as error:
        raise misconfigured(error) from error


# -- start ------------------------------------------------------------------------------------------


def run_start(args: argparse.Namespace) -> int:
    config = config_of(args)
    _must_be_complete(config)
    status, already = status_if_running(config), True
    if status is None:
        status, already = _begin(args, config), False
    if args.wait:
        status = _wait_beating(config, status, until_s=time.monotonic() + args.wait)
    told = {"pid": status["pid"], "state": status["state"], "already_running": already}
    if args.as_json:
        print_json(told)
    else:
        how = "runs already" if already else "is started"
        print(f"the manager {how}: pid {status['pid']}, {status['state']}")
    if args.wait and status["state"] != "beating":
        raise CommandError(
            f"no beat was acknowledged within {args.wait:g} s: {status['error'] or 'nobody answers'}",
            advice="it goes on trying; {prog} status tells how it is",
            code=UNREACHABLE,
        )
    return FINE


def _begin(args: argparse.Namespace, config: NodeConfig) -> dict[str, Any]:
    """Start it and wait until it can be asked. CommandError with the end of its log."""
    from node.update.command import base_command

    log = config.data_path / LOG
    try:
        config.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(
            f"{error.filename}: {error.strerror}", advice="{prog} config set data_dir FOLDER", code=USAGE
        ) from error
    began_at = os.fstat(output).st_size
    try:
        child = subprocess.Popen(
            base_command(["manager", "--config", str(path_of(args).absolute())]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        status = _status_if_it_answers(config)
        if status is not None and status["pid"] == child.pid:
            return status
        if child.poll() is not None:
            raise CommandError(
                f"it ended at once: {_tail(log, began_at)}",
                advice=f"its log: {log}",
                code=child.returncode if child.returncode > 0 else FAILED,
            )
        time.sleep(LOOK_S)
    raise CommandError(f"it does not answer within {START_S:g} s", advice=f"its log: {log}")


def _status_if_it_answers(config: NodeConfig) -> dict[str, Any] | None:
    """One that is just coming, or just failing, may break off in the middle of an answer."""
    try:
        return status_if_running(config)
    except CommandError:
        return None


def _tail(log: Path, began_at: int) -> str:
    with log.open("rb") as file:
        file.seek(max(began_at, log.stat().st_size - TAIL_BYTES))
        lines = file.read(TAIL_BYTES).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _wait_beating(config: NodeConfig, status: dict[str, Any], *, until_s: float) -> dict[str, Any]:
    while status["state"] != "beating" and time.monotonic() < until_s:
        time.sleep(LOOK_S)
        status = status_of(config)
    return status


# -- stop -------------------------------------------------------------------------------------------


def run_stop(args: argparse.Namespace) -> int:
    config = config_of(args)
    status = _status_even_on_trial(config)
    if status is None:
        return _told(args, "no manager runs here", {"stopped": False})
    pid = _pid_to_stop(status)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return _told(args, "the manager is stopped", {"stopped": True, "pid": pid})
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], args.timeout)
    except ProcessLookupError:
        ended = [process]
    except PermissionError as error:
        raise CommandError(
            f"process {pid} is not yours to stop", advice="be root, or the user that the manager runs as"
        ) from error
    finally:
        os.close(process)
    if not ended:
        raise CommandError(
            f"it has not ended within {args.timeout:g} s; it goes on stopping",
            advice="workloads may take long to end: {prog} status",
        )
    return _told(args, "the manager is stopped", {"stopped": True, "pid": pid})


def _status_even_on_trial(config: NodeConfig) -> dict[str, Any] | None:
    """None when no manager runs; one that hands over to its successor is away for a moment."""
    from node.update.store import Updates

    until_s = time.monotonic() + HAND_OVER_S
    while (status := status_if_running(config)) is None:
        if not Updates(config.data_path).known().trying or time.monotonic() > until_s:
            return None
        time.sleep(LOOK_S)
    return status


def _pid_to_stop(status: dict[str, Any]) -> int:
    """The manager's; of one on trial that of who watches it, or it would be taken for broken."""
    pid = int(status["pid"])
    if not (status.get("update") or {}).get("on_trial"):
        return pid
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.split("PPid:")[1].split()[0])


def _told(args: argparse.Namespace, text: str, value: dict[str, Any]) -> int:
    if args.as_json:
        print_json(value)
    else:
        print(text)
    return FINE
