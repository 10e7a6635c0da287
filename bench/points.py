"""`bench points`: a million rows of points as NDJSON over HTTP, committed by the web process as it is run.

Real PostgreSQL and Valkey; the day is sealed in rows written by SQL: every second workload is licensed, and
of every twentieth the licence was sold at noon. The limit beside it, in the same run: a plain COPY of as many
rows into a table with the same key.
"""

from __future__ import annotations

import asyncio
import datetime
import http.client
import io
import json
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from bench.rig import fleet as rig
from bench.rig.child import python_child
from bench.rig.fleet import DAY_MS, KEY, SLUG, Fleet
from bench.rig.machine import cpu_s, family_cpu_s, rss_bytes, rss_max_bytes
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey

MB = 1024 * 1024
SECONDS_PROMISED = 30.0
ROWS, ROWS_QUICK = 1_000_000, 20_000
PART = 50_000
_SEALED = """
insert into sealed_row (seal_no, place, workload_id, node_id, source, from_ms, to_ms, ms, paid_ms, held,
  hours)
select 1, r, w.workload_id, w.node_id, 'native', f, f + 86400000, $2, 86400000 - r % 1000,
  case when r % 2 = 1 then null
    when r % 20 = 0 then format(
      '[{"licence_id":"%1$s","owner":"0x%2$s","from_ms":%3$s,"to_ms":%4$s,"paid_ms":43200000},'
      '{"licence_id":"%1$s","owner":"0x%5$s","from_ms":%4$s,"to_ms":%6$s,"paid_ms":%7$s}]',
      w.workload_id, lpad(to_hex(r % 9999), 40, '0'), f, f + 43200000, lpad(to_hex(r % 7777), 40, 'a'),
      f + 86400000, 43200000 - r % 1000)
    else format('[{"licence_id":"%s","owner":"0x%s","from_ms":%s,"to_ms":%s,"paid_ms":%s}]',
      w.workload_id, lpad(to_hex(r % 9999), 40, '0'), f, f + 86400000, 86400000 - r % 1000) end,
  $2
from node n join workload w using (node_id), lateral (select n."row" as r, $1::bigint as f) given
"""
_SEAL = """
insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots, node_blocks,
  sealed_ms)
select 1, project_id, $1, 1, $2, $2, 0, $3, $4, '', $5 from project
"""


class Web(NamedTuple):
    """The web process."""

    pid: int
    host: str
    port: int


def main(*, as_json: bool, quick: bool, svg: str | None = None, rows: int | None = None) -> int:
    """Run it; the exit code."""
    report = Report("points", as_json=as_json, quick=quick, svg=svg)
    now_ms = time.time_ns() // 1_000_000
    rows = rows or (ROWS_QUICK if quick else ROWS)
    fleet = Fleet(rows, now_ms - now_ms % DAY_MS - DAY_MS, now_ms)
    with postgres() as database, valkey() as store, tempfile.TemporaryDirectory() as folder:
        ids = asyncio.run(_sealed(database, fleet))
        body = Path(folder) / "points.ndjson"
        _write_body(body, ids, fleet)
        copy_s = asyncio.run(_copied(database, ids))
        report.peers["copy"] = rounded({"s": copy_s, "rows_per_s": rows / copy_s})
        with _web(database, store, Path(folder)) as web:
            figures = _commit(web, database, body, fleet)
            again_s = _post(web, body, fleet)[1]
        asyncio.run(_check(database, fleet))
    figures["again_s"] = again_s
    report.figures["commit"] = rounded(figures)
    report.ratios["commit_s_to_copy"] = rounded(figures["s"] / copy_s)
    report.ratios["commit_s_to_promise"] = rounded(figures["s"] / SECONDS_PROMISED)
    title = f"{rows:,} rows of points committed (a plain COPY: {copy_s:.2f} s)"
    report.table(title, tuple(figures), [tuple(figures.values())])
    return report.finish()


async def _sealed(database: Running, fleet: Fleet) -> list[bytes]:
    """The ids of the workloads of a sealed day."""
    connection = await asyncpg.connect(database.url)
    await rig.register(connection, fleet)
    await connection.execute(_SEALED, fleet.day_ms, bytes(48))
    day = time.gmtime(fleet.day_ms / 1000)
    root = bytes(32)
    await connection.execute(
        _SEAL,
        datetime.date(day.tm_year, day.tm_mon, day.tm_mday),
        fleet.workloads,
        root,
        root * 24,
        fleet.now_ms,
    )
    await connection.execute("vacuum analyze")
    found = await connection.fetch("select workload_id from sealed_row order by place")
    await connection.close()
    return [each[0].bytes for each in found]


