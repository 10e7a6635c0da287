"""What nodes should run, put together from PostgreSQL: the node's workloads, their kinds, what these offer.

The choice itself is engine/core/rollout.py's. What follows from it: for one node that asks,
postgres_desired.py; for all nodes after a change, postgres_rollouts.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engine.core.rollout import Offer, Wanted, desired, desired_digest, offered
from storage.pool import Connection

# The columns of a WorkloadNow.
WORKLOAD_NOW = """node_id::text, project_id::text, workload_id::text, slot, name, kind_id::text, restarts,
  running_version, below_minimum_ms, first_report_ms"""


class KindNow(msgspec.Struct, frozen=True):
    """A kind as choosing needs it. `offers`: the best first."""

    slug: str
    minimum_version: str | None
    offers: tuple[Offer, ...]


class WorkloadNow(msgspec.Struct, frozen=True):
    """A living workload of a node that is looked at."""

    node_id: str
    project_id: str
    workload_id: str
    slot: int
    name: str
    kind_id: str | None
    restarts: int
    running_version: str | None
    below_minimum_ms: int | None
    first_report_ms: int | None


class NodeNow(msgspec.Struct, frozen=True):
    """A node whose row is locked, neither revoked nor retired."""

    node_id: str
    row: int
    kind: str
    interval_ms: int
    desired_digest: bytes | None  # that its manager fetched last
    resync: bool
    heard_by_engines: bool  # it had a session or a capability
    workloads: tuple[WorkloadNow, ...]


async def kinds_now(connection: Connection, kind_ids: Iterable[str | None]) -> dict[str, KindNow]:
    """By their ids; without those that are None."""
    wanted = sorted({kind_id for kind_id in kind_ids if kind_id is not None})
    if not wanted:
        return {}
    offers: dict[str, list[Offer]] = {kind_id: [] for kind_id in wanted}
    for kind_id, *fields in await connection.fetch(
        """
        select kind_id::text, version_id::text, version, rollout_percent, false, digest from workload_version
        where kind_id = any($1::uuid[]) and withdrawn_ms is null
        """,
        wanted,
    ):
        offers[kind_id].append(Offer(*fields))
    records = await connection.fetch(
        "select kind_id::text, slug, minimum_version from workload_kind where kind_id = any($1::uuid[])",
        wanted,
    )
    return {
        kind_id: KindNow(slug, minimum, offered(offers[kind_id], minimum=minimum))
        for kind_id, slug, minimum in records
    }


async def lock_nodes(connection: Connection, node_ids: Sequence[str]) -> list[NodeNow]:
    """Lock the living ones of these nodes, in order of their ids, and read them with their workloads."""
    nodes = await connection.fetch(
        """
        select node_id::text, "row", kind, interval_ms, desired_digest, resync,
          generation > 0 or capability_generation > 0
        from node where node_id = any($1::uuid[]) and revoked_ms is null and retired_ms is null
        order by node_id for update
        """,
        node_ids,
    )
    workloads: dict[str, list[WorkloadNow]] = {node["node_id"]: [] for node in nodes}
    for record in await connection.fetch(
        f"""
        select {WORKLOAD_NOW}
        from workload where node_id = any($1::uuid[]) and retired_ms is null order by node_id, slot
        """,
        list(workloads),
    ):
        workloads[record["node_id"]].append(WorkloadNow(*record))
    return [NodeNow(*[*node, tuple(workloads[node["node_id"]])]) for node in nodes]


def choice(workload: WorkloadNow, kinds: Mapping[str, KindNow]) -> Offer | None:
    """The version that is wanted of a workload; None: none is."""
    kind = kinds.get(workload.kind_id or "")
    return None if kind is None else desired(kind.offers, workload.node_id)


def wanted_of(workload: WorkloadNow, chosen: Offer | None) -> Wanted:
    return Wanted(
        workload_id=workload.workload_id,
        slot=workload.slot,
        kind_id=workload.kind_id,
        version_id=None if chosen is None else chosen.version_id,
        restarts=workload.restarts,
    )


def digest_of_node(node: NodeNow, kinds: Mapping[str, KindNow]) -> bytes:
    """The digest of what is wanted of the node now."""
    return desired_digest(wanted_of(workload, choice(workload, kinds)) for workload in node.workloads)
