"""The inventory in PostgreSQL, as people read and change it: collections, licences, owners, balances.

What the worker writes that follows the chain is in postgres_inventory_sync.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.inventory import (
    Balance,
    Collection,
    CollectionChange,
    CollectionExistsError,
    Licence,
    LicenceFilter,
    NewCollection,
    Ownership,
    check_preset,
)
from engine.core.people import Act
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit

_FIRST = "00000000-0000-0000-0000-000000000000"
COLLECTIONS = """
select collection_id::text, project_id::text, chain_id, contract, standard, name, subgraph_url, preset,
  created_ms, retired_ms, synced_block, synced_hash, block_ms, checked_ms, swept_ms, sync_error
from collection c
"""
_LICENCES = """
select l.licence_id::text, l.collection_id::text, l.project_id::text, l.token_id::text as token_id, l.owner,
  l.created_ms, l.retired_ms,
  array(select w.workload_id::text from workload w
    where w.licence_id = l.licence_id and w.retired_ms is null order by w.workload_id) as workload_ids
from licence l
"""
_OWNERS = "select licence_id::text, owner, from_ms, from_block, to_ms from ownership o"


class PostgresInventory:
    """engine.core.inventory.Inventory on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def collections(self, project_id: str, *, after: str | None, limit: int) -> list[Collection]:
        return await self._db.run(_collections, project_id, after, limit)

    async def collection(self, collection_id: str) -> Collection | None:
        return (await self.collections_by_id([collection_id])).get(collection_id)

    async def collections_by_id(self, ids: Sequence[str]) -> dict[str, Collection]:
        return await self._db.run(_collections_by_id, [each for each in ids if is_id(each)])

    async def add_collection(self, new: NewCollection, *, act: Act) -> Collection:
        check_preset(new.standard, new.preset)
        return await self._db.run(_add_collection, new, act)

    async def change_collection(
        self, collection_id: str, change: CollectionChange, *, act: Act
    ) -> Collection | None:
        return await self._db.run(_change_collection, collection_id, change, act)

    async def licences(self, which: LicenceFilter, *, after: str | None, limit: int) -> list[Licence]:
        return await self._db.run(_licences, which, after, limit)

    async def had_licences(self, project_id: str, at_ms: int) -> bool:
        return await self._db.run(_had_licences, project_id, at_ms)

    async def licence(self, licence_id: str) -> Licence | None:
        return await self._db.run(_licence, licence_id) if is_id(licence_id) else None

    async def owners(self, licence_id: str, *, after_ms: int, limit: int) -> list[Ownership]:
        return await self._db.run(_owners, licence_id, after_ms, limit)

    async def owner_at(self, licence_id: str, at_ms: int) -> Ownership | None:
        return await self._db.run(_owner_at, licence_id, at_ms)

    async def owners_during(
        self, licence_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[Ownership]]:
        return await self._db.run(_owners_during, licence_ids, from_ms, to_ms)

    async def balances(self, owner: str, *, after: str | None, limit: int) -> list[Balance]:
        return await self._db.run(_balances, owner, after, limit)


def collection_of(record: Any) -> Collection:
    return Collection(**dict(record))


def _licence_of(record: Any) -> Licence:
    fields = dict(record)
    return Licence(
        **fields | {"token_id": int(fields["token_id"]), "workload_ids": tuple(fields["workload_ids"])}
    )


def _ownership_of(record: Any) -> Ownership:
    return Ownership(**dict(record))


async def _collections(
    connection: Connection, project_id: str, after: str | None, limit: int
) -> list[Collection]:
    records = await connection.fetch(
        f"{COLLECTIONS} where project_id = $1 and collection_id > $2 order by collection_id limit $3",
        project_id,
        after or _FIRST,
        limit,
    )
    return [collection_of(record) for record in records]


async def _collections_by_id(connection: Connection, ids: list[str]) -> dict[str, Collection]:
    records = await connection.fetch(f"{COLLECTIONS} where collection_id = any($1::uuid[])", ids)
    return {record["collection_id"]: collection_of(record) for record in records}


async def _add_collection(connection: Connection, new: NewCollection, act: Act) -> Collection:
    async with connection.transaction():
        made = await connection.fetchval(
            """
            insert into collection (collection_id, project_id, chain_id, contract, standard, name,
              subgraph_url, preset, created_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            on conflict do nothing returning true
            """,
            act.made_id,
            new.project_id,
            new.chain_id,
            new.contract,
            new.standard,
            new.name,
            new.subgraph_url,
            new.preset,
            act.now_ms,
        )
        there = (await _collections_by_id(connection, [act.made_id])).get(act.made_id)
        if there is None:
            raise CollectionExistsError(f"{new.contract} of chain {new.chain_id} is in the inventory already")
        if made:
            await write_audit(
                connection,
                act,
                action="collection.create",
                subject=there.collection_id,
                project_id=there.project_id,
                detail={"chain_id": new.chain_id, "contract": new.contract, "standard": new.standard},
            )
    return there


