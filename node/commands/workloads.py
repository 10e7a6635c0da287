"""`workload ...`: what runs on this node. The manager tells how it is; adding and removing is the web API's.

Adding, removing: by an operator's API key, because it binds licences. Restarting, looking: by whoever may use
the manager's Unix socket.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from typing import Any
from urllib.parse import quote

from node.commands.asking import RESTART_S, ask, status_if_running, status_of
from node.commands.ending import FAILED, FINE, USAGE, CommandError
from node.commands.output import print_json, show
from node.commands.owner_api import OwnerApi, read_key
from node.commands.telling import print_workloads
from node.commands.words import Commands, command, config_of, group, runs, with_key
from node.config import NodeConfig


def add(commands: Commands) -> None:
    workload = group(commands, "workload", "What runs on this node.")
    put = command(workload, "add", run_add, "Put a workload on this node; takes an operator's API key.")
    put.add_argument("workload", type=runs, metavar="KIND[:NAME[:LICENCE_ID]]")
    with_key(put)
    command(workload, "list", run_list, "List the workloads and how they are.")
    remove = command(workload, "remove", run_remove, "Retire a workload; takes an operator's API key.")
    remove.add_argument("workload", metavar="NAME_OR_ID")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    with_key(remove)
    restart = command(workload, "restart", run_restart, "End a workload and begin it anew.")
    restart.add_argument("workload", metavar="NAME_OR_ID")
    status = command(workload, "status", run_status, "How one workload is; 0 only if it is well.")
    status.add_argument("workload", metavar="NAME_OR_ID")


# -- by the manager ---------------------------------------------------------------------------------


def run_list(args: argparse.Namespace) -> int:
    workloads = status_of(config_of(args))["workloads"]
    if args.as_json:
        print_json({"workloads": workloads})
    else:
        print_workloads(workloads)
    return FINE


def run_status(args: argparse.Namespace) -> int:
    found = _one(status_of(config_of(args))["workloads"], args.workload)
    show(found, as_json=args.as_json)
    return FINE if found["state"] == "healthy" else FAILED


def run_restart(args: argparse.Namespace) -> int:
    config = config_of(args)
    found = _one(status_of(config)["workloads"], args.workload)
    answer = ask(config, "POST", f"/workloads/{found['workload_id']}/restart", timeout_s=RESTART_S)
    if args.as_json:
        print_json(answer)
    else:
        print(f"{args.workload} is begun anew")
    return FINE


def _one(workloads: list[dict[str, Any]], asked: str) -> dict[str, Any]:
    """By id, or by a name that only one has. CommandError."""
    found = [one for one in workloads if one["workload_id"] == asked]
    found = found or [one for one in workloads if one["name"] == asked]
    if not found:
        raise CommandError(
            f"there is no workload {asked!r} on this node",
            advice="{prog} workload list tells which there are",
        )
    if len(found) > 1:
        ids = ", ".join(one["workload_id"] for one in found)
        raise CommandError(f"{len(found)} workloads are called {asked!r}: {ids}", advice="use the id")
    return found[0]


# -- by the web API ---------------------------------------------------------------------------------


def _node_path(config: NodeConfig) -> str:
    if not config.node_id:
        raise CommandError("this node is not registered yet", advice="{prog} register", code=USAGE)
    return f"/v1/nodes/{quote(config.node_id, safe='')}"


def run_add(args: argparse.Namespace) -> int:
    config = config_of(args)
    path = f"{_node_path(config)}/workloads"
    api = OwnerApi(config, read_key(args.key_file))
    made = api.post(path, args.workload, once=f"workload-{uuid.uuid4()}")
    show(made, as_json=args.as_json)
    _tell_manager(config)
    return FINE


def run_remove(args: argparse.Namespace) -> int:
    config = config_of(args)
    path = _node_path(config)
    api = OwnerApi(config, read_key(args.key_file))
    found = _one(api.get(path)["workloads"], args.workload)
    if not args.yes and sys.stdin.isatty():
        print(
            f"Retire {found['name']} for good? What it did stays. [y/N] ", end="", file=sys.stderr, flush=True
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("nothing was changed")
    where = f"/v1/workloads/{found['workload_id']}/retire"
    made = api.post(where, {}, once=f"retire-{found['workload_id']}")
    show(made, as_json=args.as_json)
    _tell_manager(config)
    return FINE


def _tell_manager(config: NodeConfig) -> None:
    """Something else is desired; without it the manager would hear of it with its next beat."""
    if status_if_running(config) is None:
        print("no manager runs here; it takes this up when it is started", file=sys.stderr)
        return
    ask(config, "POST", "/reconcile")
