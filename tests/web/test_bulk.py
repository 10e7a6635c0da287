"""Bulk uptime: every row is what the workload's own answer says, in each form, whatever is away."""

from __future__ import annotations

import csv
import io
from random import Random
from typing import Any

import msgspec
import pytest
import trio

from engine.core.ports import NewNode, StoreUnavailableError
from storage.ids import new_id
from tests.web.bulk_fleet import BulkFleet, lines, window_query
from tests.web.control import Control
from web import bulk_stream, policy_memory
from web.bulk_formats import COLUMNS
from web.main import serve_app, system_ms
from web.settings import WebSettings
from web.times import DAY_MS, format_rfc3339

PATH = "/v1/projects/alpha/uptime"


async def bulk(control: Control, query: str, *, by: str = "owner") -> list[Any]:
    answer = await control.ask("GET", f"{PATH}?{query}&format=ndjson", by=by)
    assert answer.status == 200, answer
    return lines(answer.body)


async def alone(control: Control, workload_id: str, query: str) -> Any:
    answer = await control.ask("GET", f"/v1/workloads/{workload_id}/uptime?{query}")
    assert answer.status == 200, answer
    return answer.json


async def same_as_alone(control: Control, fleet: BulkFleet, query: str, *, as_of: bool) -> set[str]:
    """Each row against the workload's own answer; what kinds there were."""
    kinds: set[str] = set()
    for row in await bulk(control, query):
        single = await alone(control, row["workload_id"], query)
        if not as_of:
            del single["as_of"]
        assert {name: row[name] for name in single} == single
        kinds |= {kind for kind, ms in row["ms"].items() if ms}
    return kinds


