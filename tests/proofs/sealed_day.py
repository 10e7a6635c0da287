"""A sealed day without a database: rows, trees, a seal, and proofs and receipts over them.

Everything is made from numbers, so that it is the same each time. Workload w of node n was up until an hour
of its own and silent from then on.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.keys import MasterSecrets
from engine.core.merkle import BLOCK_LEAVES, leaf_hash, root_of
from engine.core.proofs import ProofDocument, TreePart, hour_proof_of, proof_of
from engine.core.receipts import RECEIPT_DOMAIN, ReceiptDocument, receipt_text
from engine.core.records import KINDS
from engine.core.sealed import (
    DAY_DOMAIN,
    HOUR_DOMAIN,
    HOUR_DTYPE,
    HOURS,
    Held,
    Seal,
    SealedRow,
    hour_content,
    row_text,
)

DAY = "2026-01-31"
DAY_START_MS = 1_769_817_600_000
HOUR_MS = 3_600_000
SECRETS = MasterSecrets(secrets={1: bytes(range(32))})
KEY_ID = "1-1"
UP, SILENT = KINDS.index("up"), KINDS.index("silent")


def number(text: str) -> str:
    """An id made from a text."""
    return str(uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest()))


class SealedDay:
    """`change`, `text` and `content` make a dishonest seal: they change a row, its text, an hour's content.
    `reason`: of the seal."""

    def __init__(
        self,
        *,
        nodes: int = 5,
        workloads_per_node: int = 2,
        project: str = "edge-ai",
        reason: str = "",
        day: str = DAY,
        change: Callable[[SealedRow], SealedRow] = lambda row: row,
        text: Callable[[bytes], bytes] = lambda text: text,
        content: Callable[[bytes], bytes] = lambda content: content,
    ) -> None:
        self.text = text
        self.node_ids = sorted(number(f"node {n}") for n in range(nodes))
        self.rows = [
            change(self._row(node, slot)) for node in range(nodes) for slot in range(workloads_per_node)
        ]
        texts = [text(row_text(row, project=project, day=day, revision=1)) for row in self.rows]
        self.leaves = [leaf_hash(DAY_DOMAIN, text) for text in texts]
        self.contents = [
            [content(self._content(node_id, hour)) for node_id in self.node_ids] for hour in range(HOURS)
        ]
        self.hour_leaves = [[leaf_hash(HOUR_DOMAIN, each) for each in hour] for hour in self.contents]
        self.seal = Seal(
            seal_no=1,
            project_id=number("project"),
            project=project,
            day=day,
            revision=1,
            reason=reason,
            actor="",
            rows=len(self.rows),
            nodes=nodes,
            paid_ms=sum(row.paid_ms for row in self.rows),
            root=root_of(self.leaves),
            hour_roots=tuple(root_of(leaves) for leaves in self.hour_leaves),
            sealed_ms=DAY_START_MS + 25 * HOUR_MS,
        )

    def proof(self, place: int = 0, *, hour: int | None = None) -> ProofDocument:
        row = self.rows[place]
        told = None
        if hour is not None:
            node = self.node_ids.index(row.node_id)
            told = hour_proof_of(
                self.seal,
                hour,
                row.workload_id,
                self.contents[hour][node],
                tree_part(self.hour_leaves[hour], node),
            )
        made = proof_of(self.seal, row, tree_part(self.leaves, place), hour=told)
        return msgspec.structs.replace(made, row=self.text(made.row.encode()).decode())

    def receipt(self, node: int = 0, *, secrets: MasterSecrets = SECRETS) -> ReceiptDocument:
        mine = [row for row in self.rows if row.node_id == self.node_ids[node]]
        return signed(receipt_text(self.seal, self.node_ids[node], mine, key_id=KEY_ID), secrets)

    def _row(self, node: int, slot: int) -> SealedRow:
        up_ms = self._up_hours(node, slot) * HOUR_MS
        ms = [0] * len(KINDS)
        ms[UP], ms[SILENT] = up_ms, HOURS * HOUR_MS - up_ms
        held = (
            Held(
                number("licence"), "0x" + "52" * 20, DAY_START_MS, DAY_START_MS + 2 * HOUR_MS, min(up_ms, 1)
            ),
            Held(
                number("licence"), "0x" + "be" * 20, DAY_START_MS + 2 * HOUR_MS, DAY_START_MS + 3 * HOUR_MS, 0
            ),
        )
        return SealedRow(
            workload_id=number(f"workload {node}.{slot}"),
            node_id=self.node_ids[node],
            operator_id=None if slot else number("operator"),
            kind="inference" if slot else None,
            source="native",
            from_ms=DAY_START_MS,
            to_ms=DAY_START_MS + HOURS * HOUR_MS,
            ms=tuple(ms),
            paid_ms=up_ms,
            held=held if slot else (),
            refused={"bad_mac": 2, "replay": 1} if slot else {},
        )

    def _up_hours(self, node: int, slot: int) -> int:
        return (7 * node + 3 * slot + 1) % (HOURS + 1)

    def _content(self, node_id: str, hour: int) -> bytes:
        mine = [row for row in self.rows if row.node_id == node_id]
        entries = np.zeros(len(mine), HOUR_DTYPE)
        for entry, row in zip(entries, mine, strict=True):
            value = uuid.UUID(row.workload_id).int
            entry["hi"], entry["lo"] = value >> 64, value & (1 << 64) - 1
            entry["ms"][UP if hour * HOUR_MS < row.ms[UP] else SILENT] = HOUR_MS
        return hour_content(
            hour_ms=DAY_START_MS + hour * HOUR_MS,
            node=uuid.UUID(node_id).bytes,
            workloads=entries.tobytes(),
        )


def tree_part(leaves: Sequence[bytes], place: int) -> TreePart:
    """As a store has it: the leaf's block, and the roots of all blocks."""
    blocks = [leaves[at : at + BLOCK_LEAVES] for at in range(0, len(leaves), BLOCK_LEAVES)]
    return TreePart(place, blocks[place // BLOCK_LEAVES], [root_of(block) for block in blocks])


def signed(statement: bytes, secrets: MasterSecrets = SECRETS) -> ReceiptDocument:
    key = Ed25519PrivateKey.from_private_bytes(secrets.receipt_seed(secrets.newest))
    return ReceiptDocument(
        version=1,
        statement=statement.decode(),
        signature=key.sign(RECEIPT_DOMAIN + statement).hex(),
        key_id=msgspec.json.decode(statement)["key"],
        public_key=key.public_key().public_bytes_raw().hex(),
    )
