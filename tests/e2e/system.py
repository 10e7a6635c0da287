"""A real system for tests: `nodepulse serve` as a process of its own, on free ports and a folder of its own.

Here: starting, stopping, killing it, what it leaves behind, the `admin` commands and `eventually`. The API is
in api.py, clients that beat are in node.py and load.py. Nothing of the product runs in the test's process.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nodepulse.process import started_ticks
from nodepulse.provision import provision
from storage.bridge import run_on_uvloop
from storage.embedded import PostgresServer
from storage.migrate import migrate_embedded
from storage.open import Stores, open_stores
from storage.settings import DatabaseSettings, RedisSettings
from tests.e2e.api import Api, now_ms

T = TypeVar("T")
TOP = Path(__file__).parents[2]
NODEPULSE = (sys.executable, "-P", "-m", "nodepulse")
START_S = 60.0  # two shared cores, perhaps busy with other tests
STOP_S = 15.0  # the contract's
MARK = "E2E_MARK"


class System:
    """One installation. `start` it, use it, `stop` it; the folder stays the caller's."""

    def __init__(
        self,
        folder: Path,
        *,
        shards: int = 1,
        sets: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._sets = {"web.read_wait_ms_max": 5_000, **(sets or {})}
        self._shards = shards
        self.mark = uuid.uuid4().hex
        # PYTHONPATH: the checkout that these tests belong to.
        self._environment = {**os.environ, "PYTHONPATH": str(TOP), MARK: self.mark, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._web_port = self._beats_port = 0

    # -- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start `serve` and return when it is ready. Started again it has the same ports."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start `serve` and return at once."""
        sets = [word for key, value in self._sets.items() for word in ("--set", f"{key}={value}")]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*NODEPULSE, "serve", "--data-dir", str(self.folder)),
                    *("--web", f"127.0.0.1:{self._web_port}", "--beats", f"127.0.0.1:{self._beats_port}"),
                    *("--shards", str(self._shards), *sets),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def wait_ready(self, *, within_s: float = START_S) -> None:
        """Return when `GET /readyz` answers 200 and all children run."""
        eventually(self._is_ready, within_s=within_s, why=lambda: self.log()[-3_000:])

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"serve ended: {self.log()[-3_000:]}"
        file = self.folder / "run" / "config.json"
        if not file.exists():
            return False
        config = json.loads(file.read_text())
        self._web_port, self._beats_port = config["web"]["port"], config["ingest"]["port"]
        return self.api.try_status("/readyz") == 200

    def stop(self) -> int:
        """SIGTERM; the exit code. Fails when that takes longer than the contract lets it."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_S)

    def kill(self) -> None:
        """SIGKILL to `serve` itself, and to nobody else."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End everything of this system, however it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in self.processes():
            signal_to(pid, signal.SIGKILL)

    # -- looking at it ------------------------------------------------------------------------------

    @property
    def api(self) -> Api:
        """The web API, as nobody in particular."""
        return Api("127.0.0.1", self._web_port)

    def api_for(self, key: str) -> Api:
        """The web API, with a key."""
        return Api("127.0.0.1", self._web_port, key=key)

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self._web_port}"

    @property
    def beats(self) -> tuple[str, int]:
        return "127.0.0.1", self._beats_port

    @property
    def beats_url(self) -> str:
        return f"http://127.0.0.1:{self._beats_port}"

    @property
    def config(self) -> dict[str, Any]:
        """What `serve` started its children with."""
        found: dict[str, Any] = json.loads((self.folder / "run" / "config.json").read_text())
        return found

    @property
    def log_file(self) -> Path:
        """Where its processes log to, beside the data folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def log(self) -> str:
        """Everything that its processes have said."""
        return self.log_file.read_text(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == event]

    def child(self, name: str) -> int | None:
        """The pid of `engine-0`, `web`, `worker` ...; None while it does not run."""
        try:
            record = json.loads((self.folder / "run" / f"child-{name}.json").read_bytes())
        except FileNotFoundError:
            return None
        pid: int = record["pid"]
        return pid if started_ticks(pid) == record["started_ticks"] else None

    def processes(self) -> list[int]:
        """Every living process that descends from a start of this system, or stands in its folder."""
        wanted = f"{MARK}={self.mark}".encode()
        # PostgreSQL writes its titles over its environment, but stays in its folder.
        return sorted(
            pid
            for pid in all_pids()
            if wanted in environment_of(pid) or folder_of(pid).is_relative_to(self.folder)
        )

    def engine(self, shard: int = 0) -> Api:
        """An engine's own `/metrics` and `/readyz`."""
        name = f"engine-{shard}"
        where = [one["where"] for one in self.logged("listening") if one["process"] == name]
        return Api("127.0.0.1", int(where[-1].removesuffix("/metrics").rpartition(":")[2]))

    def metrics(self, shard: int = 0) -> dict[str, float]:
        """What an engine counts, by name and labels as they are written."""
        rows = (line.rpartition(" ") for line in self.engine(shard).text("/metrics").splitlines())
        return {name: float(value) for name, _, value in rows if not name.startswith("#")}

    # -- making nodes -------------------------------------------------------------------------------

    def admin(self, *words: str) -> dict[str, Any]:
        """`nodepulse admin WORDS --json`, as an object."""
        done = subprocess.run(
            [
                sys.executable,
                "-P",
                "-m",
                "nodepulse",
                "admin",
                *words,
                "--data-dir",
                str(self.folder),
                "--json",
            ],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_S,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def provision(
        self, project: str, *, nodes: int = 1, workloads: int = 1, interval_ms: int = 1_000
    ) -> dict[str, Any]:
        """What `admin provision` prints, without the second that it takes to start a command."""

        async def work(stores: Stores) -> dict[str, Any]:
            return await provision(
                stores.directory,
                project=project,
                nodes=nodes,
                workloads=workloads,
                interval_ms=interval_ms,
                now_ms=now_ms(),
            )

        return self.on_stores(work)

    def on_stores(self, work: Callable[[Stores], Awaitable[T]]) -> T:
        """What `await work(stores)` returns, on the stores that this system uses."""
        config, results = self.config, []

        async def main() -> int:
            database, redis = config["database"]["url"], config["redis"]["url"]
            async with open_stores(DatabaseSettings(url=database), RedisSettings(url=redis)) as stores:
                results.append(await work(stores))
            return 0

        assert run_on_uvloop(main) == 0
        return results[0]


@contextmanager
def running(system: System) -> Iterator[System]:
    """The system, started; afterwards nothing of it is left."""
    try:
        system.start()
        yield system
    finally:
        system.close()


@functools.cache
def template() -> Path:
    """A folder with a migrated, empty, stopped PostgreSQL: copying it is quicker than initdb."""
    folder = Path(tempfile.mkdtemp(prefix="np-template-"))
    atexit.register(shutil.rmtree, folder)

    async def make() -> int:
        server = PostgresServer(folder)
        await server.start()
        try:
            await migrate_embedded(server)
        finally:
            await server.stop()
        return 0

    assert run_on_uvloop(make) == 0
    return folder


def new_folder(parent: Path) -> Path:
    """A data folder that has been served before: its database exists."""
    folder = parent / "data"
    folder.mkdir(mode=0o700)
    # `cp` keeps the owner, who is not us when we are root.
    subprocess.run(["cp", "-a", str(template() / "postgres"), str(folder)], check=True)
    return folder


def eventually(
    look: Callable[[], T], *, within_s: float, why: Callable[[], object] | None = None, every_s: float = 0.05
) -> T:
    """What `look` returns as soon as it is true; fails when it is not in time."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {why() if why else found!r}")
        time.sleep(every_s)
    return found


def signal_to(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may have ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        assert pid not in all_pids()


def all_pids() -> Sequence[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment_of(pid: int) -> bytes:
    """Empty for processes that have ended or are not ours to look at."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def folder_of(pid: int) -> Path:
    """Where a process stands; the root for processes that have ended or are not ours to look at."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return Path("/")