@pytest.mark.parametrize(
    "seed", [pytest.param(1), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))]
)
async def test_every_row_is_what_the_workload_is_told_alone(
    control: Control, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(bulk_stream, "CHUNK", 7)
    fleet = BulkFleet(control, Random(seed), nodes=15)
    await fleet.write()
    kinds: set[str] = set()
    for window in fleet.windows():
        kinds |= await same_as_alone(control, fleet, window_query(window), as_of=False)
    assert {"up", "silent", "standby", "maintenance"} <= kinds, "the fleet was not mixed"
    assert seed != 1 or "unobserved" in kinds


async def test_with_the_view_away_every_row_is_as_old_as_the_workloads_own_answer(control: Control) -> None:
    fleet = BulkFleet(control, Random(5), nodes=10)
    await fleet.write()
    live = Away(control.stores.live, "read", "read_page")
    control.app.backend.live = live  # type: ignore[assignment]
    await same_as_alone(control, fleet, window_query(fleet.windows()[0]), as_of=True)
    assert live.refused > 10


class Away:
    """A store of which some calls are refused."""

    def __init__(self, real: Any, *names: str, after: int = 0) -> None:
        self._real, self._names, self._after = real, names, after
        self.refused = self.calls = 0

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            self.calls += 1
            if self.calls > self._after:
                self.refused += 1
                raise StoreUnavailableError(f"{name} is away")
        return getattr(self._real, name)


class Behind:
    """History whose watermark is told as nothing for so many reads."""

    def __init__(self, real: Any, reads: int) -> None:
        self._real, self._reads = real, reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def touching(self, *args: Any, **more: Any) -> Any:
        found = await self._real.touching(*args, **more)
        self._reads -= 1
        return found._replace(watermarks={}) if self._reads >= 0 else found


def replaced(control: Control, store: Any) -> None:
    backend = control.app.backend
    backend.stores = msgspec.structs.replace(backend.stores, bulk=store)  # type: ignore[type-var]


async def test_rows_on_their_way_into_history_are_told_when_they_have_come(control: Control) -> None:
    fleet = BulkFleet(control, Random(3), nodes=5)
    await fleet.write()
    query = window_query(fleet.windows()[0])
    expected = {row["workload_id"]: row["ms"] for row in await bulk(control, query)}
    for form in ("ndjson", "json"):
        replaced(control, Behind(control.stores.bulk, 3))
        answer = await control.ask("GET", f"{PATH}?{query}&format={form}", by="owner")
        rows = lines(answer.body) if form == "ndjson" else answer.json["items"]
        assert {row["workload_id"]: row["ms"] for row in rows} == expected


async def test_what_never_comes_into_history_is_told_as_of_the_last_closed_row(control: Control) -> None:
    fleet = BulkFleet(control, Random(3), nodes=5)
    await fleet.write()
    control.app.backend.settings = msgspec.structs.replace(control.settings, read_wait_ms_max=100)
    query = window_query(fleet.windows()[0])
    newest = await bulk(control, query)
    replaced(control, Behind(control.stores.bulk, 1_000_000))
    older = {row["workload_id"]: row for row in await bulk(control, query)}
    assert len(older) == len(newest)
    assert any(row["as_of"] > older[row["workload_id"]]["as_of"] for row in newest)
    assert all(row["as_of"] >= older[row["workload_id"]]["as_of"] for row in newest)


# -- what is told ------------------------------------------------------------------------------------


async def test_all_forms_tell_the_same(control: Control) -> None:
    fleet = BulkFleet(control, Random(9), nodes=6)
    await fleet.write()
    query = window_query(fleet.windows()[0])
    rows = {row["workload_id"]: row for row in await bulk(control, query)}
    assert len(rows) > 5
    paged: list[Any] = []
    path = f"{PATH}?{query}&limit=4"
    while path:
        answer = await control.ask("GET", path, by="owner")
        paged += answer.json["items"]
        assert len(answer.json["items"]) <= 4
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert [row["workload_id"] for row in paged] == sorted(rows)
    table = await control.ask("GET", f"{PATH}?{query}", by="owner", headers={"accept": "text/csv"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    told = list(csv.DictReader(io.StringIO(table.body.decode(), newline="")))
    assert len(told) == len(rows)
    for line in told:
        row = rows[line["workload_id"]]
        assert list(line) == COLUMNS
        assert {kind: int(line[f"{kind}_ms"]) for kind in row["ms"]} == row["ms"]
        assert (line["ratio"] or None) == (None if row["ratio"] is None else str(row["ratio"]))
        for name in ("name", "from", "to", "source", "node_id"):
            assert line[name] == row[name]
    for row in paged:
        assert {**row, "as_of": ""} == {**rows[row["workload_id"]], "as_of": ""}


async def test_only_who_lived_within_the_window_is_told(control: Control) -> None:
    day_ms = system_ms() // DAY_MS * DAY_MS - DAY_MS
    [before, ended, begun, after, within] = await five(control)
    lives = {
        before: (day_ms - 10, day_ms),
        ended: (day_ms - 10, day_ms + 1),
        begun: (day_ms + DAY_MS - 1, None),
        after: (day_ms + DAY_MS, None),
        within: (day_ms + 5, day_ms + 15),
    }
    for workload_id, (created, retired) in lives.items():
        await control.sql(
            "update workload set created_ms = $2, retired_ms = $3 where workload_id = $1",
            workload_id,
            created,
            retired,
        )
    day = format_rfc3339(day_ms)[:10]
    rows = {row["workload_id"]: row for row in await bulk(control, f"day={day}")}
    assert set(rows) == {ended, begun, within}
    assert [sum(rows[each]["ms"].values()) for each in (ended, begun, within)] == [1, 1, 10]
    assert rows[within]["ratio"] == 0.0


async def five(control: Control) -> list[str]:
    new = NewNode(control.alpha.project_id, "n", "node", None, 60_000, tuple("abcde"))
    [node] = await control.stores.directory.create_nodes([new], now_ms=system_ms())
    await control.sql("update workload set created_ms = $1", system_ms() + DAY_MS)
    return list(node.workload_ids)


async def test_owners_at_the_time_and_at_the_end_are_told(control: Control) -> None:
    start_ms = system_ms() - 3_600_000
    olga, stranger = (
        (await control.sql("select wallet from account where name = 'olga'"))[0][0],
        "0x" + "9" * 40,
    )
    collection, licence = new_id(), new_id()
    await control.sql(
        "insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)"
        " values ($1, $2, 137, $3, 'erc721', 'c', 1)",
        collection,
        control.alpha.project_id,
        "0x" + "c" * 40,
    )
    await control.sql(
        "insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)"
        " values ($1, $2, $3, 77, $4, 1)",
        licence,
        collection,
        control.alpha.project_id,
        stranger,
    )
    await control.sql(
        "insert into ownership values ($1, $2, 1, $3, $4, 1), ($1, $3, 2, null, $5, 1)",
        licence,
        start_ms - 10_000,
        start_ms + 60_000,
        olga,
        stranger,
    )
    workload_id = control.node.workload_ids[0]
    await control.sql(
        "update workload set created_ms = 1, licence_id = $2 where workload_id = $1", workload_id, licence
    )
    window = (start_ms, start_ms + 120_000)
    [row] = await bulk(control, window_query(window))
    assert (row["licence_id"], row["chain_id"], row["token_id"]) == (licence, 137, "77")
    assert row["owner"] == {"wallet": stranger, "user_id": None}
    change = format_rfc3339(start_ms + 60_000)
    assert row["owners"] == [
        {"wallet": olga, "user_id": control.users["olga"], "from": format_rfc3339(start_ms), "to": change},
        {"wallet": stranger, "user_id": None, "from": change, "to": format_rfc3339(window[1])},
    ]
    [before] = await bulk(control, window_query((start_ms, start_ms + 60_000)))
    assert before["owner"] == {"wallet": olga, "user_id": control.users["olga"]}
    assert row["operator_id"] == control.users["olga"]


async def test_claims_are_paid_on_the_days_whose_policy_pays_them(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_memory, "BELIEF_S", 0.0)
    fleet = BulkFleet(control, Random(1), nodes=15)
    await fleet.write()
    query = window_query((fleet.day_ms, fleet.day_ms + DAY_MS))
    paid = {row["workload_id"]: row for row in await bulk(control, query)}
    assert any(row["ms"]["claimed_up"] for row in paid.values())
    await control.sql(
        "insert into project_policy values ($1, $2::text::date, 1, 'native', false, '{}', 1, 'admin')",
        control.alpha.project_id,
        format_rfc3339(fleet.day_ms)[:10],
    )
    for row in await bulk(control, query):
        assert row["paid_ms"] == paid[row["workload_id"]]["paid_ms"] - row["ms"]["claimed_up"]
        single = await alone(control, row["workload_id"], query)
        assert single["paid_ms"] == row["paid_ms"]


# -- who may ask, and what ---------------------------------------------------------------------------


async def test_only_who_runs_the_project_is_told(control: Control) -> None:
    wanted = {"admin": 200, "owner": 200, "paul": 200, "foreign": 404}
    for by, status in {**wanted, "olga": 403, "sam": 403, "manager": 403}.items():
        for form in ("json", "ndjson", "csv"):
            answer = await control.ask("GET", f"{PATH}?day=2026-01-31&format={form}", by=by)
            assert answer.status == status, (by, form, answer)


async def test_a_question_that_makes_no_sense_is_refused(control: Control) -> None:
    for query in (
        "",
        "day=2026-02-30",
        "day=2026-01-31&from=2026-01-31T00:00:00Z",
        "from=2026-01-31T00:00:00Z",
        "from=2026-01-31T00:00:00Z&to=2026-01-31T00:00:00Z",
        "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00.001Z",
        "day=2026-01-31&format=xml",
        "day=2026-01-31&limit=10001",
        "day=2026-01-31&after=x",
    ):
        answer = await control.ask("GET", f"{PATH}?{query}", by="owner")
        assert answer.status == 400, query
    whole = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z"
    assert (await control.ask("GET", f"{PATH}?{whole}", by="owner")).status == 200
    for form in ("ndjson", "csv"):
        head = await control.ask("HEAD", f"{PATH}?day=2026-01-31&format={form}", by="owner")
        assert (head.status, head.body) == (200, b"")


async def test_a_window_of_two_sources_is_refused_and_says_where_it_changes(control: Control) -> None:
    await control.sql(
        "insert into project_policy values ($1, '2026-01-15', 1, 'datagram', true, '{}', 1, 'admin')",
        control.alpha.project_id,
    )
    whole = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z"
    answer = await control.ask("GET", f"{PATH}?{whole}", by="owner")
    assert (answer.status, answer.json["code"]) == (400, "window_of_two_sources")
    assert "2026-01-15" in answer.json["detail"]
    assert (await control.ask("GET", f"{PATH}?day=2026-01-14", by="owner")).status == 200
    away = await control.ask("GET", f"{PATH}?day=2026-01-15&format=ndjson", by="owner")
    assert (away.status, away.json["code"]) == (409, "not_configured")


class Told:
    """Datagram, of which one node is known to have been up half of the time."""

    async def up_ms(self, partner_ids: Any, from_ms: int, to_ms: int) -> dict[str, int | None]:
        await trio.lowlevel.checkpoint()
        return {each: (to_ms - from_ms) // 2 if each == "p-1" else None for each in partner_ids}


async def test_a_project_on_datagram_is_answered_from_there(control: Control) -> None:
    project_id = control.alpha.project_id
    await control.sql(
        "insert into project_policy values ($1, '1970-01-01', 1, 'datagram', true, '{}', 1, 'admin')",
        project_id,
    )
    control.app.backend.uptime_source = Told()  # type: ignore[assignment]
    [unknown, *_] = await five(control)
    await control.sql("update node set partner_node_id = 'p-1' where node_id = $1", control.node.node_id)
    await control.sql("update node set partner_node_id = 'p-2' where name = 'n'")
    ids = [control.node.workload_ids[0], unknown]
    await control.sql("update workload set created_ms = 1 where workload_id = any($1::uuid[])", ids)
    day = format_rfc3339(system_ms() - 2 * DAY_MS)[:10]
    rows = {row["workload_id"]: row for row in await bulk(control, f"day={day}")}
    assert set(rows) == set(ids)
    for workload_id in ids:
        query = f"from={day}T00:00:00Z&to={rows[workload_id]['to']}"
        single = await alone(control, workload_id, query)
        assert {name: rows[workload_id][name] for name in single} == single
    assert rows[ids[0]]["ms"]["up"] == DAY_MS // 2
    assert (rows[ids[1]]["ms"]["unobserved"], rows[ids[1]]["ratio"]) == (DAY_MS, None)
    assert (rows[ids[0]]["source"], rows[ids[0]]["granularity_ms"]) == ("datagram", 3_600_000)


# -- what goes wrong ---------------------------------------------------------------------------------


async def test_a_store_that_is_away_from_the_start_is_a_refusal(control: Control) -> None:
    replaced(control, Away(control.stores.bulk, "page"))
    for form in ("json", "ndjson", "csv"):
        answer = await control.ask("GET", f"{PATH}?day=2026-01-31&format={form}", by="owner")
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert control.app.backend.bulk_streams.statistics()["open"] == 0


async def test_streams_above_the_cap_are_refused(control: Control) -> None:
    limit = control.settings.bulk_streams_max
    for _ in range(limit):
        control.app.backend.bulk_streams.enter()
    answer = await control.ask("GET", f"{PATH}?day=2026-01-31&format=csv", by="owner")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert (await control.ask("GET", f"{PATH}?day=2026-01-31", by="owner")).status == 200
    control.app.backend.bulk_streams.leave()
    for _ in range(3):  # each is counted out again
        assert (await control.ask("GET", f"{PATH}?day=2026-01-31&format=csv", by="owner")).status == 200


async def test_a_broken_stream_is_told_from_a_whole_one(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real connection: NDJSON says so in its last line, CSV has no last chunk."""
    monkeypatch.setattr(bulk_stream, "CHUNK", 1)
    day = format_rfc3339(system_ms())[:10]
    for form in ("ndjson", "csv"):
        for broken in (False, True):
            app = control.new_app()
            if broken:
                away = Away(control.stores.bulk, "page", after=1)
                app.backend.stores = msgspec.structs.replace(control.stores, bulk=away)
            raw = await raw_answer(control, app, f"{PATH}?day={day}&format={form}")
            whole = raw.endswith(b"0\r\n\r\n")
            assert whole == (not broken or form == "ndjson")
            if form == "ndjson":
                assert (b'{"end":true,"rows":2}' in raw) == (not broken)
                assert (b'{"error":{"code":"unavailable"' in raw) == broken
            assert app.backend.bulk_streams.statistics()["open"] == 0


async def raw_answer(control: Control, app: Any, path: str) -> bytes:
    """All bytes of an answer until the server closes."""
    stop, told, urls = trio.Event(), trio.Event(), list[str]()

    def listening(url: str) -> None:
        urls.append(url)
        told.set()

    settings = WebSettings(port=0, drain_s=0.0, graceful_s=1.0)
    raw = b""
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_app(app, settings, listening=listening, stop=stop)

        nursery.start_soon(serve)
        with trio.fail_after(10):
            await told.wait()
            while app.backend.heads.head(0) is None:  # noqa: ASYNC110 - it must be asked
                await trio.sleep(0.02)
            head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            head += f"authorization: Bearer {control.bearers['owner']}\r\n\r\n"
            async with await trio.open_tcp_stream("127.0.0.1", int(urls[0].rsplit(":", 1)[1])) as stream:
                await stream.send_all(head.encode())
                while more := await stream.receive_some():
                    raw += more
        stop.set()
    assert raw.startswith(b"HTTP/1.1 200 "), raw
    return raw
