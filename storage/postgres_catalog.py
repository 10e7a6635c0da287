"""Workload kinds and their versions in PostgreSQL.

Every change ends with its audit entry. What changes the desired state of nodes asks for a rollout in the same
transaction (postgres_rollouts.py); who changes a kind or its versions locks the kind's row first.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from engine.core.catalog import (
    VERSIONS_OFFERED_MAX,
    CatalogRefusedError,
    KindRecord,
    TakenError,
    VersionRecord,
)
from engine.core.people import Act
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_rollouts import ask_rollout
from storage.postgres_wanted import kinds_now

NO_ID = "00000000-0000-0000-0000-000000000000"
_KIND = """
select kind_id::text, project_id::text, slug, name, minimum_version, created_ms, retired_ms from workload_kind
"""
_VERSION = """
select version_id::text, kind_id::text, version, {manifest}, digest, rollout_percent, created_ms, withdrawn_ms
from workload_version
"""
_WITH_MANIFEST, _LISTED = _VERSION.format(manifest="manifest"), _VERSION.format(manifest="''")


class PostgresCatalog:
    """engine.core.catalog.Catalog on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def kinds(self, project_id: str, *, after: str | None, limit: int) -> list[KindRecord]:
        return await self._db.run(_kinds, project_id, after or NO_ID, limit) if is_id(project_id) else []

    async def kind(self, project_id: str, slug: str) -> KindRecord | None:
        return await self._db.run(_kind_of_slug, project_id, slug) if is_id(project_id) else None

    async def create_kind(self, act: Act, project_id: str, *, slug: str, name: str) -> KindRecord:
        return await self._db.run(_create_kind, act, project_id, slug, name)

    async def change_kind(
        self,
        act: Act,
        kind_id: str,
        *,
        name: str | None = None,
        minimum_version: str | msgspec.UnsetType | None = msgspec.UNSET,
        retired: bool | None = None,
    ) -> KindRecord | None:
        if not is_id(kind_id):
            return None
        return await self._db.run(_change_kind, act, kind_id, name, minimum_version, retired)

    async def versions(self, kind_id: str, *, after: str | None, limit: int) -> list[VersionRecord]:
        return await self._db.run(_versions, kind_id, after or NO_ID, limit) if is_id(kind_id) else []

    async def version(self, kind_id: str, version: str) -> VersionRecord | None:
        return await self._db.run(_version, kind_id, version) if is_id(kind_id) else None

    async def create_version(
        self, act: Act, kind_id: str, *, version: str, manifest: str, rollout_percent: int
    ) -> VersionRecord:
        return await self._db.run(_create_version, act, kind_id, version, manifest, rollout_percent)

    async def change_version(
        self,
        act: Act,
        version_id: str,
        *,
        rollout_percent: int | None = None,
        withdrawn: bool | None = None,
    ) -> VersionRecord | None:
        if not is_id(version_id):
            return None
        return await self._db.run(_change_version, act, version_id, rollout_percent, withdrawn)


def digest_of(manifest: str) -> str:
    """``sha256:<hex>`` of the UTF-8 bytes."""
    return f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"


# -- kinds ------------------------------------------------------------------------------------------------


async def _kinds(connection: Connection, project_id: str, after: str, limit: int) -> list[KindRecord]:
    records = await connection.fetch(
        f"{_KIND} where project_id = $1 and kind_id > $2 order by kind_id limit $3", project_id, after, limit
    )
    return [KindRecord(*record) for record in records]


async def _kind_of_slug(connection: Connection, project_id: str, slug: str) -> KindRecord | None:
    record = await connection.fetchrow(f"{_KIND} where project_id = $1 and slug = $2", project_id, slug)
    return KindRecord(*record) if record else None


async def _locked_kind(connection: Connection, kind_id: str) -> KindRecord | None:
    # Not `for update`: who puts a workload on a node refers to its kind with the node locked, the chunks of a
    # rollout lock nodes under their task, and we want the task next. Waiting for a reference closed the ring.
    record = await connection.fetchrow(f"{_KIND} where kind_id = $1 for no key update", kind_id)
    return KindRecord(*record) if record else None


