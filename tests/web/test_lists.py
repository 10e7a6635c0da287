"""Lists tell each caller what is theirs and nothing else, whatever is filtered for; on real stores."""

from __future__ import annotations

import pytest

from engine.core.fleet import EventFilter, NodeFilter, Sight, WorkloadFilter
from engine.core.people import Principal
from engine.core.ports import NewNode, NodeRecord
from tests.contract.given import batch, make_event
from tests.web.control import Control
from web import lists
from web.main import system_ms
from web.sight import sight_of


async def add_node(control: Control, name: str, *, owner: str | None = None, **more: object) -> NodeRecord:
    given = {"kind": "node", "public_key": None, "interval_ms": 60_000, "workloads": ("w",)}
    owner_id = None if owner is None else control.users[owner]
    new = NewNode(
        **{"project_id": control.alpha.project_id, "name": name, "owner_id": owner_id, **given, **more}
    )
    return (await control.stores.directory.create_nodes([new], now_ms=system_ms()))[0]


async def names(control: Control, path: str, by: str) -> list[str]:
    answer = await control.ask("GET", path, by=by)
    assert answer.status == 200, answer
    return sorted(item["name"] for item in answer.json["items"])


async def test_everybody_sees_what_is_theirs_in_every_role(control: Control) -> None:
    """paul owns alpha as a person and operates a machine in beta; olga operates alpha's first machine."""
    await add_node(control, "pauls", owner="paul", project_id=control.beta.project_id)
    await add_node(control, "nobodys")
    expected = {
        "admin": ["mine", "nobodys", "other", "pauls"],
        "owner": ["mine", "nobodys"],
        "foreign": ["other", "pauls"],
        "olga": ["mine"],
        "paul": ["mine", "nobodys", "pauls"],
        "sam": [],
    }
    for by, nodes in expected.items():
        assert await names(control, "/v1/nodes", by) == nodes, by
    workloads = {"admin": 5, "owner": 3, "foreign": 2, "olga": 2, "paul": 4, "sam": 0}
    for by, count in workloads.items():
        assert len(await names(control, "/v1/workloads", by)) == count, by
    for path in ("/v1/nodes", "/v1/workloads", "/v1/events"):
        assert (await control.ask("GET", path, by="manager")).status == 403
        assert (await control.ask("GET", path, by=None)).status == 401


async def test_a_caller_without_a_role_sees_nothing_of_the_store(control: Control) -> None:
    """By construction: the store wants a sight, and the empty one sees nothing."""
    fleet, nobody = control.stores.fleet, Sight()
    await control.stores.history.flush(batch(position=10_000, events=(make_event(),)))
    assert await fleet.node_places(nobody, NodeFilter(retired=True), after=None, limit=10) == []
    assert await fleet.workload_places(nobody, WorkloadFilter(retired=True), after=None, limit=10) == []
    assert await fleet.events(nobody, EventFilter(), after=0, limit=10) == []
    for scope in ("manager", "none"):
        assert sight_of(Principal("k", scope, None)) == nobody
    stranger = sight_of(Principal("k", "user", None, user_id=control.users["sam"]))
    assert not stranger.everything
    assert await fleet.node_places(stranger, NodeFilter(), after=None, limit=10) == []


async def test_nodes_are_narrowed_down(control: Control) -> None:
    node = await add_node(control, "hers", owner="paul", region="us")
    await control.sql("update node set manager_version = '1.4.0' where node_id = $1", node.node_id)
    both = ["hers", "mine"]
    for query, expected in (
        ("owner=me", ["hers"]),
        ("region=us", ["hers"]),
        ("region=u", []),
        ("name=her", ["hers"]),
        ("name=", both),
        ("name=%25", []),
        ("kind=check", []),
        ("kind=node&region=us&name=hers", ["hers"]),
        ("version=1.4.0", ["hers"]),
        ("project=alpha", both),
        ("project=beta", []),
        ("state=new", both),
        ("state=down", []),
    ):
        assert await names(control, f"/v1/nodes?{query}", "paul") == expected, query


async def test_filters_never_widen(control: Control) -> None:
    """Whatever olga asks for, she gets at most her own node."""
    await add_node(control, "nobodys")
    beta = control.beta.project_id
    for query in (
        f"owner={control.users['paul']}",
        f"owner={control.users['olga']}",
        "project=beta",
        "state=new",
        "retired=true",
        "name=o",
    ):
        assert set(await names(control, f"/v1/nodes?{query}", "olga")) <= {"mine"}, query
    assert (await control.ask("GET", "/v1/nodes?project=beta", by="owner")).status == 404
    assert (await control.ask("GET", "/v1/nodes?project=nowhere", by="olga")).status == 404
    places = await control.stores.fleet.node_places(
        Sight(operator_id=control.users["olga"]), NodeFilter(project_id=beta), after=None, limit=10
    )
    assert places == []


