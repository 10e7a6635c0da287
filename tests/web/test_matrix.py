"""Every route met by every kind of caller: what each is answered, stated once more and apart from the code.

The things in the paths are project alpha's: its node is olga's, its licence in olga's wallet. Each cell has
things of its own, so that what one caller ends is there for the next.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.ports import NewNode, NodeRecord
from storage.ids import new_id
from tests.web.control import Control
from web.app import RESOURCES
from web.examples import example_of
from web.main import system_ms
from web.policy import POLICIES
from web.routing import Route

CALLERS = ("admin", "owner", "paul", "olga", "foreign", "sam", "manager", "reader", None)
# One character per caller, in their order: `.` let through (whatever the handler then says), 1, 3 and 4 for
# 401, 403 and 404, `-` not looked at.
PUBLIC = "........."
RUN = "...3433.1"  # whoever runs the project, reading
RUN_WRITE = "...343331"
ADMIN = ".33333331"
ANY = "....4.3.1"  # a project as anybody who signed in may see it
THING = "....443.1"  # a node, a workload: its operator, its project, admins
THING_WRITE = "....44331"
THING_RUN_WRITE = "...343331"  # only those who run the project
MINE_WRITE = ".33.34331"  # its operator and admins
LIST = "......3.1"
SELF_WRITE = "......331"
PERSON = "-3..3.331"  # people for themselves; an admin's key is nobody
OLGA = ".34.34331"  # about a user: herself and admins
MANAGER = "333333.31"

EXPECTED: dict[str, str] = {
    "GET /livez": PUBLIC,
    "GET /v1/schedule": ADMIN,
    "GET /v1/installation": ADMIN,
    "GET /v1/installation/gaps": ADMIN,
    "GET /v1/installation/outbox": ADMIN,
    "GET /v1/installation/dead-letters": ADMIN,
    "POST /v1/installation/dead-letters/{delivery_id}/replay": ADMIN,
    "GET /v1/installation/publications": ADMIN,
    "POST /v1/sign-in/wallet/nonce": PUBLIC,
    "POST /v1/sign-in/mail": PUBLIC,
    "GET /v1/manager/desired": MANAGER,
    "GET /v1/manager/manifests/{workload_id}": MANAGER,
    "PUT /v1/manager/workloads/{workload_id}/version": MANAGER,
    "GET /v1/manager/release": MANAGER,
    "GET /v1/manager/releases/{file}": "444444444",  # for anybody; there is none here
    "DELETE /v1/sign-in": SELF_WRITE,
    "GET /v1/me": LIST,
    "PATCH /v1/me": PERSON,
    "GET /v1/me/notifications": PERSON,
    "PUT /v1/me/notifications": PERSON,
    "GET /v1/me/channels": PERSON,
    "POST /v1/me/channels": PERSON,
    "DELETE /v1/me/channels/{channel_id}": "-34.34331",
    "GET /v1/me/channels/{channel_id}/deliveries": "-34.34331",
    "POST /v1/me/channels/{channel_id}/test": "-34.34331",
    "POST /v1/me/channels/{channel_id}/replay": "-34.34331",
    "POST /v1/me/channels/{channel_id}/deliveries/{delivery_id}/replay": "-34.34331",
    "POST /v1/me/channels/{channel_id}/enable": "-34.34331",
    "POST /v1/me/channels/{channel_id}/disable": "-34.34331",
    "POST /v1/me/channels/{channel_id}/confirm-again": "-34.34331",
    "GET /v1/users": ADMIN,
    "POST /v1/users": ADMIN,
    "GET /v1/users/{user_id}": OLGA,
    "PATCH /v1/users/{user_id}": ADMIN,
    "GET /v1/users/{user_id}/licences": OLGA,
    "GET /v1/users/{user_id}/balances": OLGA,
    "GET /v1/keys": LIST,
    "POST /v1/keys": "...444331",  # for project alpha
    "POST /v1/keys/{key_id}/rotate": "...444331",  # a key of project alpha
    "DELETE /v1/keys/{key_id}": "...444331",  # a key of project alpha
    "GET /v1/audit": RUN,  # of project alpha
    "GET /v1/audit/chain": ADMIN,
    "GET /v1/projects": LIST,
    "POST /v1/projects": ADMIN,
    "GET /v1/projects/{slug}": ANY,
    "PATCH /v1/projects/{slug}": RUN_WRITE,
    "GET /v1/projects/{slug}/policies": ANY,
    "POST /v1/projects/{slug}/policies": RUN_WRITE,
    "GET /v1/projects/{slug}/owners": RUN,
    "PUT /v1/projects/{slug}/owners/{user_id}": ADMIN,
    "DELETE /v1/projects/{slug}/owners/{user_id}": ADMIN,
    "GET /v1/projects/{slug}/summary": RUN,
    "GET /v1/projects/{slug}/uptime": RUN,
    "GET /v1/projects/{slug}/uptime/days": RUN,
    "GET /v1/projects/{slug}/seals": ANY,
    "GET /v1/projects/{slug}/seals/{day}": ANY,
    "GET /v1/projects/{slug}/seals/{day}/publications": RUN,
    "GET /v1/projects/{slug}/seals/{day}/transaction": RUN,
    "GET /v1/projects/{slug}/days": RUN,
    "GET /v1/projects/{slug}/days/{day}": RUN,
    "POST /v1/projects/{slug}/seals/{day}/corrections": RUN_WRITE,
    "GET /v1/projects/{slug}/seals/{day}/corrections": RUN,
    "GET /v1/projects/{slug}/seals/{day}/corrections/{correction_id}": RUN,
    "GET /v1/projects/{slug}/points": RUN,
    "POST /v1/projects/{slug}/points": RUN_WRITE,
    "GET /v1/projects/{slug}/points/licences": RUN,
    "GET /v1/projects/{slug}/points/workloads": RUN,
    "GET /v1/projects/{slug}/points/days": RUN,
    "GET /v1/projects/{slug}/points/commits": RUN,
    "GET /v1/projects/{slug}/points/commits/{commit_id}": RUN,
    "GET /v1/projects/{slug}/points/commits/{commit_id}/changes": RUN,
    "GET /v1/projects/{slug}/points/commits/{commit_id}/rows": RUN,
    "GET /v1/projects/{slug}/points/suggested": RUN,
    "POST /v1/projects/{slug}/points/suggested": RUN_WRITE,
    "GET /v1/projects/{slug}/points/suggested/preview": RUN,
    "GET /v1/projects/{slug}/points/export": RUN,
    "POST /v1/projects/{slug}/points/preview": RUN,
    "GET /v1/projects/{slug}/points/commits/{commit_id}/suggested": RUN,
    "GET /v1/projects/{slug}/leaderboard": ANY,
    "GET /v1/me/points": LIST,
    "GET /v1/projects/{slug}/channels": RUN,
    "POST /v1/projects/{slug}/channels": RUN_WRITE,
    "DELETE /v1/projects/{slug}/channels/{channel_id}": RUN_WRITE,
    "GET /v1/projects/{slug}/channels/{channel_id}/deliveries": RUN,
    "POST /v1/projects/{slug}/channels/{channel_id}/test": RUN_WRITE,
    "POST /v1/projects/{slug}/channels/{channel_id}/replay": RUN_WRITE,
    "POST /v1/projects/{slug}/channels/{channel_id}/deliveries/{delivery_id}/replay": RUN_WRITE,
    "POST /v1/projects/{slug}/channels/{channel_id}/enable": RUN_WRITE,
    "POST /v1/projects/{slug}/channels/{channel_id}/disable": RUN_WRITE,
    "POST /v1/projects/{slug}/channels/{channel_id}/confirm-again": RUN_WRITE,
    "GET /v1/notifications": "...3.33.1",
    "POST /v1/notifications": RUN_WRITE,
    "POST /v1/notifications/preview": "...3433.1",
    "GET /v1/projects/{slug}/kinds": ANY,
    "POST /v1/projects/{slug}/kinds": RUN_WRITE,
    "GET /v1/projects/{slug}/kinds/{kind}": ANY,
    "PATCH /v1/projects/{slug}/kinds/{kind}": RUN_WRITE,
    "GET /v1/projects/{slug}/kinds/{kind}/versions": ANY,
    "POST /v1/projects/{slug}/kinds/{kind}/versions": RUN_WRITE,
    "GET /v1/projects/{slug}/kinds/{kind}/versions/{version}": ANY,
    "PATCH /v1/projects/{slug}/kinds/{kind}/versions/{version}": RUN_WRITE,
    "GET /v1/releases": ADMIN,
    "POST /v1/releases": ADMIN,
    "PATCH /v1/releases/{version}": ADMIN,
    "GET /v1/nodes": LIST,
    "POST /v1/nodes": "....4.331",  # in project alpha; whoever signed in may
    "GET /v1/nodes/{node_id}": THING,
    "PATCH /v1/nodes/{node_id}": THING_WRITE,
    "POST /v1/nodes/{node_id}/revoke": THING_WRITE,
    "POST /v1/nodes/{node_id}/rekey": MINE_WRITE,
    "POST /v1/nodes/{node_id}/retire": THING_WRITE,
    "POST /v1/nodes/{node_id}/workloads": THING_WRITE,
    "POST /v1/nodes/{node_id}/datagram": THING_RUN_WRITE,
    "GET /v1/nodes/{node_id}/windows": THING,
    "POST /v1/nodes/{node_id}/windows": THING_WRITE,
    "DELETE /v1/nodes/{node_id}/windows/{window_id}": THING_WRITE,
    "GET /v1/workloads": LIST,
    "GET /v1/workloads/{workload_id}": THING,
    "GET /v1/workloads/{workload_id}/uptime": THING,
    "GET /v1/workloads/{workload_id}/days": THING,
    "GET /v1/workloads/{workload_id}/version": THING,
    "GET /v1/nodes/{node_id}/days": THING,
    "GET /v1/workloads/{workload_id}/proof": THING,
    "GET /v1/nodes/{node_id}/receipt": THING,
    "GET /v1/receipt-keys": PUBLIC,
    "GET /v1/workloads/{workload_id}/why": THING,
    "PATCH /v1/workloads/{workload_id}": THING_WRITE,
    "POST /v1/workloads/{workload_id}/restart": THING_RUN_WRITE,
    "POST /v1/workloads/{workload_id}/retire": THING_WRITE,
    "POST /v1/workloads/{workload_id}/disputes": "333.34331",  # the operator alone, of a sealed day
    "GET /v1/disputes": LIST,
    "GET /v1/disputes/{dispute_id}": THING,
    "POST /v1/disputes/{dispute_id}/comments": THING_WRITE,
    "POST /v1/disputes/{dispute_id}/answer": THING_RUN_WRITE,
    "POST /v1/disputes/{dispute_id}/correct": THING_RUN_WRITE,
    "POST /v1/disputes/{dispute_id}/reject": THING_RUN_WRITE,
    "GET /v1/events": LIST,
    "GET /v1/projects/{slug}/collections": ANY,
    "POST /v1/projects/{slug}/collections": RUN_WRITE,
    "PATCH /v1/projects/{slug}/collections/{collection_id}": RUN_WRITE,
    "GET /v1/licences": LIST,
    "GET /v1/licences/{licence_id}": THING,
    "GET /v1/licences/{licence_id}/owners": THING,
    "GET /v1/licences/{licence_id}/leases": THING,
}
# These prove themselves in the body (their own tests say how), or are asked by machines of their own accord.
ELSEWHERE = {
    "POST /v1/sessions",
    "POST /v1/beats/backfill",
    "POST /v1/sign-in/wallet",
    "POST /v1/sign-in/mail/confirm",
    "GET /v1/events/stream",
    "GET /v1/projects/{slug}/summary/stream",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /v1/status/{slug}",
    "GET /badges/projects/{slug}.svg",
    "GET /badges/nodes/{node_id}.svg",
    "GET /badges/workloads/{workload_id}.svg",
    "GET /v1/confirm/{token}",
    "POST /v1/confirm/{token}",
    "GET /v1/unsubscribe/{token}",
    "POST /v1/unsubscribe/{token}",
}
WALLET = "0x" + hashlib.sha256(b"olga").hexdigest()[:40]
QUERY = {
    "GET /v1/projects/{slug}/seals/{day}/transaction": "?nonce=x",
    "GET /v1/audit": "?project=alpha",
    "GET /v1/projects/{slug}/uptime": "?day=2026-01-31",
    "GET /v1/projects/{slug}/points/suggested": "?day=2026-01-31",
    "GET /v1/projects/{slug}/points/suggested/preview": "?day=2026-01-31",
    "GET /v1/workloads/{workload_id}/why": "?day=2026-01-31",
}
_ROUTES = {f"{route.method} {route.path}": route for route in RESOURCES}


async def things(control: Control, name: str) -> dict[str, str]:
    """Alpha's and olga's things by the names that paths have for them, new."""
    alpha, now_ms = control.alpha.project_id, system_ms()
    new = NewNode(
        alpha,
        "n",
        "node",
        Ed25519PrivateKey.generate().public_key().public_bytes_raw(),
        60_000,
        ("w",),
        (control.kind_id,),
        control.users["olga"],
        "eu",
    )
    (node,) = await control.stores.directory.create_nodes([new], now_ms=now_ms)
    mine = name.startswith(("GET /v1/manager", "PUT /v1/manager"))
    channel = ("user_id", control.users["olga"]) if "/me/" in name else ("project_id", alpha)
    channel_id, key_id, window_id, delivery_id = (new_id() for _ in range(4))
    await control.sql(
        f"""
        insert into channel (channel_id, {channel[0]}, kind, target, created_ms)
        values ($1, $2, 'mail', $3, 1)
        """,
        channel_id,
        channel[1],
        "a@example.org",
    )
    await control.sql(
        "insert into notice (notice_id, form, kind, body, created_ms) values ($1, 'test', 'test', $2, 1)",
        delivery_id,
        msgspec.json.encode(
            {"notice_id": delivery_id, "form": "test", "kind": "test", "at_ms": 1, "since_ms": 1}
        ),
    )
    await control.sql(
        """
        insert into delivery (delivery_id, channel_id, notice_id, state, due_ms, created_ms)
        values ($1::text::uuid, $2, $1, 'dead', 1, 1)
        """,
        delivery_id,
        channel_id,
    )
    await control.sql(
        """
        insert into api_key (key_id, key_sha256, scope, project_id, name, created_ms)
        values ($1, $2, 'project', $3, '', 1)
        """,
        key_id,
        hashlib.sha256(key_id.encode()).digest(),
        alpha,
    )
    await control.sql(
        """
        insert into maintenance_window (window_id, node_id, from_ms, to_ms, own, created_ms)
        values ($1, $2, $3, $4, true, 1)
        """,
        window_id,
        node.node_id,
        now_ms + 3_600_000,
        now_ms + 3_660_000,
    )
    return {
        "slug": "alpha",
        "node_id": node.node_id,
        "workload_id": control.node.workload_ids[0] if mine else node.workload_ids[0],
        # None of the callers: an owner is seen as one for up to a second after that has ended.
        "user_id": control.user_id if "/owners/" in name else control.users["olga"],
        "kind": "gpu",
        "version": "1.0.0",
        "file": "none.zip",
        "channel_id": channel_id,
        "delivery_id": delivery_id,
        "key_id": key_id,
        "collection_id": control.collection_id,
        "licence_id": control.licence_id,
        "commit_id": control.commit_id,
        "dispute_id": await _dispute(control, node) if "dispute_id" in name else "",
        "window_id": window_id,
        "day": await _sealed_day(control) if "{day}" in name else "",
        "correction_id": await _correction(control) if "{correction_id}" in name else "",
    }


async def _correction(control: Control) -> str:
    """Of the sealed day, not carried out yet."""
    correction_id = new_id()
    await control.sql(
        """
        insert into seal_correction (correction_id, project_id, day, reason, actor, granted, asked_ms)
        values ($1, $2, '2026-01-31', 'late gap', 'test', '[]', 1)
        """,
        correction_id,
        control.alpha.project_id,
    )
    return correction_id


async def _dispute(control: Control, node: NodeRecord) -> str:
    """One that olga opened, of a day that was sealed."""
    await _sealed_day(control)
    dispute_id = new_id()
    await control.sql(
        """
        insert into dispute (dispute_id, project_id, node_id, workload_id, day, revision, opener_id,
          opened_ms, changed_ms) values ($1, $2, $3, $4, '2026-01-31', 1, $5, 1, 1)
        """,
        dispute_id,
        control.alpha.project_id,
        node.node_id,
        node.workload_ids[0],
        control.users["olga"],
    )
    return dispute_id


async def _sealed_day(control: Control) -> str:
    """A day of alpha that was sealed without any rows."""
    await control.sql(
        """
        insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots,
          sealed_ms, node_blocks)
        values (1, $1, '2026-01-31', 1, 0, 0, 0, $2, $3, 1, '') on conflict do nothing
        """,
        control.alpha.project_id,
        bytes(32),
        bytes(24 * 32),
    )
    return "2026-01-31"


async def prepare(control: Control) -> None:
    """What is not ended by anybody: a kind with a version, a release, a collection with olga's licence."""
    made = await control.ask("POST", "/v1/projects/alpha/kinds", json={"slug": "gpu"})
    control.kind_id = made.json["kind_id"]
    version = {"version": "1.0.0", "manifest": "{}", "rollout_percent": 100}
    assert (await control.ask("POST", "/v1/projects/alpha/kinds/gpu/versions", json=version)).status == 201
    await control.sql(
        "update workload set kind_id = $1 where workload_id = $2",
        control.kind_id,
        control.node.workload_ids[0],
    )
    release = _body(_ROUTES["POST /v1/releases"], "1.0.0") | {"version": "1.0.0", "rollout_percent": 100}
    assert (await control.ask("POST", "/v1/releases", json=release)).status == 201
    control.collection_id, control.licence_id = new_id(), new_id()
    await control.sql(
        """
        insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
        values ($1, $2, 1, $3, 'erc721', 'c', 1)
        """,
        control.collection_id,
        control.alpha.project_id,
        "0x" + "1" * 40,
    )
    await control.sql(
        """
        insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)
        values ($1, $2, $3, 7, $4, 1)
        """,
        control.licence_id,
        control.collection_id,
        control.alpha.project_id,
        WALLET,
    )
    control.user_id = new_id()
    await control.sql(
        "insert into account (user_id, name, email, created_ms) values ($1, 'nora', 'nora@example.org', 1)",
        control.user_id,
    )
    control.commit_id = new_id()
    await control.sql(
        """
        insert into points_commit (commit_id, project_id, day, idempotency_key, body_sha256, rows,
          total_micro_points, committed_ms) values ($1, $2, '2020-01-01', 'k', '', 0, 0, 1)
        """,
        control.commit_id,
        control.alpha.project_id,
    )
    await control.add_key(
        "reader", scope="project", project_id=control.alpha.project_id, permissions=("read",)
    )