async def _create_kind(connection: Connection, act: Act, project_id: str, slug: str, name: str) -> KindRecord:
    async with connection.transaction():
        made = await connection.fetchval(
            """
            insert into workload_kind (kind_id, project_id, slug, name, created_ms)
            values ($1, $2, $3, $4, $5) on conflict do nothing returning true
            """,
            act.made_id,
            project_id,
            slug,
            name,
            act.now_ms,
        )
        kind = await _kind_of_slug(connection, project_id, slug)
        if kind is None or kind.kind_id != act.made_id:
            raise TakenError(f"the project has a kind {slug} already")
        if made:
            await write_audit(
                connection,
                act,
                action="kind.create",
                subject=act.made_id,
                project_id=project_id,
                detail={"slug": slug, "name": name},
            )
    return kind


async def _change_kind(
    connection: Connection,
    act: Act,
    kind_id: str,
    name: str | None,
    minimum_version: str | msgspec.UnsetType | None,
    retired: bool | None,
) -> KindRecord | None:
    async with connection.transaction():
        kind = await _locked_kind(connection, kind_id)
        if kind is None:
            return None
        retired_ms = kind.retired_ms
        if retired is not None:
            retired_ms = (kind.retired_ms or act.now_ms) if retired else None
        new = msgspec.structs.replace(
            kind,
            name=kind.name if name is None else name,
            minimum_version=kind.minimum_version if minimum_version is msgspec.UNSET else minimum_version,
            retired_ms=retired_ms,
        )
        if new == kind:
            return kind
        if new.minimum_version is not None and new.minimum_version != kind.minimum_version:
            await _must_be_offered(connection, kind_id, new.minimum_version)
        before = (await kinds_now(connection, [kind_id]))[kind_id].offers
        await connection.execute(
            "update workload_kind set name = $2, minimum_version = $3, retired_ms = $4 where kind_id = $1",
            kind_id,
            new.name,
            new.minimum_version,
            new.retired_ms,
        )
        if new.minimum_version != kind.minimum_version:
            await ask_rollout(connection, kind_id, before=before, now_ms=act.now_ms)
        await write_audit(
            connection,
            act,
            action="kind.change",
            subject=kind_id,
            project_id=kind.project_id,
            detail={
                field: getattr(new, field)
                for field in ("name", "minimum_version", "retired_ms")
                if getattr(new, field) != getattr(kind, field)
            },
        )
    return new


async def _must_be_offered(connection: Connection, kind_id: str, version: str) -> None:
    found = await _version(connection, kind_id, version)
    if found is None or found.withdrawn_ms is not None:
        raise CatalogRefusedError(
            f"version {version} is not there, or is withdrawn: it cannot be the minimum"
        )


# -- versions ---------------------------------------------------------------------------------------------


async def _versions(connection: Connection, kind_id: str, after: str, limit: int) -> list[VersionRecord]:
    records = await connection.fetch(
        f"{_LISTED} where kind_id = $1 and version_id > $2 order by version_id limit $3",
        kind_id,
        after,
        limit,
    )
    return [VersionRecord(*record) for record in records]


async def _version(connection: Connection, kind_id: str, version: str) -> VersionRecord | None:
    record = await connection.fetchrow(
        f"{_WITH_MANIFEST} where kind_id = $1 and version = $2", kind_id, version
    )
    return VersionRecord(*record) if record else None


