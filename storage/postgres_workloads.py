"""Workloads in PostgreSQL as people add, change and retire them, for postgres_registration.py.

Here also: which kinds and licences a workload may refer to. Each function is a transaction, or part of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.inventory import Licence, LicenceRefusedError, check_binding
from engine.core.people import Act
from engine.core.ports import NodeRefusedError, WorkloadRecord
from engine.core.registration import Asker, GoneError, NewWorkload, ReferenceRefusedError, WorkloadChange
from storage import postgres_nodes as sql
from storage.pool import Connection
from storage.postgres_audit import write_audit
from storage.postgres_bindings import bind, unbind
from storage.postgres_registry import announce
from storage.postgres_takeover import reserve, take, tell

_NOBODY = Asker(user_id=None, runs_project=False)


async def add_workload(
    connection: Connection, node_id: str, new: NewWorkload, act: Act, asker: Asker
) -> WorkloadRecord:
    licence_ids = [] if new.licence_id is None else [new.licence_id]
    async with connection.transaction():
        await reserve(connection, licence_ids, asker, node_id=node_id)
        await connection.execute("select 1 from node where node_id = $1 for update", node_id)
        [node] = await sql.read_nodes(connection, [node_id])
        if node is None or node.retired_ms is not None:
            raise GoneError("this node is retired")
        made = await sql.read_workload(connection, act.made_id)
        if made is not None:
            return made
        await must_live(connection, node.project_id)
        kind_id = await resolve(connection, node.project_id, new, asker, at="")
        taken = await take(connection, licence_ids, asker, operator_id=node.owner_id, now_ms=act.now_ms)
        try:
            made = await sql.add_workload(
                connection, node_id, new.name, act.now_ms, kind_id, new.licence_id, act.made_id
            )
        except NodeRefusedError as error:
            raise GoneError("this node is revoked: register a new one") from error
        detail = {"node_id": node_id, "slot": made.slot, **msgspec.structs.asdict(new)}
        await tell(connection, taken, act, by=made.workload_id)
        await _audit_workload(connection, act, "workload.add", made, detail)
    return made


async def change_workload(
    connection: Connection, workload_id: str, change: WorkloadChange, act: Act, asker: Asker
) -> WorkloadRecord:
    licence_ids = [change.licence_id] if isinstance(change.licence_id, str) else []
    async with connection.transaction():
        run = await _locked_workload(connection, workload_id, licence_ids, asker)
        if run.retired_ms is not None:
            raise GoneError("this workload is retired")
        changed: dict[str, Any] = {}
        if change.name is not None and change.name != run.name:
            changed["name"] = change.name
        if change.kind is not None and change.kind != run.kind:
            changed["kind"] = change.kind
            changed["kind_id"] = await _living_kind(connection, run.project_id, change.kind, at="")
        if change.licence_id is not msgspec.UNSET and change.licence_id != run.licence_id:
            changed["licence_id"] = change.licence_id
            await _must_fit(connection, run.project_id, change.licence_id, asker, at="")
        # Also when it was bound here already, by whoever runs the project: then the owner takes it now.
        taken = await take(connection, licence_ids, asker, operator_id=run.owner_id, now_ms=act.now_ms)
        if changed:
            run = await _write_change(connection, run, changed, act.now_ms)
        await tell(connection, taken, act, by=workload_id)
        if changed:
            changed.pop("kind_id", None)
            await _audit_workload(connection, act, "workload.change", run, changed)
        made = await sql.read_workload(connection, workload_id)
    assert made is not None
    return made


async def _write_change(
    connection: Connection, run: WorkloadRecord, changed: dict[str, Any], now_ms: int
) -> WorkloadRecord:
    run = msgspec.structs.replace(run, **changed)
    if "licence_id" in changed:
        await _rebind(connection, run, now_ms)
    await _write_workload(connection, run, of_another_kind="kind" in changed, now_ms=now_ms)
    if changed.keys() & {"kind", "licence_id"}:
        await announce(connection, [run.row], now_ms)
    return run


# Before the change. Within one millisecond the first stands: what came between held for no time.
_KIND_WAS = """
insert into workload_kind_was (workload_id, to_ms, kind_id)
select workload_id, greatest($2, (
  select max(to_ms) from workload_kind_was o where o.workload_id = w.workload_id)), kind_id
