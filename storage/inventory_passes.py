"""The SQL that brings the books to what a pass has seen: owners of tokens, and balances.

Runs inside the transaction of postgres_inventory_sync.py. All is done over sets: what was seen travels by
COPY into a temporary table (kept empty between transactions), and only what differs from the books goes on.
The rules are those of docs/decisions/0051-ownership.md.
"""

from __future__ import annotations

from engine.core.inventory import Applied, Collection, Pass, Purse, Token
from storage.ids import new_id
from storage.pool import Connection
from storage.postgres_bindings import say_sold

_TABLES = """
create temp table if not exists seen_token (
  token_id numeric(78, 0) primary key, owner text, again boolean not null) on commit delete rows;
create temp table if not exists seen_purse (
  owner text primary key, amount numeric(78, 0) not null, again boolean not null) on commit delete rows;
create temp table if not exists turned (
  licence_id uuid primary key, owner text, was text, back boolean not null) on commit delete rows;
create temp table if not exists taken_back (
  licence_id uuid primary key, from_ms bigint not null) on commit delete rows;
"""
# Whether blocks were taken back: our books say that it changed hands, the chain says that it did not.
_FORK = """
select exists (select 1 from seen_token s join licence l on l.collection_id = $1 and l.token_id = s.token_id
  where s.again and s.owner <> l.owner)
"""
# Licences whose owner is another than our books say. `back`: what they tell after $3 may never have been. Of
# one that is gone and was there before $3 nobody can say: a subgraph does not tell of what it deleted.
_TURNED = """
insert into turned
select l.licence_id, s.owner, l.owner, $2 or s.again and (s.owner is not null or not exists (
  select 1 from ownership o where o.licence_id = l.licence_id and o.from_block <= $3))
from seen_token s join licence l on l.collection_id = $1 and l.token_id = s.token_id
where l.owner is distinct from s.owner
"""
# 1. What the chain took back goes, and where it began is kept: the true owner takes its place.
_TAKE_BACK = """
with gone as (
  delete from ownership o using turned t where o.licence_id = t.licence_id and t.back and o.from_block > $1
  returning o.licence_id, o.from_ms)
insert into taken_back select licence_id, min(from_ms) from gone group by licence_id
"""
# 2. If the one before it is the owner again (a transfer or a burn that was taken back), it never ended.
_REOPEN = """
update ownership o set to_ms = null from turned t
where t.licence_id = o.licence_id and t.back and t.owner = o.owner and o.to_ms is not null
  and o.from_ms = (select max(from_ms) from ownership m where m.licence_id = o.licence_id)
"""
# 3. A span that would have no length (a block no later than the one before) never was ...
_REPLACE = """
update ownership o set owner = t.owner, from_block = $2 from turned t
where t.licence_id = o.licence_id and o.to_ms is null and o.from_ms >= $1 and t.owner <> o.owner
"""
_VANISH = """
delete from ownership o using turned t
where t.licence_id = o.licence_id and o.to_ms is null and o.from_ms >= $1 and t.owner is null
"""
# ... every other one ends with the block in which the new owner was seen ...
_CLOSE = """
update ownership o set to_ms = $1 from turned t
where t.licence_id = o.licence_id and o.to_ms is null and t.owner is distinct from o.owner
"""
# ... where the new one begins. One whom nobody owned before begins with the last look ($2 ms; null: this is
# the first, and the owner has been it since ever): nobody else can have had it meanwhile.
_OPEN = """
insert into ownership (licence_id, from_ms, from_block, owner, recorded_ms)
select t.licence_id,
  coalesce(b.from_ms, case when t.was is not null then o.to_ms end, greatest(o.to_ms, $2), 0),
  case when $2::bigint is null then 0 else $1::bigint end, t.owner, $3
from turned t left join taken_back b using (licence_id)
left join lateral (select to_ms, owner from ownership o where o.licence_id = t.licence_id
  order by from_ms desc limit 1) o on true
where t.owner is not null and not exists (
  select 1 from ownership m where m.licence_id = t.licence_id and m.to_ms is null)
"""
_TURN = """
update licence l set owner = t.owner, retired_ms = case when t.owner is null then $1::bigint end,
  turned_block = $2
from turned t where t.licence_id = l.licence_id
"""