def _day(fleet: Fleet) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(fleet.day_ms / 1000))


def _micro(number: int) -> int:
    return 86_400_000 + number * 7_919 % 10_000_000


def _write_body(path: Path, ids: list[bytes], fleet: Fleet) -> None:
    total = sum(map(_micro, range(len(ids))))
    with path.open("w") as file:
        head = {"day": _day(fleet), "revision": 1, "total": f"{total // 10**6}.{total % 10**6:06}"}
        file.write(json.dumps(head) + "\n")
        for number, each in enumerate(ids):
            text, micro = each.hex(), _micro(number)
            name = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
            file.write(f'{{"workload_id":"{name}","points":"{micro // 10**6}.{micro % 10**6:06}"}}\n')


async def _copied(database: Running, ids: list[bytes]) -> float:
    """Seconds of a COPY that checks nothing, into a table with the same key as the ledger's."""
    connection = await asyncpg.connect(database.url)
    await connection.execute(
        "create table peer (commit_id uuid, workload_id uuid, micro_points bigint,"
        " primary key (commit_id, workload_id))"
    )
    row = struct.Struct(">hi16si16siq")
    rows = b"".join(row.pack(3, 16, bytes(16), 16, each, 8, _micro(n)) for n, each in enumerate(ids))
    source = b"PGCOPY\n\xff\r\n\x00" + bytes(8) + rows + b"\xff\xff"
    began = time.perf_counter()
    await connection.copy_to_table("peer", source=io.BytesIO(source), format="binary", timeout=600)
    took_s = time.perf_counter() - began
    await connection.execute("drop table peer")
    await connection.close()
    return took_s


@contextmanager
def _web(database: Running, store: Running, folder: Path) -> Iterator[Web]:
    secrets = folder / "secrets.json"
    secrets.write_text(json.dumps({"1": "ab" * 32}))
    options = {
        "database": database.url,
        "redis": store.url,
        "secrets_file": str(secrets),
        "shards": 1,
    }
    with python_child("bench.rig.web_child", options) as web:
        address = urlsplit(web.answer()["url"])
        yield Web(web.pid, address.hostname or "", address.port or 0)


def _commit(web: Web, database: Running, body: Path, fleet: Fleet) -> dict[str, float]:
    quiet = rss_bytes(web.pid) / MB
    web_s, database_s = cpu_s(web.pid), family_cpu_s(database.pid)
    with _pinging(web) as pings:
        answer, took_s = _post(web, body, fleet)
    assert answer["rows"] == fleet.workloads, answer
    return {
        "s": took_s,
        "rows_per_s": fleet.workloads / took_s,
        "mb": body.stat().st_size / MB,
        "web_cpu_s": cpu_s(web.pid) - web_s,
        "postgres_cpu_s": family_cpu_s(database.pid) - database_s,
        "rss_before_mb": quiet,
        "rss_max_mb": rss_max_bytes(web.pid) / MB,
        "others_wait_s_max": max(pings),
    }


@contextmanager
def _pinging(web: Web) -> Iterator[list[float]]:
    """Seconds that other requests take meanwhile."""
    waits, stop = [0.0], threading.Event()

    def ping() -> None:
        while not stop.wait(0.05):
            began = time.perf_counter()
            connection = http.client.HTTPConnection(web.host, web.port, timeout=120)
            connection.request("GET", "/livez")
            connection.getresponse().read()
            connection.close()
            waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


def _post(web: Web, body: Path, fleet: Fleet) -> tuple[dict[str, Any], float]:
    connection = http.client.HTTPConnection(web.host, web.port, timeout=600)
    headers = {
        "authorization": f"Bearer {KEY}",
        "idempotency-key": "bench",
        "content-type": "application/x-ndjson",
        "content-length": str(body.stat().st_size),
    }
    began = time.perf_counter()
    with body.open("rb") as file:
        connection.request("POST", f"/v1/projects/{SLUG}/points", body=file, headers=headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
    took_s = time.perf_counter() - began
    assert answer.status == 201, told
    connection.close()
    return told, took_s


async def _check(database: Running, fleet: Fleet) -> None:
    """The sums of the ledger match."""
    connection = await asyncpg.connect(database.url)
    sums = [
        int(await connection.fetchval(f"select sum(micro_points) from {table}"))
        for table in ("points", "points_share", "points_total")
    ]
    await connection.close()
    assert sums == [sum(map(_micro, range(fleet.workloads)))] * 3, sums
