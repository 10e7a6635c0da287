"""The two roles of the database: its owner, who migrates, and the application's, which everything else uses.

What is sealed, paid or audited is append-only by triggers; but whoever owns a table can switch its triggers
off. So the application's role owns nothing and is no superuser, and on append-only tables it may only select
and insert. Here are its grants and how to look at them; who connects as whom is said by URLs elsewhere.
"""

from __future__ import annotations

import asyncpg
import msgspec

from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host
from storage.pool import CONNECT_TIMEOUT_S, unavailable

OWNER = "nodepulse"  # of the embedded server: the superuser made by initdb
APPLICATION = "nodepulse_app"  # of the embedded server

_MAKE = f"""
do $$ begin
  if not exists (select from pg_roles where rolname = '{APPLICATION}') then
    create role {APPLICATION} login;
  end if;
  if exists (
    select from pg_roles where rolname = '{APPLICATION}'
    and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls or not rolcanlogin)
  ) then
    alter role {APPLICATION} login nosuperuser nocreaterole nocreatedb noreplication nobypassrls;
  end if;
exception when duplicate_object or unique_violation then null; -- made at this moment, in another database
end $$
"""

# What a table's triggers refuse without looking is not granted either: those before a statement (type bits 1:
# per row, 2: before, 8: delete, 16: update), of all columns and without a condition.
_REFUSED = """
select c.oid, c.relname,
  coalesce(bool_or(t.tgtype & 8 <> 0), false) as no_delete,
  coalesce(bool_or(t.tgtype & 16 <> 0), false) as no_update
from pg_class c left join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
  and t.tgtype & 3 = 2 and t.tgattr = '' and t.tgqual is null
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
group by c.oid
"""

# One transaction: others see the grants of before or those of after.
_GRANTS = f"""
with tables as ({_REFUSED}),
names as (select current_schema() as place, $1::name as role, current_database() as db)
select format('grant usage on schema %I to %I', place, role) from names
  where not has_schema_privilege(role, place, 'usage')
union all select format('revoke create on schema %I from public, %I', place, role) from names
  where has_schema_privilege(role, place, 'create')
union all select format('grant temporary on database %I to %I', db, role) from names
  where not has_database_privilege(role, db, 'temporary')
union all select format('grant usage, select on all sequences in schema %I to %I', place, role) from names
union all select format(
    'alter default privileges in schema %I grant select, insert, update, delete on tables to %I', place, role)
  from names
union all select format(
    'alter default privileges in schema %I grant usage, select on sequences to %I', place, role)
  from names
union all (
  select unnest(array[
    format('revoke all on %I.%I from public, %I', place, relname, role),
    format('grant %s on %I.%I to %I', case
      when relname = 'schema_migrations' then 'select'
      else concat_ws(', ', 'select', 'insert',
        case when not no_update then 'update' end, case when not no_delete then 'delete' end)
      end, place, relname, role)])
  from tables, names order by relname)
"""

_STANDING = f"""
with tables as ({_REFUSED})
select current_user as role,
  (select rolsuper or rolcreaterole or rolreplication from pg_roles where rolname = current_user) as mighty,
  coalesce((select array_agg(relname::text order by relname) from tables join pg_class c using (oid, relname)
    where no_delete and pg_has_role(current_user, c.relowner, 'member')), '{{}}') as owned,
  coalesce((select array_agg(relname::text order by relname) from tables
    where no_update and has_table_privilege(oid, 'update')
      or no_delete and (has_table_privilege(oid, 'delete') or has_table_privilege(oid, 'truncate'))), '{{}}')
    as open
"""


class Standing(msgspec.Struct, frozen=True):
    """What a role could do to append-only tables in spite of their triggers: nothing, if all is well."""

    role: str
    mighty: bool  # superuser, or may make roles or replicate
    owned: list[str]  # append-only tables that it owns, itself or by membership
    open: list[str]  # append-only tables on which it was granted more than to add

    @property
    def well(self) -> bool:
        return not (self.mighty or self.owned or self.open)


class OtherDatabaseError(Exception):
    """The owner's URL and the application's do not lead to the same database."""


async def make_application_role(owner_url: str) -> None:
    """Make the role of the embedded server that the application connects as. StoreUnavailableError."""
    await await_host(_make, owner_url)


async def standing(url: str) -> Standing:
    """How the role of a URL stands to the append-only tables. StoreUnavailableError."""
    return await await_host(_stand, url)


async def grant_application(owner: asyncpg.Connection, application_url: str) -> None:
    """On the host loop: give the application's role what it needs and take from it what is more.

    Again and again the same. Nothing happens when the URL is that of the owner's role, whose own rights must
    not shrink, or of a superuser, for whom rights mean nothing. OtherDatabaseError, StoreUnavailableError.
    """
    application = await connected(application_url)
    try:
        where = "select current_user as role, current_database() as database"
        theirs, ours = await application.fetchrow(where), await owner.fetchrow(where)
    finally:
        await application.close(timeout=CONNECT_TIMEOUT_S)
    if theirs["database"] != ours["database"]:
        raise OtherDatabaseError(
            f"database.url leads to the database {theirs['database']}, "
            f"database.owner_url to {ours['database']}"
        )
    if theirs["role"] == ours["role"]:
        return
    async with owner.transaction():
        for (statement,) in await owner.fetch(_GRANTS, theirs["role"]):
            await owner.execute(statement)


async def connected(url: str) -> asyncpg.Connection:
    """On the host loop: a connection. StoreUnavailableError."""
    try:
        return await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except Exception as error:
        if reason := unavailable(error):
            raise StoreUnavailableError(reason) from error
        raise


async def _make(owner_url: str) -> None:
    connection = await connected(owner_url)
    try:
        await connection.execute(_MAKE)
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _stand(url: str) -> Standing:
    connection = await connected(url)
    try:
        return Standing(**await connection.fetchrow(_STANDING))
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
