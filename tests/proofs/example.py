"""The worked example of docs/proofs.md: three workloads on three nodes, so that one leaf is carried up."""

from __future__ import annotations

import msgspec

from engine.core.merkle import node_hash
from engine.core.sealed import Held, SealedRow
from tests.proofs.sealed_day import DAY_START_MS, HOUR_MS, SealedDay, number


def _told(row: SealedRow) -> SealedRow:
    """One of them ran under a licence and had refused beats."""
    if row.ms[1] != 8 * HOUR_MS:
        return row
    held = Held(number("licence"), "0x" + "52" * 20, DAY_START_MS, DAY_START_MS + 24 * HOUR_MS, row.paid_ms)
    return msgspec.structs.replace(row, kind="inference", held=(held,), refused={"replay": 2})


EXAMPLE = SealedDay(nodes=3, workloads_per_node=1, change=_told)
PLACE, HOUR = 1, 7


def values() -> dict[str, str]:
    """Every value of the example as the page shows it."""
    proof, receipt = EXAMPLE.proof(PLACE, hour=HOUR), EXAMPLE.receipt(PLACE)
    assert proof.hour is not None
    leaves = EXAMPLE.leaves
    return {
        "row": proof.row,
        **{f"leaf{place}": leaf.hex() for place, leaf in enumerate(leaves)},
        "inner": node_hash(leaves[0], leaves[1]).hex(),
        "root": proof.root,
        "content": proof.hour.content,
        "hour_leaf": EXAMPLE.hour_leaves[HOUR][PLACE].hex(),
        "hour_root": proof.hour.root,
        "statement": proof.statement,
        "proof": msgspec.json.encode(proof).decode(),
        "receipt_statement": receipt.statement,
        "public_key": receipt.public_key,
        "signature": receipt.signature,
    }
