"""What commands print for others: completion for shells, the systemd unit, manifests. Asked of the others."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys

import pytest

from tests.e2e.system import TOP
from tests.node.commanding import Shell

BASH = """
source {script}
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_{name}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
source {script}
COMP_WORDS=({line}); COMP_CWORD={at}
print -l -- ${{_comps[{first}]}}
"""


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def has(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not on this machine")


def said(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, **more)
    assert done.returncode == 0, done
    assert done.stderr == ""
    return done.stdout.split()


def script_for(shell, name, prog="nodepulse-node"):
    file = shell.folder / f"completion.{name}"
    file.write_text(printed(shell, prog, "completion", name))
    return file


def printed(shell, prog, *words):
    from contextlib import redirect_stdout
    from io import StringIO

    from node.commands.main import main

    out = StringIO()
    with redirect_stdout(out):
        assert main(words, prog=prog) == 0
    return out.getvalue()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("''", {"init", "register", "status", "workload", "--version"}),
        ("w", {"workload"}),
        ("workload ''", {"add", "list", "remove", "restart", "status"}),
        ("workload re", {"remove", "restart"}),
        ("config get health_p", {"health_port"}),
        ("config get -", {"--config", "--json", "--help"}),
        ("install --print ''", {"systemd", "kubernetes"}),
        ("completion ''", {"bash", "zsh", "fish"}),
        ("status --config node.j", {"node.json"}),
        ("status --json --conf", {"--config"}),
    ],
)
@pytest.mark.parametrize("prog", ["nodepulse-node", "nodepulse node"])
def test_bash_completes_what_may_follow(shell, prog, line, expected):
    (shell.folder / "node.json").touch()
    script, name = script_for(shell, "bash", prog), prog.replace("-", "_").replace(" ", "_")
    words = BASH.format(script=script, line=f"{prog} {line}", name=name)
    found = set(said("bash", "--norc", "-u", "-c", words, cwd=shell.folder))
    assert expected <= found
    if len(expected) == 1 or "workload ''" in line:
        assert found - {"--help"} == expected


def test_bash_offers_for_other_words_of_the_full_product_nothing_of_ours(shell):
    script = script_for(shell, "bash", "nodepulse node")
    words = BASH.format(script=script, line="nodepulse ser", name="nodepulse_node")
    assert said("bash", "--norc", "-u", "-c", words) == []


@has("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nodepulse-node w", {"workload"}),
        ("nodepulse-node workload re", {"remove", "restart"}),
        ("nodepulse-node config get health_p", {"health_port"}),
        ("nodepulse-node install --print k", {"kubernetes"}),
        ("nodepulse-node status --js", {"--json"}),
        ("nodepulse-node status --config a.json --js", {"--json"}),
        ("nodepulse-node stat", {"status"}),
    ],
)
def test_fish_completes_what_may_follow(shell, line, expected):
    source = f'source {script_for(shell, "fish")}; complete -C "{line}" | string split -f1 \\t; or true'
    assert set(said("fish", "--no-config", "-c", source, env=shell.environment)) == expected


@has("zsh")
def test_zsh_takes_the_script(shell):
    words = ZSH.format(script=script_for(shell, "zsh"), line="nodepulse-node w", at=2, first="nodepulse-node")
    assert "_nodepulse_node" in " ".join(said("zsh", "-f", "-c", words, env=shell.environment))


# -- systemd and Kubernetes -------------------------------------------------------------------------


def unit_of(text):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    return parser["Service"]


def test_the_unit_leaves_workloads_running_and_starts_what_is_installed_here(shell):
    text = shell.quick("install", "--print", "systemd").out
    unit = unit_of(text)
    assert (unit["Type"], unit["KillMode"], unit["User"]) == ("notify", "process", "nodepulse-node")
    assert int(unit["TimeoutStopSec"]) > 300
    start = unit["ExecStart"].split()
    assert start[0] == sys.executable
    # As it stands, in a place of its own: it runs far enough to say what is missing.
    mine = shell.quick("install", "--print", "systemd", "--config", str(shell.config)).out
    done = subprocess.run(
        unit_of(mine)["ExecStart"].split(),
        env={"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, "init" in done.stderr) == (2, True)
    assert str(done.returncode) in unit["RestartPreventExitStatus"].split()


@has("systemd-analyze")
def test_systemd_understands_the_unit(shell):
    file = shell.folder / "nodepulse-node.service"
    file.write_text(shell.quick("install", "--print", "systemd").out)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if file.name in line]) == (0, [])


def test_the_manifests_are_those_of_the_driver(shell):
    from node.drivers.kubernetes_install import render_install

    words = ("install", "--print", "kubernetes", "--namespace", "edge", "--image", "registry/np@sha256:abc")
    assert shell.quick(*words).out == render_install("edge", "registry/np@sha256:abc")
