"""Projects, keys, nodes and workloads in PostgreSQL.

Whatever an engine must hear of ends with `announce` (postgres_registry.py) in the same transaction; a node
without session or capability is nothing to an engine yet. Opening a session is in postgres_sessions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engine.core.people import Act, Principal, Scope
from engine.core.ports import NewNode, NodeRecord, NodeRefusedError, Project, WorkloadRecord
from engine.core.records import RowSpec, SessionSpec, Window
from engine.core.timing import SLOTS_MAX
from storage import postgres_nodes as sql
from storage import postgres_principals
from storage.gather import Gather
from storage.ids import is_id, new_id
from storage.pool import Connection, Postgres
from storage.postgres_new_nodes import create_nodes
from storage.postgres_sessions import BATCH_MAX, Opened, Request, open_sessions
from storage.postgres_signed import RATE_WINDOW_MS
from storage.postgres_windows import open_window


class PostgresDirectory:
    """engine.core.ports.Directory on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db
        self._sessions: Gather[Request, Opened | Exception] = Gather(
            partial(db.run, open_sessions), key=lambda request: request.node_id, size_max=BATCH_MAX
        )
        # After an outage a whole fleet asks at once: one by one they would wait for a connection in vain.
        self._nodes: Gather[str, NodeRecord | None] = Gather(
            partial(db.run, sql.read_nodes), key=lambda _node_id: object(), size_max=BATCH_MAX
        )

    async def principal(self, key_sha256: bytes, *, now_ms: int) -> Principal | None:
        return await self._db.run(postgres_principals.of_secret, key_sha256, now_ms)

    async def manager(self, row: int, generation: int, *, now_ms: int) -> Principal | None:
        return await self._db.run(postgres_principals.of_session, row, generation, now_ms)

    async def project(self, slug: str) -> Project | None:
        return await self._db.run(_project, slug)

    async def node(self, node_id: str) -> NodeRecord | None:
        return await self._nodes.ask(node_id) if is_id(node_id) else None

    async def workload(self, workload_id: str) -> WorkloadRecord | None:
        return await self._db.run(sql.read_workload, workload_id) if is_id(workload_id) else None

    async def workloads_of_project(self, project_id: str, ids: Sequence[str]) -> dict[str, WorkloadRecord]:
        known = [workload_id for workload_id in ids if is_id(workload_id)]
        return await self._db.run(sql.workloads_of_project, project_id, known) if is_id(project_id) else {}

    async def open_session(
        self,
        node_id: str,
        *,
        nonce: str,
        nonce_expires_ms: int,
        rate_per_min: int,
        now_ms: int,
        life_ms: int,
        secret_id: int,
        manager_version: str = "",
        client_address: str = "",
    ) -> tuple[RowSpec, SessionSpec, int]:
        if not is_id(node_id):
            raise NodeRefusedError(f"no node {node_id}")
        opened = await self._sessions.ask(
            Request(
                node_id,
                nonce,
                nonce_expires_ms,
                rate_per_min,
                now_ms,
                life_ms,
                secret_id,
                manager_version,
                client_address,
            )
        )
        if isinstance(opened, Exception):
            raise opened
        return opened

    async def create_project(self, slug: str, *, now_ms: int) -> Project:
        return await self._db.run(_create_project, slug, now_ms)

    async def create_key(
        self, *, scope: Scope, project_id: str | None, key_sha256: bytes, name: str, now_ms: int
    ) -> str:
        key_id = new_id()
        await self._db.run(_create_key, key_id, key_sha256, scope, project_id, name, now_ms)
        return key_id

    async def revoke_key(self, key_id: str, *, now_ms: int) -> bool:
        return await self._db.run(_revoke_key, key_id, now_ms) if is_id(key_id) else False

    async def create_nodes(
        self, nodes: Sequence[NewNode], *, now_ms: int, act: Act | None = None
    ) -> list[NodeRecord]:
        assert all(len(node.workloads) <= SLOTS_MAX for node in nodes), "a row has 64 slots"
        return await self._db.run(create_nodes, nodes, now_ms, act)

    async def add_workload(self, node_id: str, *, name: str, now_ms: int) -> WorkloadRecord:
        if not is_id(node_id):
            raise NodeRefusedError(f"no node {node_id}")
        return await self._db.run(sql.add_workload, node_id, name, now_ms)

    async def retire_workload(self, workload_id: str, *, now_ms: int) -> bool:
        return await self._db.run(sql.retire_workload, workload_id, now_ms) if is_id(workload_id) else False

    async def revoke_node(self, node_id: str, *, now_ms: int) -> int | None:
        return await self._db.run(sql.revoke_node, node_id, now_ms) if is_id(node_id) else None

    async def rotate_capability(
        self, node_id: str, *, now_ms: int, act: Act | None = None
    ) -> tuple[NodeRecord, int]:
        if not is_id(node_id):
            raise NodeRefusedError(f"no node {node_id}")
        return await self._db.run(sql.rotate_capability, node_id, now_ms, act)

    async def open_window(
        self,
        node_id: str,
        workload_id: str | None,
        *,
        from_ms: int,
        to_ms: int,
        own: bool,
        now_ms: int,
        update: bool = False,
        act: Act | None = None,
    ) -> Window:
        if not is_id(node_id) or not (workload_id is None or is_id(workload_id)):
            raise NodeRefusedError(f"no node {node_id} with a workload {workload_id}")
        window = Window(new_id() if act is None else act.made_id, workload_id, from_ms, to_ms, own)
        return await self._db.run(open_window, node_id, window, update, now_ms, act)

    async def list_nodes(self, project_id: str | None, *, after: str | None, limit: int) -> list[NodeRecord]:
        if project_id is not None and not is_id(project_id):
            return []
        return await self._db.run(sql.list_nodes, project_id, after, limit)

    async def prune(self, *, now_ms: int, limit: int) -> int:
        return await self._db.run(_prune, now_ms, limit)


