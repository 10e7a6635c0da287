"""The application's role: what it may, what it may not, and how it comes by its grants."""

from __future__ import annotations

import asyncpg
import pytest

from storage.bridge import await_host
from storage.migrate import NotTheOwnerError, migrate
from storage.roles import OtherDatabaseError, make_application_role, standing
from tests.conftest import as_owner, url_of

# Stated once more, for the eye: what only grows. `dispute` may move on, but never goes.
APPEND_ONLY = {
    *("seal", "sealed_row", "seal_tree", "receipt_key", "receipt_seal", "audit", "dispute_entry"),
    *("points", "points_commit", "points_share", "points_total", "points_correction"),
}
REFUSED = [
    "update {table} set {column} = {column}",
    "delete from {table}",
    "truncate {table}",
    "truncate {table} cascade",
    "drop table {table} cascade",
    "alter table {table} disable trigger all",
    "alter table {table} disable trigger user",
    "alter table {table} drop column {column}",
    "alter table {table} rename to elsewhere",
    "alter table {table} owner to nodepulse_app",
    "alter table {table} set unlogged",
    "create rule away as on insert to {table} do instead nothing",
    "create trigger mine before insert on {table} for each row execute function refuse_change()",
    "select {column} from {table} for update",
    "merge into {table} using (select 1) one on true when matched then delete",
    "create policy mine on {table} using (false)",
]
REFUSED_AT_ALL = [
    "set session_replication_role = replica",
    "set role nodepulse",
    "set session authorization nodepulse",
    "alter role nodepulse_app superuser",
    "alter role nodepulse_app replication",
    "create role another",
    "grant nodepulse to nodepulse_app",
    "alter system set session_replication_role = replica",
    "grant set on parameter session_replication_role to nodepulse_app",
    "create extension pg_surgery",
    "create function public.mine() returns integer language sql as 'select 1'",
    "create table public.mine ()",
    "create schema mine",
    "update pg_trigger set tgenabled = 'D'",
    "update pg_class set relowner = 'nodepulse_app'::regrole",
    "copy (select 1) to program 'true'",
    "insert into schema_migrations values ('9999')",
    "delete from schema_migrations",
    "update schema_migrations set version = version",
    "delete from dispute",
    "truncate dispute",
]
FORBIDDING = """
    select c.relname, bool_or(t.tgtype & 16 <> 0) as no_update, bool_or(t.tgtype & 8 <> 0) as no_delete
    from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where not t.tgisinternal and t.tgtype & 3 = 2 group by c.relname order by 1"""


async def fetch(url, statement, *args):
    connection = await await_host(asyncpg.connect, url)
    try:
        return await await_host(connection.fetch, statement, *args)
    finally:
        await await_host(connection.close)


