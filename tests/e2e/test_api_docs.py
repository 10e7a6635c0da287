"""docs/api.md is run as it is written, line by line in one shell, against a started system."""

from __future__ import annotations

import ast
import email
import email.policy
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from nodepulse.client import Client, ProblemError, pages, uptime_rows
from nodepulse.client.generate import document
from nodepulse.client.operations import operations
from nodepulse.client.route_table import table
from tests.e2e.page import Said, Step, differences, steps_of
from tests.e2e.system import System, eventually
from tests.worker.receivers import Mailbox

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "api.md").read_text()
STEPS = steps_of(PAGE)
CURL_LEAST = (7, 82)  # knows --json
ADDRESS = "olga@example.org"  # to whom the page has a letter sent
RUN_S = 60.0


class Call(NamedTuple):
    status: int
    body: bytes


class Run(NamedTuple):
    """What came of running the page: the calls of each step, and how the shell ended."""

    calls: list[list[Call]]
    code: int
    output: str
    variables: dict[str, str]


def real_curl() -> str:
    """The curl of this machine, "" when there is none or it is too old for the page."""
    found = shutil.which("curl")
    if found is None:
        return ""
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"curl (\d+)\.(\d+)", told)
    return found if version and (int(version[1]), int(version[2])) >= CURL_LEAST else ""


