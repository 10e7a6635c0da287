"""Registering, changing and taking back nodes and workloads: who may, what is refused, who is told."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage.ids import new_id
from tests.web.control import Answered, Control
from web.main import system_ms

SMALL_ORDER = ("01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32, "00" * 31 + "80")
NO_POINT = "02" + "00" * 31
NOT_CANONICAL = "f0" + "ff" * 30 + "7f"  # y = p + 3


def new_key() -> str:
    return Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()


def body_of(**more: Any) -> dict[str, Any]:
    return {"project": "alpha", "name": "lisbon-1", "public_key": new_key(), **more}


async def add_kind(control: Control, slug: str = "inference", *, project: str = "alpha") -> str:
    kind_id, of = new_id(), getattr(control, project)
    await control.sql(
        "insert into workload_kind (kind_id, project_id, slug, name, created_ms) values ($1, $2, $3, $3, 1)",
        kind_id,
        of.project_id,
        slug,
    )
    return kind_id


async def add_licence(control: Control, wallet: str | None, *, project: str = "alpha") -> str:
    """A licence of the project; `wallet` None: burned."""
    collection_id, licence_id, of = new_id(), new_id(), getattr(control, project)
    await control.sql(
        """
        insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
        values ($1, $2, 1, $3, 'erc721', 'c', 1)
        """,
        collection_id,
        of.project_id,
        f"0x{collection_id.replace('-', '')}{licence_id[-8:]}",
    )
    await control.sql(
        """
        insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)
        values ($1, $2, $3, 7, $4, 1)
        """,
        licence_id,
        collection_id,
        of.project_id,
        wallet,
    )
    return licence_id


def wallet_of(name: str) -> str:
    return "0x" + hashlib.sha256(name.encode()).hexdigest()[:40]


async def register(control: Control, *, by: str = "olga", **more: Any) -> Any:
    answer = await control.ask("POST", "/v1/nodes", by=by, json=body_of(**more))
    assert answer.status == 201, answer
    return answer.json


def refusal(answer: Answered) -> tuple[int, str]:
    return answer.status, answer.json["code"]


def pointer(answer: Answered) -> str:
    return answer.json["errors"][0]["pointer"]


async def audited(control: Control, subject: str) -> list[tuple[str, str]]:
    found = await control.sql("select action, actor from audit where subject = $1 order by seq", subject)
    return [(row["action"], row["actor"]) for row in found]


async def changes_since(control: Control, position: int) -> list[int]:
    found = await control.sql('select "row" from registry_change where seq > $1 order by seq', position)
    return [row["row"] for row in found]


async def position(control: Control) -> int:
    [row] = await control.sql("select coalesce(max(seq), 0) from registry_change")
    return int(row[0])


# Registering


async def test_an_operator_registers_a_machine_of_their_own_with_what_runs_on_it(control: Control) -> None:
    await add_kind(control)
    licence_id = await add_licence(control, wallet_of("olga"))
    runs = [{"kind": "inference", "name": "a", "licence_id": licence_id}, {"kind": "inference", "name": "b"}]
    body = body_of(region="eu-west", interval_ms=5_000, workloads=runs)
    answer = await control.ask("POST", "/v1/nodes", by="olga", json=body)
    assert answer.status == 201
    node = answer.json
    assert answer.headers["location"] == f"/v1/nodes/{node['node_id']}"
    told = ("owner_id", "name", "region", "public_key", "interval_ms", "revoked", "retired_at")
    assert [node[name] for name in told] == [
        *(control.users["olga"], "lisbon-1", "eu-west", body["public_key"], 5_000, False, None)
    ]
    assert [(w["slot"], w["name"], w["kind"], w["licence_id"]) for w in node["workloads"]] == [
        (0, "a", "inference", licence_id),
        (1, "b", "inference", None),
    ]
    seen = await control.ask("GET", f"/v1/nodes/{node['node_id']}", by="olga")
    assert (seen.json["owner_id"], seen.json["region"], seen.json["manager_version"]) == (
        control.users["olga"],
        "eu-west",
        "",
    )
    assert (await control.ask("GET", f"/v1/nodes/{node['node_id']}", by="sam")).status == 404
    assert await audited(control, node["node_id"]) == [("node.register", f"user:{control.users['olga']}")]


async def test_any_operator_may_register_in_any_project_but_only_for_themselves(control: Control) -> None:
    assert (await register(control, by="sam"))["owner_id"] == control.users["sam"]
    assert (await register(control, by="sam", owner_id=control.users["sam"]))["owner_id"]
    for owner_id in (None, control.users["olga"]):
        answer = await control.ask("POST", "/v1/nodes", by="sam", json=body_of(owner_id=owner_id))
        assert refusal(answer) == (403, "forbidden")


async def test_only_who_runs_the_project_lets_a_machine_beat_less_than_once_a_minute(
    control: Control,
) -> None:
    """A beat vouches, and so is paid, for one and a half intervals."""
    for by in ("olga", "sam"):
        answer = await control.ask("POST", "/v1/nodes", by=by, json=body_of(interval_ms=60_001))
        assert (refusal(answer), pointer(answer)) == ((403, "forbidden"), "/interval_ms")
        assert (await register(control, by=by, interval_ms=60_000))["interval_ms"] == 60_000
    for by in ("owner", "paul", "admin"):
        assert (await register(control, by=by, interval_ms=3_600_000))["interval_ms"] == 3_600_000


@pytest.mark.parametrize(("by", "left_out"), [("owner", None), ("admin", None), ("paul", "paul")])
async def test_who_runs_the_project_registers_for_its_operators_or_nobody(
    control: Control, by: str, left_out: str | None
) -> None:
    assert (await register(control, by=by))["owner_id"] == (left_out and control.users[left_out])
    assert (await register(control, by=by, owner_id=control.users["olga"]))["owner_id"]
    assert (await register(control, by=by, owner_id=None))["owner_id"] is None


async def test_an_admin_registers_for_anybody_that_there_is(control: Control) -> None:
    assert (await register(control, by="admin", owner_id=control.users["sam"]))["owner_id"]
    for nobody in (new_id(), "x" * 36):
        answer = await control.ask("POST", "/v1/nodes", by="admin", json=body_of(owner_id=nobody))
        assert (refusal(answer), pointer(answer)) == ((422, "unknown_reference"), "/owner_id")


@pytest.mark.parametrize("by", ["owner", "paul"])
async def test_nobody_is_made_an_operator_by_a_project_that_they_have_nothing_to_do_with(
    control: Control, by: str
) -> None:
    """It would make them reachable by its announcements, and put its machines into their list."""

    async def refused(owner_id: str) -> bool:
        answer = await control.ask("POST", "/v1/nodes", by=by, json=body_of(owner_id=owner_id))
        if answer.status == 201:
            return False
        assert (refusal(answer), pointer(answer)) == ((403, "forbidden"), "/owner_id")
        assert "let them register the machine" in answer.json["detail"]
        return True

    sam, olga = control.users["sam"], control.users["olga"]
    await control.sql("update node set owner_id = $1 where project_id = $2", sam, control.beta.project_id)
    assert await refused(sam)  # operates another project's
    assert await refused(new_id())  # whether there is such a person is not told
    [[wallet]] = await control.sql("select wallet from account where user_id = $1", sam)
    await add_licence(control, wallet, project="beta")
    assert await refused(sam)
    await add_licence(control, wallet)
    assert not await refused(sam)
    await control.sql("update node set retired_ms = 1 where owner_id = $1", olga)
    assert await refused(olga)


async def test_a_foreign_projects_key_registers_nothing_here(control: Control) -> None:
    answer = await control.ask("POST", "/v1/nodes", by="foreign", json=body_of())
    assert refusal(answer) == (404, "not_found")
    assert refusal(await control.ask("POST", "/v1/nodes", by="manager", json=body_of())) == (403, "forbidden")


async def test_nothing_is_registered_in_a_retired_project(control: Control) -> None:
    await control.sql("update project set retired_ms = 1 where slug = 'alpha'")
    answer = await control.ask("POST", "/v1/nodes", by="olga", json=body_of())
    assert refusal(answer) == (409, "retired")


async def test_a_public_key_must_be_a_point_of_the_curve(control: Control) -> None:
    for key in (*SMALL_ORDER, NO_POINT, NOT_CANONICAL, "AB" * 32, "ab" * 31, "ab" * 33, 7):
        answer = await control.ask("POST", "/v1/nodes", by="olga", json=body_of(public_key=key))
        assert (refusal(answer), pointer(answer)) == ((400, "malformed"), "/public_key"), key


async def test_a_field_of_the_wrong_shape_is_malformed(control: Control) -> None:
    for wrong in (
        {"name": ""},
        {"name": "x" * 201},
        {"name": "a\x00b"},
        {"region": "eu west"},
        {"interval_ms": 999},
        {"interval_ms": 3_600_001},
        {"project": "Alpha!"},
        {"workloads": [{"kind": "k", "name": "w"}] * 65},
        {"workloads": [{"name": "w"}]},
        {"workloads": None},
    ):
        answer = await control.ask("POST", "/v1/nodes", by="olga", json=body_of(**wrong))
        assert refusal(answer) == (400, "malformed"), wrong


async def test_the_same_key_twice_is_refused_with_advice_also_after_it_was_given_up(control: Control) -> None:
    key = new_key()
    node = await register(control, public_key=key)
    for _ in range(2):
        answer = await control.ask("POST", "/v1/nodes", by="sam", json=body_of(public_key=key))
        assert refusal(answer) == (409, "key_taken")
        assert "make a new pair" in answer.json["detail"]
        await control.ask("POST", f"/v1/nodes/{node['node_id']}/retire", by="olga")


async def test_a_registration_that_is_sent_again_makes_no_second_node(control: Control) -> None:
    await add_kind(control)
    body = body_of(workloads=[{"kind": "inference", "name": "a"}])
    first = await control.ask("POST", "/v1/nodes", by="olga", json=body, key="once")
    again = await control.ask("POST", "/v1/nodes", by="olga", json=body, key="once")
    assert (first.status, again.status, again.json) == (201, 201, first.json)
    # As after a crash between the commit and the stored answer: run again, and still one.
    await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")
    once_more = await control.ask("POST", "/v1/nodes", by="olga", json=body, key="once")
    assert once_more.json == first.json
    assert len(await audited(control, first.json["node_id"])) == 1
    assert (await control.ask("POST", "/v1/nodes", by="olga", json=body, key=None)).status == 400


# Licences


async def test_an_operator_binds_only_licences_of_their_own_wallet_in_this_project(control: Control) -> None:
    await add_kind(control)
    mine = await add_licence(control, wallet_of("olga"))
    sams = await add_licence(control, wallet_of("sam"))
    burned = await add_licence(control, None)
    elsewhere = await add_licence(control, wallet_of("olga"), project="beta")
    path = f"/v1/nodes/{control.node.node_id}/workloads"

    async def bind(licence_id: str, by: str = "olga") -> Answered:
        body = {"kind": "inference", "name": "w", "licence_id": licence_id}
        return await control.ask("POST", path, by=by, json=body)

    assert (await bind(mine)).status == 201
    assert (await bind(mine.upper())).status == 201
    for licence_id in (sams, burned, elsewhere, new_id(), "nothing"):
        answer = await bind(licence_id)
        assert (refusal(answer), pointer(answer)) == ((422, "unknown_reference"), "/licence_id")
    for by in ("owner", "paul", "admin"):
        assert (await bind(sams, by)).status == 201
        for licence_id in (burned, elsewhere):
            assert refusal(await bind(licence_id, by)) == (422, "unknown_reference")


async def test_what_is_wrong_in_a_list_of_workloads_is_pointed_at(control: Control) -> None:
    await add_kind(control)
    await add_kind(control, "other", project="beta")
    good = {"kind": "inference", "name": "w"}
    for wrong, where in (
        ({"kind": "other", "name": "w"}, "/workloads/1/kind"),
        ({**good, "licence_id": new_id()}, "/workloads/1/licence_id"),
        ({**good, "licence_id": "x"}, "/workloads/1/licence_id"),
    ):
        answer = await control.ask("POST", "/v1/nodes", by="olga", json=body_of(workloads=[good, wrong]))
        assert (refusal(answer), pointer(answer)) == ((422, "unknown_reference"), where)
    await control.sql("update workload_kind set retired_ms = 1")
    answer = await control.ask("POST", "/v1/nodes", by="olga", json=body_of(workloads=[good]))
    assert refusal(answer) == (422, "unknown_reference")
    assert (await control.sql("select count(*) from node"))[0][0] == 2


# Changing nodes


async def test_a_node_is_renamed_by_whoever_it_belongs_to(control: Control) -> None:
    path = f"/v1/nodes/{control.node.node_id}"
    before = await position(control)
    for by in ("olga", "owner", "paul", "admin"):
        answer = await control.ask("PATCH", path, by=by, json={"name": f"by {by}", "region": by})
        assert (answer.status, answer.json["name"], answer.json["region"]) == (200, f"by {by}", by)
    assert (await control.ask("PATCH", path, by="admin", json={})).json["name"] == "by admin"
    for by in ("sam", "foreign"):
        assert (await control.ask("PATCH", path, by=by, json={"name": "x"})).status == 404
    assert len(await audited(control, control.node.node_id)) == 4
    assert await changes_since(control, before) == []  # an engine knows no names
    assert refusal(await control.ask("PATCH", path, by="olga", json={"name": None})) == (400, "malformed")


async def test_only_an_admin_gives_a_machine_to_somebody_else(control: Control) -> None:
    path, sam = f"/v1/nodes/{control.node.node_id}", control.users["sam"]
    for by in ("olga", "owner", "paul"):
        assert refusal(await control.ask("PATCH", path, by=by, json={"owner_id": sam})) == (403, "forbidden")
    assert (await control.ask("PATCH", path, json={"owner_id": sam})).json["owner_id"] == sam
    assert (await control.ask("GET", path, by="sam")).status == 200
    assert (await control.ask("GET", path, by="olga")).status == 404
    assert (await control.ask("PATCH", path, json={"owner_id": None})).json["owner_id"] is None
    answer = await control.ask("PATCH", path, json={"owner_id": new_id()})
    assert (refusal(answer), pointer(answer)) == ((422, "unknown_reference"), "/owner_id")


async def test_a_new_key_ends_all_sessions_and_alone_opens_new_ones(control: Control) -> None:
    path, key = f"/v1/nodes/{control.node.node_id}", new_key()
    await control.open_session(control.node.node_id)
    [salt] = await control.sql("select salt from node where node_id = $1", control.node.node_id)
    before = await position(control)
    for _ in range(2):
        answer = await control.ask("POST", f"{path}/rekey", by="olga", json={"public_key": key})
        assert (answer.status, answer.json["public_key"]) == (200, key)
    assert await changes_since(control, before) == [control.node.row]
    [after] = await control.sql("select salt, public_key from node where node_id = $1", control.node.node_id)
    assert (after["salt"] != salt["salt"], after["public_key"].hex()) == (True, key)
    _, [spec] = await control.stores.registry.changes(before, shard=0, shards=1)
    assert (spec.current, spec.previous, spec.revoked) == (None, None, False)
    actions = [action for action, _ in await audited(control, control.node.node_id)]
    assert actions == ["node.rekey"]
    now_ms = system_ms()
    principal = await control.stores.directory.manager(control.node.row, 2, now_ms=now_ms)
    assert principal is None


async def test_a_node_is_re_keyed_by_its_operator_or_an_admin_and_not_to_a_key_in_use(
    control: Control,
) -> None:
    path = f"/v1/nodes/{control.node.node_id}/rekey"
    for by in ("owner", "paul"):
        assert refusal(await control.ask("POST", path, by=by, json={"public_key": new_key()})) == (
            403,
            "forbidden",
        )
    assert (await control.ask("POST", path, by="sam", json={"public_key": new_key()})).status == 404
    assert (await control.ask("POST", path, by="admin", json={"public_key": new_key()})).status == 200
    taken = (await register(control))["public_key"]
    assert refusal(await control.ask("POST", path, by="olga", json={"public_key": taken})) == (
        409,
        "key_taken",
    )
    assert refusal(await control.ask("POST", path, by="olga", json={"public_key": NO_POINT})) == (
        400,
        "malformed",
    )


async def test_a_revoked_node_stays_revoked(control: Control) -> None:
    path, before = f"/v1/nodes/{control.node.node_id}", await position(control)
    answers = [await control.ask("POST", f"{path}/revoke", by=by) for by in ("olga", "owner", "olga")]
    assert [(a.status, a.json["revoked"]) for a in answers] == [(200, True)] * 3
    assert answers[0].json == answers[1].json
    assert await changes_since(control, before) == [control.node.row]
    assert [action for action, _ in await audited(control, control.node.node_id)] == ["node.revoke"]
    rekeyed = await control.ask("POST", f"{path}/rekey", by="olga", json={"public_key": new_key()})
    assert refusal(rekeyed) == (409, "retired")
    assert "register a new one" in rekeyed.json["detail"]


async def test_a_retired_node_takes_its_workloads_along_and_what_they_did_stays(control: Control) -> None:
    path, before = f"/v1/nodes/{control.node.node_id}", await position(control)
    answers = [await control.ask("POST", f"{path}/retire", by="olga") for _ in range(2)]
    assert answers[0].json == answers[1].json
    assert (answers[0].status, answers[0].json["workloads"]) == (200, [])
    assert await changes_since(control, before) == [control.node.row]
    _, [spec] = await control.stores.registry.changes(before, shard=0, shards=1)
    assert spec.retired
    assert all(slot.retired_ms is not None for slot in spec.slots)
    for workload_id in control.node.workload_ids:
        uptime = await control.ask("GET", f"/v1/workloads/{workload_id}/uptime", by="olga")
        assert uptime.status == 200
    seen = await control.ask("GET", path, by="olga")
    assert seen.json["retired_at"] == answers[0].json["retired_at"]
    for method, more, body in (
        ("PATCH", "", {"name": "x"}),
        ("POST", "/rekey", {"public_key": new_key()}),
        ("POST", "/workloads", {"kind": "k", "name": "w"}),
    ):
        answer = await control.ask(method, path + more, by="olga", json=body)
        assert refusal(answer) == (409, "retired")


# Workloads


async def test_a_workload_that_is_added_is_told_to_the_engine_and_made_once(control: Control) -> None:
    await add_kind(control)
    path, before = f"/v1/nodes/{control.node.node_id}/workloads", await position(control)
    body = {"kind": "inference", "name": "third"}
    first = await control.ask("POST", path, by="olga", json=body, key="once")
    await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")
    again = await control.ask("POST", path, by="olga", json=body, key="once")
    assert (first.status, first.json["slot"], again.json) == (201, 2, first.json)
    assert first.headers["location"] == f"/v1/workloads/{first.json['workload_id']}"
    assert await changes_since(control, before) == [control.node.row]
    assert len(await audited(control, first.json["workload_id"])) == 1


async def test_the_65th_workload_is_refused_with_the_advice_to_register_a_further_key(
    control: Control,
) -> None:
    await add_kind(control)
    node = await register(control, workloads=[{"kind": "inference", "name": f"w{n}"} for n in range(64)])
    assert len(node["workloads"]) == 64
    path = f"/v1/nodes/{node['node_id']}/workloads"
    await control.ask("POST", f"/v1/workloads/{node['workloads'][0]['workload_id']}/retire", by="olga")
    answer = await control.ask("POST", path, by="olga", json={"kind": "inference", "name": "w"})
    assert refusal(answer) == (409, "row_full")
    assert "register a further node key" in answer.json["detail"]


async def test_a_revoked_node_takes_no_workloads(control: Control) -> None:
    await add_kind(control)
    path = f"/v1/nodes/{control.node.node_id}"
    await control.ask("POST", f"{path}/revoke", by="olga")
    answer = await control.ask(
        "POST", f"{path}/workloads", by="olga", json={"kind": "inference", "name": "w"}
    )
    assert refusal(answer) == (409, "retired")


async def test_a_check_has_neither_a_key_nor_further_workloads(control: Control) -> None:
    await control.sql(
        "update node set kind = 'check', public_key = null where node_id = $1", control.node.node_id
    )
    path = f"/v1/nodes/{control.node.node_id}"
    for more, body in (("/rekey", {"public_key": new_key()}), ("/workloads", {"kind": "k", "name": "w"})):
        answer = await control.ask("POST", path + more, by="olga", json=body)
        assert refusal(answer) == (409, "not_a_machine")


async def test_a_workload_of_another_kind_is_another_thing_to_run(control: Control) -> None:
    await add_kind(control)
    workload_id = control.node.workload_ids[0]
    path = f"/v1/workloads/{workload_id}"
    await control.sql("update workload set running_version = '1.0', running_reported_ms = 1")
    before = await position(control)
    renamed = await control.ask("PATCH", path, by="olga", json={"name": "new name"})
    assert (renamed.status, renamed.json["name"]) == (200, "new name")
    assert await changes_since(control, before) == []
    for _ in range(2):
        changed = await control.ask("PATCH", path, by="olga", json={"kind": "inference"})
        assert (changed.status, changed.json["kind"], changed.json["name"]) == (200, "inference", "new name")
    seen = (await control.ask("GET", path, by="olga")).json
    assert (seen["kind"], seen["licence_id"], seen["running_version"]) == ("inference", None, None)
    assert await changes_since(control, before) == [control.node.row]
    _, [spec] = await control.stores.registry.changes(before, shard=0, shards=1)
    assert spec.resync
    [row] = await control.sql("select running_version from workload where workload_id = $1", workload_id)
    assert row["running_version"] is None
    answer = await control.ask("PATCH", path, by="olga", json={"kind": "nothing"})
    assert (refusal(answer), pointer(answer)) == ((422, "unknown_reference"), "/kind")


async def test_a_workload_changes_its_licence_or_runs_under_none(control: Control) -> None:
    mine, sams = await add_licence(control, wallet_of("olga")), await add_licence(control, wallet_of("sam"))
    path = f"/v1/workloads/{control.node.workload_ids[0]}"
    for by, licence_id in (("olga", mine), ("owner", sams), ("olga", None)):
        answer = await control.ask("PATCH", path, by=by, json={"licence_id": licence_id})
        assert (answer.status, answer.json["licence_id"]) == (200, licence_id)
    answer = await control.ask("PATCH", path, by="olga", json={"licence_id": sams})
    assert (refusal(answer), pointer(answer)) == ((422, "unknown_reference"), "/licence_id")
    assert (await control.ask("PATCH", path, by="sam", json={"licence_id": sams})).status == 404


async def test_a_workload_is_retired_once_and_its_slot_is_not_given_out_again(control: Control) -> None:
    await add_kind(control)
    workload_id = control.node.workload_ids[1]
    path, before = f"/v1/workloads/{workload_id}", await position(control)
    answers = [await control.ask("POST", f"{path}/retire", by=by) for by in ("olga", "owner")]
    assert answers[0].json == answers[1].json
    assert answers[0].json["retired_at"] is not None
    assert await changes_since(control, before) == [control.node.row]
    assert [action for action, _ in await audited(control, workload_id)] == ["workload.retire"]
    assert refusal(await control.ask("PATCH", path, by="olga", json={"name": "x"})) == (409, "retired")
    body = {"kind": "inference", "name": "next"}
    added = await control.ask("POST", f"/v1/nodes/{control.node.node_id}/workloads", by="olga", json=body)
    assert added.json["slot"] == 2


async def test_the_audit_chain_holds_after_all_of_this(control: Control) -> None:
    node = await register(control)
    for what in ("revoke", "retire"):
        await control.ask("POST", f"/v1/nodes/{node['node_id']}/{what}", by="olga")
    assert await control.stores.audit.first_broken() is None
    actions = [action for action, _ in await audited(control, node["node_id"])]
    assert actions == ["node.register", "node.revoke", "node.retire"]
