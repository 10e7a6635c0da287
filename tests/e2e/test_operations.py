"""docs/operations.md as it is written: its commands are taken out of it and run, on real systems under beats.

Backup and the machine lost; PostgreSQL alone brought back to an earlier time; and an upgrade from an earlier
revision of this repository.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.journal_blocks import segments
from storage import roles
from storage.bridge import await_host, run_on_uvloop
from tests.e2e.api import now_ms
from tests.e2e.load import Load, stop_all
from tests.e2e.system import TOP, System, eventually, new_folder, running
from tests.faults.promise import answers, check_acknowledged

PAGE = TOP / "docs" / "operations.md"
BLOCK = re.compile(r"^```sh (?P<name>[a-z-]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LEDGER = ("points_commit", "points", "points_share", "points_total", "seal", "sealed_row", "audit", "event")
COMMAND_S = 120

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_load_goes_on() -> Iterator[None]:
    yield
    stop_all()


def blocks() -> dict[str, str]:
    return {found["name"]: found["text"].strip() for found in BLOCK.finditer(PAGE.read_text())}


def run_block(name: str, **variables: Path) -> str:
    """Run a block of the page with its variables; `./run` is this checkout, without installing anything."""
    ours = f"{shlex.quote(sys.executable)} -P -m nodepulse"
    done = subprocess.run(
        ["sh", "-eu", "-c", blocks()[name].replace("./run", ours)],
        env={**os.environ, "PYTHONPATH": str(TOP), **{key: str(value) for key, value in variables.items()}},
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(system: System, tables: tuple[str, ...]) -> dict[str, list[str]]:
    """Every row of these tables, as text, by its owner's eyes."""
    url = system.config["database"]["url"].replace(f"//{roles.APPLICATION}@", f"//{roles.OWNER}@", 1)
    found: dict[str, list[str]] = {}

    async def read() -> None:
        connection = await asyncpg.connect(url)
        try:
            for table in tables:
                records = await connection.fetch(f"select t::text as row from {table} t order by 1")
                found[table] = [record["row"] for record in records]
        finally:
            await connection.close()

    async def main() -> int:
        await await_host(read)
        return 0

    assert run_on_uvloop(main) == 0
    return found


def spent(system: System, key: str, load: Load, *, to_ms: int) -> dict[tuple[int, int], dict[str, int]]:
    """What each workload's whole life up to a time that is over was spent in."""
    found = {}
    for node, slot, answer in answers(system.api_for(key), load, to_ms=to_ms):
        assert answer.as_of >= to_ms, answer.raw
        found[node, slot] = answer.ms
    return found


def beating(system: System, slug: str) -> tuple[str, Load]:
    made = system.admin(
        "provision", "--project", slug, "--nodes", "6", "--workloads", "3", "--interval-ms", "1000"
    )
    load = Load(system, made["nodes"], per_s=60)
    load.open_sessions()
    load.start()
    return made["api_key"], load


def all_heard(load: Load, after_ms: int) -> bool:
    acks = load.credited()
    return len(set(acks["node"][acks["t_ms"] >= after_ms].tolist())) == len(load.nodes)


def earn_points(system: System) -> None:
    """Two days of history, yesterday sealed and its points committed."""
    day = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    words = ("admin", "points", "commit", "edge-ai", "--suggested", "--day", day, "--key", "once")

    def commit() -> subprocess.CompletedProcess[str]:
        return nodepulse(*words, folder=system.folder)

    seeded = nodepulse("db", "seed", folder=system.folder)
    assert seeded.returncode == 0, seeded.stderr
    eventually(lambda: commit().returncode == 0, within_s=90, every_s=2, why=lambda: commit().stderr)


def test_the_page_has_the_commands_that_are_tried_here():
    assert set(blocks()) == {
        "backup",
        "restore",
        "serve",
        "restore-postgres",
        "upgrade-stop",
        "upgrade-start",
    }
    assert blocks()["serve"] == blocks()["upgrade-start"] == './run serve --data-dir "$DATA"'


