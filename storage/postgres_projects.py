"""Projects, their owners and their policies in PostgreSQL.

Every change ends with its audit entry. Finding a project by its slug for who calls is the directory's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec

from engine.core.catalog import (
    DEFAULT_POLICY,
    CatalogRefusedError,
    OwnerRecord,
    PolicyRecord,
    ProjectRecord,
    RewardRule,
    TakenError,
    UptimeSource,
)
from engine.core.people import Act
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit

NO_ID = "00000000-0000-0000-0000-000000000000"
_COLUMNS = "project_id::text, slug, name, created_ms, retired_ms, public_status"
_PROJECT = f"select {_COLUMNS} from project"
_POLICY = """
select effective_from, revision, uptime_source, pay_claims, reward, created_ms, actor from project_policy
"""


class PostgresProjects:
    """engine.core.catalog.Projects on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def project(self, project_id: str) -> ProjectRecord | None:
        return await self._db.run(_project, project_id) if is_id(project_id) else None

    async def projects(
        self, *, only: Sequence[str] | None, after: str | None, limit: int
    ) -> list[ProjectRecord]:
        return await self._db.run(_projects, only, after or NO_ID, limit)

    async def create_project(self, act: Act, *, slug: str, name: str) -> ProjectRecord:
        return await self._db.run(_create_project, act, slug, name)

    async def change_project(
        self,
        act: Act,
        project_id: str,
        *,
        name: str | None = None,
        retired: bool | None = None,
        public_status: bool | None = None,
    ) -> ProjectRecord | None:
        if not is_id(project_id):
            return None
        return await self._db.run(_change_project, act, project_id, name, retired, public_status)

    async def owners(self, project_id: str, *, after: str | None, limit: int) -> list[OwnerRecord]:
        return await self._db.run(_owners, project_id, after or NO_ID, limit) if is_id(project_id) else []

    async def add_owner(self, act: Act, project_id: str, user_id: str) -> OwnerRecord | None:
        return await self._db.run(_add_owner, act, project_id, user_id) if is_id(user_id) else None

    async def remove_owner(self, act: Act, project_id: str, user_id: str) -> bool:
        return await self._db.run(_remove_owner, act, project_id, user_id) if is_id(user_id) else False

    async def policies(self, project_id: str) -> list[PolicyRecord]:
        return await self._db.run(_policies, project_id) if is_id(project_id) else []

    async def add_policy(
        self,
        act: Act,
        project_id: str,
        *,
        effective_from: date,
        today: date,
        uptime_source: UptimeSource,
        pay_claims: bool,
        reward: RewardRule,
    ) -> PolicyRecord:
        new = PolicyRecord(effective_from, 0, uptime_source, pay_claims, reward, act.now_ms, act.actor)
        return await self._db.run(_add_policy, act, project_id, new, today)

    async def policy_at(self, project_id: str, day: date) -> PolicyRecord:
        return await self._db.run(_policy_at, project_id, day) if is_id(project_id) else DEFAULT_POLICY


async def _project(connection: Connection, project_id: str) -> ProjectRecord | None:
    record = await connection.fetchrow(f"{_PROJECT} where project_id = $1", project_id)
    return ProjectRecord(*record) if record else None


async def _projects(
    connection: Connection, only: Sequence[str] | None, after: str, limit: int
) -> list[ProjectRecord]:
    records = await connection.fetch(
        f"""{_PROJECT}
        where project_id > $1 {"and project_id = any($3::uuid[])" if only is not None else ""}
        order by project_id limit $2
        """,
        after,
        limit,
        *([list(only)] if only is not None else []),
    )
    return [ProjectRecord(*record) for record in records]


async def _create_project(connection: Connection, act: Act, slug: str, name: str) -> ProjectRecord:
    async with connection.transaction():
        made = await connection.fetchval(
            """
            insert into project (project_id, slug, name, created_ms) values ($1, $2, $3, $4)
            on conflict do nothing returning true
            """,
            act.made_id,
            slug,
            name,
            act.now_ms,
        )
        project = await _project(connection, act.made_id)
        if project is None:
            raise TakenError(f"there is a project {slug} already")
        if made:
            await write_audit(
                connection,
                act,
                action="project.create",
                subject=act.made_id,
                project_id=act.made_id,
                detail={"slug": slug, "name": name},
            )
    return project


async def _change_project(
    connection: Connection,
    act: Act,
    project_id: str,
    name: str | None,
    retired: bool | None,
    public_status: bool | None,
) -> ProjectRecord | None:
    async with connection.transaction():
        record = await connection.fetchrow(
            f"""
            update project set name = coalesce($2, name), public_status = coalesce($5, public_status),
              retired_ms =
              case when $3 then coalesce(retired_ms, $4) when not $3 then null else retired_ms end
            where project_id = $1 returning {_COLUMNS}
            """,
            project_id,
            name,
            retired,
            act.now_ms,
            public_status,
        )
        changed = {"name": name, "retired": retired, "public_status": public_status}
        if record is not None and any(value is not None for value in changed.values()):
            await write_audit(
                connection,
                act,
                action="project.change",
                subject=project_id,
                project_id=project_id,
                detail={key: value for key, value in changed.items() if value is not None},
            )
    return ProjectRecord(*record) if record else None