async def _change_collection(
    connection: Connection, collection_id: str, change: CollectionChange, act: Act
) -> Collection | None:
    told = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
    async with connection.transaction():
        record = await connection.fetchrow(
            f"{COLLECTIONS} where collection_id = $1 for update", collection_id
        )
        if record is None:
            return None
        there = collection_of(record)
        retired = told.pop("retired", there.retired_ms is not None)
        changed = msgspec.structs.replace(
            there, **told, retired_ms=(there.retired_ms or act.now_ms) if retired else None
        )
        if changed == there:
            return there
        check_preset(changed.standard, changed.preset)
        if (changed.subgraph_url, changed.preset) != (there.subgraph_url, there.preset):
            # What another source knows is held against all of ours; what ours knows stands until then.
            changed = msgspec.structs.replace(changed, swept_ms=None, sync_error="")
        await connection.execute(
            """
            update collection set name = $2, subgraph_url = $3, preset = $4, retired_ms = $5, swept_ms = $6,
              sync_error = $7 where collection_id = $1
            """,
            collection_id,
            changed.name,
            changed.subgraph_url,
            changed.preset,
            changed.retired_ms,
            changed.swept_ms,
            changed.sync_error,
        )
        # Which URL is no business of the log: it may hold a key.
        fields = [
            name
            for name in ("name", "subgraph_url", "preset", "retired_ms")
            if getattr(changed, name) != getattr(there, name)
        ]
        await write_audit(
            connection,
            act,
            action="collection.change",
            subject=collection_id,
            project_id=there.project_id,
            detail={"changed": fields, "retired": changed.retired_ms is not None},
        )
    return changed


async def _licences(
    connection: Connection, which: LicenceFilter, after: str | None, limit: int
) -> list[Licence]:
    arguments: list[object] = [after or _FIRST, limit]

    def bind(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    conditions = ["l.licence_id > $1"]
    if which.projects is not None or which.seen_by is not None:
        seen = []
        if which.projects:
            seen.append(f"l.project_id = any({bind(list(which.projects))}::uuid[])")
        if which.seen_by is not None:
            seen.append(f"l.owner = {bind(which.seen_by)}")
        conditions.append(f"({' or '.join(seen) or 'false'})")
    for column in ("project_id", "owner", "collection_id"):
        value = getattr(which, column)
        if value is not None:
            conditions.append(f"l.{column} = {bind(value)}")
    if which.bound is not None:
        conditions.append(
            f"""{"" if which.bound else "not"} exists (select 1 from workload w
            where w.licence_id = l.licence_id and w.retired_ms is null)"""
        )
    records = await connection.fetch(
        f"{_LICENCES} where {' and '.join(conditions)} order by l.licence_id limit $2", *arguments
    )
    return [_licence_of(record) for record in records]


async def _had_licences(connection: Connection, project_id: str, at_ms: int) -> bool:
    return bool(
        await connection.fetchval(
            """
            select exists (select from collection where project_id = $1 and standard = 'erc721'
              and created_ms < $2 and (retired_ms is null or retired_ms >= $2))
            """,
            project_id,
            at_ms,
        )
    )


async def _licence(connection: Connection, licence_id: str) -> Licence | None:
    record = await connection.fetchrow(f"{_LICENCES} where l.licence_id = $1", licence_id)
    return _licence_of(record) if record else None


async def _owners(connection: Connection, licence_id: str, after_ms: int, limit: int) -> list[Ownership]:
    records = await connection.fetch(
        f"{_OWNERS} where licence_id = $1 and from_ms > $2 order by from_ms limit $3",
        licence_id,
        after_ms,
        limit,
    )
    return [_ownership_of(record) for record in records]


async def _owner_at(connection: Connection, licence_id: str, at_ms: int) -> Ownership | None:
    record = await connection.fetchrow(
        f"""{_OWNERS} where licence_id = $1 and from_ms <= $2 and (to_ms is null or to_ms > $2)
        order by from_ms desc limit 1""",
        licence_id,
        at_ms,
    )
    return _ownership_of(record) if record else None


async def _owners_during(
    connection: Connection, licence_ids: Sequence[str], from_ms: int, to_ms: int
) -> dict[str, list[Ownership]]:
    records = await connection.fetch(
        f"""{_OWNERS} where licence_id = any($1::uuid[]) and from_ms < $3 and (to_ms is null or to_ms > $2)
        order by licence_id, from_ms""",
        list(licence_ids),
        from_ms,
        to_ms,
    )
    found: dict[str, list[Ownership]] = {}
    for record in records:
        found.setdefault(record["licence_id"], []).append(_ownership_of(record))
    return found


async def _balances(connection: Connection, owner: str, after: str | None, limit: int) -> list[Balance]:
    records = await connection.fetch(
        """
        select collection_id::text, owner, amount::text as amount, block from balance
        where owner = $1 and collection_id > $2 and amount > 0 order by collection_id limit $3
        """,
        owner,
        after or _FIRST,
        limit,
    )
    return [Balance(**dict(record) | {"amount": int(record["amount"])}) for record in records]