async def test_what_makes_no_sense_is_refused(control: Control) -> None:
    for path in (
        "/v1/nodes?owner=x",
        "/v1/nodes?state=fine",
        "/v1/nodes?kind=machine",
        "/v1/nodes?name=%00",
        "/v1/nodes?region=" + "r" * 129,
        "/v1/nodes?retired=1",
        "/v1/nodes?limit=0",
        "/v1/workloads?node=x",
        "/v1/workloads?licence=1",
        "/v1/workloads?state=maintenance",
        "/v1/workloads?version=%00",
        "/v1/workloads?after=x",
        "/v1/events?node=x",
        "/v1/events?kinds=node.down;drop",
        "/v1/events?kinds=" + ",".join(["a"] * 51),
    ):
        answer = await control.ask("GET", path, by="admin")
        assert (answer.status, answer.json["code"]) == (400, "bad_parameter"), path
    assert (await control.ask("GET", "/v1/nodes?owner=me", by="owner")).status == 400, "of no person"


async def test_retired_nodes_are_listed_only_when_asked_for(control: Control) -> None:
    gone = await add_node(control, "gone")
    await control.sql("update node set retired_ms = $2 where node_id = $1", gone.node_id, system_ms())
    assert await names(control, "/v1/nodes", "owner") == ["mine"]
    answer = await control.ask("GET", "/v1/nodes?retired=true", by="owner")
    retired = {item["name"]: item["retired_at"] for item in answer.json["items"]}
    assert retired["mine"] is None
    assert retired["gone"] is not None


async def test_a_union_is_listed_by_pages_and_each_thing_once(control: Control) -> None:
    """Of paul's own project and operated by him as well: one line all the same."""
    for number in range(5):
        await add_node(control, f"both-{number}", owner="paul")
    seen: list[str] = []
    path = "/v1/nodes?limit=2&project=alpha"
    while path:
        answer = await control.ask("GET", path, by="paul")
        seen += [item["name"] for item in answer.json["items"]]
        link = answer.headers.get("link", "")
        assert (not link) == (answer.json["next_cursor"] is None)
        path = link.partition(">")[0].removeprefix("<")
    assert sorted(seen) == sorted(["mine", *(f"both-{number}" for number in range(5))])


async def test_nodes_in_a_state_are_found_among_others(control: Control) -> None:
    now_ms = system_ms()
    control.engine.beat(control.node, now_ms, now_ms)
    await control.wait_state(control.node.node_id, "up")
    await add_node(control, "silent")
    assert await names(control, "/v1/nodes?state=up", "owner") == ["mine"]
    assert await names(control, "/v1/nodes?state=new", "owner") == ["silent"]


async def test_workloads_are_narrowed_down_by_what_beats_say(control: Control) -> None:
    now_ms = system_ms()
    control.engine.beat(control.node, now_ms, now_ms)
    await control.wait_state(control.node.node_id, "up")
    answer = await control.ask("GET", "/v1/workloads?project=alpha", by="olga")
    assert {item["name"]: item["state"] for item in answer.json["items"]} == {"w0": "up", "w1": "new"}
    assert await names(control, "/v1/workloads?state=up", "olga") == ["w0"]
    assert await names(control, f"/v1/workloads?node={control.node.node_id}&state=new", "olga") == ["w1"]
    first = control.node.workload_ids[0]
    await control.sql("update workload set running_version = '2.0.0' where workload_id = $1", first)
    assert await names(control, "/v1/workloads?version=2.0.0", "olga") == ["w0"]
    assert await names(control, f"/v1/workloads?node={control.foreign_node.node_id}", "olga") == []


async def test_events_are_told_to_whom_they_concern(control: Control) -> None:
    alpha, beta = control.alpha.project_id, control.beta.project_id
    of_project = make_event(1, project_id=alpha, node_id=None, kind="workload.below_minimum")
    of_node = make_event(2, project_id=alpha, node_id=control.node.node_id)
    up = make_event(3, project_id=alpha, node_id=control.node.node_id, kind="node.up")
    foreign = make_event(4, project_id=beta, node_id=control.foreign_node.node_id)
    whole = make_event(5, project_id=None, node_id=None, kind="clock.stepped")
    events = (of_project, of_node, up, foreign, whole)
    assert await control.stores.fleet.newest_cursor() == 0
    await control.stores.history.flush(batch(position=10_000, events=events))
    newest = await control.ask("GET", "/v1/events?limit=5")
    assert await control.stores.fleet.newest_cursor() == int(newest.json["next_cursor"])

    async def told(by: str, query: str = "") -> list[str]:
        answer = await control.ask("GET", f"/v1/events?{query}", by=by)
        assert answer.status == 200, answer
        return [item["event_id"] for item in answer.json["items"]]

    assert await told("admin") == [event.event_id for event in events]
    assert await told("owner") == await told("paul") == [each.event_id for each in events[:3]]
    assert await told("olga") == [of_node.event_id, up.event_id]
    assert await told("foreign") == [foreign.event_id]
    assert await told("sam") == []
    assert await told("owner", "kinds=node.up,node.down") == [of_node.event_id, up.event_id]
    assert await told("olga", "kinds=node.up") == [up.event_id]
    assert await told("olga", f"node={control.foreign_node.node_id}") == []
    assert await told("admin", "project=beta") == [foreign.event_id]
    assert await told("olga", "limit=1") == [of_node.event_id]