async def _create_version(
    connection: Connection, act: Act, kind_id: str, version: str, manifest: str, rollout_percent: int
) -> VersionRecord:
    async with connection.transaction():
        kind = await _locked_kind(connection, kind_id)
        assert kind is not None  # kinds are never deleted
        there = await _version(connection, kind_id, version)
        if there is not None:
            if there.version_id == act.made_id:
                return there
            raise TakenError(f"there is a version {version} already: what was offered does not change")
        if kind.retired_ms is not None:
            raise CatalogRefusedError("this kind is retired")
        await _must_have_room(connection, kind_id)
        before = (await kinds_now(connection, [kind_id]))[kind_id].offers
        new = VersionRecord(
            act.made_id, kind_id, version, manifest, digest_of(manifest), rollout_percent, act.now_ms, None
        )
        await _insert_version(connection, new)
        if rollout_percent:
            await ask_rollout(connection, kind_id, before=before, now_ms=act.now_ms)
        await write_audit(
            connection,
            act,
            action="version.create",
            subject=new.version_id,
            project_id=kind.project_id,
            detail={
                "kind": kind.slug,
                "version": version,
                "digest": new.digest,
                "rollout_percent": rollout_percent,
            },
        )
    return new


async def _must_have_room(connection: Connection, kind_id: str) -> None:
    offered = await connection.fetchval(
        "select count(*) from workload_version where kind_id = $1 and withdrawn_ms is null", kind_id
    )
    if offered >= VERSIONS_OFFERED_MAX:
        raise CatalogRefusedError(f"a kind has at most {VERSIONS_OFFERED_MAX} versions: withdraw old ones")


async def _insert_version(connection: Connection, new: VersionRecord) -> None:
    await connection.execute(
        """
        insert into workload_version
          (version_id, kind_id, version, manifest, digest, rollout_percent, created_ms)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        new.version_id,
        new.kind_id,
        new.version,
        new.manifest,
        new.digest,
        new.rollout_percent,
        new.created_ms,
    )


async def _change_version(
    connection: Connection, act: Act, version_id: str, rollout_percent: int | None, withdrawn: bool | None
) -> VersionRecord | None:
    async with connection.transaction():
        kind_id = await connection.fetchval(
            "select kind_id::text from workload_version where version_id = $1", version_id
        )
        kind = await _locked_kind(connection, kind_id) if kind_id else None
        record = await connection.fetchrow(f"{_WITH_MANIFEST} where version_id = $1", version_id)
        if kind is None or record is None:
            return None
        old = VersionRecord(*record)
        new = _changed(old, act, rollout_percent, withdrawn)
        if new == old:
            return old
        if new.withdrawn_ms is not None and new.version == kind.minimum_version:
            raise CatalogRefusedError("this is the kind's minimum version: choose another minimum first")
        if old.withdrawn_ms is not None and new.withdrawn_ms is None:
            await _must_have_room(connection, old.kind_id)
        await _apply(connection, act, kind, old, new)
    return new


def _changed(
    old: VersionRecord, act: Act, rollout_percent: int | None, withdrawn: bool | None
) -> VersionRecord:
    withdrawn_ms = old.withdrawn_ms
    if withdrawn is not None:
        withdrawn_ms = (old.withdrawn_ms or act.now_ms) if withdrawn else None
    percent = old.rollout_percent if rollout_percent is None else rollout_percent
    return msgspec.structs.replace(old, rollout_percent=percent, withdrawn_ms=withdrawn_ms)


async def _apply(
    connection: Connection, act: Act, kind: KindRecord, old: VersionRecord, new: VersionRecord
) -> None:
    before = (await kinds_now(connection, [new.kind_id]))[new.kind_id].offers
    await connection.execute(
        "update workload_version set rollout_percent = $2, withdrawn_ms = $3 where version_id = $1",
        new.version_id,
        new.rollout_percent,
        new.withdrawn_ms,
    )
    await ask_rollout(connection, new.kind_id, before=before, now_ms=act.now_ms)
    detail: dict[str, Any] = {"kind": kind.slug, "version": new.version}
    for field in ("rollout_percent", "withdrawn_ms"):
        if getattr(new, field) != getattr(old, field):
            detail[field] = getattr(new, field)
    await write_audit(
        connection,
        act,
        action="version.change",
        subject=new.version_id,
        project_id=kind.project_id,
        detail=detail,
    )
