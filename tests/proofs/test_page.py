"""docs/proofs.md: its worked example is what the code makes and what one reckons from the page alone."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from tests.proofs.example import HOUR, PLACE, values
from tests.proofs.verifiers import TOP, by_node, by_us

PAGE = (TOP / "docs" / "proofs.md").read_text()
BLOCKS = [json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)]
TEXTS = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("name", "value"), values().items())
def test_each_value_on_the_page_is_what_the_code_makes(name, value):
    assert value in PAGE, name


def sha(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_example_can_be_reckoned_by_hand_from_the_page():
    row, statement, proof = TEXTS[0], TEXTS[1], BLOCKS[2]
    leaves = re.findall(r"^\| \d \| `([0-9a-f]{64})` \|$", PAGE, re.MULTILINE)
    assert sha(b"\x00nodepulse.day.v1\n", row.encode()) == leaves[PLACE]
    inner = sha(b"\x01", bytes.fromhex(leaves[0]), bytes.fromhex(leaves[1]))
    root = sha(b"\x01", bytes.fromhex(inner), bytes.fromhex(leaves[2]))
    assert BLOCKS[1]["root"] == proof["root"] == root
    assert proof["row"] == row
    assert proof["statement"] == statement
    assert proof["path"] == [
        {"side": "left", "hash": leaves[0]},
        {"side": "right", "hash": leaves[2]},
    ]
    content = bytes.fromhex(proof["hour"]["content"])
    hour_leaf = sha(b"\x00nodepulse.hour.v1\n", content)
    assert hour_leaf in PAGE
    assert BLOCKS[1]["hours"][HOUR] == proof["hour"]["root"]
    assert sum(BLOCKS[0]["ms"].values()) == BLOCKS[0]["to_ms"] - BLOCKS[0]["from_ms"]
    assert int.from_bytes(content[44:48], "big") == 3_600_000


def test_the_proof_on_the_page_is_taken_by_both_verifiers(tmp_path):
    file, statements = tmp_path / "proof.json", tmp_path / "statements"
    file.write_text(TEXTS[2])
    statements.write_text(TEXTS[1] + "\n")
    assert by_us(file, "--statement", statements).code == 0
    assert by_node(file, f"--statement={statements}").code == 0


def test_the_receipt_on_the_page_is_taken_by_both_verifiers(tmp_path):
    told = values()
    receipt = {
        "version": 1,
        "statement": TEXTS[3],
        "signature": re.search(r"`([0-9a-f]{128})`", PAGE)[1],
        "key_id": BLOCKS[3]["key"],
        "public_key": told["public_key"],
    }
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    assert by_us(file, "--key", told["public_key"]).code == 0
    assert by_node(file, f"--key={told['public_key']}").code == 0