async def done_of(url, statements) -> list[str]:
    """Those that were not refused for want of rights."""
    done = []
    connection = await await_host(asyncpg.connect, url)
    try:
        for statement in statements:
            try:
                await await_host(connection.execute, statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            done.append(statement)
    finally:
        await await_host(connection.close)
    return done


async def refusal_of(url, statement) -> str:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await fetch(url, statement)
    return caught.value.sqlstate


@pytest.fixture
def app_url(on_uvloop, postgres_url) -> str:
    return postgres_url


@pytest.fixture
def owner_url(app_url) -> str:
    return as_owner(app_url)


async def test_the_tables_that_only_grow_are_those_we_think_of(app_url):
    assert {name for name, no_update, _ in await fetch(app_url, FORBIDDING) if no_update} >= APPEND_ONLY


async def test_a_role_that_may_not_is_refused_on_every_table_that_only_grows(app_url):
    tables = [name for (name, *_) in await fetch(app_url, FORBIDDING) if name != "dispute"]
    assert tables
    for table in tables:
        first = "select attname from pg_attribute where attrelid = $1::text::regclass and attnum = 1"
        ((column,),) = await fetch(app_url, first, table)
        said = [statement.format(table=table, column=column) for statement in REFUSED]
        assert await done_of(app_url, said) == []
        await fetch(app_url, f"grant all on {table} to nodepulse_app")  # PostgreSQL only warns
    assert (await standing(app_url)).well


async def test_the_applications_role_cannot_become_more_than_it_is(app_url):
    assert await done_of(app_url, REFUSED_AT_ALL) == []


async def test_no_function_of_a_trigger_can_be_replaced(app_url):
    functions = await fetch(
        app_url,
        "select oid::regprocedure::text as name from pg_proc"
        " where prorettype = 'trigger'::regtype and pronamespace = 'public'::regnamespace",
    )
    assert len(functions) >= 7
    for (name,) in functions:
        body = "returns trigger language plpgsql as 'begin return null; end'"
        assert await refusal_of(app_url, f"create or replace function {name} {body}") == "42501"
        assert await refusal_of(app_url, f"alter function {name} reset all") == "42501"
        assert await refusal_of(app_url, f"drop function {name} cascade") == "42501"


async def test_every_function_of_a_trigger_says_where_it_looks_for_tables(app_url):
    found = await fetch(
        app_url,
        "select proname, proconfig from pg_proc"
        " where prorettype = 'trigger'::regtype and pronamespace = 'public'::regnamespace",
    )
    assert {tuple(row["proconfig"] or ()) for row in found} == {("search_path=public, pg_temp",)}


async def test_what_a_tables_triggers_forbid_is_not_granted(app_url):
    """Of every table there will ever be: whoever adds such a trigger need do nothing else."""
    for name, no_update, no_delete in await fetch(app_url, FORBIDDING):
        for forbidden, right in ((no_update, "update"), (no_delete, "delete"), (True, "truncate")):
            if forbidden:
                (granted,) = await fetch(app_url, f"select has_table_privilege('{name}', '{right}')")
                assert not granted[0], f"{right} on {name}"
                columns = f"select has_any_column_privilege('{name}', 'update')"
                assert right != "update" or not (await fetch(app_url, columns))[0][0], name


async def test_no_deletion_elsewhere_reaches_a_table_that_only_grows(app_url):
    cascading = await fetch(
        app_url,
        "select conname from pg_constraint where contype = 'f' and conrelid::regclass::text = any($1)"
        " and (confdeltype not in ('a', 'r') or confupdtype not in ('a', 'r'))",
        sorted(name for (name, *_) in await fetch(app_url, FORBIDDING)),
    )
    assert cascading == []


async def test_all_other_tables_may_be_read_and_written(app_url):
    lacking = await fetch(
        app_url,
        """
        select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
          and relname <> all($1) and relname <> 'schema_migrations'
          and not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
            and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete'))""",
        sorted(name for (name, *_) in await fetch(app_url, FORBIDDING)),
    )
    assert lacking == []
    assert await fetch(app_url, "select version from schema_migrations")


async def test_a_table_of_a_later_migration_gets_its_grants_by_itself(app_url, owner_url, tmp_path):
    (tmp_path / "9990_later.sql").write_text(
        "-- migrate:up\ncreate table later (x integer); create table forever (x integer);\n"
        "create trigger forever_append_only before update or delete or truncate on forever\n"
        "  for each statement execute function refuse_change();\n-- migrate:down\n"
    )
    assert await migrate(owner_url, application_url=app_url, folder=tmp_path) == ["9990_later.sql"]
    for statement in ("insert into {} values (1)", "select x from {}"):
        await fetch(app_url, statement.format("later"))
        await fetch(app_url, statement.format("forever"))
    await fetch(app_url, "update later set x = 2")
    await fetch(app_url, "delete from later")
    assert await refusal_of(app_url, "update forever set x = 2") == "42501"
    assert await refusal_of(app_url, "delete from forever") == "42501"


async def test_what_was_granted_by_mistake_is_taken_back_by_the_next_migration(app_url, owner_url):
    assert (await standing(app_url)).well
    await fetch(owner_url, "grant all on sealed_row to nodepulse_app")
    await fetch(owner_url, "grant delete on audit to public")
    await fetch(owner_url, "grant create on schema public to public")
    found = await standing(app_url)
    assert (found.open, found.well) == (["audit", "sealed_row"], False)
    for _ in range(2):
        assert await migrate(owner_url, application_url=app_url) == []
        assert (await standing(app_url)).well
    assert await refusal_of(app_url, "delete from audit") == "42501"
    assert await refusal_of(app_url, "create table mine ()") == "42501"


async def test_the_owner_keeps_its_rights_when_it_is_the_application_as_well(owner_url):
    assert await migrate(owner_url, application_url=owner_url + "&application_name=web") == []
    await fetch(owner_url, "delete from project")
    found = await standing(owner_url)
    assert found.mighty
    assert set(found.owned) >= APPEND_ONLY | {"dispute"}


async def test_the_application_finds_its_database_up_to_date_and_may_not_change_it(app_url, tmp_path):
    assert await migrate(app_url) == []
    (tmp_path / "9990_later.sql").write_text("-- migrate:up\ncreate table later ();\n-- migrate:down\n")
    with pytest.raises(NotTheOwnerError, match=r"database\.owner_url"):
        await migrate(app_url, folder=tmp_path)


async def test_the_two_urls_must_lead_to_one_database(owner_url, app_url, postgres_server):
    with pytest.raises(OtherDatabaseError, match="postgres"):
        await migrate(owner_url, application_url=url_of(postgres_server, "postgres"))


async def test_a_database_that_had_one_role_only_is_upgraded(on_uvloop, postgres_server):
    await fetch(postgres_server.owner_url, "create database one_role")
    app_url = url_of(postgres_server, "one_role")
    owner_url = as_owner(app_url)
    try:
        await migrate(owner_url)
        assert await refusal_of(app_url, "select from project") == "42501"
        await make_application_role(owner_url)
        assert await migrate(owner_url, application_url=app_url) == []
        assert await fetch(app_url, "select from project") == []
        assert (await standing(app_url)).well
    finally:
        await fetch(postgres_server.owner_url, "drop database one_role with (force)")


async def test_a_role_that_became_mighty_is_made_small_again(app_url, owner_url):
    await fetch(owner_url, "alter role nodepulse_app superuser replication")
    assert (await standing(app_url)).mighty
    await make_application_role(owner_url)
    assert (await standing(app_url)).well
