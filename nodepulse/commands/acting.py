"""What all `admin` commands share: how they were asked, in whose name they act, and how a refusal is told.

Each goes through the ports that the API's routes go through, so that what it changes is in the audit log as
``cli:<login name>``. The commands themselves are in the module of their noun.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from engine.core import accounts, catalog
from engine.core.accounts import Account
from engine.core.catalog import CatalogRefusedError, KindRecord
from engine.core.inventory import CollectionExistsError, WrongPresetError
from engine.core.notices import TooManyChannelsError
from engine.core.orders import RestartRefusedError
from engine.core.people import Act
from engine.core.ports import NodeRecord, Project, WorkloadRecord
from engine.core.registration import GoneError, KeyTakenError, NameTakenError, ReferenceRefusedError
from engine.core.told import ChannelOffError, TooManyTestsError
from engine.core.uptime_source import UptimeSourceError
from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import print_ids, print_json, show, show_all
from nodepulse.commands.reading import ID
from nodepulse.commands.stores import now_ms, on_stores, project_of
from nodepulse.config import Config
from storage.ids import new_id
from storage.open import AllStores
from web.times import format_rfc3339

Command = Callable[..., Any]
Row = dict[str, Any]
T = TypeVar("T")
LIMIT_MAX = 1_000

# What a port refuses with, and what is to be done about it; empty where its own words say so.
ADVICE: dict[type[Exception], str] = {
    accounts.TakenError: "find it: admin user list --wallet ... or --email ...",
    accounts.NamelessError: "give --wallet, --email or both",
    catalog.TakenError: "choose another, or change the one that is there",
    CatalogRefusedError: "",
    CollectionExistsError: "find it: admin collection list",
    WrongPresetError: "choose another --preset, or leave it empty",
    TooManyChannelsError: "remove one first: admin channel remove",
    ChannelOffError: "admin channel enable",
    TooManyTestsError: "wait, or look at what came of those: admin channel deliveries",
    RestartRefusedError: "",
    GoneError: "",
    KeyTakenError: "each node needs one of its own",
    NameTakenError: "choose another --name",
    ReferenceRefusedError: "see what there is: admin kind list, admin licence list, admin user list",
    UptimeSourceError: "try again later",
}


class Desk(msgspec.Struct, frozen=True):
    """What a command works on: the open stores, the configuration, and the act that it is."""

    stores: AllStores
    config: Config
    act: Act

    def also(self) -> Desk:
        """For a further thing that the same act makes: with another id for it."""
        return msgspec.structs.replace(self, act=msgspec.structs.replace(self.act, made_id=new_id()))

    async def project(self, slug: str) -> Project:
        """ClickException when there is none; as all of these."""
        return await project_of(self.stores, slug)

    async def kind(self, slug: str, kind: str) -> KindRecord:
        project = await self.project(slug)
        found = await self.stores.catalog.kind(project.project_id, kind)
        return there(found, f"kind {kind} in {slug}", f"kind list --project {slug}")

    async def node(self, node_id: str) -> NodeRecord:
        return there(await self.stores.directory.node(node_id), f"node {node_id}", "node list")

    async def workload(self, workload_id: str) -> WorkloadRecord:
        found = await self.stores.directory.workload(workload_id)
        return there(found, f"workload {workload_id}", "workload list --project SLUG")

    async def person(self, who: str) -> Account:
        """Somebody by id, wallet or mail address (reading.py, WHO)."""
        port = self.stores.accounts
        if who.startswith("0x"):
            found = await port.accounts(after=None, limit=1, wallet=who)
        elif "@" in who:
            found = await port.accounts(after=None, limit=1, email=who)
        else:
            one = await port.account(who)
            found = [one] if one is not None else []
        return there(found[0] if found else None, f"user {who}", "user list")


class Asked(msgspec.Struct, frozen=True):
    """How a command was asked: where its configuration comes from, and how its answer is wanted."""

    sources: Sources
    as_json: bool
    ids_only: bool

    def run(self, work: Callable[[Desk], Awaitable[T]]) -> T:
        """What ``await work(desk)`` returns; what a port refuses is a ClickException (exit code 1)."""

        async def on_desk(stores: AllStores, config: Config) -> T:
            return await work(Desk(stores, config, new_act(config)))

        try:
            return on_stores(self.sources, on_desk)
        except tuple(ADVICE) as error:
            advice = ADVICE[type(error)]
            raise click.ClickException(f"{error}; {advice}" if advice else str(error)) from error

    def show(self, value: Row) -> None:
        """One thing; its id is the first field."""
        if self.ids_only:
            print_ids([value])
        else:
            show(value, as_json=self.as_json)

    def show_page(
        self, name: str, found: Sequence[T], limit: int, row: Callable[[T], Row], cursor: Callable[[T], str]
    ) -> None:
        """A page of what was asked for with one more than `limit`, and the cursor of the next one."""
        page = found[:limit]
        rows = [row(one) for one in page]
        after = cursor(page[-1]) if len(found) > limit else None
        if self.ids_only:
            print_ids(rows)
        elif self.as_json:
            print_json({name: rows, "next_cursor": after})
            return
        else:
            show_all(name, [_short(one) for one in rows], as_json=False)
        if after is not None:
            click.echo(f"there are more: --after {after}", err=True)


def _short(row: Row) -> Row:
    """For a line of a table."""
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in row.items()}


def admin_options(command: Command) -> Command:
    """Add --json, --ids and where the configuration is; the command gets `asked`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("--ids", "ids_only", is_flag=True, help="Print ids alone, one a line, for xargs.")
    @config_options
    @wraps(command)
    def asked(*args: Any, as_json: bool, ids_only: bool, sources: Sources, **options: Any) -> Any:
        if as_json and ids_only:
            raise click.UsageError("either --json or --ids")
        return command(*args, asked=Asked(sources, as_json, ids_only), **options)

    return asked


