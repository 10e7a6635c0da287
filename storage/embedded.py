"""PostgreSQL and Valkey as our own child processes, for installations that configure no URL.

Each server has a folder of its own under the data folder and listens on a unix socket only. A server that
outlived us (we were killed with SIGKILL) is stopped at the next start, so that it is a direct child again.
Programs and accounts are found in binaries.py; to restart a server that died is its supervisor's business.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import quote

import trio

from storage import roles
from storage.binaries import (
    Account,
    EmbeddedServerError,
    account_for,
    can_reach,
    postgres_binaries,
    valkey_binary,
)
from storage.processes import lives, lives_in

SOCKET_PATH_BYTES_MAX = 107  # sun_path of Linux, less the final NUL
POLL_S = 0.02
RESTART_PATIENCE_S = 15.0  # how long the remains of a crashed server may keep a new one from starting
LOG_BYTES_MAX = 10 * 1024 * 1024  # a longer log is begun anew at the next start
_DEAD_PID = 2**22 + 1  # above any pid_max of Linux: no process ever has it
_HAS_PROC = Path("/proc/self/cwd").exists()


class EmbeddedServer(ABC):
    """One embedded server: `start`, then `wait` for its end or `stop` it; it may be started again.

    `process` is the running child (a `trio.Process`, a direct child of ours) or None.
    """

    name: ClassVar[str]
    pid_file: ClassVar[str]
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]]  # signal, seconds of patience

    def __init__(self, data_dir: Path, *, binaries: str = "") -> None:
        self.folder = Path(data_dir).absolute() / self.name
        self.process: trio.Process | None = None
        self._binaries = binaries
        self._lock: int | None = None
        self._sockets: Path | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients; known once started."""

    async def start(self) -> None:
        """Start the server and return when it takes connections. EmbeddedServerError with the reason."""
        assert self.process is None or self.process.returncode is not None, "already running"
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            account = account_for(self.folder)
            self._sockets = await self._socket_folder(account)
            command = await self._prepare(account)
            await self._stop_survivor()
            await self._start_process(command, account)
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """Wait until the server has ended, by itself or not; its exit code."""
        assert self.process is not None, "not started"
        return await self.process.wait()

    async def stop(self) -> None:
        """Stop it in order, by force when it takes too long, and wait for the end. Harmless when stopped."""
        with trio.CancelScope(shield=True):
            if self.process is not None:
                await _stop_child(self.process, self.stop_steps)
            self.process = None
            if self._sockets is not None:
                with suppress(OSError):  # not empty: a server that was killed left its socket there
                    self._sockets.rmdir()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    @abstractmethod
    async def _prepare(self, account: Account) -> list[str]:
        """Make the folder ready and return the command to run in it."""

    @abstractmethod
    async def _is_ready(self, pid: int) -> bool:
        """Whether the server with this pid takes connections."""

    @abstractmethod
    def _forget_dead(self, pid: int) -> None:
        """Make what a dead server left behind no obstacle to a new one."""

    def _left_sockets(self) -> bool:
        """Whether a server whose folder is gone left sockets. Those of dead ones are taken away."""
        return False

    def _take_lock(self) -> None:
        """One owner per folder: what still runs there without one is a survivor that may be stopped."""
        if self._lock is not None:
            return
        lock = os.open(self.folder.parent / f"{self.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise EmbeddedServerError(f"{self.folder} is in use by another nodepulse") from error
        self._lock = lock

    async def _socket_folder(self, account: Account) -> Path:
        """A folder of mode 0700, owned by the server's account, whose path fits into a socket address."""
        tag = hashlib.blake2b(os.fsencode(self.folder), digest_size=8).hexdigest()
        places = [self.folder.parent / f"{self.name}.run"]
        places += [Path(base) / f"nodepulse-{tag}" for base in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
        for place in places:
            if len(os.fsencode(place)) + 20 > SOCKET_PATH_BYTES_MAX or not await can_reach(
                account, place.parent
            ):
                continue
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)
                os.chown(place, account.uid, account.gid)
            info = place.lstat()
            # In a folder for everybody another's folder or link may wait under our name.
            if info.st_uid == account.uid and place.is_dir() and not place.is_symlink():
                place.chmod(0o700)
                return place
        raise EmbeddedServerError(
            f"no folder for the socket of {self.name}; tried {', '.join(map(str, places))}"
        )

    def _written_pid(self) -> int | None:
        try:
            return int((self.folder / self.pid_file).read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    async def _stop_survivor(self) -> None:
        pid = self._written_pid()
        if pid is None or not _HAS_PROC:
            return  # without /proc nobody can tell whose process it is; PostgreSQL itself then refuses
        for number, patience_s in self.stop_steps:
            if not lives_in(pid, self.folder):
                break
            os.kill(pid, number)
            with trio.move_on_after(patience_s):
                while lives_in(pid, self.folder):  # noqa: ASYNC110 - it is no child of ours, so it can only be polled
                    await trio.sleep(POLL_S)
        self._forget_dead(pid)

    async def _start_process(self, command: list[str], account: Account) -> None:
        # After a crash its children may live on for a moment and hold the shared memory: try again.
        deadline = trio.current_time() + RESTART_PATIENCE_S
        had_survivor = self._written_pid() is not None or self._left_sockets()
        while not await self._try_start(command, account):
            if not had_survivor or trio.current_time() > deadline:
                raise EmbeddedServerError(f"{self.name} does not start: {self._log_tail()}")
            await trio.sleep(0.1)
            self._left_sockets()

    async def _try_start(self, command: list[str], account: Account) -> bool:
        with self._open_log() as log:
            self.process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                # Ctrl-C goes to the whole foreground group: the stores must outlive the last flush.
                start_new_session=True,
                **account.popen_options,
            )
        while self.process.poll() is None:
            if await self._is_ready(self.process.pid):
                return True
            await trio.sleep(POLL_S)
        return False

    @property
    def _log_path(self) -> Path:
        return self.folder.parent / f"{self.name}.log"

    def _open_log(self) -> BinaryIO:
        too_long = self._log_path.exists() and self._log_path.stat().st_size > LOG_BYTES_MAX
        return self._log_path.open("wb" if too_long else "ab")

    def _log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-2000:]


