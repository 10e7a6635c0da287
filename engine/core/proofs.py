"""A proof: one document with which anyone can check a workload's sealed day, or an hour of it, offline. Pure.

What is in it, and making it from what a seal keeps. Checking is proof_check.py's; where rows and trees come
from, the Seals port's (sealed.py). Told to others byte by byte in docs/proofs.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.core.merkle import path_in_blocks
from engine.core.sealed import HOUR_DTYPE, Seal, SealedRow, row_text, statement_text

PROOF_VERSION = 1
HOUR_HEAD_BYTES = 8 + 16  # of an hour's content: the hour's start, the node's id
HOUR_ENTRY_BYTES = HOUR_DTYPE.itemsize
Side = Literal["left", "right"]


class PathStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sibling on the way from a leaf to the root: on which side it lies, and its hash (hex)."""

    side: Side
    hash: str


class HourProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the workload's node was so in one hour. `content`: what the node's leaf is over, hex; `index`: the
    workload's place among the workloads in it; `place`: the leaf's among the nodes."""

    hour: int
    content: str
    index: int
    place: int
    path: list[PathStep]
    root: str


class ProofDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is needed to check one workload's day against a published root.

    `row`: the exact text whose UTF-8 bytes were hashed; `place`: of its leaf among the day's rows;
    `statement`: the exact text that is published of the seal.
    """

    version: int
    row: str
    place: int
    path: list[PathStep]
    root: str
    statement: str
    hour: HourProof | None


class TreePart(msgspec.Struct, frozen=True):
    """What the path of one leaf takes: its place, the leaf hashes of its block, the roots of all blocks."""

    place: int
    block: Sequence[bytes]
    roots: Sequence[bytes]

    def path(self) -> list[PathStep]:
        """The lowest sibling first."""
        steps = path_in_blocks(self.block, self.roots, self.place)
        return [PathStep("left" if left else "right", sibling.hex()) for left, sibling in steps]


def proof_of(seal: Seal, row: SealedRow, tree: TreePart, *, hour: HourProof | None = None) -> ProofDocument:
    """The document over a row of the seal's day tree."""
    return ProofDocument(
        version=PROOF_VERSION,
        row=row_text(row, project=seal.project, day=seal.day, revision=seal.revision).decode(),
        place=tree.place,
        path=tree.path(),
        root=seal.root.hex(),
        statement=statement_text(seal).decode(),
        hour=hour,
    )


def hour_proof_of(seal: Seal, hour: int, workload_id: str, content: bytes, tree: TreePart) -> HourProof:
    """The part over an hour. ValueError when the workload is not in the content."""
    return HourProof(
        hour=hour,
        content=content.hex(),
        index=workloads_in(content).index(uuid.UUID(workload_id).bytes),
        place=tree.place,
        path=tree.path(),
        root=seal.hour_roots[hour].hex(),
    )


def workloads_in(content: bytes) -> list[bytes]:
    """The ids of the workloads in an hour's content, in their order there."""
    starts = range(HOUR_HEAD_BYTES, len(content), HOUR_ENTRY_BYTES)
    return [content[start : start + 16] for start in starts]