async def _owners(connection: Connection, project_id: str, after: str, limit: int) -> list[OwnerRecord]:
    records = await connection.fetch(
        """
        select o.user_id::text, a.name, o.created_ms from project_owner o join account a using (user_id)
        where o.project_id = $1 and o.user_id > $2 order by o.user_id limit $3
        """,
        project_id,
        after,
        limit,
    )
    return [OwnerRecord(*record) for record in records]


async def _add_owner(connection: Connection, act: Act, project_id: str, user_id: str) -> OwnerRecord | None:
    async with connection.transaction():
        made = await connection.fetchval(
            """
            insert into project_owner (project_id, user_id, created_ms)
            select $1, user_id, $3 from account where user_id = $2 and retired_ms is null
            on conflict do nothing returning true
            """,
            project_id,
            user_id,
            act.now_ms,
        )
        record = await connection.fetchrow(
            """
            select o.user_id::text, a.name, o.created_ms from project_owner o join account a using (user_id)
            where o.project_id = $1 and o.user_id = $2
            """,
            project_id,
            user_id,
        )
        if made:
            await _audit_owner(connection, act, "project.add_owner", project_id, user_id)
    return OwnerRecord(*record) if record else None


async def _remove_owner(connection: Connection, act: Act, project_id: str, user_id: str) -> bool:
    async with connection.transaction():
        gone = await connection.fetchval(
            "delete from project_owner where project_id = $1 and user_id = $2 returning true",
            project_id,
            user_id,
        )
        if gone:
            await _audit_owner(connection, act, "project.remove_owner", project_id, user_id)
    return bool(gone)


async def _audit_owner(connection: Connection, act: Act, action: str, project_id: str, user_id: str) -> None:
    await write_audit(
        connection,
        act,
        action=action,
        subject=project_id,
        project_id=project_id,
        detail={"user_id": user_id},
    )


def _policy(record: Any) -> PolicyRecord:
    fields = dict(record)
    fields["reward"] = msgspec.json.decode(fields["reward"], type=RewardRule)
    return PolicyRecord(**fields)


async def _policies(connection: Connection, project_id: str) -> list[PolicyRecord]:
    records = await connection.fetch(
        f"{_POLICY} where project_id = $1 order by effective_from, revision", project_id
    )
    return [_policy(record) for record in records]


async def _policy_at(connection: Connection, project_id: str, day: date) -> PolicyRecord:
    record = await connection.fetchrow(
        f"""{_POLICY} where project_id = $1 and effective_from <= $2
        order by effective_from desc, revision desc limit 1
        """,
        project_id,
        day,
    )
    return _policy(record) if record else DEFAULT_POLICY


async def _add_policy(
    connection: Connection, act: Act, project_id: str, new: PolicyRecord, today: date
) -> PolicyRecord:
    async with connection.transaction():
        # Whoever decides at the same time comes after: the lock on the project makes one row of revisions.
        await connection.fetchval("select 1 from project where project_id = $1 for update", project_id)
        there = await _policies(connection, project_id)
        same_day = [one for one in there if one.effective_from == new.effective_from]
        newest = same_day[-1] if same_day else None
        if newest is not None and _decided(newest) == _decided(new):
            return newest
        if new.effective_from < today or (new.effective_from == today and there):
            raise CatalogRefusedError(
                "a policy begins tomorrow (UTC) at the earliest, a project's first one today"
            )
        made = msgspec.structs.replace(new, revision=newest.revision + 1 if newest else 1)
        await _insert_policy(connection, project_id, made)
        await write_audit(
            connection,
            act,
            action="project.decide_policy",
            subject=project_id,
            project_id=project_id,
            detail={
                "effective_from": made.effective_from.isoformat(),
                "revision": made.revision,
                **msgspec.to_builtins(_decided(made)),
            },
        )
    return made


def _decided(policy: PolicyRecord) -> dict[str, Any]:
    return {
        "uptime_source": policy.uptime_source,
        "pay_claims": policy.pay_claims,
        "reward": policy.reward,
    }


async def _insert_policy(connection: Connection, project_id: str, made: PolicyRecord) -> None:
    await connection.execute(
        """
        insert into project_policy
          (project_id, effective_from, revision, uptime_source, pay_claims, reward, created_ms, actor)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        project_id,
        made.effective_from,
        made.revision,
        made.uptime_source,
        made.pay_claims,
        msgspec.json.encode(made.reward, order="sorted").decode(),
        made.created_ms,
        made.actor,
    )
