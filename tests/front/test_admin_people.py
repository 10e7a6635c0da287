"""`admin user|key|project|audit`: who may do what, what holds for a project, and who did what."""

from __future__ import annotations

import hashlib
import json
import time

import click
import pytest

from engine.core.people import Act
from nodepulse.commands.admin import admin
from storage.ids import new_id
from tests.front.administered import NOWHERE, Administered

WALLET = "0x52908400098527886e0f7030069857d2e4169ee7"


@pytest.fixture(scope="module")
def ann(cli: Administered) -> str:
    made = cli.admin("user", "create", "--name", "Ann", "--email", "Ann@Example.org", "--admin")
    assert made["email"] == "ann@example.org"
    assert cli.audited("user.create")["subject"] == made["user_id"]
    return made["user_id"]


@pytest.fixture(scope="module")
def project(cli: Administered) -> str:
    cli.admin("project", "create", "alpha", "--name", "Alpha")
    cli.audited("project.create")
    return "alpha"


def leaves(group: click.Group, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """All commands that are no groups, with their words."""
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        words = (*above, name)
        assert command is not None, words
        found += leaves(command, words) if isinstance(command, click.Group) else [(words, command)]
    return found


def test_each_command_says_in_a_sentence_what_it_does_and_prints_json():
    found = leaves(admin)
    assert len(found) > 60
    for words, command in found:
        assert (command.help or "").strip().endswith("."), words
        assert "--json" in {name for parameter in command.params for name in parameter.opts}, words


def test_somebody_is_found_by_id_wallet_and_address(cli, ann):
    other = cli.admin("user", "create", "--wallet", WALLET)["user_id"]
    assert cli.admin("user", "show", WALLET)["user_id"] == other
    assert cli.admin("user", "show", "ANN@example.org")["user_id"] == ann
    assert cli.admin("user", "show", ann)["admin"] is True
    assert [one["user_id"] for one in cli.admin("user", "list", "--wallet", WALLET)["users"]] == [other]


def test_a_person_is_changed_made_an_admin_and_retired(cli):
    bob = cli.admin("user", "create", "--email", "bob@example.org")["user_id"]
    changed = cli.admin("user", "change", bob, "--name", "Bob", "--wallet", "0x" + "b" * 40)
    assert (changed["name"], changed["wallet"]) == ("Bob", "0x" + "b" * 40)
    assert cli.audited("user.change")["subject"] == bob
    assert cli.admin("user", "change", bob, "--no-wallet")["wallet"] is None
    assert cli.admin("user", "grant-admin", bob)["admin"] is True
    assert cli.admin("user", "change", bob, "--no-admin")["admin"] is False
    key = cli.admin("key", "create", "--user", bob)["key_id"]
    assert cli.admin("user", "retire", bob)["retired_at"] is not None
    [kept] = cli.admin("key", "list", "--user", bob)["keys"]
    assert (kept["key_id"], kept["revoked_at"] is not None) == (key, True)
    assert "is retired" in cli.refused("key", "create", "--user", bob)
    assert cli.admin("user", "change", bob, "--not-retired")["retired_at"] is None


def test_what_is_wrong_with_a_person_is_said(cli, ann):
    assert "another account has this email; find it:" in cli.refused(
        "user", "create", "--email", "ann@example.org"
    )
    assert "give --wallet, --email or both" in cli.misused("user", "create", "--name", "x")
    assert "give --wallet, --email or both" in cli.refused("user", "change", ann, "--no-email")
    assert "checksum" in cli.misused("user", "create", "--wallet", "0x" + "aB" * 20)
    assert "not a mail address" in cli.misused("user", "create", "--email", "nobody")
    assert "cannot be printed" in cli.misused("user", "create", "--email", "x@y.z", "--name", "a\nb")
    assert "200 at most" in cli.misused("user", "create", "--email", "x@y.z", "--name", "a" * 201)
    assert "neither an id nor a wallet" in cli.misused("user", "show", "ann")
    assert "say what is to be changed" in cli.misused("user", "change", ann)
    assert f"there is no user {NOWHERE}; see: admin user list" in cli.refused("user", "show", NOWHERE)


def test_an_admin_comes_in_by_a_key_of_their_own(cli, ann):
    made = cli.admin(
        *("key", "create", "--user", "ann@example.org", "--permission", "read"),
        *("--name", "first", "--expires", "2100-01-01T00:00:00Z"),
    )
    assert (made["scope"], made["permissions"], made["user_id"]) == ("user", ["read"], ann)
    sha256 = hashlib.sha256(made["api_key"].encode()).digest()
    principal = cli.on_stores(lambda stores: stores.directory.principal(sha256, now_ms=1_800_000_000_000))
    assert (principal.scope, principal.user_id, principal.permissions) == ("admin", ann, ("read",))
    assert made["api_key"] not in json.dumps(cli.audited("key.create"))


def test_keys_are_listed_without_secrets_and_revoked(cli, project):
    made = cli.admin("key", "create", "--project", project, "--name", "ci")
    assert {"key_id", "api_key", "project", "name"} <= set(made)
    [listed] = cli.admin("key", "list", "--project", project)["keys"]
    assert (listed["key_id"], listed["scope"], "api_key" in listed) == (made["key_id"], "project", False)
    assert cli.admin("key", "revoke", made["key_id"]) == {"key_id": made["key_id"], "revoked": True}
    assert cli.audited("key.revoke")["subject"] == made["key_id"]
    assert "no key" in cli.refused("key", "revoke", made["key_id"])
    assert "--expires is over" in cli.refused("key", "create", "--admin", "--expires", "2001-01-01T00:00:00Z")
    assert "either --project" in cli.misused("key", "create", "--admin", "--project", project)


def test_a_project_is_made_once_renamed_and_retired(cli):
    first = cli.admin("project", "create", "beta")
    assert set(first) == {"project", "project_id"}
    assert cli.admin("project", "create", "beta", "--name", "ignored") == first
    assert cli.admin("project", "change", "beta", "--name", "Beta")["name"] == "Beta"
    assert cli.audited("project.change")["project_id"] == first["project_id"]
    assert cli.admin("project", "retire", "beta")["retired_at"] is not None
    assert cli.admin("project", "show", "beta")["name"] == "Beta"
    assert cli.admin("project", "change", "beta", "--not-retired")["retired_at"] is None
    assert "there is no project 'gamma'; make it" in cli.refused("project", "show", "gamma")


def test_owners_come_and_go(cli, ann, project):
    assert cli.admin("project", "owner", "add", project, "ann@example.org")["user_id"] == ann
    assert cli.audited("project.add_owner")["detail"] == {"user_id": ann}
    assert [one["user_id"] for one in cli.admin("project", "owner", "list", project)["owners"]] == [ann]
    assert cli.admin("project", "owner", "remove", project, ann)["removed"] is True
    assert "there is no owner" in cli.refused("project", "owner", "remove", project, ann)


def test_a_policy_begins_with_a_day_to_come(cli, project):
    made = cli.admin(
        *("project", "policy", "add", project, "--uptime-source", "datagram", "--no-pay-claims"),
        *("--micro-points-per-paid-s", 5, "--kind-weight", "gateway=1500000"),
    )
    assert (made["revision"], made["uptime_source"], made["in_force"]) == (1, "datagram", False)
    assert made["reward"]["kind_weights_ppm"] == {"gateway": 1_500_000}
    assert made["decided_by"].startswith("cli:")
    assert cli.admin("project", "policy", "list", project)["policies"] == [made]
    assert "begins tomorrow" in cli.refused("project", "policy", "add", project, "--from", "2020-01-01")
    licensed = cli.admin("project", "policy", "add", project, "--licensed-only")
    assert (made["reward"]["licensed_only"], licensed["reward"]["licensed_only"]) == (None, True)
    assert "floor_paid_ms" in cli.misused("project", "policy", "add", project, "--floor-paid-ms", -1)
    assert "KIND=PPM" in cli.misused("project", "policy", "add", project, "--kind-weight", "gateway")
    assert "not a day" in cli.misused("project", "policy", "add", project, "--from", "tomorrow")


def test_lists_go_on_where_they_ended_and_ids_can_be_piped(cli, project):
    first = cli.admin("user", "list", "--limit", 1)
    second = cli.admin("user", "list", "--limit", 1, "--after", first["next_cursor"])
    assert first["users"] != second["users"]
    table = cli.type("admin", "user", "list", "--limit", 1)
    assert f"--after {first['next_cursor']}" in table.err
    assert first["users"][0]["user_id"] in table.out
    ids = cli.type("admin", "user", "list", "--ids").out.split()
    assert ids == [one["user_id"] for one in cli.admin("user", "list")["users"]]
    assert cli.type("admin", "project", "create", project, "--ids").out == f"{project}\n"
    assert "either --json or --ids" in cli.misused("user", "list", "--ids", "--json")
    assert "0 is not in the range" in cli.misused("user", "list", "--limit", 0)


def test_nobody_is_asked_in_a_script(cli):
    """Standard input is no terminal here: what destroys goes ahead without --yes, and with it as well."""
    for said in ((), ("--yes",)):
        key = cli.admin("key", "create", "--admin")["key_id"]
        assert cli.admin("key", "revoke", key, *said)["revoked"] is True


def test_at_a_terminal_what_destroys_is_asked_for(cli, monkeypatch):
    key = cli.admin("key", "create", "--admin")["key_id"]
    monkeypatch.setattr("nodepulse.commands.acting.has_terminal", lambda: True)
    assert "Revoke?" in cli.type("admin", "key", "revoke", key, stdin="n\n").err
    assert cli.admin("key", "revoke", key, "--yes")["revoked"] is True


def test_the_audit_log_is_listed_by_project_newest_first(cli, project):
    cli.admin("project", "change", project, "--name", "Alpha again")
    project_id = cli.admin("project", "show", project)["project_id"]
    entries = cli.admin("audit", "list", "--project", project)["entries"]
    assert {entry["project_id"] for entry in entries} == {project_id}
    assert [entry["seq"] for entry in entries] == sorted((e["seq"] for e in entries), reverse=True)
    page = cli.admin("audit", "list", "--limit", 1)
    older = cli.admin("audit", "list", "--limit", 1, "--after", page["next_cursor"])
    assert older["entries"][0]["seq"] == page["entries"][0]["seq"] - 1
    assert page["entries"][0]["action"] in cli.type("admin", "audit", "list", "--limit", 1).out


def test_a_chain_that_was_broken_is_told_by_its_first_entry(cli):
    for slug in ("chained", "chained-too"):
        cli.admin("project", "create", slug)
    whole = cli.admin("audit", "verify")
    assert (whole["holds"], whole["first_broken"]) == (True, None)
    cli.sql("alter table audit disable trigger all")
    cli.sql("update audit set actor = 'cli:somebody else' where seq = 2")
    done = cli.type("admin", "audit", "verify", "--json")
    assert (done.code, json.loads(done.out)["first_broken"]) == (1, 2)
    assert "entry 2 is not as it was written" in done.err


def test_a_link_signs_in_once_who_has_an_address(cli):
    made = cli.admin("user", "create", "--name", "Lia", "--email", "lia@example.org")
    told = cli.admin("user", "link", "lia@example.org")
    assert told["user_id"] == made["user_id"]
    assert cli.audited("login.link")["subject"] == made["user_id"]
    token = told["link"].partition("/sign-in#token=")[2]

    async def sign_in(stores):
        act = Act(actor="test", now_ms=time.time_ns() // 1_000_000, request_id="", made_id=new_id())
        login_sha256 = hashlib.sha256(act.made_id.encode()).digest()
        return await stores.sign_in.sign_in_by_mail(
            hashlib.sha256(token.encode()).digest(),
            token_sha256=login_sha256,
            sign_up=False,
            life_ms=60_000,
            act=act,
        )

    assert cli.on_stores(sign_in).account.user_id == made["user_id"]
    assert cli.on_stores(sign_in) is None, "it works once"


def test_no_link_is_made_for_who_may_not_sign_in_by_one(cli):
    cli.admin("user", "create", "--wallet", "0x" + "9" * 40)
    cli.admin("user", "create", "--email", "gone@example.org")
    cli.admin("user", "retire", "gone@example.org", "--yes")
    for who in ("0x" + "9" * 40, "gone@example.org"):
        assert "mail address" in cli.type("admin", "user", "link", who).err
