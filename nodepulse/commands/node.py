"""`node ...`: the commands of a node's machine, a small distribution of their own (node/commands)."""

from __future__ import annotations

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def node(ctx: click.Context, *, words: tuple[str, ...]) -> None:
    """Set up, run and look at the manager of this machine."""
    from node.commands.main import main

    ctx.exit(main(words, prog=ctx.command_path))
