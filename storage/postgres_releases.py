"""Releases of the manager in PostgreSQL. Every change ends with its audit entry."""

from __future__ import annotations

from engine.core.catalog import ReleaseRecord, TakenError
from engine.core.people import Act
from engine.core.rollout import Offer, desired, offered
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit

_RELEASE = """
select version, url, sha256, signature, rollout_percent, created_ms, withdrawn_ms from manager_release
"""


class PostgresReleases:
    """engine.core.catalog.Releases on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def releases(self, *, after: str | None, limit: int) -> list[ReleaseRecord]:
        return await self._db.run(_releases, after or "", limit)

    async def create_release(
        self, act: Act, *, version: str, url: str, sha256: str, signature: str, rollout_percent: int
    ) -> ReleaseRecord:
        new = ReleaseRecord(version, url, sha256, signature, rollout_percent, act.now_ms, None)
        return await self._db.run(_create, act, new)

    async def change_release(
        self,
        act: Act,
        version: str,
        *,
        rollout_percent: int | None = None,
        withdrawn: bool | None = None,
    ) -> ReleaseRecord | None:
        return await self._db.run(_change, act, version, rollout_percent, withdrawn)

    async def release_for(self, node_id: str) -> ReleaseRecord | None:
        return await self._db.run(_release_for, node_id)


async def _releases(connection: Connection, after: str, limit: int) -> list[ReleaseRecord]:
    records = await connection.fetch(f"{_RELEASE} where version > $1 order by version limit $2", after, limit)
    return [ReleaseRecord(*record) for record in records]


async def _create(connection: Connection, act: Act, new: ReleaseRecord) -> ReleaseRecord:
    async with connection.transaction():
        made = await connection.fetchval(
            """
            insert into manager_release (version, url, sha256, signature, rollout_percent, created_ms)
            values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning true
            """,
            new.version,
            new.url,
            new.sha256,
            new.signature,
            new.rollout_percent,
            new.created_ms,
        )
        if not made:
            return await _same(connection, new)
        detail = {"url": new.url, "sha256": new.sha256, "rollout_percent": new.rollout_percent}
        await write_audit(connection, act, action="release.create", subject=new.version, detail=detail)
    return new


async def _same(connection: Connection, new: ReleaseRecord) -> ReleaseRecord:
    """What is there, if it is the same release: a request that was run before. TakenError."""
    there = ReleaseRecord(*await connection.fetchrow(f"{_RELEASE} where version = $1", new.version))
    if (there.url, there.sha256, there.signature) != (new.url, new.sha256, new.signature):
        raise TakenError(f"there is a release {new.version} already: what was published does not change")
    return there


async def _change(
    connection: Connection, act: Act, version: str, rollout_percent: int | None, withdrawn: bool | None
) -> ReleaseRecord | None:
    async with connection.transaction():
        record = await connection.fetchrow(
            """
            update manager_release set rollout_percent = coalesce($2, rollout_percent), withdrawn_ms =
              case when $3 then coalesce(withdrawn_ms, $4) when not $3 then null else withdrawn_ms end
            where version = $1
            returning version, url, sha256, signature, rollout_percent, created_ms, withdrawn_ms
            """,
            version,
            rollout_percent,
            withdrawn,
            act.now_ms,
        )
        changed = {"rollout_percent": rollout_percent, "withdrawn": withdrawn}
        told = {key: value for key, value in changed.items() if value is not None}
        if record is not None and told:
            await write_audit(connection, act, action="release.change", subject=version, detail=told)
    return ReleaseRecord(*record) if record else None


async def _release_for(connection: Connection, node_id: str) -> ReleaseRecord | None:
    records = await connection.fetch(
        f"{_RELEASE} where withdrawn_ms is null and rollout_percent > 0 order by version"
    )
    found = {record["version"]: ReleaseRecord(*record) for record in records}
    offers = offered(
        (Offer(one.version, one.version, one.rollout_percent) for one in found.values()), minimum=None
    )
    chosen = desired(offers, node_id)
    return None if chosen is None else found[chosen.version]
