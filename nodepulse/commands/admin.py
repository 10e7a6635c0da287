"""`admin`: joins the commands of all nouns; each noun is a module of its own, imported when it is called."""

from __future__ import annotations

import importlib

import click

# noun: (module, one line of help) - the help stands here so that `admin --help` imports none of them.
NOUNS: dict[str, tuple[str, str]] = {
    "user": ("users", "People: who signs in, and who is an admin."),
    "project": ("projects", "Projects, who owns them, and what holds for them when."),
    "kind": ("kinds", "Workload kinds of a project."),
    "version": ("versions", "Versions of a kind, and how far each is rolled out."),
    "release": ("releases", "Versions of the manager itself."),
    "key": ("keys", "API keys: made once, shown once, revoked within a second."),
    "node": ("nodes", "Nodes: machines with a key of their own."),
    "workload": ("workloads", "Workloads of nodes, under licences."),
    "check": ("checks", "Things that beat alone, by a URL that they call."),
    "window": ("windows", "Maintenance windows."),
    "channel": ("channels", "Where notices of a project, or of a person, go."),
    "collection": ("collections", "Contracts whose tokens are licences, and how far they were read."),
    "licence": ("licences", "Licences, and who owned them when."),
    "datagram": ("datagram", "Datagram as a source of uptime: whether it answers, and who is known there."),
    "dispute": ("disputes", "What operators hold against sealed days, and what was said to it."),
    "schedule": ("schedule", "The worker's jobs: when each is due, and what came of the last run."),
    "receipt": ("receipts", "The public keys that receipts are signed with."),
    "points": ("points", "Points of sealed days: committed, corrected, and whose they are."),
    "audit": ("audit", "Who changed what; and whether the log is as it was written."),
    "provision": ("provisioning", "Make nodes with their keys and workloads, and an API key of the project."),
}


class _Joined(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module = importlib.import_module(f"nodepulse.commands.{NOUNS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in NOUNS.items()])


@click.group(cls=_Joined)
def admin() -> None:
    """Every administrative act. `serve` must be running on the data folder, or the stores be configured."""