def _body(route: Route, salt: str) -> Any:
    """The example of the route's body, about things that are there, new for each cell."""
    if route.body is None:
        return None
    body: dict[str, Any] = example_of(route.body)
    left_out = {"licence_id", "owner_id", "user_id", "minimum_version", "retired", "own"}
    changes: dict[str, Any] = {
        "project": "alpha",
        "public_key": Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
        "workloads": [],
        "email": f"{hashlib.sha256(salt.encode()).hexdigest()[:12]}@example.org",
    }
    if "channels" in route.path:
        changes |= {"kind": "mail", "target": "a@example.org"}
    elif "workloads" in route.path:
        changes["kind"] = "gpu"
    if "/me" in route.path or "users" in route.path:
        left_out.add("wallet")
    return {name: changes.get(name, value) for name, value in body.items() if name not in left_out}


def _symbol(status: int, problem: Any) -> str:
    """How an answer is written in the table."""
    code = problem.get("code") if isinstance(problem, dict) else None
    return {401: "1", 403: "3", 404: "4"}.get(status, "." if status < 500 else f"({status} {code})")


async def test_every_route_answers_every_caller_as_the_table_says(control: Control) -> None:
    await prepare(control)
    wrong: list[str] = []
    for name, expected in EXPECTED.items():
        route = _ROUTES[name]
        found = ""
        for caller, symbol in zip(CALLERS, expected, strict=True):
            there = await things(control, name)
            path = re.sub(r"\{(\w+)\}", lambda match, of=there: of[match[1]], route.path)
            answer = await control.ask(
                route.method, path + QUERY.get(name, ""), by=caller, json=_body(route, f"{name}{caller}")
            )
            found += "-" if symbol == "-" and answer.status < 500 else _symbol(answer.status, answer.json)
        if found != expected:
            wrong.append(f"{name}: {found} instead of {expected}")
    assert wrong == [], "\n".join(wrong)


def test_the_table_has_every_route_and_no_other() -> None:
    assert EXPECTED.keys() | ELSEWHERE == POLICIES.keys()
    assert not EXPECTED.keys() & ELSEWHERE


def test_the_table_can_be_wrong() -> None:
    assert [_symbol(status, None) for status in (200, 422, 401, 403, 404)] == [".", ".", "1", "3", "4"]
    assert _symbol(500, msgspec.json.decode(b'{"code": "internal"}')) == "(500 internal)"
