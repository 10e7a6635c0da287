"""Makes one project of a seeded network: its kinds and versions, licences, nodes, and a window tonight.

What is made is seed_network.py's. Each step up to the nodes leaves alone what is there already, so that a
seeding that was cut short before them can be run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from engine.core import catalog
from engine.core.accounts import Account
from engine.core.catalog import KindRecord, ProjectRecord, RewardRule
from engine.core.inventory import (
    Block,
    Collection,
    CollectionExistsError,
    Licence,
    LicenceFilter,
    NewCollection,
    Pass,
    Token,
)
from engine.core.people import Act
from engine.core.ports import NewNode, NodeRecord
from nodepulse.config import Config
from nodepulse.provision import new_node_key
from nodepulse.seed_history import DAY_MS, HOUR_MS, MINUTE_MS, began_ms
from nodepulse.seed_network import (
    CHAIN_ID,
    INTERVAL_MS,
    OPERATORS,
    OUTDATED,
    RUNNING,
    Kind,
    Person,
    Plan,
    manifest_of,
)
from storage.ids import new_id
from storage.open import AllStores

NOTIFIER_S = 5.0  # how long the notifier may take to pass what has happened
KEY_LIFE_MS = 90 * DAY_MS


class Seeding(NamedTuple):
    """What all steps work with. Each thing that is made gets an id of its own: `again`."""

    stores: AllStores
    config: Config
    act: Act
    interval_ms: int = INTERVAL_MS

    def again(self) -> Act:
        return msgspec.structs.replace(self.act, made_id=new_id())


class Made(NamedTuple):
    """One project as it was made."""

    plan: Plan
    project: ProjectRecord
    nodes: list[NodeRecord]
    private_keys: list[str]
    sold: Licence


# -- projects ---------------------------------------------------------------------------------------------


async def make_project(seeding: Seeding, plan: Plan, people: dict[Person, Account]) -> Made:
    """A project with its owner, policy, kinds, licences, nodes and a window tonight."""
    stores, now_ms = seeding.stores, seeding.act.now_ms
    project = await _made_project(seeding, plan)
    await stores.projects.add_owner(seeding.again(), project.project_id, people[plan.owner].user_id)
    await _policy(seeding, plan, project)
    kinds = {kind.slug: await _kind(seeding, project, kind) for kind in plan.kinds}
    licences, sold = await _licences(seeding, plan, project)
    nodes, private_keys = await _nodes(seeding, plan, project, kinds, licences, people)
    for number, node in enumerate(nodes):
        await _running(seeding, node, outdated=number == 1)
    begins_ms = (now_ms // HOUR_MS + 2) * HOUR_MS
    await stores.directory.open_window(
        nodes[0].node_id,
        None,
        from_ms=begins_ms,
        to_ms=begins_ms + HOUR_MS // 2,
        own=False,
        now_ms=now_ms,
        act=seeding.again(),
    )
    return Made(plan, project, nodes, private_keys, sold)


async def _made_project(seeding: Seeding, plan: Plan) -> ProjectRecord:
    port = seeding.stores.projects
    try:
        return await port.create_project(seeding.again(), slug=plan.slug, name=plan.name)
    except catalog.TakenError:
        there = await seeding.stores.directory.project(plan.slug)
        assert there is not None  # projects are never deleted
        found = await port.project(there.project_id)
        assert found is not None
        return found


async def _policy(seeding: Seeding, plan: Plan, project: ProjectRecord) -> None:
    """What holds since its history begins; a project that has decided keeps what it has."""
    port = seeding.stores.projects
    if await port.policies(project.project_id):
        return
    began = datetime.fromtimestamp(began_ms(seeding.act.now_ms) / 1000, UTC).date()
    rule = RewardRule(
        micro_points_per_paid_s=1_000,
        floor_paid_ms=HOUR_MS,
        kind_weights_ppm={plan.kinds[0].slug: 1_500_000},
    )
    await port.add_policy(
        seeding.again(),
        project.project_id,
        effective_from=began,
        today=began,
        uptime_source="native",
        pay_claims=True,
        reward=rule,
    )


async def _kind(seeding: Seeding, project: ProjectRecord, kind: Kind) -> KindRecord:
    """A kind with its versions; one that is there stays as it is."""
    port = seeding.stores.catalog
    try:
        made = await port.create_kind(seeding.again(), project.project_id, slug=kind.slug, name=kind.name)
    except catalog.TakenError:
        found = await port.kind(project.project_id, kind.slug)
        assert found is not None
        return found
    for release in kind.releases:
        await port.create_version(
            seeding.again(),
            made.kind_id,
            version=release.version,
            manifest=manifest_of(kind, release),
            rollout_percent=release.rollout,
        )
    if kind.minimum is not None:
        await port.change_kind(seeding.again(), made.kind_id, minimum_version=kind.minimum)
    return made


# -- licences ---------------------------------------------------------------------------------------------


async def _licences(seeding: Seeding, plan: Plan, project: ProjectRecord) -> tuple[list[Licence], Licence]:
    """All of the project by token id, and the one that was sold at noon yesterday.

    As three looks at the chain would have brought them. The collection is read from an address that leads
    nowhere: so its last known owners stand, and its error says why.
    """
    inventory, now_ms = seeding.stores.inventory, seeding.act.now_ms
    new = NewCollection(
        project_id=project.project_id,
        chain_id=CHAIN_ID,
        contract=plan.contract,
        standard="erc721",
        name=f"{plan.name} licences",
        subgraph_url=f"https://subgraph.{plan.slug}.example/licences",
    )
    try:
        collection = await inventory.add_collection(new, act=seeding.again())
    except CollectionExistsError:
        collection = (await inventory.collections(project.project_id, after=None, limit=1))[0]
    noon_ms = now_ms // DAY_MS * DAY_MS - 12 * HOUR_MS
    owners = [OPERATORS[number % len(OPERATORS)].wallet for number in range(plan.licences)]
    before = [Token(number, owner) for number, owner in enumerate(owners)]
    sale = [Token(0, OPERATORS[1].wallet)]
    await _look(seeding, collection, began_ms(now_ms), before, whole=True)
    await _look(seeding, collection, noon_ms, sale, whole=False)
    await _look(seeding, collection, now_ms - MINUTE_MS, [], whole=False)
    which = LicenceFilter(collection_id=collection.collection_id)
    found = await inventory.licences(which, after=None, limit=plan.licences)
    by_token = sorted(found, key=lambda one: one.token_id)
    return by_token, by_token[0]


async def _look(
    seeding: Seeding, collection: Collection, block_ms: int, seen: Sequence[Token], *, whole: bool
) -> None:
    """One look at the chain, which has a block each second."""
    now = await seeding.stores.inventory.collection(collection.collection_id)
    assert now is not None
    if now.block_ms is not None and now.block_ms >= block_ms:
        return  # another seeding was here
    number = block_ms // 1000
    block = Block(number=number, hash=f"0x{number:064x}", ms=block_ms)
    found = Pass(block=block, whole=whole, seen=seen, before_hash=now.synced_hash)
    await seeding.stores.inventory_sync.apply(now, found, now_ms=seeding.act.now_ms)


# -- machines ---------------------------------------------------------------------------------------------


async def _nodes(
    seeding: Seeding,
    plan: Plan,
    project: ProjectRecord,
    kinds: dict[str, KindRecord],
    licences: Sequence[Licence],
    people: dict[Person, Account],
) -> tuple[list[NodeRecord], list[str]]:
    """The nodes, as old as their history, and their private keys. Each workload has a licence of its own."""
    free = iter(licences)
    new: list[NewNode] = []
    private_keys: list[str] = []
    for number, (name, place) in enumerate(plan.nodes()):
        private, public = new_node_key()
        private_keys.append(private)
        workloads = plan.workloads(number)
        new.append(
            NewNode(
                project_id=project.project_id,
                name=name,
                kind="node",
                public_key=public,
                interval_ms=seeding.interval_ms,
                workloads=workloads,
                kind_ids=tuple(kinds[slug].kind_id for slug in workloads),
                owner_id=people[OPERATORS[number % len(OPERATORS)]].user_id,
                region=place.region,
                licence_ids=tuple(next(free).licence_id for _ in workloads),
            )
        )
    made = await seeding.stores.directory.create_nodes(
        new, now_ms=began_ms(seeding.act.now_ms), act=seeding.act
    )
    return made, private_keys


async def _running(seeding: Seeding, node: NodeRecord, *, outdated: bool) -> None:
    """What its manager reported to run; one of them runs something too old on all but its first workload."""
    for place, workload_id in enumerate(node.workload_ids):
        version = OUTDATED if outdated and place else RUNNING
        await seeding.stores.orders.report(
            node.node_id, workload_id, version=version, restarts=None, now_ms=seeding.act.now_ms
        )
