"""Makes a believable network: two projects with all that belongs to them, and two days of history.

What it consists of is seed_network.py's, how a project is made seed_project.py's, what its machines have
been through seed_history.py's. Everything goes through the ports, so people's acts are in the audit log. Run
again it finds the network and leaves it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from engine.core import accounts
from engine.core.accounts import Account, NewKey
from engine.core.catalog import ProjectRecord
from engine.core.people import PERMISSIONS, Act
from nodepulse.checks import create_check
from nodepulse.config import Config
from nodepulse.readiness import reached_at
from nodepulse.seed_history import DAY_MS, history_of
from nodepulse.seed_network import (
    CHECKS,
    INTERVAL_MS,
    OPERATORS,
    PEOPLE,
    Person,
    Plan,
    plans,
)
from nodepulse.seed_project import Made, Seeding, make_project
from storage.open import AllStores
from storage.tokens import new_api_key, new_webhook_secret

NOTIFIER_S = 5.0  # how long the notifier may take to pass what has happened
NOTIFIER_POLL_S = 0.05
EVENTS_MAX = 1_000  # more than are seeded
KEY_LIFE_MS = 90 * DAY_MS


async def seed(
    stores: AllStores,
    config: Config,
    *,
    project: str,
    act: Act,
    interval_ms: int = INTERVAL_MS,
    told_at: str = "",
) -> dict[str, Any]:
    """The network under a project of this slug, and another one beside it; what `db seed` prints.

    Where one of the two has nodes already, whoever made them, nothing is made, and ``already_there`` is true.
    `interval_ms`: at which the nodes are to beat from now on. `told_at`: URL that all notices go to; without
    it they go to addresses that lead nowhere.
    """
    for plan in plans(project):
        if await _has_nodes(stores, plan.slug):
            return {"project": plan.slug, "already_there": True, "api_key": None, "nodes": [], "checks": []}
    seeding = Seeding(stores, config, act, interval_ms)
    people = {person: await _account(seeding, person) for person in (*PEOPLE, *OPERATORS)}
    # The nodes are as old as their history: a worker must not seal their days before that is written.
    async with stores.sealing.paused():
        made = [await make_project(seeding, plan, people) for plan in plans(project)]
        await _history(seeding, made)
    checks = [
        await create_check(
            stores.directory,
            config,
            project_id=made[0].project.project_id,
            name=name,
            interval_ms=interval_ms,
            now_ms=act.now_ms,
            act=act,
        )
        for name, interval_ms in CHECKS
    ]
    for one in made:
        await _channels(seeding, one.project, one.plan, people, told_at=told_at)
    keys = await _keys(seeding, made, people)
    return {
        "project": project,
        "already_there": False,
        "api_key": keys[0]["api_key"],
        "projects": [one.plan.slug for one in made],
        "keys": keys,
        "nodes": [node for one in made for node in _nodes_told(one)],
        "checks": checks,
        "sold_licence": made[0].sold.licence_id,
        "next": _next(seeding, made[0], keys[0]["api_key"]),
    }


async def _has_nodes(stores: AllStores, slug: str) -> bool:
    found = await stores.directory.project(slug)
    return found is not None and bool(
        await stores.directory.list_nodes(found.project_id, after=None, limit=1)
    )


# -- people -----------------------------------------------------------------------------------------------


async def _account(seeding: Seeding, person: Person) -> Account:
    """Made when absent: another network may have brought them."""
    port = seeding.stores.accounts
    try:
        return await port.create_account(
            name=person.name, wallet=person.wallet, email=person.email, admin=False, act=seeding.again()
        )
    except accounts.TakenError:
        return (await port.accounts(after=None, limit=1, email=person.email))[0]


async def _keys(
    seeding: Seeding, made: Sequence[Made], people: dict[Person, Account]
) -> list[dict[str, Any]]:
    """One of each kind; the first is the first project's."""
    month_ms = seeding.act.now_ms + KEY_LIFE_MS
    first, second = (one.project.project_id for one in made)
    operator = OPERATORS[0]
    wanted = [
        (f"all of {made[0].plan.slug}", NewKey(scope="project", project_id=first, permissions=PERMISSIONS)),
        (
            f"reads {made[0].plan.slug}",
            NewKey(scope="project", project_id=first, permissions=("read",), expires_ms=month_ms),
        ),
        (f"all of {made[1].plan.slug}", NewKey(scope="project", project_id=second, permissions=PERMISSIONS)),
        (
            operator.name,
            NewKey(scope="user", user_id=people[operator].user_id, permissions=("read", "write")),
        ),
        ("admin", NewKey(scope="admin", permissions=PERMISSIONS, expires_ms=month_ms)),
    ]
    told: list[dict[str, Any]] = []
    for name, new in wanted:
        secret, key_sha256 = new_api_key()
        named = msgspec.structs.replace(new, name=f"seed: {name}")
        key = await seeding.stores.accounts.create_key(named, key_sha256=key_sha256, act=seeding.again())
        told.append(
            {
                "key_id": key.key_id,
                "for": name,
                "scope": key.scope,
                "permissions": list(key.permissions),
                "api_key": secret,
            }
        )
    return told