def run_page(system: System, mailbox: Mailbox, folder: Path, curl: str) -> Run:
    """Run all steps in one bash; after each, the number of calls so far goes on record."""
    record, bin_folder = folder / "record", folder / "bin"
    record.mkdir()
    bin_folder.mkdir()
    command = bin_folder / "curl"
    words = " ".join(f"'{word}'" for word in (sys.executable, "-I", "-S", RECORDER, record, curl))
    command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    command.chmod(0o755)
    script = ["set -e -u -o pipefail", """trap '[ $? = 0 ] || echo "ended at docs/api.md:$STEP"' EXIT"""]
    for step in STEPS:
        script += [
            f"STEP={step.line}",
            step.script,
            f"ls '{record}' | grep -c status >> '{folder}/counts' || true",
        ]
    script.append("declare -p API KEY NODE WORKLOAD YESTERDAY TODAY")
    (folder / "page.sh").write_text("\n".join(script))
    python = Path(sys.executable).parent
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PATH": f"{bin_folder}:{python}:{os.environ['PATH']}",
        "API": system.web_url,
        "ADMIN": system.admin("key", "create", "--admin")["api_key"],
    }
    with subprocess.Popen(
        ["bash", str(folder / "page.sh")],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        reader = threading.Thread(target=paste_token, args=(mailbox, shell))
        reader.start()
        assert shell.stdout is not None
        output = shell.stdout.read()
        code = shell.wait(RUN_S)
        reader.join()
    counts = [int(line) for line in (folder / "counts").read_text().split()]
    calls = [
        Call(int((record / f"{number}.status").read_text()), (record / f"{number}.body").read_bytes())
        for number in range(counts[-1])
    ]
    edges = itertools.pairwise([0, *counts])
    told = dict(re.findall(r'^declare -\S+ (\w+)="(.*)"$', output, re.MULTILINE))
    return Run([calls[begin:end] for begin, end in edges], code, output[-1_500:], told)


RECORDER = Path(__file__).with_name("recorded_curl.py")


def paste_token(mailbox: Mailbox, shell: subprocess.Popen[str]) -> None:
    """What the reader of the page does by hand: take the token from the letter."""

    def token() -> str:
        if shell.poll() is not None:
            return "nobody reads it any more"
        for envelope in mailbox.envelopes:
            if ADDRESS in envelope.rcpt_tos:
                letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
                if found := re.search(r"npm_[\w-]+", letter.get_body().get_content()):
                    return found[0]
        return ""

    assert shell.stdin is not None
    try:
        shell.stdin.write(f"{eventually(token, within_s=RUN_S)}\n")
        shell.stdin.close()
    except BrokenPipeError:
        assert shell.wait(RUN_S) != 0  # it ended before it came to reading; its output says why
    except AssertionError:
        shell.kill()  # no letter came: whoever waits for the shell shall not wait for ever
        raise


@pytest.fixture(scope="module")
def run(system: System, mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory) -> Run:
    came = run_page(system, mailbox, tmp_path_factory.mktemp("api"), real_curl())
    assert came.code == 0, came.output
    return came


def test_every_line_of_the_page_runs_and_answers_what_the_page_says(run: Run):
    wrong = [
        f"docs/api.md:{step.line}: {difference}\n{step.script}"
        for step, calls in zip(STEPS, run.calls, strict=True)
        if step.said is not None and calls
        for difference in differences(step.said, *calls[-1])
    ]
    assert wrong == [], "\n\n".join(wrong)
    assert len(STEPS) > 50


def test_the_outcome_of_every_call_stands_beside_it(run: Run):
    silent = [
        f"docs/api.md:{step.line}"
        for step, calls in zip(STEPS, run.calls, strict=True)
        if len(calls) != (step.said is not None)
    ]
    assert silent == []


def test_what_the_page_has_made_is_there_for_the_typed_client(system: System, run: Run):
    """The same day through nodepulse.client, which is how most will do it."""
    made = run.variables
    with Client(system.web_url, made["KEY"]) as client:
        nodes = [node.node_id for node in pages(client.list_nodes, limit=1, retired=True)]
        assert made["NODE"] in nodes
        assert len(nodes) > 1
        rows = {row.workload_id: row for row in uptime_rows(client, "edge-ai", day=made["TODAY"])}
        assert rows[made["WORKLOAD"]].ms.silent > 0
        assert client.read_points("edge-ai", day=made["YESTERDAY"]).total_points == "0"
        with pytest.raises(ProblemError) as refused:
            client.get_project("another")
        assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_the_example_in_python_runs_as_well(system: System, run: Run, capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert "https://pulse.example.org" in example
    here = example.replace("https://pulse.example.org", system.web_url)
    here = here.replace("2026-01-31", run.variables["YESTERDAY"])
    exec(compile(here, "docs/api.md", "exec"), {"key": run.variables["KEY"]})
    told = capsys.readouterr().out
    assert "lisbon-1 new" in told
    assert "not_sealed" in told  # of that day there is nothing to commit


def test_the_stand_in_for_curl_answers_like_curl(system: System, tmp_path: Path):
    """On a machine without curl the page is still run: by a program that must not be kinder than curl."""
    lines = [
        [f"{system.web_url}/v1/me"],
        ["--fail-with-body", f"{system.web_url}/v1/me"],
        ["-X", "DELETE", f"{system.web_url}/v1/sign-in"],
        ["--json", '{"email": 3}', f"{system.web_url}/v1/sign-in/mail"],
    ]

    def answers(curl: str, folder: Path) -> list[tuple[int, str]]:
        folder.mkdir()
        told = []
        for number, line in enumerate(lines):
            command = [sys.executable, "-I", "-S", str(RECORDER), str(folder), curl, "-sS", *line]
            done = subprocess.run(command, capture_output=True, check=False)
            assert (folder / f"{number}.body").read_bytes() == done.stdout
            status = (folder / f"{number}.status").read_text()
            told.append((done.returncode, status, json.loads(done.stdout)["code"]))
        return told

    expected = [
        (0, "401", "unauthorized"),
        (22, "401", "unauthorized"),
        (0, "401", "unauthorized"),
        (0, "400", "malformed"),
    ]
    assert answers("", tmp_path / "ours") == expected
    if curl := real_curl():
        assert answers(curl, tmp_path / "theirs") == expected


# -- what the page must have in it


def test_the_table_of_routes_is_that_of_the_api():
    assert table(document()) in PAGE, "routes have changed: python -m nodepulse.client.generate"


MODULES = {
    "inventory": ["/v1/projects/{slug}/collections", "/v1/licences"],
    "node": ["/v1/nodes", "/v1/nodes/{node_id}/revoke"],
    "notification settings": ["/v1/me/notifications", "/v1/projects/{slug}/channels"],
    "project": ["/v1/projects", "/v1/projects/{slug}/policies"],
    "user": ["/v1/users", "/v1/me", "/v1/sign-in/wallet"],
    "workload": ["/v1/workloads/{workload_id}", "/v1/projects/{slug}/kinds"],
    "The Graph": ["/v1/users/{user_id}/balances", "/v1/licences/{licence_id}/owners"],
    "Datagram": ["/v1/nodes/{node_id}/datagram", "/v1/projects/{slug}/uptime"],
}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_replaced_is_on_the_page_with_its_routes(module: str):
    """The modules that issue 3 names."""
    (line,) = re.findall(rf"^\| {module} \|.*$", PAGE, re.MULTILINE)
    served = {operation.path for operation in operations(document())}
    assert [path for path in MODULES[module] if f"`{path}`" not in line] == []
    assert [path for path in re.findall(r"`(/v1/[^`]*)`", line) if path not in served] == []


def test_every_code_of_a_refusal_is_listed():
    """`code` is what programs branch on: one that is not on the page is a surprise."""
    used = {
        node.args[1].value
        for path in (TOP / "web").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("RefusedError")
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    }
    assert len(used) > 20
    listed = set(re.findall(r"^\| \d{3} \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert used - listed == set()


# -- the checks themselves can fail


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (Said(201, {}, ""), b"{}"),
        (Said(200, {"name": '"a"'}, ""), b'{"name": "b"}'),
        (Said(200, {"name": None}, ""), b'{"name": null}'),
        (Said(200, {"items.0": None}, ""), b'{"items": []}'),
        (Said(200, {}, "up"), b"down"),
    ],
)
def test_an_answer_that_is_not_what_is_said_is_found(said: Said, body: bytes):
    assert len(list(differences(said, 200, body))) == 1


def test_what_is_said_is_read_as_it_is_written():
    page = 'text\n```sh\nA=1\ncurl x\n# 201 name="a, b", items.0.id, n=null\ncurl y\n# 204\nB=2\n```\n'
    assert steps_of(page) == [
        Step(3, "A=1\ncurl x", Said(201, {"name": '"a, b"', "items.0.id": None, "n": "null"}, "")),
        Step(6, "curl y", Said(204, {}, "")),
        Step(8, "B=2", None),
    ]
