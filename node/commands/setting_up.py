"""`init` and `register`: from an empty machine to a node that may beat.

The private key is made here and never leaves the machine: the web API gets the public half.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.commands.ending import FINE, USAGE, CommandError
from node.commands.output import print_json, show
from node.commands.owner_api import OwnerApi, read_key, tls_of, unreachable
from node.commands.words import Commands, command, config_in_file, config_of, path_of, runs, with_key
from node.config import ConfigError, NodeConfig, changed, default_data_dir, save
from node.version import VERSION

SEED_BYTES_MAX = 128
TIMEOUT_S = 15.0
NAME_MAX = 200
WORKLOADS_MAX = 64


def add(commands: Commands) -> None:
    init = command(commands, "init", run_init, "Make the node's key pair and its configuration file.")
    init.add_argument("--web-url", metavar="URL", help="of the web API; else NODE_SYSTEM_ENDPOINT")
    init.add_argument("--project", metavar="SLUG", default="", help="the project that it will belong to")
    init.add_argument("--data-dir", metavar="FOLDER", help="for what must survive a restart")
    init.add_argument(
        "--private-key-file", metavar="FILE", help="of a node that was registered elsewhere; - reads stdin"
    )
    init.add_argument(
        "--force", action="store_true", help="make a new key pair; the file that is there is kept as FILE.old"
    )
    register = command(commands, "register", run_register, "Register this machine with the web API.")
    register.add_argument("--project", metavar="SLUG", help="the project; else as `init` was told")
    register.add_argument("--name", metavar="NAME", help="how people call the machine; else its host name")
    register.add_argument("--region", metavar="REGION", default="")
    register.add_argument(
        "--interval-ms", type=int, metavar="MS", help="how often it beats; the default is once a minute"
    )
    register.add_argument(
        "--workload",
        dest="workloads",
        action="append",
        type=runs,
        default=[],
        metavar="KIND[:NAME[:LICENCE_ID]]",
        help="what runs on it; repeatable, and `workload add` puts more on it later",
    )
    register.add_argument(
        "--node-id",
        metavar="ID",
        help="it was registered elsewhere with this key pair: prove it, and write the id; takes no API key",
    )
    with_key(register)


# -- init -------------------------------------------------------------------------------------------


def run_init(args: argparse.Namespace) -> int:
    path = path_of(args)
    if path.exists() and not args.force:
        raise CommandError(
            f"{path} is there already, and with it a private key",
            advice="{prog} info shows it; {prog} init --force makes a new key pair and keeps the old file",
        )
    seed = secrets.token_hex(32) if args.private_key_file is None else _read_seed(args.private_key_file)
    data_dir = str(Path(args.data_dir).absolute() if args.data_dir else default_data_dir())
    told = {
        "private_key": seed,
        "web_url": args.web_url or os.environ.get("NODE_SYSTEM_ENDPOINT", ""),
        "project": args.project,
        "data_dir": data_dir,  # written down: whoever reads the file later finds the same folder
    }
    if not told["web_url"]:
        raise CommandError("where is the web API?", advice="{prog} init --web-url https://...", code=USAGE)
    try:
        config = changed(NodeConfig(), told)
    except ConfigError as error:
        raise CommandError(str(error), code=USAGE) from error
    _write(path, config)
    if args.as_json:
        print_json({"config": str(path), "public_key": public_key(config)})
    else:
        print(f"{path} is written, mode 0600; the private key in it stays on this machine.")
        print(f"public key  {public_key(config)}")
        print(f"next: {args.prog} register --project SLUG, with an operator's API key")
    return FINE


def _write(path: Path, config: NodeConfig) -> None:
    try:
        if path.exists():
            path.replace(_old(path))
        save(path, config)
    except OSError as error:
        raise CommandError(
            f"{path}: {error.strerror}", advice="another place: --config FILE, or NODEPULSE_NODE_CONFIG"
        ) from error


def _old(path: Path) -> Path:
    """Where a file is kept that a new one takes the place of: no key is lost by a second --force."""
    number = 1
    while (beside := path.with_name(f"{path.name}.old{number if number > 1 else ''}")).exists():
        number += 1
    return beside


def _read_seed(name: str) -> str:
    try:
        text = sys.stdin.read(SEED_BYTES_MAX) if name == "-" else Path(name).read_text()[:SEED_BYTES_MAX]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{name}: {error}", code=USAGE) from error
    seed = text.strip()
    if len(seed) != 64 or set(seed) - set("0123456789abcdef"):
        raise CommandError(
            f"{name}: no private key", advice="an Ed25519 seed: 64 letters of 0-9 and a-f", code=USAGE
        )
    return seed


def public_key(config: NodeConfig) -> str:
    """Of the key in the configuration, in hex; empty when there is none."""
    from node.identity import NodeIdentity

    return NodeIdentity(config.node_id, config.private_key).public_key if config.private_key else ""


# -- register ---------------------------------------------------------------------------------------


def run_register(args: argparse.Namespace) -> int:
    config = config_in_file(args)
    seen = config_of(args)
    if not seen.private_key:
        raise CommandError("there is no private key yet", advice="{prog} init", code=USAGE)
    if config.node_id:
        raise CommandError(
            f"this node is registered already, as {config.node_id}",
            advice="{prog} start; a further node on this machine: {prog} init --config FILE",
        )
    made = _adopt(seen, args.node_id) if args.node_id else _register(seen, args)
    made = {"node_id": made["node_id"], "workloads": made.get("workloads", [])}
    try:
        save(path_of(args), replace(config, node_id=made["node_id"], project=args.project or config.project))
    except OSError as error:
        raise CommandError(
            f"it is registered as {made['node_id']}, but {path_of(args)} cannot be written: {error.strerror}",
            advice=f"{{prog}} register --node-id {made['node_id']}, once it can be",
        ) from error
    if args.as_json:
        print_json(made)
    else:
        show({**made, "workloads": [one["name"] for one in made["workloads"]]}, as_json=False)
        print(f"next: {args.prog} start")
    return FINE


def _register(config: NodeConfig, args: argparse.Namespace) -> dict[str, Any]:
    """``POST /v1/nodes`` by whoever has the API key; asked again it answers what it made."""
    project = args.project or config.project
    if not project:
        raise CommandError("of which project?", advice="{prog} register --project SLUG", code=USAGE)
    if len(args.workloads) > WORKLOADS_MAX:
        raise CommandError(
            f"a node has {WORKLOADS_MAX} workloads at most",
            advice="a further node on this machine: {prog} init --config FILE",
            code=USAGE,
        )
    key = public_key(config)
    body = {
        "project": project,
        "name": (args.name or socket.gethostname())[:NAME_MAX],
        "public_key": key,
        "region": args.region,
        "workloads": args.workloads,
    }
    if args.interval_ms is not None:
        body["interval_ms"] = args.interval_ms
    return OwnerApi(config, read_key(args.key_file)).post("/v1/nodes", body, once=f"register-{key}")


def _adopt(config: NodeConfig, node_id: str) -> dict[str, Any]:
    """Prove with a session that the key is this node's; nobody else's credential is needed."""
    from node.calls import Calls, SessionRefused
    from node.identity import NodeIdentity
    from np1.effects import OpenSession

    try:
        checked = changed(config, {"node_id": node_id})
    except ConfigError as error:
        raise CommandError(str(error), code=USAGE) from error
    identity = NodeIdentity(checked.node_id, checked.private_key)
    if not config.web_url:
        raise CommandError("web_url: not known yet", advice="{prog} config set web_url URL", code=USAGE)
    version = f"nodepulse/{VERSION}"
    calls = Calls(config.web_url, identity, manager_version=version, timeout_s=TIMEOUT_S, tls=tls_of(config))
    answer = calls.open_session(OpenSession(time.time_ns() // 1_000_000))
    if isinstance(answer, SessionRefused):
        if answer.unreachable:
            raise unreachable(config.web_url, answer.detail)
        raise CommandError(
            f"the node {node_id} is not proven: {answer.detail}", advice=_why(answer.refusal.code)
        )
    slots = [{"workload_id": name, "slot": slot, "name": name} for slot, name in answer.grant.slots]
    return {"node_id": node_id, "workloads": slots}


def _why(code: str) -> str:
    return {
        "unauthorized": "it must have been registered with the public key that {prog} info shows",
        "clock_skew": "the clock of this machine is wrong: set it, or let systemd-timesyncd or chrony do it",
        "tls_required": "the web API wants https: {prog} config set web_url https://...",
        "rate": "too many sessions in a minute: wait for one",
    }.get(code, "")