def page_options(cursor: click.ParamType[Any] = ID) -> Callable[[Command], Command]:
    """Add --after and --limit."""

    def add(command: Command) -> Command:
        limit = click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=100, show_default=True)
        after = click.option("--after", type=cursor, help="The cursor that the page before told.")
        return after(limit(command))

    return add


def destructive(what: str) -> Callable[[Command], Command]:
    """Ask before doing it, if there is somebody to ask and --yes was not said; in scripts never."""

    def add(command: Command) -> Command:
        @click.option("--yes", is_flag=True, help="Do not ask.")
        @wraps(command)
        def asking(*args: Any, yes: bool, **options: Any) -> Any:
            if not yes and has_terminal():
                click.confirm(what, abort=True, err=True)
            return command(*args, **options)

        return asking

    return add


def has_terminal() -> bool:
    """Whether there is somebody who could answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def new_act(config: Config) -> Act:
    """An act of whoever runs this command, now."""
    return Act(
        actor=f"cli:{_login_name()}", now_ms=now_ms(config), request_id=f"cli-{new_id()}", made_id=new_id()
    )


def _login_name() -> str:
    """As the system knows it; not from the environment, which anybody may set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def there(found: T | None, what: str, listing: str) -> T:
    """What was found. ClickException when it is None."""
    if found is None:
        raise click.ClickException(f"there is no {what}; see: admin {listing}")
    return found


def at(unix_ms: int | None) -> str | None:
    """A time as it is printed: RFC 3339."""
    return None if unix_ms is None else format_rfc3339(unix_ms)


def read_text(path: Path, *, bytes_max: int) -> str:
    """The text of a file, or of standard input for ``-``. ClickException."""
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(bytes_max + 1)
        if len(raw) > bytes_max:
            raise click.ClickException(f"{path} has more than {bytes_max} bytes")
        return raw.decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} is no UTF-8 text") from error
