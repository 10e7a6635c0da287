"""Which version of a workload a node should run: a choice that is the same wherever and whenever it is made.

Pure. A rollout admits a node by a hash of version and node, so that a growing percentage keeps those that it
admitted before, and another version's first nodes are others. Whom a change is told is storage's and the
worker's (postgres_rollouts.py, rollouts.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from engine.core.versions import precedence

PPM = 1_000_000


class Offer(msgspec.Struct, frozen=True):
    """A version as far as choosing needs it. `rollout_percent`: of nodes, 0 to 100."""

    version_id: str
    version: str
    rollout_percent: int
    withdrawn: bool = False
    digest: str = ""  # of its manifest


class Wanted(msgspec.Struct, frozen=True):
    """What a node should do with one workload. `version_id` None: no version is asked for."""

    workload_id: str
    slot: int
    kind_id: str | None
    version_id: str | None
    restarts: int  # ordered so far


def share_ppm(version_id: str, node_id: str) -> int:
    """Where a node stands in the rollout of a version, from 0 to 999,999: evenly spread, never changing."""
    digest = hashlib.blake2b(f"{version_id}\0{node_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * PPM >> 64


def admits(version_id: str, node_id: str, *, rollout_percent: int) -> bool:
    """Whether a rollout to so many percent of nodes reaches this one."""
    return rollout_percent >= 100 or share_ppm(version_id, node_id) < rollout_percent * (PPM // 100)


def offered(versions: Iterable[Offer], *, minimum: str | None) -> tuple[Offer, ...]:
    """The versions that any node may be given, the best first: what `desired` chooses from.

    Withdrawn ones, those below the minimum and those after one for everybody are left out. The minimum itself
    is for everybody, whatever its rollout says: who is not admitted to anything better must not stay below
    it. Of two versions that only differ in build metadata the one made later is the better.
    """
    least = None if minimum is None else precedence(minimum)
    found = [
        (precedence(one.version), one.version_id, one)
        for one in versions
        if not one.withdrawn and (one.rollout_percent > 0 or one.version == minimum)
    ]
    chosen: list[Offer] = []
    for order, _, one in sorted(found, key=lambda each: each[:2], reverse=True):
        if least is not None and order < least:
            break
        everybody = one.version == minimum or one.rollout_percent >= 100
        chosen.append(msgspec.structs.replace(one, rollout_percent=100) if everybody else one)
        if everybody:
            break
    return tuple(chosen)


def desired(offers: Sequence[Offer], node_id: str) -> Offer | None:
    """The best of what is `offered` whose rollout admits the node; None when none does."""
    for one in offers:
        if admits(one.version_id, node_id, rollout_percent=one.rollout_percent):
            return one
    return None


def is_below(running: str | None, minimum: str | None) -> bool:
    """Whether what runs is known to be below the minimum version."""
    return running is not None and minimum is not None and precedence(running) < precedence(minimum)


def desired_digest(wanted: Iterable[Wanted]) -> bytes:
    """16 bytes that are the same as long as nothing is asked of the node that was not asked before."""
    hasher = hashlib.blake2b(digest_size=16)
    for one in sorted(wanted, key=lambda each: each.slot):
        fields = (one.workload_id, one.slot, one.kind_id or "", one.version_id or "", one.restarts)
        hasher.update("\0".join(map(str, fields)).encode() + b"\n")
    return hasher.digest()
