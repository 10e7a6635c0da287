"""Nodes in PostgreSQL as people register, change and retire them.

Here: that a thing done twice is done once, and the audit entries. The statements that engines must hear of
are postgres_nodes.py's, shared with the command line and the sessions; workloads are postgres_workloads.py's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.people import Act
from engine.core.ports import NewNode, NodeRecord, WorkloadRecord
from engine.core.registration import (
    Asker,
    GoneError,
    KeyTakenError,
    NameTakenError,
    NewMachine,
    NewWorkload,
    NodeChange,
    OperatorRefusedError,
    ReferenceRefusedError,
    WorkloadChange,
)
from storage import postgres_nodes as sql
from storage import postgres_workloads as workloads
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_new_nodes import create_nodes
from storage.postgres_takeover import reserve, take, tell

_KEYS_LOCK = 0x4E50_0007  # of pg_advisory_xact_lock, held by whoever gives a node a public key

# Before the change. Within one millisecond the first stands: what came between held for no time.
_OWNER_WAS = """
insert into node_owner_was (node_id, to_ms, owner_id)
select node_id, greatest($2, (select max(to_ms) from node_owner_was o where o.node_id = n.node_id)), owner_id
from node n where node_id = $1
on conflict do nothing
"""


class PostgresRegistration:
    """engine.core.registration.Registration on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def register(self, new: NewMachine, *, act: Act, asker: Asker) -> NodeRecord:
        return await self._db.run(_register, new, act, asker)

    async def change_node(self, node_id: str, change: NodeChange, *, act: Act) -> NodeRecord:
        return await self._db.run(_change_node, node_id, change, act)

    async def rekey(self, node_id: str, public_key: bytes, *, act: Act) -> NodeRecord:
        return await self._db.run(_rekey, node_id, public_key, act)

    async def revoke(self, node_id: str, *, act: Act) -> NodeRecord:
        return await self._db.run(_revoke, node_id, act)

    async def retire_node(self, node_id: str, *, act: Act) -> NodeRecord:
        return await self._db.run(_retire_node, node_id, act)

    async def set_partner(self, node_id: str, partner_node_id: str, *, act: Act) -> NodeRecord:
        return await self._db.run(_set_partner, node_id, partner_node_id, act)

    async def add_workload(self, node_id: str, new: NewWorkload, *, act: Act, asker: Asker) -> WorkloadRecord:
        return await self._db.run(workloads.add_workload, node_id, new, act, asker)

    async def change_workload(
        self, workload_id: str, change: WorkloadChange, *, act: Act, asker: Asker
    ) -> WorkloadRecord:
        return await self._db.run(workloads.change_workload, workload_id, change, act, asker)

    async def retire_workload(self, workload_id: str, *, act: Act) -> WorkloadRecord:
        return await self._db.run(workloads.retire_workload, workload_id, act)


async def _register(connection: Connection, new: NewMachine, act: Act, asker: Asker) -> NodeRecord:
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _KEYS_LOCK)
        [made] = await sql.read_nodes(connection, [act.made_id])
        if made is not None:
            return made
        licence_ids = [run.licence_id for run in new.workloads if run.licence_id is not None]
        await reserve(connection, licence_ids, asker)
        await workloads.must_live(connection, new.project_id)
        await _must_be_free(connection, new.public_key)
        await _must_be_known(connection, new, asker)
        await _must_be_somebody(connection, new.owner_id)
        resolved = [
            await workloads.resolve(connection, new.project_id, run, asker, at=f"/workloads/{number}")
            for number, run in enumerate(new.workloads)
        ]
        node = NewNode(
            project_id=new.project_id,
            name=new.name,
            kind="node",
            public_key=new.public_key,
            interval_ms=new.interval_ms,
            workloads=tuple(run.name for run in new.workloads),
            kind_ids=tuple(resolved),
            owner_id=new.owner_id,
            region=new.region,
            licence_ids=tuple(run.licence_id for run in new.workloads),
            node_id=act.made_id,
        )
        taken = await take(connection, licence_ids, asker, operator_id=new.owner_id, now_ms=act.now_ms)
        [made] = await create_nodes(connection, [node], act.now_ms)
        assert made is not None
        await tell(connection, taken, act, by=made.node_id)
        detail = {
            "name": new.name,
            "public_key": new.public_key.hex(),
            "owner_id": new.owner_id,
            "region": new.region,
            "interval_ms": new.interval_ms,
            "workloads": [
                {"workload_id": workload_id, "kind": run.kind, "name": run.name, "licence_id": run.licence_id}
                for workload_id, run in zip(made.workload_ids, new.workloads, strict=True)
            ],
        }
        await _audit(connection, act, "node.register", made, detail)
    return made