async def _channels(
    seeding: Seeding,
    project: ProjectRecord,
    plan: Plan,
    people: dict[Person, Account],
    *,
    told_at: str,
) -> None:
    """A webhook of the project and mail to an operator, or to whoever listens at `told_at`."""
    port = seeding.stores.notices
    await port.create_channel(
        project_id=project.project_id,
        kind="webhook",
        target=f"{told_at}/{plan.slug}" if told_at else f"https://hooks.{plan.slug}.example/nodepulse",
        secret=new_webhook_secret(),
        name="operations",
        event_kinds=("node.down", "node.up"),
        act=seeding.again(),
    )
    await port.create_channel(
        user_id=people[OPERATORS[0]].user_id,
        kind="webhook" if told_at else "mail",
        target=f"{told_at}/olga" if told_at else OPERATORS[0].email,
        secret=new_webhook_secret() if told_at else "",
        name=f"me, of {plan.name}",
        event_kinds=(),
        act=seeding.again(),
    )


async def _history(seeding: Seeding, made: Sequence[Made]) -> None:
    """Write it, and see to it that nobody is told: it is long over."""
    stores = seeding.stores
    nodes = [node for one in made for node in one.nodes]
    await stores.history.flush(history_of(nodes, now_ms=seeding.act.now_ms))
    if await stores.outbox.take_notifier_lock():
        await _pass_over(seeding, {one.project.project_id for one in made})
        return
    with trio.move_on_after(NOTIFIER_S):  # the channels are made when the notifier is past it
        while True:
            cursor = await stores.outbox.notifier_cursor()
            if not await stores.history.events(project_id=None, after=cursor, limit=1):
                return
            await trio.sleep(NOTIFIER_POLL_S)


async def _pass_over(seeding: Seeding, projects: set[str]) -> None:
    """No notifier runs: the next one begins behind this, unless something of others waits for it."""
    outbox = seeding.stores.outbox
    cursor = await outbox.notifier_cursor()
    waiting = await seeding.stores.history.events(project_id=None, after=cursor, limit=EVENTS_MAX)
    if {event.project_id for _, event in waiting} <= projects and len(waiting) < EVENTS_MAX:
        await outbox.pass_over(waiting[-1][0])


# -- what is told -----------------------------------------------------------------------------------------


def _nodes_told(made: Made) -> list[dict[str, Any]]:
    return [
        {
            "node_id": node.node_id,
            "name": node.name,
            "private_key": private,
            "workloads": list(node.workload_ids),
            "project": made.plan.slug,
            "region": node.region,
        }
        for node, private in zip(made.nodes, made.private_keys, strict=True)
    ]


def _next(seeding: Seeding, made: Made, key: str) -> list[str]:
    """Command lines to try."""
    web = seeding.config.web
    base = f"http://{reached_at(web.host, web.port)}/v1"
    slug = made.plan.slug
    yesterday = datetime.fromtimestamp(seeding.act.now_ms / 1000 - 86_400, UTC).date().isoformat()
    curl = f"curl -H 'Authorization: Bearer {key}'"
    return [
        f"{curl} '{base}/projects/{slug}/summary'",
        f"{curl} '{base}/projects/{slug}/uptime?day={yesterday}'",
        f"{curl} '{base}/events?project={slug}'",
        f"{curl} '{base}/workloads/{made.nodes[1].workload_ids[0]}/why?day={yesterday}'",
        f"{curl} '{base}/projects/{slug}/points/suggested?day={yesterday}'",
        f"./run admin points commit {slug} --suggested --day {yesterday}",
        f"{curl} '{base}/licences/{made.sold.licence_id}/owners'",
        f"./run admin version rollout 1.5.0 50 --project {slug} --kind gateway",
        "./run admin audit list --limit 10",
    ]