async def _project(connection: Connection, slug: str) -> Project | None:
    record = await connection.fetchrow("select project_id::text, slug from project where slug = $1", slug)
    return Project(*record) if record else None


async def _create_project(connection: Connection, slug: str, now_ms: int) -> Project:
    await connection.execute(
        """
        insert into project (project_id, slug, created_ms) values ($1, $2, $3) on conflict (slug) do nothing
        """,
        new_id(),
        slug,
        now_ms,
    )
    project = await _project(connection, slug)
    assert project is not None  # projects are never deleted
    return project


async def _create_key(
    connection: Connection,
    key_id: str,
    key_sha256: bytes,
    scope: str,
    project_id: str | None,
    name: str,
    now_ms: int,
) -> None:
    await connection.execute(
        """
        insert into api_key (key_id, key_sha256, scope, project_id, name, created_ms)
        values ($1, $2, $3, $4, $5, $6)
        """,
        key_id,
        key_sha256,
        scope,
        project_id,
        name,
        now_ms,
    )


async def _revoke_key(connection: Connection, key_id: str, now_ms: int) -> bool:
    return bool(
        await connection.fetchval(
            """
            update api_key set revoked_ms = $2 where key_id = $1 and revoked_ms is null returning true
            """,
            key_id,
            now_ms,
        )
    )


async def _prune(connection: Connection, now_ms: int, limit: int) -> int:
    nonces = await connection.fetchval(
        """
        with gone as (delete from nonce where ctid = any(array(
          select ctid from nonce where expires_ms < $1 limit $2)) returning 1)
        select count(*) from gone
        """,
        now_ms,
        limit,
    )
    requests = await connection.fetchval(
        """
        with gone as (delete from signed_request where ctid = any(array(
          select ctid from signed_request where at_ms <= $1 limit $2)) returning 1)
        select count(*) from gone
        """,
        now_ms - RATE_WINDOW_MS,
        limit,
    )
    return int(nonces) + int(requests)