class PostgresServer(EmbeddedServer):
    """PostgreSQL in ``DIR/postgres``, database postgres, with two roles (storage/roles.py).

    Its owner is made here, the application's role by `roles.make_application_role` at every start.
    """

    name = "postgres"
    pid_file = "postmaster.pid"
    stop_steps = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 4.0), (signal.SIGKILL, 2.0))
    options: ClassVar[tuple[str, ...]] = (
        "listen_addresses=",
        "unix_socket_permissions=0700",
        "max_connections=100",
        "shared_buffers=128MB",
        "synchronous_commit=on",
        # No replication from the embedded server, so the log need not carry it.
        "wal_level=minimal",
        "max_wal_senders=0",
        "max_wal_size=1GB",
        # Parallel workers want /dev/shm, which containers keep small, and our queries are short.
        "max_parallel_workers_per_gather=0",
        "jit=off",
        "timezone=UTC",
        "log_timezone=UTC",
        "log_checkpoints=off",
    )

    @property
    def url(self) -> str:
        return self._url_of(roles.APPLICATION)

    @property
    def owner_url(self) -> str:
        """The address for migrations only; known once started."""
        return self._url_of(roles.OWNER)

    def _url_of(self, role: str) -> str:
        assert self._sockets is not None, "not started"
        return f"postgresql://{role}@/postgres?host={quote(str(self._sockets), safe='')}"

    async def _prepare(self, account: Account) -> list[str]:
        programs = await postgres_binaries(account, setting=self._binaries)
        if not self.folder.exists():
            await self._make_cluster(programs, account)
        options = [word for option in self.options for word in ("-c", option)]
        folder = await _name_of(self.folder, account)
        return [str(programs / "postgres"), "-D", folder, "-k", str(self._sockets), *options]

    async def _make_cluster(self, programs: Path, account: Account) -> None:
        unfinished = self.folder.with_name(f"{self.name}.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)  # we were killed in the middle of this
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, account.uid, account.gid)
        command = [str(programs / "initdb"), "-D", await _name_of(unfinished, account)]
        command += ["-U", roles.OWNER, "--auth=trust", "--encoding=UTF8", "--no-instructions"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = await trio.run_process(
            command,
            cwd=unfinished,
            env=_environment(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            **account.popen_options,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise EmbeddedServerError(f"initdb failed: {said[-2000:]}")
        unfinished.rename(self.folder)

    async def _is_ready(self, pid: int) -> bool:
        # The server writes its state as the eighth line of its lock file; pg_ctl reads it there as well.
        try:
            lines = (self.folder / self.pid_file).read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _left_sockets(self) -> bool:
        # A restore begins where the data folder was lost, and with it the number of who served it.
        assert self._sockets is not None
        left = list(self._sockets.glob(".s.PGSQL.*.lock")) if _HAS_PROC else []
        for lock in left:
            with suppress(FileNotFoundError, ValueError, IndexError):
                if not lives(int(lock.read_text().split("\n", 1)[0])):
                    lock.unlink()
        return bool(left)

    def _forget_dead(self, pid: int) -> None:
        # PostgreSQL asks only whether a process of that number exists: it takes a zombie, or a later process
        # of our user, for a living server, for ever. The rest of the file stays: it names the shared memory
        # by which a new server knows that children of the dead one are still there.
        lock_file = self.folder / self.pid_file
        with suppress(FileNotFoundError), lock_file.open("r+") as file:
            lines = file.read().split("\n")
            if lines[0] != str(pid):
                return
            file.seek(0)
            file.write("\n".join([str(_DEAD_PID), *lines[1:]]))
            file.truncate()
        assert self._sockets is not None
        for left in self._sockets.glob(".s.PGSQL.*.lock"):
            left.unlink()


class ValkeyServer(EmbeddedServer):
    """Valkey in ``DIR/valkey``, without persistence: the live view is rebuilt from the engine's table."""

    name = "valkey"
    pid_file = "valkey.pid"
    stop_steps = ((signal.SIGTERM, 4.0), (signal.SIGKILL, 2.0))

    @property
    def _socket(self) -> str:
        assert self._sockets is not None, "not started"
        return str(self._sockets / "valkey.sock")

    @property
    def url(self) -> str:
        return f"unix://{quote(self._socket)}"

    async def _prepare(self, account: Account) -> list[str]:
        program = await valkey_binary(account, setting=self._binaries)
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            os.chown(self.folder, account.uid, account.gid)
        # No --dir: it stays in the folder it is started in, which its account need not reach by name.
        options = ["--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700", "--save", ""]
        options += ["--appendonly", "no", "--daemonize", "no", "--pidfile", self.pid_file, "--logfile", ""]
        return [str(program), *options]

    async def _is_ready(self, pid: int) -> bool:
        try:
            async with await trio.open_unix_socket(self._socket) as stream:
                await stream.send_all(b"PING\r\n")
                return bytes(await stream.receive_some(16)).startswith(b"+PONG")
        except (OSError, trio.BrokenResourceError):
            return False

    def _forget_dead(self, pid: int) -> None:
        (self.folder / self.pid_file).unlink(missing_ok=True)


@asynccontextmanager
async def open_postgres(data_dir: Path, *, binaries: str = "") -> AsyncIterator[str]:
    """The URL of an embedded PostgreSQL that runs as long as the block."""
    server = PostgresServer(data_dir, binaries=binaries)
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


@asynccontextmanager
async def open_valkey(data_dir: Path, *, binaries: str = "") -> AsyncIterator[str]:
    """The URL of an embedded Valkey that runs as long as the block."""
    server = ValkeyServer(data_dir, binaries=binaries)
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


async def _name_of(folder: Path, account: Account) -> str:
    """A name by which the account finds a folder that it owns but whose parents may be closed to it.

    The process is started inside the folder (by us, before it drops to the account) and stays there.
    """
    if not account.drop or await can_reach(account, folder) or not _HAS_PROC:
        return str(folder)
    return "/proc/self/cwd"


def _environment() -> dict[str, str]:
    """Ours without what would redirect the servers (PGDATA, PGPORT ...), messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}


async def _stop_child(process: trio.Process, steps: tuple[tuple[signal.Signals, float], ...]) -> None:
    for number, patience_s in steps:
        if process.returncode is not None:
            return
        process.send_signal(number)
        with trio.move_on_after(patience_s):
            await process.wait()
    await process.wait()
