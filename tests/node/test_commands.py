"""The node's commands as a person or a script types them: files, refusals, exit codes. Nothing runs yet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from node.commands import ending
from node.commands.main import main, parser_of
from node.commands.output import printable
from node.config import KEYS, load
from node.identity import NodeIdentity
from tests.e2e.machine import free_port
from tests.e2e.system import TOP
from tests.node.commanding import Shell

SEED = "ab" * 32


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """A command in this process, for what needs no other: code, output, errors."""
    monkeypatch.setenv("NODEPULSE_NODE_CONFIG", str(tmp_path / "etc" / "node.json"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NODE_PRIVATE_KEY", "NODE_SYSTEM_ENDPOINT", "NODEPULSE_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def type_(*words):
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        told = capsys.readouterr()
        return code, told.out, told.err

    type_.config = tmp_path / "etc" / "node.json"
    return type_


@pytest.fixture
def ready(typed):
    assert typed("init", "--web-url", "http://127.0.0.1:9", "--project", "mine")[0] == 0
    return typed


def test_init_writes_a_key_that_nobody_else_reads_and_that_is_never_shown(ready):
    assert ready.config.stat().st_mode & 0o777 == 0o600
    assert ready.config.parent.stat().st_mode & 0o777 == 0o700
    config = load(ready.config, {})
    told = ""
    for words in (("info",), ("config", "show"), ("config", "get", "private_key"), ("version",)):
        for more in ((), ("--json",)):
            told += "".join(map(str, ready(*words, *more)))
    assert config.private_key not in told
    assert told.count(NodeIdentity("", config.private_key).public_key) == 2
    assert ready("config", "get", "private_key")[0] == 1
    assert json.loads(ready("config", "show", "--json")[1])["has_private_key"] is True


def test_a_key_that_is_there_is_not_overwritten_and_with_force_it_is_kept_beside(ready):
    before = ready.config.read_bytes()
    code, _, told = ready("init", "--web-url", "https://example.org")
    assert (code, ready.config.read_bytes()) == (1, before)
    assert "--force" in told
    assert ready("init", "--web-url", "https://example.org", "--force")[0] == 0
    old = ready.config.with_name("node.json.old")
    assert (old.read_bytes(), old.stat().st_mode & 0o777) == (before, 0o600)
    second = load(ready.config, {}).private_key
    assert second != json.loads(before)["private_key"]
    assert ready("init", "--web-url", "https://example.org", "--force")[0] == 0
    assert old.read_bytes() == before
    assert load(ready.config.with_name("node.json.old2"), {}).private_key == second


def test_a_key_that_was_made_elsewhere_is_taken_from_a_file_and_a_wrong_one_refused(typed, tmp_path):
    file = tmp_path / "seed"
    file.write_text(SEED.upper() + "\n")
    words = ("init", "--web-url", "http://127.0.0.1:9", "--private-key-file", str(file))
    code, _, told = typed(*words)
    assert (code, typed.config.exists()) == (2, False)
    assert SEED.upper() not in told
    file.write_text(SEED + "\n")
    assert typed(*words)[0] == 0
    assert load(typed.config, {}).private_key == SEED


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("init",), "--web-url"),
        (("init", "--web-url", "ftp://a"), "web_url"),
        (("init", "--web-url", "http://a", "--project", "A B"), "project"),
        (("info",), "nodepulse-node init"),
        (("config", "get", "nonsense"), "health_port"),
        (("workload", "add", "A:b"), "KIND"),
        (("install",), "--print"),
        (("install", "--print", "kubernetes"), "--image"),
        (("install", "--print", "kubernetes", "--image", "a b"), "image"),
        (("install", "--print", "systemd", "--user", "a\nb"), "unit"),
        ((), "--help"),
        (("nonsense",), "nonsense"),
        (("config",), "--help"),
        (("start", "--wait", "soon"), "--wait"),
    ],
)
def test_wrong_words_and_configurations_end_with_2_and_say_what_would_be_right(typed, words, told):
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert "{prog}" not in err


def test_a_configuration_that_others_can_read_is_refused_until_it_is_mended(ready):
    ready.config.chmod(0o644)
    code, _, err = ready("config", "show")
    assert (code, "chmod 600" in err) == (2, True)
    ready.config.chmod(0o600)
    assert ready("config", "show")[0] == 0


def test_values_are_set_checked_and_read_again(ready):
    assert ready("config", "set", "health_port", "8000")[0] == 0
    assert ready("config", "get", "health_port")[1] == "8000\n"
    assert ready("config", "set", "driver_options", '{"namespace": "x"}')[0] == 0
    assert json.loads(ready("config", "get", "driver_options")[1]) == {"namespace": "x"}
    before = ready.config.read_bytes()
    wrong = {"health_port": "70000", "driver": "docker", "driver_options": "{", "web_url": "x"}
    for key, value in wrong.items():
        code, _, err = ready("config", "set", key, value)
        assert (code, key in err, ready.config.read_bytes()) == (2, True, before)
    shown = {*json.loads(ready("config", "show", "--json")[1])}
    assert shown == {*KEYS, "config", "has_private_key"} - {"private_key"}


def test_a_private_key_is_not_taken_from_the_command_line(ready):
    before = ready.config.read_bytes()
    code, _, err = ready("config", "set", "private_key", SEED)
    assert (code, ready.config.read_bytes()) == (2, before)
    assert "--private-key-file" in err


def test_what_the_environment_says_does_not_get_into_the_file(ready, monkeypatch):
    own = load(ready.config, {}).private_key
    monkeypatch.setenv("NODE_PRIVATE_KEY", SEED)
    monkeypatch.setenv("NODE_SYSTEM_ENDPOINT", "https://elsewhere.example.org")
    assert ready("config", "get", "web_url")[1] == "https://elsewhere.example.org\n"
    assert NodeIdentity("", SEED).public_key in ready("info")[1]
    assert ready("config", "set", "health_ttl_s", "40")[0] == 0
    kept = load(ready.config, {})
    assert (kept.private_key, kept.web_url, kept.health_ttl_s) == (own, "http://127.0.0.1:9", 40)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes files of others")
def test_what_root_changes_stays_the_managers_own_to_read(ready):
    os.chown(ready.config, 65_534, 65_533)
    assert ready("config", "set", "health_ttl_s", "40")[0] == 0
    found = ready.config.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65_534, 65_533, 0o600)


def test_nothing_runs_is_3_and_stopping_nothing_is_fine(ready):
    for words in ("status", "workload list", "workload status a", "workload restart a"):
        code, out, err = ready(*words.split())
        assert (code, out) == (ending.NOT_RUNNING, "")
        assert "nodepulse-node start" in err
    assert ready("stop")[0] == 0
    assert ready("version")[0] == 0
    assert json.loads(ready("info", "--json")[1])["manager"] is None


def test_what_is_not_registered_does_not_start(ready):
    for word in ("start", "manager"):
        code, _, err = ready(word)
        assert (code, "nodepulse-node register" in err) == (2, True)
    assert ready("workload", "add", "sleeper")[0] == 2


def test_a_version_is_told_on_a_machine_that_has_nothing_yet(shell):
    done = shell("version")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"nodepulse-node \d+\.\d+\.\d+\n", done.out)


@pytest.mark.parametrize(("key", "code"), [("", 2), ("np 1", 2), ("np_\x01", 2), ("np_" + "x" * 40, 4)])
def test_a_key_comes_from_a_file_and_an_api_that_is_away_is_4(ready, tmp_path, monkeypatch, key, code):
    monkeypatch.setattr("node.commands.owner_api.PAUSE_S", 0)
    assert ready("config", "set", "web_url", f"http://127.0.0.1:{free_port()}")[0] == 0
    file = tmp_path / "key"
    file.write_text(key + "\n")
    found, _, err = ready("register", "--key-file", str(file))
    assert found == code
    assert "API key" in err if code == 2 else "cannot be reached" in err
    assert ready("register", "--node-id", "n")[0] == 4


def test_a_socket_whose_path_is_too_long_is_told_before_anybody_wonders(ready, tmp_path):
    assert ready("config", "set", "data_dir", str(tmp_path / ("d" * 120)))[0] == 0
    code, _, err = ready("status")
    assert (code, "health_socket" in err) == (1, True)


def test_everything_says_what_it_is_for_and_every_command_has_json():
    for words, parser in levels():
        assert parser.description, words
        if words and not any(one.dest == "run" for one in parser._actions) and parser._defaults.get("run"):
            assert "--json" in parser.format_help(), words
            assert "--config" in parser.format_help(), words


def levels():
    from node.commands.completion import levels as found

    return found(parser_of("nodepulse-node"))


def test_the_lines_of_the_readme_are_words_that_we_take():
    lines = re.findall(r"^ +nodepulse-node (.*)$", (TOP / "README.md").read_text(), re.M)
    assert len(lines) >= 8
    for line in lines:
        assert parser_of("nodepulse-node").parse_args(line.split()).run


def test_help_tells_the_exit_codes(typed):
    code, out, _ = typed("--help")
    assert code == 0
    for number, text in ending.CODES.items():
        assert f"  {number}  {text}" in out


def test_a_name_cannot_write_on_the_terminal():
    assert printable("a\x1b[2Jb\x9bc\nd") == "a?[2Jb?c?d"


def test_a_reader_that_went_away_is_no_error_to_print(shell):
    shell.init("http://127.0.0.1:9")
    line = f"{sys.executable} -P -m node.commands config show | true"
    done = subprocess.run(
        line, shell=True, env=shell.environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.stderr == ""


def test_neither_the_server_nor_numpy_comes_with_a_command_or_the_manager(shell):
    shell.init("http://127.0.0.1:9")
    source = (
        "import sys; from node.commands.main import main; main(['info']); main(['status']);"
        "import node.update.launch, node.drivers.kubernetes_install;"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", source],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))
    assert {"node", "np1", "trio"} <= loaded
    server = {"engine", "storage", "web", "worker", "nodepulse", "bench"}
    assert loaded & (server | {"numpy", "msgspec", "click", "asyncpg"}) == set()


def test_the_full_product_forwards_with_its_own_name_and_our_exit_codes(shell):
    product = Shell(shell.folder, command=(sys.executable, "-P", "-m", "nodepulse", "node"))
    done = product("status")
    assert done.code == 2
    assert done.err.startswith("nodepulse node: ")
    assert "nodepulse node init" in done.err
    assert product("config", "get", "--help").out.startswith("Usage: nodepulse node config get")
