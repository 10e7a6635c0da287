"""`admin schedule|dispute`: what the worker does by the clock, and what operators hold against their days."""

from __future__ import annotations

from storage.ids import new_id
from storage.open import AllStores
from tests.front.administered import NOWHERE, Administered


def test_the_schedule_is_told_as_it_is(cli: Administered):
    cli.sql("insert into schedule_job values ('prune-nonces', '* * * * *', 'newest', 60000, 120000)")
    cli.sql(
        """
        insert into schedule_run (job, due_ms, state, claims, free_ms, first_ms, begun_ms, ended_ms, note)
        values ('prune-nonces', 60000, 'done', 1, 60000, 60100, 60100, 60350, '7 rows')
        """
    )
    told = {job["job"]: job for job in cli.admin("schedule")["jobs"]}
    assert list(told) == ["prune-nonces", "seals", "ownership"]
    assert told["prune-nonces"] == {
        "job": "prune-nonces",
        "cron": "* * * * *",
        "catch_up": "newest",
        "next_due_at": "1970-01-01T00:02:00.000Z",
        "oldest_due_at": None,
        "last_due_at": "1970-01-01T00:01:00.000Z",
        "last_run_at": "1970-01-01T00:01:00.100Z",
        "took_ms": 250,
        "outcome": "done",
        "note": "7 rows",
        "worker": None,
    }
    assert (told["seals"]["cron"], told["seals"]["outcome"]) == (None, "never")
    assert "prune-nonces" in cli.type("admin", "schedule").out


def test_disputes_are_listed_and_shown(cli: Administered):
    cli.admin("project", "create", "disputed")
    assert cli.admin("dispute", "list")["disputes"] == []
    made = cli.on_stores(_dispute)
    (row,) = cli.admin("dispute", "list", "--project", "disputed", "--state", "open")["disputes"]
    assert (row["dispute_id"], row["state"], row["day"]) == (made, "open", "2026-01-31")
    assert cli.admin("dispute", "list", "--state", "rejected")["disputes"] == []
    shown = cli.admin("dispute", "show", made)
    assert [entry["text"] for entry in shown["entries"]] == ["I was\nup"]
    assert "open by the operator" in cli.type("admin", "dispute", "show", made).out
    assert NOWHERE in cli.refused("dispute", "show", NOWHERE)
    cli.misused("dispute", "list", "--state", "gone")


async def _dispute(stores: AllStores) -> str:
    """One of a sealed day, opened by nobody in particular."""
    db = stores.disputes._db
    project = await stores.directory.project("disputed")
    ids = {name: new_id() for name in ("user", "node", "workload", "dispute", "entry")}

    async def fill(connection) -> None:
        statements = (
            "insert into account (user_id, email, created_ms) values ('{user}', '{user}@example.org', 1)",
            """
            insert into node (node_id, "row", project_id, kind, name, interval_ms, salt, created_ms)
            values ('{node}', 77, '{project}', 'node', 'n', 60000, '', 1)
            """,
            """
            insert into workload (workload_id, node_id, slot, name, created_ms, project_id)
            values ('{workload}', '{node}', 0, 'w', 1, '{project}')
            """,
            """
            insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots,
              sealed_ms, node_blocks)
            values (1, '{project}', '2026-01-31', 1, 0, 0, 0, decode(repeat('00', 32), 'hex'),
              decode(repeat('00', 768), 'hex'), 1, '')
            """,
            """
            insert into dispute (dispute_id, project_id, node_id, workload_id, day, revision, opener_id,
              opened_ms, changed_ms)
            values ('{dispute}', '{project}', '{node}', '{workload}', '2026-01-31', 1, '{user}', 1, 1)
            """,
            """
            insert into dispute_entry (dispute_id, number, entry_id, what, side, actor, text, at_ms)
            values ('{dispute}', 1, '{entry}', 'open', 'operator', 'user:{user}', e'I was\\nup', 1)
            """,
        )
        for statement in statements:
            await connection.execute(statement.format(project=project.project_id, **ids))

    await db.run(fill)
    return ids["dispute"]
