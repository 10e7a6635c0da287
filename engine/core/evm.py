"""An EVM transaction that carries a seal's root, prepared for whoever signs it. Pure; nothing is sent.

RLP after the Ethereum yellow paper, appendix B; the payload that is signed after EIP-1559.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeAlias, Union

import msgspec

from engine.core.sealed import Seal, statement_text

EIP1559_TYPE = b"\x02"
Rlp: TypeAlias = Union[bytes, int, "Sequence[Rlp]"]


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while it waits for its signer. `to`: 0x and 40 hex digits; `data`: 0x and hex."""

    chain_id: int
    to: str
    data: str
    gas: int


def root_transaction(seal: Seal, *, chain_id: int, to: str, data_prefix: bytes, gas: int) -> Transaction:
    """Calldata: `data_prefix` (a function's selector, or none), the root, SHA-256 of the statement."""
    data = data_prefix + seal.root + sha256(statement_text(seal)).digest()
    return Transaction(chain_id=chain_id, to=to, data="0x" + data.hex(), gas=gas)


def unsigned_payload(
    transaction: Transaction, *, nonce: int, max_priority_fee_per_gas: int, max_fee_per_gas: int
) -> bytes:
    """The bytes whose Keccak-256 the signer signs (EIP-1559). Fees in wei."""
    return EIP1559_TYPE + rlp(
        [
            transaction.chain_id,
            nonce,
            max_priority_fee_per_gas,
            max_fee_per_gas,
            transaction.gas,
            bytes.fromhex(transaction.to[2:]),
            0,
            bytes.fromhex(transaction.data[2:]),
            [],
        ]
    )


def rlp(item: Rlp) -> bytes:
    """Recursive length prefix; a number is its big-endian bytes without leading zeros."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _prefixed(item, 0x80)
    return _prefixed(b"".join(rlp(each) for each in item), 0xC0)


def _prefixed(payload: bytes, offset: int) -> bytes:
    if len(payload) < 56:
        return bytes([offset + len(payload)]) + payload
    length = len(payload).to_bytes((len(payload).bit_length() + 7) // 8, "big")
    return bytes([offset + 55 + len(length)]) + length + payload
