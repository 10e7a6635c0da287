"""The program: its commands, and how errors reach the person who typed.

What goes wrong in operation is told in one line, with a second one that says what to do next; a traceback
means a bug. Exit codes: ending.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from node.commands import completion, configuring, install, running, setting_up, telling, workloads
from node.commands.ending import CODES, FAILED, CommandError
from node.commands.words import Help, Parser
from node.version import VERSION

PROG = "nodepulse-node"
INTERRUPTED = 130
ABOUT = "The manager of one machine and its workloads: set it up, run it, look at it."


def parser_of(prog: str) -> Parser:
    """The parser of everything that this program takes."""
    codes = "\n".join(f"  {code}  {text}" for code, text in CODES.items())
    parser = Parser(
        prog=prog,
        description=ABOUT,
        epilog=f"exit codes:\n{codes}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{prog} {VERSION}")
    parser.set_defaults(prog=prog)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in (setting_up, running, telling, configuring, workloads, install, completion):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Run one command; its exit code. prog: how we were called. SystemExit for wrong words and --help."""
    args = parser_of(prog).parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except CommandError as error:
        _tell(error, prog)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`); flushing at exit must not find that out again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _tell(error: CommandError, prog: str) -> None:
    sys.stdout.flush()
    lines = [f"{prog}: {error.text}", *([f"  {error.advice}"] if error.advice else [])]
    print("\n".join(lines).replace("{prog}", prog), file=sys.stderr)
