"""The uptime explorer: the network by day, a day's workloads, one node, and exports."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.sealing import Day, seal_a_day
from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole

PATH = "/projects/alpha/uptime"


@pytest.fixture
async def day(control: Control) -> Day:
    """Yesterday of alpha, sealed."""
    return await seal_a_day(control.stores, control.alpha.project_id, nodes=2)


async def test_the_networks_days_are_those_of_its_seals(control: Control, day: Day):
    told = (await control.ask("GET", "/v1/projects/alpha/uptime/days", by="owner")).json["items"]
    [found] = [each for each in told if each["day"] == day.day]
    seal = (await control.ask("GET", f"/v1/projects/alpha/seals/{day.day}", by="owner")).json
    assert (found["ms"], found["paid_ms"], found["workloads"]) == (seal["ms"], seal["paid_ms"], seal["rows"])
    assert found["window_ms"] == sum(seal["ms"].values()) > 0
    assert found["ratio"] == found["paid_ms"] / (found["window_ms"] - found["ms"]["unobserved"])
    for query, status in (("from=x", 400), ("from=2026-02-01&to=2026-01-01", 400), ("from=1970-01-01", 400)):
        answer = await control.ask("GET", f"/v1/projects/alpha/uptime/days?{query}", by="owner")
        assert answer.status == status, query


async def test_a_day_leads_to_its_workloads_and_they_to_why(control: Control, day: Day):
    owner = Browser(control, "owner")
    looked = await owner.look(PATH)
    is_whole(looked)
    assert f'href="{PATH}/{day.day}"' in looked.text
    assert f'["{day.day}", 0.' in json.loads(f'"{_chart(looked.text)}"').replace("&#34;", '"')
    shown = await owner.look(f"{PATH}/{day.day}")
    is_whole(shown)
    for workload_id in day.workload_ids:
        assert f'href="/workloads/{workload_id}?day={day.day}#day"' in shown.text
    assert "3 h" in shown.words
    why = await owner.look(f"/workloads/{day.workload_ids[1]}?day={day.day}")
    assert "09:00:00 12:00:00 3 h silent" in why.words


def _chart(text: str) -> str:
    return text.partition('data-chart="')[2].partition('"')[0]


async def test_one_node_or_one_workload_is_looked_at(control: Control, day: Day):
    owner = Browser(control, "owner")
    for identity, count in ((day.nodes[0].node_id, 2), (day.workload_ids[0].upper(), 1)):
        looked = await owner.look(f"{PATH}?from={day.day}&to={day.day}&of={identity}")
        is_whole(looked)
        assert looked.text.count("every second</a>") == count
    for other in (control.foreign_node.node_id, "nothing", "00000000-0000-0000-0000-000000000000"):
        missing = await owner.look(f"{PATH}?of={other}")
        assert (missing.status, "No node and no workload" in missing.words) == (404, True)
    for query in (f"from={day.day}&to=2020-01-01", "from=1990-01-01", "from=soon", "to=0001-01-01"):
        looked = await owner.look(f"{PATH}?{query}")
        assert looked.status == (200 if query.startswith("to") else 400), query


async def test_exports_are_the_apis_streams_as_files(control: Control, day: Day):
    owner = Browser(control, "owner")
    page = await owner.look(f"{PATH}/{day.day}")
    for form in ("csv", "ndjson"):
        path = f"{PATH}/export?day={day.day}&amp;format={form}"
        assert path in page.text
        got = await owner.look(path.replace("&amp;", "&"))
        assert got.status == 200
        assert got.headers["content-disposition"] == f'attachment; filename="uptime-alpha-{day.day}.{form}"'
        if form == "csv":
            found = {row["workload_id"] for row in csv.DictReader(io.StringIO(got.text))}
        else:
            *rows, end = [json.loads(line) for line in got.text.splitlines()]
            assert (end["end"], end["rows"]) == (True, len(rows))
            found = {row["workload_id"] for row in rows}
        assert set(day.workload_ids) <= found
    long = await owner.look(f"{PATH}?from=2026-01-01&to=2026-03-01")
    assert "An export has at most 31 days" in long.words
    assert (await owner.look(f"{PATH}/export?format=csv")).status == 400
    assert (await owner.look(f"{PATH}/export?day={day.day}&format=xls")).status == 400


async def test_nobody_else_exports(control: Control, day: Day):
    path = f"{PATH}/export?day={day.day}&format=csv"
    for by, status in ((None, 303), ("olga", 403), ("sam", 403), ("foreign", 404)):
        assert (await Browser(control, by).look(path)).status == status, by


async def test_a_network_without_a_sealed_day_says_what_comes(control: Control):
    looked = await Browser(control, "owner").look(PATH)
    is_whole(looked)
    assert "No day from" in looked.words
    today = await Browser(control, "owner").look(f"{PATH}/{looked.text.partition('max=')[2][1:11]}")
    assert (today.status, "The day runs" in today.words) == (200, True)
