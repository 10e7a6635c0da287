"""Which releases of the manager are believed, taken, kept and taken back; no process is begun here."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import tomllib
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.core import versions as servers
from node.config import NodeConfig
from node.update import versions
from node.update.apply import UpdateError, apply, check, install, running_version, wait_outcome
from node.update.release import TEXT_CHARS_MAX, Manifest, Release, public_key_of, read, sign
from node.update.rules import must_be_allowed, must_be_satisfied
from node.update.source import from_answer
from node.update.store import TRIES_MAX, Failed, Known, Updates
from node.version import VERSION
from nodepulse.commands.manager_release import release as command
from nodepulse.manager_archive import NEEDS, build, write

TOP = Path(__file__).parents[2]
SEED = bytes(range(32))
KEY = public_key_of(SEED)
MANIFEST = Manifest(
    version="0.2.0",
    file="nodepulse-manager-0.2.0.zip",
    size=1_000,
    sha256="0" * 64,
    minimum_version="0.1.0",
    published_ms=1_795_305_600_123,
    needs=NEEDS,
)


@pytest.fixture(scope="module")
def built():
    return build(version="0.2.0", seed=SEED, published_ms=1_795_305_600_000)


@pytest.fixture
def config(tmp_path, built):
    write(built, tmp_path / "releases")
    return NodeConfig(
        data_dir=str(tmp_path / "data"),
        update_key=KEY,
        update_url=(tmp_path / "releases" / "latest.release").as_uri(),
    )


# -- signatures -------------------------------------------------------------------------------------


def test_what_was_signed_is_read_and_nothing_else():
    text = sign(MANIFEST, SEED)
    assert len(text) < TEXT_CHARS_MAX
    assert read(text, KEY) == MANIFEST
    with pytest.raises(UpdateError, match="not that of update_key"):
        read(text, public_key_of(bytes(32)))
    with pytest.raises(UpdateError, match="update_key"):
        read(text, "")


def test_no_character_of_a_release_can_be_changed():
    text = sign(MANIFEST, SEED)
    rng = random.Random(7)
    for at in rng.sample(range(len(text) - 1), 60):
        changed = "A" if text[at] != "A" else "B"
        with pytest.raises(UpdateError):
            read(text[:at] + changed + text[at + 1 :], KEY)
    for broken in ("", ".", "..", text[:-2], text + "." + text, "é" * 10, "A" * 2_000):
        with pytest.raises(UpdateError):
            read(broken, KEY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": "../../etc/passwd"},
        {"file": ".hidden"},
        {"version": "1"},
        {"size": 0},
        {"size": 1 << 40},
        {"sha256": "0" * 63},
        {"minimum_version": ""},
        {"needs": ("x" * 800,)},
        {"needs": tuple("abcdefghijklmnopqrstuvwxyz")},
    ],
)
def test_a_manifest_that_no_manager_would_take_is_not_signed(wrong):
    with pytest.raises(ValueError, match=r"manifest|longer"):
        sign(replace(MANIFEST, **wrong), SEED)


# -- rules ------------------------------------------------------------------------------------------


def failed(**more):
    return {"0.2.0": Failed(**{"why": "it ended", "at_ms": 1, "tries": 1, "certain": True, **more})}


@pytest.mark.parametrize(
    ("running", "known", "why"),
    [
        ("0.2.1", Known(), "older than 0.2.1"),
        ("0.2.0", Known(), None),  # the same precedence: other build metadata
        ("0.2.0-rc.1", Known(), None),
        ("0.0.9", Known(), "can only follow 0.1.0"),
        ("0.1.0", Known(newest_ms=MANIFEST.published_ms), None),
        ("0.1.0", Known(newest_ms=MANIFEST.published_ms + 1), "published before"),
        ("0.1.0", Known(failed=failed()), "taken back: it ended"),
        ("0.1.0", Known(failed=failed(certain=False)), None),
    ],
)
def test_a_release_is_taken_or_refused_with_a_reason(running, known, why):
    if why is None:
        must_be_allowed(MANIFEST, running, known, anyway=False)
        return
    with pytest.raises(UpdateError, match=why):
        must_be_allowed(MANIFEST, running, known, anyway=False)


def test_an_operator_may_go_back_and_try_again_but_not_against_the_minimum():
    known = Known(newest_ms=MANIFEST.published_ms + 1, failed=failed())
    must_be_allowed(MANIFEST, "0.9.0", known, anyway=True)
    with pytest.raises(UpdateError, match="can only follow"):
        must_be_allowed(MANIFEST, "0.0.9", Known(), anyway=True)


@pytest.mark.parametrize(
    ("need", "fits"),
    [
        ("python>=3.11", True),
        ("python>=3.11,<3.99", True),
        ("python<3.11", False),
        ("trio", True),
        ("trio>=0", True),
        ("trio>=99.1", False),
        ("no-such-package", False),
        ("trio==1", False),
        ("trio>=1; extra", False),
    ],
)
def test_what_a_release_needs_is_looked_for(need, fits):
    if fits:
        must_be_satisfied((need,))
        return
    with pytest.raises(UpdateError, match="does not do"):
        must_be_satisfied((need,))


def test_versions_are_compared_as_the_server_compares_them():
    texts = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1"
    for text in texts.split():
        assert versions.precedence(text) == servers.precedence(text)
    assert sorted(texts.split(), key=versions.precedence) == texts.split()
    for text in (
        "1",
        "1.2",
        "01.2.3",
        "1.2.3-",
        "1.2.3+",
        "1.2.3\n",
        "1.2.3-01",
        "a" * 200,
        "9.9.9" + "9" * 130,
    ):
        assert versions.is_version(text) == servers.is_version(text) is False
        with pytest.raises(ValueError, match="not a version"):
            versions.precedence(text)


# -- looking and installing -------------------------------------------------------------------------


def test_a_release_is_found_fetched_checked_and_put_beside_what_runs(config, built):
    found = check(config)
    assert found is not None
    assert found.manifest == built.manifest
    assert apply(config, found) == "at the next start"
    updates = Updates(config.data_path)
    assert updates.archive("0.2.0").read_bytes() == built.archive
    assert updates.known().staged == "0.2.0"
    assert updates.current() is None
    assert running_version(config) == VERSION
    assert stat.S_IMODE((config.data_path / "versions").stat().st_mode) == 0o700


def test_without_a_key_no_release_is_believed(config):
    with pytest.raises(UpdateError, match="update_key: not set"):
        check(replace(config, update_key=""))


def test_no_release_is_none(config):
    assert from_answer(config, None) is None
    with pytest.raises(UpdateError, match="No such file"):
        check(replace(config, update_url="file:///nowhere/at/all"))


def test_what_the_backend_tells_must_be_what_was_signed(config, built):
    answer = {
        "version": "0.2.0",
        "url": "http://127.0.0.1:9/x",
        "sha256": built.manifest.sha256,
        "signature": built.text,
    }
    found = from_answer(config, answer)
    assert found is not None
    assert found.url == answer["url"]
    for changed in ({"version": "0.3.0"}, {"sha256": "1" * 64}):
        with pytest.raises(UpdateError, match="another release than the one that was signed"):
            from_answer(config, {**answer, **changed})


def test_an_archive_that_is_no_manager_is_refused(config, tmp_path):
    for data in (b"no zip at all", _zip({"other.py": ""})):
        (tmp_path / "x.zip").write_bytes(data)
        manifest = replace(MANIFEST, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(UpdateError, match="not a manager"):
            install(config, Release(manifest, "text", (tmp_path / "x.zip").as_uri()))
    assert not (config.data_path / "versions").exists()


def _zip(files):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


# -- what is installed ------------------------------------------------------------------------------


@pytest.fixture
def updates(tmp_path):
    return Updates(tmp_path)


def staged(updates, version, published_ms=5):
    manifest = replace(MANIFEST, version=version, published_ms=published_ms)
    updates.stage(Release(manifest, f"text of {version}", "file:///x"), version.encode())


def test_the_link_changes_only_when_a_version_has_proved_itself(updates):
    staged(updates, "0.2.0")
    updates.begin_trial("0.2.0")
    assert updates.chosen("0.1.0") is None
    updates.confirm("0.2.0", base="0.1.0", previous="0.1.0")
    assert updates.chosen("0.1.0") == "0.2.0"
    known = updates.known()
    assert (known.staged, known.trying, known.previous, known.newest_ms) == ("", "", "0.1.0", 5)
    assert updates.release_text("0.2.0") == "text of 0.2.0"


def test_the_version_before_is_kept_and_those_before_that_are_not(updates):
    for number in (2, 3, 4):
        staged(updates, f"0.{number}.0")
        updates.confirm(f"0.{number}.0", base="0.1.0", previous=f"0.{number - 1}.0")
    assert not updates.archive("0.2.0").exists()
    assert updates.archive("0.3.0").exists()
    assert updates.current() == "0.4.0"


def test_a_program_that_was_installed_anew_wins_over_an_older_update(updates):
    staged(updates, "0.2.0")
    updates.confirm("0.2.0", base="0.1.0", previous="0.1.0")
    assert updates.chosen("0.3.0") is None
    assert updates.chosen("0.1.5") == "0.2.0"
    # One that an operator went back to is older than what is installed, and wins while that stays.
    staged(updates, "0.0.5")
    updates.confirm("0.0.5", base="0.1.0", previous="0.2.0")
    assert updates.chosen("0.1.0") == "0.0.5"
    assert updates.chosen("0.1.1") is None


def test_a_version_that_failed_for_certain_is_not_staged_any_more(updates):
    staged(updates, "0.2.0")
    assert updates.fail("0.2.0", why="it ended", certain=True, now_ms=1).certain
    assert updates.known().staged == ""
    assert not updates.archive("0.2.0").exists()


def test_doubts_end_after_some_tries_or_when_the_old_one_beats(updates):
    staged(updates, "0.2.0")
    tries = [updates.fail("0.2.0", why="no beat", certain=False, now_ms=1).certain for _ in range(TRIES_MAX)]
    assert tries == [False] * (TRIES_MAX - 1) + [True]
    assert updates.known().staged == ""
    staged(updates, "0.3.0")
    updates.fail("0.3.0", why="no beat", certain=False, now_ms=1)
    assert updates.known().staged == "0.3.0"
    updates.blame("0.3.0")
    assert updates.known().failed["0.3.0"].certain
    assert updates.known().staged == ""


def test_a_damaged_archive_is_noticed(updates):
    data = b"0.2.0"
    staged(updates, "0.2.0")
    manifest = replace(MANIFEST, sha256=hashlib.sha256(data).hexdigest())
    updates.must_be_whole("0.2.0", manifest)
    updates.archive("0.2.0").write_bytes(b"0.2.1")
    with pytest.raises(UpdateError, match="is damaged"):
        updates.must_be_whole("0.2.0", manifest)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"failed": {"x": 1}}', '{"failed": {}, "more": 1}'])
def test_a_state_that_cannot_be_read_says_so(updates, tmp_path, text):
    (tmp_path / "updates.json").write_text(text)
    with pytest.raises(UpdateError, match=r"updates\.json"):
        updates.known()


def test_what_came_of_a_trial_can_be_waited_for(config):
    updates = Updates(config.data_path)
    staged(updates, "0.2.0")
    assert wait_outcome(config, "0.2.0", timeout_s=0) == ("undecided", "")
    updates.confirm("0.2.0", base="0.1.0", previous="0.1.0")
    assert wait_outcome(config, "0.2.0", timeout_s=0) == ("runs", "")
    staged(updates, "0.3.0")
    updates.fail("0.3.0", why="it ended", certain=True, now_ms=1)
    assert wait_outcome(config, "0.3.0", timeout_s=0) == ("taken back", "it ended")


# -- publishing -------------------------------------------------------------------------------------


def test_the_same_sources_make_the_same_archive_and_nothing_of_the_server_is_in_it(built):
    assert build(version="0.2.0", seed=SEED, published_ms=1_795_305_600_000) == built
    names = zipfile.ZipFile(BytesIO(built.archive)).namelist()
    assert {name.partition("/")[0] for name in names} == {"__main__.py", "np1", "node"}
    assert b'VERSION = "0.2.0"' in zipfile.ZipFile(BytesIO(built.archive)).read("node/version.py")
    assert built.manifest.size < 1_000_000


def test_a_release_needs_what_the_distribution_of_the_manager_does():
    project = tomllib.loads((TOP / "node" / "pyproject.toml").read_text())["project"]
    assert list(NEEDS) == [f"python{project['requires-python']}", *project["dependencies"]]


def test_the_command_makes_a_key_builds_signs_and_checks(tmp_path):
    def run(*words):
        return CliRunner().invoke(command, ["manager", *words, "--json"])

    key, out = tmp_path / "key", tmp_path / "out"
    made = json.loads(run("key", str(key)).stdout)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "is there already" in run("key", str(key)).stderr
    done = run(
        "build", "--version", "0.3.0", "--key", str(key), "--out", str(out), "--url", "https://x.example/"
    )
    told = json.loads(done.stdout)
    assert "--url https://x.example/nodepulse-manager-0.3.0.zip " in told["publish"]
    file = out / "nodepulse-manager-0.3.0.release"
    assert (
        json.loads(run("verify", str(file), "--update-key", made["update_key"]).stdout)["version"] == "0.3.0"
    )
    assert "not that of update_key" in run("verify", str(file), "--update-key", KEY).stderr
    archive = out / "nodepulse-manager-0.3.0.zip"
    archive.write_bytes(archive.read_bytes() + b"x")
    assert "is not what was signed" in run("verify", str(file), "--update-key", made["update_key"]).stderr
    assert run("build", "--version", "3", "--key", str(key), "--out", str(out)).exit_code == 1
    os.chmod(key, 0o644)
    assert "chmod 600" in run("build", "--version", "0.3.1", "--key", str(key), "--out", str(out)).stderr
