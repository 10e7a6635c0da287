"""Receipts: what an installation signs of a node's sealed day. Pure: texts, their check, the port of keys.

The private keys are derived from the master secrets (keys.py) and never stored; the public ones are, for
ever. Signing itself is storage/receipt_signing.py's. Told to others byte by byte in docs/proofs.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from engine.core.ed25519 import is_public_key
from engine.core.proof_check import NotValidError, Window, check_window, day_start_ms, need, read_text
from engine.core.records import KINDS
from engine.core.sealed import Held, Seal, SealedRow

RECEIPT_VERSION = 1
RECEIPT_DOMAIN = b"nodepulse.receipt.v1\n"  # before the statement, in what is signed
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ReceiptKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key of the installation. It is the one that signs in [from_ms, until_ms); None: still is.

    `key_id`: the id of the master secret it is derived from and a counter: a secret's id may be used again.
    """

    key_id: str
    public_key: bytes
    from_ms: int
    until_ms: int | None


class ReceiptKeys(Protocol):
    """The public keys that ever signed a receipt."""

    async def keys(self) -> list[ReceiptKey]:
        """The oldest first."""
        ...

    async def register(self, secret_id: int, public_key: bytes, *, now_ms: int) -> ReceiptKey:
        """Enter the key that signs now, unless it is known; the counter goes on from that secret's last."""
        ...

    async def key_of_seal(self, seal_no: int, key_id: str) -> ReceiptKey:
        """The key that signs the receipts of a seal: whoever asks first settles it on `key_id`."""
        ...


class WorkloadOfReceipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One workload's day as its row has it."""

    workload: str
    source: str
    from_ms: int
    to_ms: int
    ms: dict[str, int]
    paid_ms: int
    held: list[Held]


class ReceiptStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed, read: JSON in UTF-8, keys in this order, no spaces. `root`: of the day's rows, hex."""

    v: int
    node: str
    project: str
    day: str
    revision: int
    root: str
    workloads: list[WorkloadOfReceipt]
    paid_ms: int
    refused: dict[str, int]
    issued_at: str
    key: str


class ReceiptDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receipt. `statement`: the exact text whose UTF-8 bytes, behind RECEIPT_DOMAIN, were signed;
    `signature` and `public_key`: Ed25519, hex."""

    version: int
    statement: str
    signature: str
    key_id: str
    public_key: str


def receipt_text(seal: Seal, node_id: str, rows: Sequence[SealedRow], *, key_id: str) -> bytes:
    """The one text about a node's day. `rows`: all of the node's, in their order in the tree."""
    refused: dict[str, int] = {}
    for row in rows:  # each row tells its node's
        refused |= row.refused
    return msgspec.json.encode(
        ReceiptStatement(
            v=RECEIPT_VERSION,
            node=node_id,
            project=seal.project,
            day=seal.day,
            revision=seal.revision,
            root=seal.root.hex(),
            workloads=[
                WorkloadOfReceipt(
                    row.workload_id,
                    row.source,
                    row.from_ms,
                    row.to_ms,
                    dict(zip(KINDS, row.ms, strict=True)),
                    row.paid_ms,
                    list(row.held),
                )
                for row in rows
            ],
            paid_ms=sum(row.paid_ms for row in rows),
            refused=dict(sorted(refused.items())),
            issued_at=_rfc3339(seal.sealed_ms),
            key=key_id,
        )
    )


def check_receipt(
    receipt: ReceiptDocument, *, verifies: Callable[[bytes, bytes, bytes], bool]
) -> ReceiptStatement:
    """What the receipt says. `verifies`: (public key, signature, message). NotValidError.

    Whether the key is the installation's is for whoever knows that key to compare.
    """
    need(receipt.version == RECEIPT_VERSION, f"this receipt is of version {receipt.version}, not 1")
    key, signature = _hex(receipt.public_key, 32, "public key"), _hex(receipt.signature, 64, "signature")
    need(is_public_key(key), "the public key is none that anybody could have")
    need(
        verifies(key, signature, RECEIPT_DOMAIN + receipt.statement.encode()),
        "the signature is not that of this key over this statement",
    )
    statement = read_text(receipt.statement, ReceiptStatement, "statement")
    need(statement.v == RECEIPT_VERSION, "the statement must be of version 1")
    need(statement.key == receipt.key_id, "the statement names another key than the receipt")
    start_ms = day_start_ms(statement.day)
    for each in statement.workloads:
        window = Window(each.source, each.from_ms, each.to_ms, each.ms, each.paid_ms, each.held)
        check_window(window, start_ms)
    total = sum(each.paid_ms for each in statement.workloads)
    need(total == statement.paid_ms, f"{statement.paid_ms} ms are paid, its workloads have {total} ms")
    return statement


def _hex(text: str, length: int, what: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError as error:
        raise NotValidError(f"the {what} is not hex") from error
    need(found.hex() == text and len(found) == length, f"the {what} is not {length} bytes as lower-case hex")
    return found


def _rfc3339(unix_ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=unix_ms)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
