"""`install --print`: what a service manager or a cluster is given so that the manager runs there.

Printed, never written: whoever runs the machine says where it goes. The objects of Kubernetes are
drivers/kubernetes_install.py's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from node.commands.ending import FINE, USAGE, CommandError
from node.commands.output import print_json
from node.commands.words import Commands, command, path_of

USER = "nodepulse-node"
UNIT = """\
# The NodePulse manager of this machine. As root, once:
#   useradd --system --home-dir {data} --shell /usr/sbin/nologin {user}
#   {prog} init --config {config} --data-dir {data} --web-url https://...
#   {prog} register --config {config} --project SLUG
#   chown -R {user}: {folder}
#   {prog} install --print systemd > /etc/systemd/system/nodepulse-node.service
#   systemctl daemon-reload && systemctl enable --now nodepulse-node
# Workloads of the process driver are children of the manager: the limits below are theirs as well.

[Unit]
Description=NodePulse manager
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={start}
# Begin anew with a newly read configuration, the workloads running on.
ExecReload=/bin/kill -HUP $MAINPID
User={user}
Group={user}
StateDirectory=nodepulse-node
StateDirectoryMode=0700
# A manager that dies leaves its workloads running, and the next one adopts them. An orderly stop ends them.
KillMode=process
# A workload may take 300 s to end.
TimeoutStopSec=330
Restart=on-failure
RestartSec=5
# A configuration that cannot be used, and another manager in the same folder: starting again mends neither.
RestartPreventExitStatus=2 5
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
# Not PrivateTmp: workloads that outlive the manager would lose theirs.
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""
CONFIG = Path("/etc/nodepulse/node.json")
DATA = Path("/var/lib/nodepulse-node")


def add(commands: Commands) -> None:
    install = command(commands, "install", run_install, "Print a systemd unit, or manifests for Kubernetes.")
    install.add_argument(
        "--print", dest="what", choices=("systemd", "kubernetes"), required=True, help="what is to be printed"
    )
    install.add_argument("--user", default=USER, help="systemd: whom it runs as")
    install.add_argument(
        "--namespace", default="nodepulse", help="kubernetes: where it and its workloads run"
    )
    install.add_argument("--image", metavar="IMAGE", help="kubernetes: has Python and this distribution")


def run_install(args: argparse.Namespace) -> int:
    text = unit(args) if args.what == "systemd" else _manifests(args)
    if args.as_json:
        print_json({args.what: text})
    else:
        print(text, end="")
    return FINE


def unit(args: argparse.Namespace) -> str:
    """The unit: for the system's own file, unless --config says another. CommandError."""
    config = CONFIG if args.config is None else path_of(args).absolute()
    for word in (str(config), sys.executable, args.user):
        if set(word) & set(" \t\n%\"'\\$"):
            raise CommandError(
                f"{word!r} cannot stand in a unit", advice="use names without spaces", code=USAGE
            )
    start = f"{sys.executable} -P -m node.commands manager --config {config}"
    return UNIT.format(
        user=args.user, config=config, folder=config.parent, data=DATA, start=start, prog=args.prog
    )


def _manifests(args: argparse.Namespace) -> str:
    from node.drivers.kubernetes_install import render_install

    if not args.image:
        raise CommandError(
            "which image? It must have Python and this distribution in it",
            advice="{prog} install --print kubernetes --image REGISTRY/NAME@sha256:...",
            code=USAGE,
        )
    try:
        return render_install(args.namespace, args.image)
    except ValueError as error:
        raise CommandError(str(error), code=USAGE) from error
