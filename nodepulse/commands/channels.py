"""`admin channel`: where notices of a project, or of a person, go. A webhook's secret is printed once."""

from __future__ import annotations

from typing import get_args

import click

from engine.core.mail_address import parse_mail_address
from engine.core.notices import ChannelRecord, EventKind
from nodepulse.commands.acting import Asked, Command, Desk, Row, admin_options, at, destructive
from nodepulse.commands.output import print_ids, print_json, show_all
from nodepulse.commands.reading import ID, NAME, SLUG, URL, WHO
from storage.tokens import new_webhook_secret


def described(channel: ChannelRecord) -> Row:
    return {
        "channel_id": channel.channel_id,
        "kind": channel.kind,
        "target": channel.target,
        "name": channel.name,
        "event_kinds": list(channel.event_kinds),
        "created_at": at(channel.created_ms),
        "disabled_at": at(channel.disabled_ms),
    }


def owner_options(command: Command) -> Command:
    """Add --project and --user, of which one must be given: whose channels they are."""
    user = click.option("--user", "who", type=WHO, help="A person's: id, wallet or mail address.")
    project = click.option("--project", "slug", type=SLUG, help="A project's.")
    return project(user(command))


async def _owner(desk: Desk, slug: str | None, who: str | None) -> dict[str, str]:
    """Whose channels they are, as the port takes it."""
    if slug is not None:
        return {"project_id": (await desk.project(slug)).project_id}
    assert who is not None
    return {"user_id": (await desk.person(who)).user_id}


def _must_be_one(slug: str | None, who: str | None) -> None:
    if (slug is None) == (who is None):
        raise click.UsageError("either --project SLUG or --user USER")


@click.group()
def channel() -> None:
    """Where notices of a project, or of a person, go."""


@channel.command(name="add")
@click.argument("kind", type=click.Choice(["webhook", "mail"]))
@click.argument("target")
@owner_options
@click.option("--name", type=NAME, default="")
@click.option(
    "--event", "events", type=click.Choice(get_args(EventKind)), multiple=True, help="Repeatable; else all."
)
@click.option("--secret", default="", help="Of a webhook: whsec_ and base64; made when left out.")
@admin_options
def channel_add(
    *,
    kind: str,
    target: str,
    slug: str | None,
    who: str | None,
    name: str,
    events: tuple[str, ...],
    secret: str,
    asked: Asked,
) -> None:
    """Send notices to a URL (signed, Standard Webhooks) or a mail address."""
    _must_be_one(slug, who)
    _check_target(kind, target)
    if kind == "webhook" and not secret:
        secret = new_webhook_secret()

    async def work(desk: Desk) -> ChannelRecord:
        return await desk.stores.notices.create_channel(
            **await _owner(desk, slug, who),
            kind=kind,
            target=target,
            secret=secret,
            name=name,
            event_kinds=tuple(dict.fromkeys(events)),
            act=desk.act,
        )

    made = asked.run(work)
    described = {"channel_id": made.channel_id, "kind": kind, "target": target, "secret": secret or None}
    asked.show({**described, "name": name, "event_kinds": list(made.event_kinds)})


def _check_target(kind: str, target: str) -> None:
    if kind == "webhook":
        URL.convert(target, None, None)
        return
    try:
        parse_mail_address(target)
    except ValueError as error:
        raise click.UsageError(f"{target!r} is no mail address") from error


@channel.command(name="list")
@owner_options
@admin_options
def channel_list(*, slug: str | None, who: str | None, asked: Asked) -> None:
    """List the channels of a project or of a person: 100 at most, without their secrets."""
    _must_be_one(slug, who)

    async def work(desk: Desk) -> list[ChannelRecord]:
        return await desk.stores.notices.channels(**await _owner(desk, slug, who))

    rows = [described(one) for one in asked.run(work)]
    if asked.ids_only:
        print_ids(rows)
    elif asked.as_json:
        print_json({"channels": rows})
    else:
        show_all("channels", rows, as_json=False)


@channel.command(name="remove")
@click.argument("channel_id", type=ID)
@owner_options
@destructive("What was still to be told there is dropped. Remove?")
@admin_options
def channel_remove(*, channel_id: str, slug: str | None, who: str | None, asked: Asked) -> None:
    """Tell nothing there any more; what was still to be told is dropped."""
    _must_be_one(slug, who)

    async def work(desk: Desk) -> bool:
        owner = await _owner(desk, slug, who)
        return await desk.stores.notices.remove_channel(channel_id, **owner, act=desk.act)

    if not asked.run(work):
        whose = f"project {slug}" if slug is not None else f"user {who}"
        raise click.ClickException(f"there is no channel {channel_id} of {whose}; see: admin channel list")
    asked.show({"channel_id": channel_id, "removed": True})