async def test_names_are_found_by_their_beginning_and_told_in_their_order(control: Control) -> None:
    """Page by page, also of those with equal names, and with what Python and PostgreSQL might sort apart."""
    for name in ("zeta", "Zeta", "zeta", "zet", "ze\U0010ffff", "zf", "zeä"):
        await add_node(control, name, workloads=(f"w-{name}",))
    expected = ["zet", "zeta", "zeta", "zeä", "ze\U0010ffff"]
    for path, began in (("/v1/nodes?name=ze", ""), ("/v1/workloads?name=w-ze", "w-")):
        for by in ("admin", "paul"):
            found: list[str] = []
            after = ""
            while after is not None:
                page = (await control.ask("GET", f"{path}&limit=2{after}", by=by)).json
                found += [each["name"].removeprefix(began) for each in page["items"]]
                cursor = page["next_cursor"]
                after = None if cursor is None else f"&after={cursor}"
            assert found == expected, (path, by)


async def test_things_are_found_by_the_beginning_of_their_ids(control: Control) -> None:
    node = control.node
    for path, name, identity in (
        ("/v1/nodes", "mine", node.node_id),
        ("/v1/workloads", "w0", node.workload_ids[0]),
    ):
        for text in (identity, identity[:30].upper(), identity.replace("-", "")):
            assert name in await names(control, f"{path}?id={text}", "owner"), (path, text)
        assert await names(control, f"{path}?id=ff", "owner") == []
        for text in ("", "g", "-", identity + "0", "%00"):
            assert (await control.ask("GET", f"{path}?id={text}")).status == 400, (path, text)


async def test_workloads_are_found_by_the_region_of_their_node(control: Control) -> None:
    await add_node(control, "hers", region="us", workloads=("a",))
    assert await names(control, "/v1/workloads?region=us", "owner") == ["a"]
    assert await names(control, "/v1/workloads?region=eu", "owner") == ["w0", "w1"]


async def test_few_in_a_state_are_found_by_where_they_were_counted(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two places at once and two times: going through all of them would not come so far."""
    monkeypatch.setattr(lists, "LOOKED_AT_ONCE", 2)
    monkeypatch.setattr(lists, "LOOKED_AT_MAX", 4)
    monkeypatch.setattr(lists, "HASTE_S", 10.0)  # on a busy machine a count takes its time
    for number in range(6):
        await add_node(control, f"n{number}", workloads=(f"w{number}",))
    last = await add_node(control, "last", workloads=("of-last",))
    now_ms = system_ms()
    control.engine.beat(last, now_ms, now_ms)
    await control.wait_state(last.node_id, "up")
    for path, name in (("/v1/nodes", "last"), ("/v1/workloads", "of-last")):
        answer = (await control.ask("GET", f"{path}?project=alpha&state=up", by="owner")).json
        assert ([each["name"] for each in answer["items"]], answer["next_cursor"]) == ([name], None)
        retired = await control.ask("GET", f"{path}?project=alpha&state=up&retired=true", by="owner")
        assert retired.json["next_cursor"] is not None, "who is gone was not counted: all are gone through"


async def test_who_is_in_haste_is_not_kept_waiting(control: Control) -> None:
    """The live view is behind for good: who waits, waits as long as is set."""
    control.app.backend.heads.wait_watermark = _never  # type: ignore[method-assign]
    for path in ("/v1/nodes", "/v1/workloads"):
        answer = await control.ask("GET", path, by="owner", headers={"prefer": "respond-async, wait=0"})
        assert (answer.status, len(answer.json["items"])) == (200, 1 if path == "/v1/nodes" else 2)
    assert _waits == [0.0]
    await control.ask("GET", "/v1/workloads", by="owner", headers={"prefer": "wait=10"})
    assert len(_waits) == 2
    assert _waits[1] > 0


_waits: list[float] = []


async def _never(_shard: int, _at_ms: int, *, timeout_s: float) -> bool:
    _waits.append(timeout_s)
    return False
