"""Transactions that carry a root: RLP by its specification's examples, EIP-1559 by others' transaction."""

from __future__ import annotations

import hashlib

import pytest

from engine.core.evm import Transaction, rlp, root_transaction, unsigned_payload
from engine.core.sealed import statement_text
from tests.proofs.sealed_day import SealedDay

LOREM = b"Lorem ipsum dolor sit amet, consectetur adipisicing elit"


@pytest.mark.parametrize(
    ("item", "encoded"),
    [  # ethereum.org, Recursive-length prefix serialization, Examples
        (b"dog", "83646f67"),
        ([b"cat", b"dog"], "c88363617483646f67"),
        (b"", "80"),
        ([], "c0"),
        (0, "80"),
        (b"\x00", "00"),
        (b"\x0f", "0f"),
        (15, "0f"),
        (127, "7f"),
        (128, "8180"),
        (b"\x04\x00", "820400"),
        (1024, "820400"),
        ([[], [[]], [[], [[]]]], "c7c0c1c0c3c0c1c0"),
        (LOREM, "b838" + LOREM.hex()),
        (b"a" * 55, "b7" + "61" * 55),
        (b"a" * 1024, "b90400" + "61" * 1024),
        ([b"a" * 60], "f83eb83c" + "61" * 60),
    ],
)
def test_rlp_is_that_of_its_specification(item, encoded):
    assert rlp(item).hex() == encoded


def test_the_payload_is_that_of_a_transaction_made_by_others():
    # Trust Wallet Core, tests of EIP-1559: a transfer on chain 10 by its sixth transaction.
    call = (
        "a9059cbb"
        + "5322b34c88ed0691971bf52a7047448f0f4efc84".rjust(64, "0")
        + "1ee0c29f50cb1".rjust(64, "0")
    )
    contract = "0x6b175474e89094c44da98b954eedeac495271d0f"
    transaction = Transaction(chain_id=10, to=contract, data="0x" + call, gas=21_100)
    payload = unsigned_payload(
        transaction, nonce=6, max_priority_fee_per_gas=2_000_000_000, max_fee_per_gas=3_000_000_000
    )
    assert payload.hex() == (
        "02f86c0a06847735940084b2d05e0082526c946b175474e89094c44da98b954eedeac495271d0f80b844" + call + "c0"
    )


@pytest.mark.parametrize("prefix", [b"", b"\x12\x34\x56\x78"])
def test_the_calldata_is_the_root_and_the_hash_of_the_statement(prefix):
    seal = SealedDay().seal
    made = root_transaction(seal, chain_id=1, to="0x" + "11" * 20, data_prefix=prefix, gas=60_000)
    expected = prefix + seal.root + hashlib.sha256(statement_text(seal)).digest()
    assert made.data == "0x" + expected.hex()
