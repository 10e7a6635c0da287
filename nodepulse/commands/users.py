"""`admin user`: people. Nobody is deleted: who is retired may do nothing more, within a second.

How a first admin comes in: `user create --admin --email ...`, then sign in by mail, by
`user link` where none can be sent, or with a key (`key create --user`).
"""

from __future__ import annotations

import click
from msgspec import UNSET

from engine.core.accounts import Account, AccountChange
from engine.core.inventory import Balance
from engine.core.letters import LETTER_LIFE_MS
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, destructive, page_options
from nodepulse.commands.reading import EMAIL, ID, NAME, WALLET, WHO
from nodepulse.links import new_link


def described(account: Account) -> Row:
    return {
        "user_id": account.user_id,
        "name": account.name,
        "wallet": account.wallet,
        "email": account.email,
        "admin": account.admin,
        "created_at": at(account.created_ms),
        "retired_at": at(account.retired_ms),
    }


@click.group()
def user() -> None:
    """People: who signs in, and who is an admin."""


@user.command(name="create")
@click.option("--name", type=NAME, default="")
@click.option("--wallet", type=WALLET, help="0x and 40 hex digits: signs in by it.")
@click.option("--email", type=EMAIL, help="Signs in by a link that is mailed there.")
@click.option("--admin", is_flag=True, help="May do everything.")
@admin_options
def user_create(*, name: str, wallet: str | None, email: str | None, admin: bool, asked: Asked) -> None:
    """Enter a person, who can then sign in by wallet or by mail."""
    if wallet is None and email is None:
        raise click.UsageError("give --wallet, --email or both: one signs in by them")

    async def work(desk: Desk) -> Account:
        return await desk.stores.accounts.create_account(
            name=name, wallet=wallet, email=email, admin=admin, act=desk.act
        )

    asked.show(described(asked.run(work)))


@user.command(name="list")
@click.option("--wallet", type=WALLET, help="Only who has this wallet.")
@click.option("--email", type=EMAIL, help="Only who has this address.")
@page_options()
@admin_options
def user_list(*, wallet: str | None, email: str | None, after: str | None, limit: int, asked: Asked) -> None:
    """List people by age, also those that are retired."""

    async def work(desk: Desk) -> list[Account]:
        return await desk.stores.accounts.accounts(after=after, limit=limit + 1, wallet=wallet, email=email)

    asked.show_page("users", asked.run(work), limit, described, lambda one: one.user_id)


@user.command(name="show")
@click.argument("who", metavar="USER", type=WHO)
@admin_options
def user_show(*, who: str, asked: Asked) -> None:
    """Show a person, found by id, wallet or mail address."""

    async def work(desk: Desk) -> Account:
        return await desk.person(who)

    asked.show(described(asked.run(work)))


@user.command(name="change")
@click.argument("who", metavar="USER", type=WHO)
@click.option("--name", type=NAME)
@click.option("--wallet", type=WALLET)
@click.option("--no-wallet", is_flag=True, help="Take it away.")
@click.option("--email", type=EMAIL)
@click.option("--no-email", is_flag=True, help="Take it away.")
@click.option("--admin/--no-admin", default=None, help="May do everything.")
@click.option("--retired/--not-retired", default=None, help="May do nothing more.")
@admin_options
def user_change(
    *,
    who: str,
    name: str | None,
    wallet: str | None,
    no_wallet: bool,
    email: str | None,
    no_email: bool,
    admin: bool | None,
    retired: bool | None,
    asked: Asked,
) -> None:
    """Change what is known of a person; what is not named stays as it is."""
    if (wallet is not None and no_wallet) or (email is not None and no_email):
        raise click.UsageError("give it, or take it away: not both")
    change = AccountChange(
        name=UNSET if name is None else name,
        wallet=None if no_wallet else UNSET if wallet is None else wallet,
        email=None if no_email else UNSET if email is None else email,
        admin=UNSET if admin is None else admin,
        retired=UNSET if retired is None else retired,
    )
    if change == AccountChange():
        raise click.UsageError("say what is to be changed: --name, --wallet, --email, --admin, --retired")
    _change(asked, who, change)


@user.command(name="grant-admin")
@click.argument("who", metavar="USER", type=WHO)
@admin_options
def user_grant_admin(*, who: str, asked: Asked) -> None:
    """Make a person an admin of the installation, who may do everything."""
    _change(asked, who, AccountChange(admin=True))


@user.command(name="retire")
@click.argument("who", metavar="USER", type=WHO)
@destructive("All keys and sign-ins of this person end for good. Retire?")
@admin_options
def user_retire(*, who: str, asked: Asked) -> None:
    """End all keys and sign-ins of a person; what they did stays under their name."""
    _change(asked, who, AccountChange(retired=True))


@user.command(name="link")
@click.argument("who", metavar="USER", type=WHO)
@admin_options
def user_link(*, who: str, asked: Asked) -> None:
    """Make a link that signs a person in once, where no mail can be sent. Hand it over in confidence."""

    async def work(desk: Desk) -> Row:
        account = await desk.person(who)
        if account.email is None or account.retired_ms is not None:
            raise click.ClickException("links are for people who have a mail address and are not retired")
        made = await new_link(desk.stores.sign_in, desk.config, account.email, act=desk.act)
        assert made is not None  # as was just seen
        return {"link": made, "user_id": account.user_id, "expires_at": at(desk.act.now_ms + LETTER_LIFE_MS)}

    asked.show(asked.run(work))


def _change(asked: Asked, who: str, change: AccountChange) -> None:
    async def work(desk: Desk) -> Account:
        account = await desk.person(who)
        changed = await desk.stores.accounts.change_account(account.user_id, change, act=desk.act)
        assert changed is not None  # nobody is deleted
        return changed

    asked.show(described(asked.run(work)))


@user.command(name="balances")
@click.argument("who", metavar="USER", type=WHO)
@page_options(ID)
@admin_options
def user_balances(*, who: str, after: str | None, limit: int, asked: Asked) -> None:
    """List what a person's wallet has of collections that are balances (erc20)."""

    async def work(desk: Desk) -> list[Balance]:
        wallet = (await desk.person(who)).wallet
        if wallet is None:
            return []
        return await desk.stores.inventory.balances(wallet, after=after, limit=limit + 1)

    def row(one: Balance) -> Row:
        return {"collection_id": one.collection_id, "amount": str(one.amount), "block": one.block}

    asked.show_page("balances", asked.run(work), limit, row, lambda one: one.collection_id)
