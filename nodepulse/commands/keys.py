"""`admin key`: API keys. A secret is printed once, when it is made; what is kept of it is its SHA-256."""

from __future__ import annotations

import click

from engine.core.accounts import KeyRecord, NewKey
from engine.core.people import PERMISSIONS, Scope
from nodepulse.commands.acting import (
    Asked,
    Desk,
    Row,
    admin_options,
    at,
    destructive,
    page_options,
)
from nodepulse.commands.options import slug_option
from nodepulse.commands.reading import ID, NAME, SLUG, TIME, WHO
from storage.tokens import new_api_key


def described(key: KeyRecord) -> Row:
    return {
        "key_id": key.key_id,
        "scope": key.scope,
        "project_id": key.project_id,
        "user_id": key.user_id,
        "name": key.name,
        "permissions": list(key.permissions),
        "created_at": at(key.created_ms),
        "expires_at": at(key.expires_ms),
        "last_used_at": at(key.last_used_ms),
        "revoked_at": at(key.revoked_ms),
    }


async def make_key(
    desk: Desk,
    *,
    scope: Scope,
    project_id: str | None = None,
    user_id: str | None = None,
    name: str,
    permissions: tuple[str, ...] = PERMISSIONS,
    expires_ms: int | None = None,
) -> tuple[str, KeyRecord]:
    """A new key: its secret, which is told nowhere else, and what is known of it."""
    secret, key_sha256 = new_api_key()
    new = NewKey(
        scope=scope,
        project_id=project_id,
        user_id=user_id,
        name=name,
        permissions=permissions,
        expires_ms=expires_ms,
    )
    return secret, await desk.stores.accounts.create_key(new, key_sha256=key_sha256, act=desk.act)


@click.group()
def key() -> None:
    """API keys: made once, shown once, revoked within a second."""


@key.command(name="create")
@click.option("--project", "slug", callback=slug_option, help="The key speaks for this project.")
@click.option("--admin", "is_admin", is_flag=True, help="The key speaks for the whole installation.")
@click.option("--user", "who", type=WHO, help="The key speaks for this person: id, wallet or mail address.")
@click.option("--name", type=NAME, default="", help="For people: where it is used.")
@click.option(
    "--permission", "permissions", type=click.Choice(PERMISSIONS), multiple=True, help="Repeatable; else all."
)
@click.option("--expires", "expires_ms", type=TIME, help="RFC 3339; never if left out.")
@admin_options
def key_create(
    *,
    slug: str | None,
    is_admin: bool,
    who: str | None,
    name: str,
    permissions: tuple[str, ...],
    expires_ms: int | None,
    asked: Asked,
) -> None:
    """Make an API key and print it: the only time it can be seen."""
    if [slug is not None, is_admin, who is not None].count(True) != 1:
        raise click.UsageError("either --project SLUG, --user USER or --admin")
    scope: Scope = "admin" if is_admin else "project" if slug is not None else "user"

    async def work(desk: Desk) -> tuple[str, KeyRecord]:
        if expires_ms is not None and expires_ms <= desk.act.now_ms:
            raise click.ClickException("--expires is over: choose a time to come")
        account = None if who is None else await desk.person(who)
        if account is not None and account.retired_ms is not None:
            raise click.ClickException(f"user {who} is retired: admin user change --not-retired brings back")
        return await make_key(
            desk,
            scope=scope,
            project_id=None if slug is None else (await desk.project(slug)).project_id,
            user_id=None if account is None else account.user_id,
            name=name,
            permissions=tuple(one for one in PERMISSIONS if one in (permissions or PERMISSIONS)),
            expires_ms=expires_ms,
        )

    secret, made = asked.run(work)
    asked.show(
        {
            "key_id": made.key_id,
            "api_key": secret,
            "project": slug,
            "name": name,
            "scope": made.scope,
            "user_id": made.user_id,
            "permissions": list(made.permissions),
            "expires_at": at(made.expires_ms),
        }
    )


@key.command(name="list")
@click.option("--project", "slug", type=SLUG, help="Only keys of this project.")
@click.option("--user", "who", type=WHO, help="Only keys of this person.")
@page_options()
@admin_options
def key_list(*, slug: str | None, who: str | None, after: str | None, limit: int, asked: Asked) -> None:
    """List keys by age, without their secrets; revoked ones are among them."""

    async def work(desk: Desk) -> list[KeyRecord]:
        return await desk.stores.accounts.keys(
            user_id=None if who is None else (await desk.person(who)).user_id,
            project_ids=() if slug is None else ((await desk.project(slug)).project_id,),
            everyones=slug is None and who is None,
            after=after,
            limit=limit + 1,
        )

    asked.show_page("keys", asked.run(work), limit, described, lambda one: one.key_id)


@key.command(name="revoke")
@click.argument("key_id", type=ID)
@destructive("Whoever uses this key is refused from now on. Revoke?")
@admin_options
def key_revoke(*, key_id: str, asked: Asked) -> None:
    """Make an API key worthless, within a second."""

    async def work(desk: Desk) -> bool:
        return await desk.stores.accounts.revoke_key(key_id, act=desk.act)

    if not asked.run(work):
        raise click.ClickException(f"there is no key {key_id} that still works; see: admin key list")
    asked.show({"key_id": key_id, "revoked": True})