async def _change_node(connection: Connection, node_id: str, change: NodeChange, act: Act) -> NodeRecord:
    async with connection.transaction():
        node = await _living_node(connection, node_id)
        wanted = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if (value is not None or name == "owner_id") and value is not msgspec.UNSET
        }
        changed = {name: value for name, value in wanted.items() if getattr(node, name) != value}
        if not changed:
            return node
        if changed.get("owner_id") is not None:
            await _must_be_somebody(connection, changed["owner_id"])
        if "owner_id" in changed:
            await connection.execute(_OWNER_WAS, node_id, act.now_ms)
        node = msgspec.structs.replace(node, **changed)
        await connection.execute(
            "update node set name = $2, region = $3, owner_id = $4 where node_id = $1",
            node_id,
            node.name,
            node.region,
            node.owner_id,
        )
        await _audit(connection, act, "node.change", node, changed)
    return node


async def _rekey(connection: Connection, node_id: str, public_key: bytes, act: Act) -> NodeRecord:
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _KEYS_LOCK)
        node = await _living_node(connection, node_id)
        if node.revoked:
            raise GoneError("this node is revoked for good: register a new one")
        if node.public_key == public_key:
            return node
        await _must_be_free(connection, public_key)
        await sql.rekey_node(connection, node_id, public_key, act.now_ms)
        before = "" if node.public_key is None else node.public_key.hex()
        await _audit(connection, act, "node.rekey", node, {"public_key": public_key.hex(), "before": before})
    return msgspec.structs.replace(node, public_key=public_key)


async def _revoke(connection: Connection, node_id: str, act: Act) -> NodeRecord:
    async with connection.transaction():
        node = await _locked_node(connection, node_id)
        if node.revoked:
            return node
        await sql.revoke_node(connection, node_id, act.now_ms)
        await _audit(connection, act, "node.revoke", node, {})
    return msgspec.structs.replace(node, revoked=True)


async def _retire_node(connection: Connection, node_id: str, act: Act) -> NodeRecord:
    async with connection.transaction():
        node = await _locked_node(connection, node_id)
        if await sql.retire_node(connection, node_id, act.now_ms):
            await _audit(connection, act, "node.retire", node, {"workload_ids": node.workload_ids})
        [node_now] = await sql.read_nodes(connection, [node_id])
    assert node_now is not None
    return node_now


async def _set_partner(connection: Connection, node_id: str, partner_node_id: str, act: Act) -> NodeRecord:
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _KEYS_LOCK)
        node = await _living_node(connection, node_id)
        if node.partner_node_id == partner_node_id:
            return node
        if await connection.fetchval("select true from node where partner_node_id = $1", partner_node_id):
            raise NameTakenError(f"another node is called {partner_node_id} there")
        await connection.execute(
            "update node set partner_node_id = $2 where node_id = $1", node_id, partner_node_id
        )
        await _audit(connection, act, "node.partner", node, {"partner_node_id": partner_node_id})
    return msgspec.structs.replace(node, partner_node_id=partner_node_id)


async def _locked_node(connection: Connection, node_id: str) -> NodeRecord:
    """The node as it is, locked to the end of the transaction."""
    await connection.execute("select 1 from node where node_id = $1 for update", node_id)
    [node] = await sql.read_nodes(connection, [node_id])
    if node is None:
        raise GoneError("there is no such node")
    return node


async def _living_node(connection: Connection, node_id: str) -> NodeRecord:
    node = await _locked_node(connection, node_id)
    if node.retired_ms is not None:
        raise GoneError("this node is retired")
    return node


async def _audit(
    connection: Connection, act: Act, action: str, node: NodeRecord, detail: dict[str, Any]
) -> None:
    await write_audit(
        connection, act, action=action, subject=node.node_id, project_id=node.project_id, detail=detail
    )


async def _must_be_free(connection: Connection, public_key: bytes) -> None:
    """Also of nodes that are revoked or retired: a key that was given up must not come back."""
    if await connection.fetchval("select true from node where public_key = $1 limit 1", public_key):
        raise KeyTakenError("a node has this public key")


async def _must_be_known(connection: Connection, new: NewMachine, asker: Asker) -> None:
    """Before it is looked at whether there is such a person: that is nobody's to find out here."""
    if asker.admin or new.owner_id in (None, asker.user_id):
        return
    known = await connection.fetchval(
        """
        select exists (
            select from node where project_id = $1 and owner_id = $2 and retired_ms is null)
          or exists (
            select from licence l join account a on a.wallet = l.owner
            where l.project_id = $1 and a.user_id = $2)
        """,
        new.project_id,
        new.owner_id,
    )
    if not known:
        raise OperatorRefusedError("this person operates no node of the project and owns no licence of it")


async def _must_be_somebody(connection: Connection, user_id: str | None) -> None:
    if user_id is not None and not await connection.fetchval(
        "select true from account where user_id = $1 and retired_ms is null for share", user_id
    ):
        raise ReferenceRefusedError("there is no such person", "/owner_id")
