"""The manager's own distribution: a wheel of np1 and node, put into a fresh environment, run against serve.

What is measured here is what a machine gets: no compiler, no numpy, nothing of the server, 40 MB at most.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Owner
from tests.e2e.system import TOP, System, eventually, new_folder, running
from tests.node.commanding import Shell

INSTALLED_MB_MAX = 40
RSS_MIB_MAX = 60
SERVER = ("engine", "storage", "web", "worker", "nodepulse", "bench", "numpy", "msgspec", "click", "asyncpg")
SLEEPER = {"command": [sys.executable, "-c", "import time; time.sleep(9999)"]}


def build(folder: Path) -> Path:
    """The wheel, built with what is installed here and without a network."""
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=TOP / "node", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def uv() -> str:
    """The installer that setup.sh brought; it lies beside the environment that runs the tests."""
    found = Path(sys.prefix).resolve().parent / ".tools" / "bin" / "uv"
    path = str(found) if found.exists() else shutil.which("uv")
    assert path is not None, f"neither {found} nor uv on the path"
    return path


def modules(*packages: str) -> set[str]:
    return {path.relative_to(TOP).as_posix() for one in packages for path in (TOP / one).rglob("*.py")}


def test_the_wheel_holds_every_module_of_np1_and_node_and_nothing_else(tmp_path: Path):
    with zipfile.ZipFile(build(tmp_path)) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == modules("np1", "node")


def test_the_lock_file_is_that_of_the_dependencies():
    """By name: each dependency is locked, with hashes; the versions are those that the tests run with."""
    locked = (TOP / "node" / "requirements.lock").read_text()
    ours = (TOP / "requirements.lock").read_text()
    pins = [line.split(" ")[0] for line in locked.splitlines() if "==" in line and not line.startswith("#")]
    assert {"trio", "cryptography"} <= {pin.split("==")[0] for pin in pins}
    assert [pin for pin in pins if f"\n{pin} " not in ours] == []
    assert locked.count("--hash=sha256:") >= len(pins)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and its locked dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "venv"
    quiet = {"check": True, "capture_output": True, "timeout": 300}
    subprocess.run([uv(), "venv", "--python", sys.executable, str(environment)], **quiet)
    install = [uv(), "pip", "install", "--python", str(environment / "bin" / "python"), "--compile-bytecode"]
    locked = str(TOP / "node" / "requirements.lock")
    subprocess.run([*install, "--only-binary", ":all:", "--require-hashes", "-r", locked], **quiet)
    subprocess.run([*install, "--no-deps", "--no-index", str(build(folder))], **quiet)
    return environment


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(System(new_folder(tmp_path_factory.mktemp("distribution")))) as started:
        yield started


@pytest.mark.slow
def test_it_installs_small_without_a_compiler_and_without_the_server(installed: Path):
    used_kb = int(
        subprocess.run(["du", "-sk", str(installed)], capture_output=True, check=True).stdout.split()[0]
    )
    assert used_kb / 1_000 < INSTALLED_MB_MAX
    source = (
        "import importlib.util, json;"
        f"print(json.dumps([name for name in {SERVER!r} if importlib.util.find_spec(name)]))"
    )
    done = subprocess.run(
        [str(installed / "bin" / "python"), "-P", "-c", source], capture_output=True, check=True
    )
    assert json.loads(done.stdout) == []


@pytest.mark.slow
def test_what_was_installed_runs_a_workload_that_a_real_serve_sees_up(
    installed: Path, system: System, tmp_path: Path
):
    owner = Owner(system, "small")
    owner.kind("sleeper")
    owner.offer("sleeper", "1.0.0", SLEEPER)
    person = system.admin("user", "create", "--email", "olga@example.org")["user_id"]
    key = system.admin("key", "create", "--user", person)["api_key"]
    shell = Shell(tmp_path, command=(str(installed / "bin" / "nodepulse-node"),), PYTHONPATH="")
    try:
        words = ("init", "--web-url", system.web_url, "--data-dir", str(shell.data), "--project", "small")
        assert shell(*words).code == 0
        assert shell("config", "set", "health_port", "0").code == 0
        words = ("register", "--key-file", "-", "--workload", "sleeper", "--interval-ms", "1000", "--json")
        made = shell(*words, stdin=key).json
        started = shell("start", "--wait", "20", "--json").json
        assert started["state"] == "beating"
        workload_id = made["workloads"][0]["workload_id"]
        eventually(lambda: owner.api.workload_state(workload_id) == "up", within_s=20, why=shell.log)
        assert rss_mib(started["pid"]) < RSS_MIB_MAX
        maps = Path(f"/proc/{started['pid']}/maps").read_text()
        assert str(installed) in maps
        assert not any(f"/{name}" in maps for name in ("numpy", "site-packages/engine"))
        assert shell("stop").code == 0
        assert owner.api.node_state(made["node_id"]) == "stopped"
    finally:
        shell.close()


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