from workload w where workload_id = $1
on conflict do nothing
"""


async def _write_workload(
    connection: Connection, run: WorkloadRecord, *, of_another_kind: bool, now_ms: int
) -> None:
    if of_another_kind:
        await connection.execute(_KIND_WAS, run.workload_id, now_ms)
    await connection.execute(
        "update workload set name = $2, kind_id = $3, licence_id = $4 where workload_id = $1",
        run.workload_id,
        run.name,
        run.kind_id,
        run.licence_id,
    )
    if not of_another_kind:
        return
    # What ran so far was a version of another kind; and its manager shall hear that it is another now.
    await connection.execute(
        """
        update workload set running_version = null, running_reported_ms = null, below_minimum_ms = null
        where workload_id = $1
        """,
        run.workload_id,
    )
    await connection.execute("update node set resync = true where node_id = $1", run.node_id)


async def _rebind(connection: Connection, run: WorkloadRecord, now_ms: int) -> None:
    """The workload runs under another licence from now on, or under none."""
    await unbind(connection, [run.workload_id], "unbound", now_ms)
    if run.licence_id is not None:
        await bind(connection, [(run.workload_id, run.licence_id)], now_ms)


async def retire_workload(connection: Connection, workload_id: str, act: Act) -> WorkloadRecord:
    async with connection.transaction():
        run = await _locked_workload(connection, workload_id)
        if await sql.retire_workload(connection, workload_id, act.now_ms):
            await _audit_workload(connection, act, "workload.retire", run, {"node_id": run.node_id})
            run = msgspec.structs.replace(run, retired_ms=act.now_ms)
    return run


async def _locked_workload(
    connection: Connection, workload_id: str, licence_ids: Sequence[str] = (), asker: Asker = _NOBODY
) -> WorkloadRecord:
    """The workload as it is, its node locked to the end of the transaction, as for binding these licences."""
    node_id = await connection.fetchval(
        "select node_id::text from workload where workload_id = $1", workload_id
    )
    await reserve(connection, licence_ids, asker, node_id=node_id)
    await connection.execute("select 1 from node where node_id = $1 for update", node_id)
    run = await sql.read_workload(connection, workload_id)
    if run is None:
        raise GoneError("there is no such workload")
    return run


async def _audit_workload(
    connection: Connection, act: Act, action: str, run: WorkloadRecord, detail: dict[str, Any]
) -> None:
    await write_audit(
        connection, act, action=action, subject=run.workload_id, project_id=run.project_id, detail=detail
    )


# What is referred to


async def must_live(connection: Connection, project_id: str) -> None:
    """Locked against being retired meanwhile."""
    if await connection.fetchval(
        "select retired_ms is not null from project where project_id = $1 for share", project_id
    ):
        raise GoneError("this project is retired")


async def resolve(
    connection: Connection, project_id: str, run: NewWorkload, asker: Asker, *, at: str
) -> str | None:
    """The kind's id, if it is of one; the licence fits."""
    kind_id = None if run.kind is None else await _living_kind(connection, project_id, run.kind, at=at)
    await _must_fit(connection, project_id, run.licence_id, asker, at=at)
    return kind_id


async def _living_kind(connection: Connection, project_id: str, slug: str, *, at: str) -> str:
    kind_id: str | None = await connection.fetchval(
        """
        select kind_id::text from workload_kind
        where project_id = $1 and slug = $2 and retired_ms is null for key share
        """,
        project_id,
        slug,
    )
    if kind_id is None:
        raise ReferenceRefusedError("the project has no such kind of workload", f"{at}/kind")
    return kind_id


async def _must_fit(
    connection: Connection, project_id: str, licence_id: str | None, asker: Asker, *, at: str
) -> None:
    if licence_id is None:
        return
    record = await connection.fetchrow(
        """
        select licence_id::text, collection_id::text, project_id::text, token_id::text, owner, created_ms,
          retired_ms
        from licence where licence_id = $1
        """,
        licence_id,
    )
    wallet = await connection.fetchval("select wallet from account where user_id = $1", asker.user_id)
    try:
        check_binding(
            None if record is None else _licence(record),
            project_id=project_id,
            wallet=wallet,
            as_owner=asker.runs_project,
        )
    except LicenceRefusedError as error:
        raise ReferenceRefusedError(str(error), f"{at}/licence_id") from error


def _licence(fields: Sequence[Any]) -> Licence:
    licence_id, collection_id, project_id, token_id, owner, created_ms, retired_ms = fields
    return Licence(
        licence_id=licence_id,
        collection_id=collection_id,
        project_id=project_id,
        token_id=int(token_id),
        owner=owner,
        created_ms=created_ms,
        retired_ms=retired_ms,
    )
