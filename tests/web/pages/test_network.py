"""The network now, as who runs a project sees it: counts, lists with filters, live."""

from __future__ import annotations

import json
import re

import pytest
import trio

from engine.core.ports import NewNode
from storage.ids import new_id
from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.test_events import Listener
from tests.web.test_summary import fill
from web import summaries
from web.main import system_ms

PATH = "/projects/alpha"


class Frames(Listener):
    """Reads the stream of a page that is open, as somebody."""

    def __init__(self, control: Control, path: str, by: str) -> None:
        super().__init__(control, cookie=f"nodepulse_login={control.bearers[by]}")
        self.scope |= {"path": path, "raw_path": path.encode()}
        self.told: list[dict] = []

    def _take(self, text: str) -> None:
        self.told += [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def test_the_network_is_counted_by_state_region_and_version(control: Control):
    await fill(control)
    looked = await Browser(control, "owner").look(PATH)
    assert looked.status == 200, looked.words
    is_whole(looked)
    assert "Nodes 4 all of them" in looked.words
    assert "down 1 which" in looked.words
    assert re.search(r"eu 2 1 0 4 1 0", looked.words), looked.words
    assert "edge 1.0 3 1 0 1" in looked.words
    part = await Browser(control, "owner").look(PATH, **{"hx-request": "true"})
    assert ("<h1" in part.text, "down 1 which" in part.words) == (False, True)


async def test_an_empty_network_says_what_to_do(control: Control):
    await control.stores.directory.create_project("empty", now_ms=system_ms())
    admin = Browser(control, "admin")
    for path in ("", "/nodes", "/workloads", "/kinds", "/uptime"):
        looked = await admin.look(f"/projects/empty{path}")
        assert looked.status == 200, path
        is_whole(looked)
        assert 'class="empty"' in looked.text, path
    assert "register --project empty" in (await admin.look("/projects/empty")).words
    listed = await admin.look("/projects")
    is_whole(listed)
    assert 'href="/projects/empty"' in listed.text


async def test_lists_are_narrowed_down_and_go_on_page_by_page(control: Control):
    new = [
        NewNode(
            control.alpha.project_id,
            f"n{number:03}",
            "node",
            None,
            60_000,
            (f"w{number:03}",),
            (),
            None,
            "us",
        )
        for number in range(60)
    ]
    made = await control.stores.directory.create_nodes(new, now_ms=system_ms())
    owner = Browser(control, "owner")
    for what, letter in (("nodes", "n"), ("workloads", "w")):
        path = f"{PATH}/{what}"
        first = await owner.look(f"{path}?region=us")
        is_whole(first)
        [following] = re.findall(r'<a href="([^"]*)" rel="next"', first.text)
        second = await owner.look(following.replace("&amp;", "&"))
        names = [set(re.findall(rf">({letter}\d\d\d)</a>", page.text)) for page in (first, second)]
        assert (len(names[0]), len(names[1]), names[0] & names[1]) == (50, 10, set())
        one = await owner.look(f"{path}?q={letter}04")
        assert len(re.findall(rf">{letter}\d\d\d</a>", one.text)) == 10
        identity = made[7].node_id if what == "nodes" else made[7].workload_ids[0]
        assert f">{letter}007</a>" in (await owner.look(f"{path}?q={identity.upper()}")).text
        assert "None here" in (await owner.look(f"{path}?region=nowhere")).words
        assert "None here" in (await owner.look(f"{path}?version=9.9.9&state=new")).words
        mine = await owner.look(f"{path}?q=%3Cb%3E")
        assert 'value="&lt;b&gt;"' in mine.text
        assert (await owner.look(f"{path}?state=fine")).status == 400
        assert (await owner.look(f"{path}?after=x")).status == 400


async def test_a_page_that_is_open_is_told_when_a_node_falls(control: Control, nursery: trio.Nursery):
    """Within two seconds of the live view, and nothing while everybody is as before."""
    now_ms = system_ms()
    control.engine.beat(control.node, now_ms, now_ms)
    await control.wait_state(control.node.node_id, "up")
    looked = await Browser(control, "owner").look(PATH)
    [source] = re.findall(r'data-live="([^"]+)"', looked.text)
    listener = Frames(control, source, "owner")
    nursery.start_soon(listener.run)
    with trio.fail_after(10):
        while not listener.told:  # noqa: ASYNC110 - nothing else tells that it listens
            await trio.sleep(0.01)
        await trio.sleep(1.5)
        assert [each["nodes"]["by_state"]["up"] for each in listener.told] == [1]
        began = trio.current_time()
        control.engine.pages.append(([(control.node.row * 64, bytes([2]))], []))
        while len(listener.told) < 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert trio.current_time() - began < 2
    assert listener.told[1]["nodes"]["by_state"]["up"] == 0
    control.app.backend.tails.close()


async def test_a_stream_of_counts_is_for_who_runs_the_project(control: Control):
    for by, status in (("olga", 403), ("sam", 403), ("foreign", 404), (None, 303)):
        looked = await Browser(control, by).look("/live/network/alpha")
        assert looked.status == status, by
        if by is not None:
            answer = await control.ask("GET", "/v1/projects/alpha/summary/stream", by=by)
            assert answer.status == status, by


async def test_standby_and_what_we_do_not_listen_to_are_told(
    control: Control, monkeypatch: pytest.MonkeyPatch
):
    """A run whose licence another one holds; and everybody, once the view has grown old."""
    collection, licence = new_id(), new_id()
    await control.sql(
        "insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)"
        " values ($1, $2, 1, $3, 'erc721', 'c', 1)",
        collection,
        control.alpha.project_id,
        "0x" + "1" * 40,
    )
    await control.sql(
        "insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)"
        " values ($1, $2, $3, 1, $4, 1)",
        licence,
        collection,
        control.alpha.project_id,
        "0x" + "2" * 40,
    )
    await control.sql(
        "update workload set licence_id = $1 where project_id = $2", licence, control.alpha.project_id
    )
    holder = control.node.workload_ids[1]
    await control.sql("insert into licence_lease values ($1, 1, $2, 1)", licence, holder)
    now_ms = system_ms()
    control.engine.beat(control.node, now_ms, now_ms)
    await control.wait_state(control.node.node_id, "up")
    told = (await control.ask("GET", "/v1/projects/alpha/summary")).json["workloads"]
    assert (told["standby"], told["unobserved"]) == (1, 0)
    monkeypatch.setattr(summaries, "LATE_S", 0.0)
    monkeypatch.setattr(summaries, "VIEW_S", 0.0)
    monkeypatch.setattr(summaries, "STALE_MS", -1_000_000)
    told = (await control.ask("GET", "/v1/projects/alpha/summary")).json["workloads"]
    assert told["unobserved"] == 2
    assert "not observed (our fault) 2" in (await Browser(control, "owner").look(PATH)).words


async def test_only_who_runs_the_project_sees_its_network(control: Control):
    for by, status in (
        ("admin", 200),
        ("owner", 200),
        ("paul", 200),
        ("olga", 403),
        ("foreign", 404),
        (None, 303),
    ):
        assert (await Browser(control, by).look(PATH)).status == status, by
    # Lists tell each one what they may see: olga her own node of this project, and nobody else's.
    assert ">mine</a>" in (await Browser(control, "olga").look(f"{PATH}/nodes")).text
    assert ">mine</a>" not in (await Browser(control, "sam").look(f"{PATH}/nodes")).text


async def test_a_page_does_not_wait_for_the_first_count(control: Control, monkeypatch: pytest.MonkeyPatch):
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(summaries, "_count", never)
    owner = Browser(control, "owner")
    looked = await owner.look(PATH)
    is_whole(looked)
    assert (looked.status, "the counts appear here in a moment" in looked.words) == (200, True)
    assert (await owner.look(f"{PATH}/kinds")).status == 200
    answer = await control.ask("GET", "/v1/projects/alpha/summary", headers={"prefer": "wait=0"})
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
