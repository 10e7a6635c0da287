"""The command line itself: what it offers, how it refuses, how quickly it answers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from engine.core.version import VERSION
from nodepulse.cli import COMMANDS, nodepulse

TOP = Path(__file__).parents[2]


def run(*args: str, **environ: str) -> tuple[int, str]:
    done = CliRunner().invoke(nodepulse, args, env={"XDG_STATE_HOME": "/nonexistent", **environ})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_the_version_is_that_of_the_package():
    assert run("--version") == (0, f"nodepulse, version {VERSION}\n")
    assert tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_is_for(command):
    code, text = run(command, "--help")
    assert code == 0
    assert f"Usage: nodepulse {command}" in text


def test_help_and_version_import_nothing_heavy():
    source = "import sys, nodepulse.cli; print([m for m in ('numpy', 'trio', 'asyncpg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_wrong_configuration_is_told_in_one_line_with_exit_code_2():
    assert run("serve", "--set", "ingest.prt=1") == (
        2,
        "nodepulse: ingest.prt: is not a key; did you mean ingest.port?\n",
    )


def test_a_broken_address_is_refused_by_the_name_of_its_option():
    code, text = run("serve", "--beats", "nowhere")
    assert (code, text) == (2, "nodepulse: --beats: 'nowhere' is not HOST:PORT with a port from 0 to 65535\n")


def test_a_process_alone_wants_the_urls_of_its_stores(tmp_path):
    code, text = run("web", "--data-dir", str(tmp_path))
    assert code == 2
    assert "database.url: is empty" in text
    assert "redis.url: is empty" in text


def test_an_engine_refuses_a_shard_that_is_not_there(tmp_path):
    urls = {"NODEPULSE_DATABASE__URL": "postgresql://x/y", "NODEPULSE_REDIS__URL": "redis://x"}
    (tmp_path / "secrets.json").write_text("{}")
    code, text = run("engine", "--shard", "1", "--data-dir", str(tmp_path), **urls)
    assert (code, text) == (2, "nodepulse: --shard: is 1; engine.shards is 1\n")


def test_a_process_alone_wants_the_secrets_of_the_installation(tmp_path):
    urls = {"NODEPULSE_DATABASE__URL": "postgresql://x/y", "NODEPULSE_REDIS__URL": "redis://x"}
    code, text = run("web", "--data-dir", str(tmp_path), **urls)
    assert code == 2
    assert f"{tmp_path}/secrets.json is missing" in text


@pytest.mark.parametrize("slug", ["", "Upper", "-dash", "a b", "a" * 64, "ümlaut"])
def test_a_slug_that_the_database_would_refuse_is_refused_here(slug):
    code, text = run("admin", "project", "create", "--", slug)
    assert code == 2
    assert "is no project slug" in text


@pytest.mark.parametrize(
    "words",
    [
        ("admin", "key", "create"),
        ("admin", "channel", "add", "webhook", "ftp://x", "--project", "p"),
        ("admin", "channel", "add", "mail", "nobody", "--project", "p"),
        ("admin", "node", "create", "--project", "p", "--public-key", "abcd"),
        ("admin", "window", "open", "n", "--from", "tomorrow", "--minutes", "5"),
        ("admin", "window", "open", "n", "--from", "2026-01-01T00:00:00", "--minutes", "5"),
        ("admin", "provision", "--project", "p", "--nodes", "1", "--workloads", "65"),
        ("bench", "nothing"),
    ],
)
def test_what_makes_no_sense_is_a_wrong_usage(words):
    assert run(*words)[0] == 2


def commands_in(text: str) -> list[list[str]]:
    """`./run ...` lines of a document, by words up to the first option or argument that is data."""
    return [line.split()[1:] for line in re.findall(r"^ +(\./run .*)$", text, re.M)]


@pytest.mark.parametrize("document", ["README.md"])
def test_every_command_line_in_the_documents_exists(document):
    lines = commands_in((TOP / document).read_text())
    assert len(lines) >= 5
    for words in lines:
        command: click.Command = nodepulse
        while isinstance(command, click.Group) and words:
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, words
            command = found
        options = {name for parameter in command.params for name in parameter.opts}
        assert [word for word in words if word.startswith("--") and word not in options] == []


def test_the_programs_in_the_readme_are_programs():
    for source in re.findall(r"<<'EOF'\n(.*?)\n    EOF", (TOP / "README.md").read_text(), re.S):
        ast.parse(re.sub(r"^    ", "", source, flags=re.M))
