"""`admin channel`: where notices of a project, or of a person, go; what was told there, dead letters, a test.

A webhook's secret is printed once, a service's URL never.
"""

from __future__ import annotations

import sys
from typing import get_args

import click

from engine.core.apprise_url import fault_of_service, schema_of, schemas_of, shown
from engine.core.mail_address import parse_mail_address
from engine.core.notices import ChannelRecord, TakenKind
from engine.core.told import DeliveryRecord, DeliveryState, notice_of_test
from nodepulse.commands.acting import (
    Asked,
    Command,
    Desk,
    Row,
    admin_options,
    at,
    destructive,
    page_options,
    there,
)
from nodepulse.commands.output import print_ids, print_json, show_all
from nodepulse.commands.reading import ID, NAME, SLUG, URL, WHO
from storage.apprise_library import service_of
from storage.tokens import new_webhook_secret


def described(channel: ChannelRecord) -> Row:
    return {
        "channel_id": channel.channel_id,
        "kind": channel.kind,
        "target": _shown(channel.kind, channel.target),
        "name": channel.name,
        "event_kinds": list(channel.event_kinds),
        "created_at": at(channel.created_ms),
        "unconfirmed_since": at(channel.unconfirmed_ms),
        "disabled_at": at(channel.disabled_ms),
        "disabled_because": channel.disabled_note,
        "announcements": channel.no_announcements_ms is None,
    }


def _shown(kind: str, target: str) -> str:
    return shown(target) if kind == "apprise" else target


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
@click.argument("kind", type=click.Choice(["webhook", "mail", "apprise"]))
@click.argument("target")
@owner_options
@click.option("--name", type=NAME, default="")
@click.option(
    "--event", "events", type=click.Choice(get_args(TakenKind)), multiple=True, help="Repeatable; else all."
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
    """Send notices to a URL (signed, Standard Webhooks), a mail address, or a chat or SMS service by its URL
    as apprise writes it; `-` reads that from standard input."""
    _must_be_one(slug, who)
    if target == "-":
        target = sys.stdin.readline().strip()
    _check_target(kind, target)
    if kind == "webhook" and not secret:
        secret = new_webhook_secret()

    async def work(desk: Desk) -> ChannelRecord:
        if kind == "apprise":
            _check_service(target, desk.config.worker.apprise_schemas)
        owner = await _owner(desk, slug, who)
        return await desk.stores.notices.create_channel(
            project_id=owner.get("project_id"),
            user_id=owner.get("user_id"),
            kind=kind,
            target=target,
            secret=secret,
            name=name,
            event_kinds=tuple(dict.fromkeys(events)),
            act=desk.act,
        )

    made = asked.run(work)
    told: Row = {"channel_id": made.channel_id, "kind": kind, "target": _shown(kind, target)}
    told["secret"] = secret or None
    asked.show({**told, "name": name, "event_kinds": list(made.event_kinds)})


def _check_service(target: str, schemas: str) -> None:
    fault = fault_of_service(target, schemas_of(schemas))
    if fault is None and service_of(target) is None:
        fault = f"{schema_of(target)}:// needs more or other parts than this URL has"
    if fault is not None:
        raise click.ClickException(fault)


def _check_target(kind: str, target: str) -> None:
    if kind == "webhook":
        URL.convert(target, None, None)
        return
    if kind == "apprise":
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


async def _channel(desk: Desk, channel_id: str, slug: str | None, who: str | None) -> ChannelRecord:
    """One of theirs. ClickException."""
    found = await desk.stores.told.channel(channel_id, **await _owner(desk, slug, who))
    return there(found, f"channel {channel_id}", "channel list")


def _delivery_row(one: DeliveryRecord) -> Row:
    notice = one.notice
    return {
        "delivery_id": one.delivery_id,
        "state": one.state,
        "attempts": one.attempts,
        "replays": one.replays,
        "note": one.note,
        "form": notice.form,
        "kind": notice.kind,
        "title": notice.title,
        "notice_id": notice.notice_id,
        "created_at": at(one.created_ms),
        "due_at": at(one.due_ms) if one.state == "due" else None,
        "attempted_at": at(one.attempted_ms),
        "settled_at": at(one.settled_ms),
    }


@channel.command(name="deliveries")
@click.argument("channel_id", type=ID)
@owner_options
@click.option("--state", type=click.Choice(get_args(DeliveryState)), help="dead: dead letters.")
@page_options()
@admin_options
def channel_deliveries(
    *,
    channel_id: str,
    slug: str | None,
    who: str | None,
    state: DeliveryState | None,
    after: str | None,
    limit: int,
    asked: Asked,
) -> None:
    """List what was told there and what came of it, the newest first."""
    _must_be_one(slug, who)

    async def work(desk: Desk) -> list[DeliveryRecord]:
        found = await _channel(desk, channel_id, slug, who)
        return await desk.stores.told.deliveries(found.channel_id, state=state, before=after, limit=limit + 1)

    asked.show_page("deliveries", asked.run(work), limit, _delivery_row, lambda one: one.delivery_id)


@channel.command(name="test")
@click.argument("channel_id", type=ID)
@owner_options
@admin_options
def channel_test(*, channel_id: str, slug: str | None, who: str | None, asked: Asked) -> None:
    """Send a test there, on the way that all notices go; `deliveries` tells what came of it."""
    _must_be_one(slug, who)

    async def work(desk: Desk) -> str:
        found = await _channel(desk, channel_id, slug, who)
        return await desk.stores.told.send_test(found, notice_of_test(found, desk.act), act=desk.act)

    asked.show({"delivery_id": asked.run(work), "channel_id": channel_id})


@channel.command(name="replay")
@click.argument("channel_id", type=ID)
@click.argument("delivery_id", type=ID, required=False)
@owner_options
@admin_options
def channel_replay(
    *, channel_id: str, delivery_id: str | None, slug: str | None, who: str | None, asked: Asked
) -> None:
    """Send a dead letter again, or all of the channel."""
    _must_be_one(slug, who)

    async def work(desk: Desk) -> int:
        found = await _channel(desk, channel_id, slug, who)
        return await desk.stores.told.replay(found, delivery_id, act=desk.act)

    count = asked.run(work)
    if delivery_id is not None and not count:
        advice = "see: admin channel deliveries --state dead"
        raise click.ClickException(f"there is no dead letter {delivery_id}; {advice}")
    asked.show({"channel_id": channel_id, "replayed": count})


@channel.command(name="enable")
@click.argument("channel_id", type=ID)
@owner_options
@admin_options
def channel_enable(*, channel_id: str, slug: str | None, who: str | None, asked: Asked) -> None:
    """Have notices sent there again after its receiver wanted no more."""
    _must_be_one(slug, who)

    async def work(desk: Desk) -> ChannelRecord:
        found = await _channel(desk, channel_id, slug, who)
        return await desk.stores.told.enable(found, act=desk.act)

    asked.show(described(asked.run(work)))
