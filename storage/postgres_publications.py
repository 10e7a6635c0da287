"""Publications of roots in PostgreSQL: entered for each seal and target, claimed with a lease, settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core.publication import Publication
from engine.core.sealed import Seal
from storage.pool import Connection, Postgres
from storage.postgres_seals import SEAL, seal_of

_COLUMNS = "seal_no, target, state, attempts, due_ms, note, prepared, changed_ms"


class PostgresPublications:
    """engine.core.publication.Publications on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def fill(self, targets: Sequence[str], *, now_ms: int) -> int:
        return await self._db.run(_fill, targets, now_ms)

    async def claim(self, target: str, *, now_ms: int, lease_ms: int) -> tuple[Seal, Publication] | None:
        return await self._db.run(_claim, target, now_ms, lease_ms)

    async def done(self, claimed: Publication, *, note: str, prepared: str | None, now_ms: int) -> None:
        await self._db.run(_done, claimed, note, prepared, now_ms)

    async def failed(self, claimed: Publication, *, note: str, due_ms: int, now_ms: int) -> None:
        await self._db.run(_failed, claimed, note, due_ms, now_ms)

    async def of_seal(self, seal_no: int) -> list[Publication]:
        return await self._db.run(_of_seal, seal_no)


def _publication(record: Any) -> Publication:
    return Publication(**dict(zip(Publication.__struct_fields__, record, strict=True)))


async def _fill(connection: Connection, targets: Sequence[str], now_ms: int) -> int:
    told: str = await connection.execute(
        """
        insert into root_publication (seal_no, target, due_ms, changed_ms)
        select s.seal_no, t.target, $2, $2 from seal s cross join unnest($1::text[]) as t (target)
        where not exists (
          select 1 from root_publication p where p.seal_no = s.seal_no and p.target = t.target)
        on conflict do nothing
        """,
        list(targets),
        now_ms,
    )
    return int(told.split()[-1])


async def _claim(
    connection: Connection, target: str, now_ms: int, lease_ms: int
) -> tuple[Seal, Publication] | None:
    async with connection.transaction():
        record = await connection.fetchrow(
            f"""
            update root_publication set attempts = attempts + 1, due_ms = $2 + $3::bigint, changed_ms = $2
            where target = $1 and seal_no = (
              select seal_no from root_publication
              where target = $1 and state = 'due' and due_ms <= $2
              order by seal_no limit 1 for update skip locked)
            returning {_COLUMNS}
            """,
            target,
            now_ms,
            lease_ms,
        )
        if record is None:
            return None
        claimed = _publication(record)
        seal = await connection.fetchrow(f"{SEAL} where s.seal_no = $1", claimed.seal_no)
    return seal_of(seal), claimed


async def _done(
    connection: Connection, claimed: Publication, note: str, prepared: str | None, now_ms: int
) -> None:
    await connection.execute(
        """
        update root_publication set state = 'done', note = $3, prepared = $4, changed_ms = $5
        where seal_no = $1 and target = $2
        """,
        claimed.seal_no,
        claimed.target,
        note,
        prepared,
        now_ms,
    )


async def _failed(connection: Connection, claimed: Publication, note: str, due_ms: int, now_ms: int) -> None:
    """`attempts` tells whether it is still ours: each claim counts it up."""
    await connection.execute(
        """
        update root_publication set note = $3, due_ms = $4, changed_ms = $5
        where seal_no = $1 and target = $2 and state = 'due' and attempts = $6
        """,
        claimed.seal_no,
        claimed.target,
        note,
        due_ms,
        now_ms,
        claimed.attempts,
    )


async def _of_seal(connection: Connection, seal_no: int) -> list[Publication]:
    records = await connection.fetch(
        f"select {_COLUMNS} from root_publication where seal_no = $1 order by target", seal_no
    )
    return [_publication(record) for record in records]