async def apply_owners(connection: Connection, collection: Collection, found: Pass, now_ms: int) -> Applied:
    """Bring licences and their owners to what was seen."""
    await connection.execute(_TABLES)
    rows: dict[int, tuple[int, str | None, bool]] = {}
    for held, again in [*((held, False) for held in found.seen), *((held, True) for held in found.again)]:
        assert isinstance(held, Token)
        rows[held.token_id] = (held.token_id, held.owner, again)
    await connection.copy_records_to_table("seen_token", records=list(rows.values()))
    await connection.execute("analyze seen_token")
    added = await _add_licences(connection, collection, now_ms)
    fork = found.fork or await connection.fetchval(_FORK, collection.collection_id)
    await connection.execute(_TURNED, collection.collection_id, fork, found.after_block)
    await connection.execute("analyze turned")
    await connection.execute(_TAKE_BACK, found.after_block)
    await connection.execute(_REOPEN)
    await connection.execute(_REPLACE, found.block.ms, found.block.number)
    await connection.execute(_VANISH, found.block.ms)
    await connection.execute(_CLOSE, found.block.ms)
    await connection.execute(_OPEN, found.block.number, collection.block_ms, now_ms)
    turned_block = 0 if collection.block_ms is None else found.block.number
    await connection.execute(_TURN, found.block.ms, turned_block)
    sold = await connection.fetch("select licence_id::text from turned where was is not null order by 1")
    await say_sold(connection, [record[0] for record in sold], now_ms)
    turned, gone = await connection.fetchrow(
        "select count(*), count(*) filter (where owner is null) from turned"
    )
    return Applied(added=added, changed=turned - added - gone, gone=gone)


async def _add_licences(connection: Connection, collection: Collection, now_ms: int) -> int:
    """Make a licence of each token that is new and not burned; their ids are in the order of their tokens."""
    unknown = await connection.fetch(
        """
        select s.token_id from seen_token s
        left join licence l on l.collection_id = $1 and l.token_id = s.token_id
        where l.licence_id is null and s.owner is not null order by s.token_id
        """,
        collection.collection_id,
    )
    await connection.copy_records_to_table(
        "licence",
        columns=("licence_id", "collection_id", "project_id", "token_id", "created_ms"),
        records=[
            (new_id(), collection.collection_id, collection.project_id, record[0], now_ms)
            for record in unknown
        ],
    )
    return len(unknown)


async def apply_balances(connection: Connection, collection: Collection, found: Pass, now_ms: int) -> Applied:
    """Bring balances to what was seen. A wallet that has nothing any more keeps its row while it is young, so
    that it is looked at again if the chain takes that back."""
    await connection.execute(_TABLES)
    rows: dict[str, tuple[str, int, bool]] = {}
    for held, again in [*((held, False) for held in found.seen), *((held, True) for held in found.again)]:
        assert isinstance(held, Purse)
        rows[held.owner] = (held.owner, held.amount, again)
    await connection.copy_records_to_table("seen_purse", records=list(rows.values()))
    await connection.execute("analyze seen_purse")
    changed = await connection.fetch(
        """
        insert into balance as b (collection_id, owner, amount, block)
        select $1, owner, amount, $2 from seen_purse s where amount > 0
          or exists (select 1 from balance o where o.collection_id = $1 and o.owner = s.owner)
        on conflict (collection_id, owner) do update set amount = excluded.amount, block = excluded.block
          where b.amount <> excluded.amount
        returning amount = 0, xmax = 0
        """,
        collection.collection_id,
        found.block.number if collection.synced_block is not None else 0,
    )
    await connection.execute(
        "delete from balance where collection_id = $1 and amount = 0 and block <= $2",
        collection.collection_id,
        found.after_block,
    )
    gone = sum(1 for is_gone, _ in changed if is_gone)
    added = sum(1 for is_gone, is_new in changed if is_new and not is_gone)
    return Applied(added=added, changed=len(changed) - added - gone, gone=gone)
