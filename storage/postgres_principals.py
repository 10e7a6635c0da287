"""Credentials in PostgreSQL: whom an API key, a login or a session speaks for."""

from __future__ import annotations

from engine.core.people import PERMISSIONS, Principal
from engine.core.timing import GENERATION_OVERLAP_MS
from storage.pool import Connection

LAST_USED_EVERY_MS = 60_000  # how often the last use of a key is written down


async def of_secret(connection: Connection, secret_sha256: bytes, now_ms: int) -> Principal | None:
    """The principal of an API key or a login; None when it does not work (any more)."""
    record = await connection.fetchrow(
        """
        select k.key_id::text as id, k.scope, k.project_id::text, k.user_id::text, k.permissions,
          k.last_used_ms, k.expires_ms, a.admin, coalesce(a.retired_ms, p.retired_ms) is null as living,
          array(select o.project_id::text from project_owner o where o.user_id = k.user_id) as projects
        from api_key k left join account a using (user_id) left join project p using (project_id)
        where k.key_sha256 = $1 and k.revoked_ms is null and (k.expires_ms is null or k.expires_ms > $2)
        union all
        select l.login_id::text, 'user', null, l.user_id::text, $3::text[], $2, null, a.admin,
          a.retired_ms is null,
          array(select o.project_id::text from project_owner o where o.user_id = l.user_id)
        from login l join account a using (user_id)
        where l.token_sha256 = $1 and l.revoked_ms is null and l.expires_ms > $2
        """,
        secret_sha256,
        now_ms,
        list(PERMISSIONS),
    )
    if record is None or not record["living"]:
        return None
    if (record["last_used_ms"] or 0) <= now_ms - LAST_USED_EVERY_MS:
        await connection.execute(
            "update api_key set last_used_ms = greatest(last_used_ms, $2) where key_id = $1",
            record["id"],
            now_ms,
        )
    return Principal(
        key_id=record["id"],
        scope="admin" if record["admin"] else record["scope"],
        project_id=record["project_id"],
        user_id=record["user_id"],
        projects=tuple(record["projects"]),
        permissions=tuple(record["permissions"]),
        expires_ms=record["expires_ms"],
    )


async def of_session(connection: Connection, row: int, generation: int, now_ms: int) -> Principal | None:
    """The node whose session this is, while the session is honoured."""
    node_id = await connection.fetchval(
        """
        select n.node_id::text from node n
        join session s on s."row" = n."row"
        join lateral (select count(*) as number, max(newer.opened_ms) as opened_ms from session newer
          where newer."row" = n."row" and (newer.opened_ms, newer.generation) > (s.opened_ms, s.generation)
        ) later on true
        where n."row" = $1 and s.generation = $2 and n.revoked_ms is null and n.retired_ms is null
          and s.killed_ms is null and s.expires_ms > $3
          and (later.number = 0 or (later.number = 1 and later.opened_ms + $4 > $3))
        order by s.opened_ms desc limit 1
        """,
        row,
        generation,
        now_ms,
        GENERATION_OVERLAP_MS,
    )
    if node_id is None:
        return None
    return Principal(key_id=node_id, scope="manager", project_id=None, node_id=node_id)