def test_a_lost_machine_comes_back_from_the_backup_with_its_uptime_and_its_ledger(tmp_path: Path):
    folder, backup = new_folder(tmp_path), tmp_path / "backup"
    with running(System(folder, sets={"journal.snapshot_interval_s": 2})) as system:
        earn_points(system)
        key, load = beating(system, "lost")
        time.sleep(4)
        load.silence([0])
        time.sleep(6)
        load.resume([0])
        time.sleep(2)
        ledger = rows_of(system, LEDGER)
        assert ledger["points"]
        assert ledger["sealed_row"]
        began_ms = now_ms()
        run_block("backup", BACKUP=backup, DATA=folder)
        time.sleep(1)
        before = spent(system, key, load, to_ms=began_ms)
        assert all(ms["up"] or ms["unhealthy"] or ms["updating"] for ms in before.values())
        system.kill()
        for pid in system.processes():
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(pid, 9)
        shutil.rmtree(folder)
        run_block("restore", BACKUP=backup, DATA=folder)
        system.start()
        after_ms = now_ms()
        eventually(lambda: all_heard(load, after_ms), within_s=60, why=load.figures)
        assert spent(system, key, load, to_ms=began_ms) == before
        kept = rows_of(system, LEDGER)
        for table in LEDGER:
            assert set(ledger[table]) <= set(kept[table]), table
        for table in ("points_commit", "points", "points_share", "points_total"):
            assert ledger[table] == kept[table]
        assert system.admin("audit", "verify")
        time.sleep(3)
        until_ms = now_ms() - 1_500
        for node, slot, answer in answers(system.api_for(key), load, to_ms=until_ms):
            since = [span for span in answer.of("silent") if span[1] > began_ms]
            assert since == [], f"{node, slot} is punished for our loss"
            assert [span for span in answer.of("unobserved") if span[0] >= began_ms]
        load.stop()


def test_a_postgres_brought_back_to_an_earlier_time_gets_again_what_it_lacks(tmp_path: Path):
    folder, backup = new_folder(tmp_path), tmp_path / "backup"
    with running(System(folder)) as system:
        key, load = beating(system, "older")
        time.sleep(3)
        run_block("backup", BACKUP=backup, DATA=folder)
        load.silence([0, 1])  # rows end, events arise: PostgreSQL hears of them after its backup
        time.sleep(12)
        load.resume([0, 1])
        time.sleep(2)
        until_ms = now_ms() - 500
        time.sleep(1)
        before = spent(system, key, load, to_ms=until_ms)
        assert min(before[0, 0]["silent"], before[1, 0]["silent"]) > 3_000
        tables = ("base_interval", "gap")
        known = rows_of(system, tables)
        assert system.stop() == 0
        (folder / "postgres").rename(tmp_path / "lost-postgres")
        run_block("restore-postgres", BACKUP=backup, DATA=folder)
        system.start()
        after_ms = now_ms()
        eventually(lambda: all_heard(load, after_ms), within_s=60, why=load.figures)
        assert spent(system, key, load, to_ms=until_ms) == before
        again = rows_of(system, tables)
        for table in tables:
            assert set(known[table]) <= set(again[table]), table
        load.stop()


