"""`completion`: a script by which bash, zsh or fish complete the words of this program.

The script holds a table of what may follow which words, so that completing starts no Python. It is made from
the parser, and so never says anything else than that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from node.commands.ending import FINE
from node.commands.output import print_json
from node.commands.words import Commands, command

SHELLS = ("bash", "zsh", "fish")
BASH = """\
# {prog}: completion for bash. In ~/.bashrc:  source <({prog} completion bash)
_{name}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path="" word words=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$path $word" in
{paths}    esac
  done
  case "$path $before" in
{files}      COMPREPLY=($(compgen -f -- "$current")); return;;
{values}  esac
  case "$path" in
{cases}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _{name} {first}
"""
ZSH = """\
#compdef {first}
# {prog}: completion for zsh. In ~/.zshrc, after compinit:  source <({prog} completion zsh)
autoload -Uz bashcompinit && bashcompinit
"""


def add(commands: Commands) -> None:
    completion = command(commands, "completion", run_completion, "Print a script for the shell's completion.")
    completion.add_argument("shell", choices=SHELLS)


def run_completion(args: argparse.Namespace) -> int:
    from node.commands.main import parser_of

    parser = parser_of(args.prog)
    script = _fish(parser, args.prog) if args.shell == "fish" else _bash(parser, args.prog)
    if args.shell == "zsh":
        script = ZSH.format(prog=args.prog, first=args.prog.split()[0]) + script
    if args.as_json:
        print_json({args.shell: script})
    else:
        print(script, end="")
    return FINE


Level = tuple[tuple[str, ...], argparse.ArgumentParser]


def levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Level]:
    """Every parser with the words that lead to it."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from levels(inner, (*path, word))


def follow(parser: argparse.ArgumentParser) -> list[str]:
    """What may be typed next: sub-commands or the choices of an argument, and the options."""
    words = [str(word) for one in parser._actions if not one.option_strings for word in one.choices or ()]
    return [*words, *(option for one in parser._actions for option in one.option_strings if option[1] == "-")]


def values(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[str] | None]]:
    """Options that take a value: with the words that it may be, or None when it is a file."""
    for one in parser._actions:
        for option in one.option_strings:
            if one.choices:
                yield option, [str(word) for word in one.choices]
            elif one.metavar in ("FILE", "FOLDER"):
                yield option, None


def _bash(parser: argparse.ArgumentParser, prog: str) -> str:
    begin = tuple(prog.split()[1:])
    tree = [((*begin, *path), inner) for path, inner in levels(parser)]
    if begin:
        tree.append(((), argparse.ArgumentParser(add_help=False)))
    joined = {path: "".join(f" {word}" for word in path) for path, _ in tree}
    paths = "".join(f'      "{joined[path]}") path="{joined[path]}";;\n' for path, _ in tree if path)
    given = [(joined[path], option, words) for path, inner in tree for option, words in values(inner)]
    files = "|".join(f'"{path} {option}"' for path, option, words in given if words is None)
    chosen = "".join(
        f'    "{path} {option}") COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return;;\n'
        for path, option, words in given
        if words is not None
    )
    cases = "".join(f'    "{joined[path]}") words="{" ".join(follow(inner))}";;\n' for path, inner in tree)
    return BASH.format(
        prog=prog,
        name=prog.replace("-", "_").replace(" ", "_"),
        first=prog.split()[0],
        paths=paths,
        files=f"    {files})\n",
        values=chosen,
        cases=cases,
    )


def _fish(parser: argparse.ArgumentParser, prog: str) -> str:
    first, *begin = prog.split()
    lines = [
        f"# {prog}: completion for fish.  {prog} completion fish > ~/.config/fish/completions/{first}.fish"
    ]
    for path, inner in levels(parser):
        here = " ".join((*begin, *path))
        typed = "echo (commandline -opc | string match -v -- '-*')[2..]"
        # Before further words exactly this was typed; after the last of them values of options may follow.
        leads_on = any(isinstance(one, argparse._SubParsersAction) for one in inner._actions)
        end = r"\$" if leads_on else r"( |\$)"
        where = f"{typed} | string match -qr -- '^{here}{end}'"
        lines += [
            f'complete -c {first} -n "{where}" -f -a "{word}"'
            for word in follow(inner)
            if not word.startswith("-")
        ]
        for one in inner._actions:
            for option in (text[2:] for text in one.option_strings if text.startswith("--")):
                more = _fish_value(one)
                lines.append(f'complete -c {first} -n "{where}" -l {option}{more}')
    return "\n".join(lines) + "\n"


def _fish_value(action: argparse.Action) -> str:
    if action.choices:
        return f' -x -a "{" ".join(map(str, action.choices))}"'
    if action.nargs == 0:
        return " -f"
    return " -r" if action.metavar in ("FILE", "FOLDER") else " -x"