def test_a_postgres_older_than_the_journal_waits_for_a_word_and_beats_go_on(tmp_path: Path):
    folder, backup = new_folder(tmp_path), tmp_path / "backup"
    small = {"journal.segment_bytes_max": 1 << 20, "journal.snapshot_interval_s": 1}
    with running(System(folder, sets=small)) as system:
        made = system.admin(
            "provision", "--project", "hole", "--nodes", "20", "--workloads", "1", "--interval-ms", "1000"
        )
        load = Load(system, made["nodes"], per_s=3_000)
        load.open_sessions()
        load.start()
        run_block("backup", BACKUP=backup, DATA=folder)
        first = journal_begins(folder)
        eventually(lambda: journal_begins(folder) > first, within_s=90, every_s=0.5)
        assert system.stop() == 0
        (folder / "postgres").rename(tmp_path / "lost-postgres")
        run_block("restore-postgres", BACKUP=backup, DATA=folder)
        system.launch()
        eventually(lambda: waits(system), within_s=60, why=system.log)
        after_ms = now_ms()
        eventually(lambda: all_heard(load, after_ms), within_s=60, why=load.figures)
        begins = journal_begins(folder)
        time.sleep(5)
        assert journal_begins(folder) == begins, "nothing is let go"
        looked = nodepulse("db", "rejoin", folder=folder)
        assert looked.returncode == 1
        assert "a time that the journal no longer holds" in looked.stdout
        assert nodepulse("db", "rejoin", "--accept", folder=folder).returncode == 0
        eventually(lambda: not waits(system), within_s=30, why=system.log)
        assert nodepulse("db", "rejoin", folder=folder).returncode == 0
        system.wait_ready()
        gaps = rows_of(system, ("gap",))["gap"]
        assert [gap for gap in gaps if "lost_shard" in gap]
        load.stop()
        until_ms = now_ms() - 500
        time.sleep(1.5)
        for *_, answer in answers(system.api_for(made["api_key"]), load, to_ms=until_ms):
            assert not [span for span in answer.of("silent") if span[1] > after_ms]


def journal_begins(folder: Path) -> int:
    return segments(folder / "journal" / "1" / "0")[0].position


def waits(system: System) -> bool:
    """Whether the shard says that journal and PostgreSQL do not fit."""
    if system.child("engine-0") is None or not system.logged("listening"):
        return False
    try:
        return system.metrics().get("nodepulse_flusher_out_of_step") == 1
    except OSError:
        return False


def nodepulse(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "nodepulse", *words, "--data-dir", str(folder), "--json"],
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )


def earlier_revision() -> str:
    """The newest tag before this revision or, in want of one, the revision before the newest migration."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=TOP, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    if tag := git("describe", "--tags", "--abbrev=0", "HEAD^"):
        return git("rev-parse", f"{tag}^{{commit}}")
    newest = git("log", "-1", "--first-parent", "--format=%H", "--", "storage/migrations")
    found = git("rev-parse", "--verify", "--quiet", f"{newest}^") if newest else ""
    if not found:
        pytest.skip("this clone has no history: there is no earlier revision to upgrade from")
    return found


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Path]:
    """A checkout of the earlier revision."""
    place = tmp_path / "earlier"
    words = ["git", "worktree", "add", "--detach", str(place), earlier_revision()]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"no worktree can be made here: {done.stderr.strip()}")
    yield place
    subprocess.run(["git", "worktree", "remove", "--force", str(place)], cwd=TOP, check=True, timeout=60)


def test_an_upgrade_from_an_earlier_revision_loses_no_acknowledged_beat(tmp_path: Path, earlier: Path):
    folder = tmp_path / "data"
    old = System(folder, environment={"PYTHONPATH": str(earlier)})
    with running(old):
        assert is_from(old, earlier)
        key, load = beating(old, "upgraded")
        time.sleep(5)
        until_ms = now_ms() - 500
        time.sleep(1)
        before = spent(old, key, load, to_ms=until_ms)
        schema = rows_of(old, ("schema_migrations",))["schema_migrations"]
        run_block("upgrade-stop", DATA=folder)
        assert old._process is not None
        assert old._process.wait(20) == 0
        new = System(folder)
        new._web_port, new._beats_port = old._web_port, old._beats_port
        with running(new):
            assert is_from(new, TOP)
            after_ms = now_ms()
            eventually(lambda: all_heard(load, after_ms), within_s=60, why=load.figures)
            migrated = rows_of(new, ("schema_migrations",))["schema_migrations"]
            assert set(schema) < set(migrated)
            assert spent(new, key, load, to_ms=until_ms) == before
            load.stop()
            end_ms = int(load.credited()["t_ms"].max()) + 500
            time.sleep(2)
            assert check_acknowledged(new.api_for(key), load, to_ms=end_ms) > 0


def is_from(system: System, checkout: Path) -> bool:
    """Whether its processes run the sources of a checkout."""
    pid: Any = system.child("engine-0")
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return f"PYTHONPATH={checkout}".encode() in environment
