"""Both verifiers take what is right and refuse everything that is broken, by the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.proofs.broken import ONLY_STATED, broken_proofs, broken_receipts, plain
from tests.proofs.sealed_day import SealedDay
from tests.proofs.verifiers import TOP, by_command, by_node, by_us

ODD = 'quote " back \\ tab \t del \x7f line \u2028 high \U0001f600 low \x01 slash / ü'


def written(folder: Path, documents: list[tuple[str, Any]]) -> list[Path]:
    files = []
    for number, (_, document) in enumerate(documents):
        files.append(folder / f"{number:04}.json")
        files[-1].write_bytes(msgspec.json.encode(document))
    return files


def honest() -> list[tuple[str, Any]]:
    days = [SealedDay(), SealedDay(nodes=1, workloads_per_node=1), SealedDay(nodes=7, reason=ODD)]
    found: list[tuple[str, Any]] = []
    for day in days:
        for place in range(len(day.rows)):
            found.append((f"row {place}", day.proof(place)))
            found += [(f"row {place}, hour {hour}", day.proof(place, hour=hour)) for hour in (0, 11, 23)]
        found += [(f"node {node}", day.receipt(node)) for node in range(len(day.node_ids))]
    return found


def test_both_take_every_honest_proof_and_receipt(tmp_path):
    files = written(tmp_path, honest())
    ours, nodes = by_us(*files, "--json"), by_node(*files)
    assert (ours.code, nodes.code) == (0, 0), (ours, nodes)
    assert all(each["valid"] for each in msgspec.json.decode(ours.lines[0])["files"])
    assert len(nodes.lines) == len(files)
    assert all(": valid" in line for line in nodes.lines)


def test_a_tree_of_several_blocks_is_climbed_by_both(tmp_path):
    day = SealedDay(nodes=1_100, workloads_per_node=2)
    files = written(tmp_path, [("", day.proof(place, hour=0)) for place in (0, 1_023, 1_024, 2_199)])
    assert by_us(*files).code == by_node(*files).code == 0


@pytest.mark.parametrize("table", [broken_proofs, broken_receipts])
def test_both_refuse_everything_that_is_broken(table, tmp_path):
    broken = list(table())
    assert len(broken) > 100
    statements = tmp_path / "published.jsonl"
    statements.write_text(SealedDay().proof().statement)
    files = written(tmp_path, broken)
    for pinned in (False, True):
        taken = accepted(by_us(*files, "--json", *(["--statement", statements] if pinned else [])).lines)
        taken_by_node = accepted(by_node(*files, *([f"--statement={statements}"] if pinned else [])).lines)
        for found in (taken, taken_by_node):
            assert len(found) == len(broken)
            wrong = [what for (what, _), valid in zip(broken, found, strict=True) if valid]
            assert [what for what in wrong if pinned or not ONLY_STATED.search(what)] == []


def accepted(lines: list[str]) -> list[bool]:
    """What a verifier said of each file."""
    if lines[0].startswith("{"):
        return [each["valid"] for each in msgspec.json.decode(lines[0])["files"]]
    return [": valid, " in line for line in lines]


def test_a_proof_is_pinned_by_its_root_or_a_published_statement(tmp_path):
    day, other = SealedDay(), SealedDay(nodes=3)
    day_file, hour_file = written(tmp_path, [("", day.proof(2)), ("", day.proof(2, hour=4))])
    root, hour_root = day.seal.root.hex(), day.seal.hour_roots[4].hex()
    statements = tmp_path / "published.jsonl"
    statements.write_text(f"{other.proof(0).statement}\n{day.proof(0).statement}\n")
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text(other.proof(0).statement + "\n")
    assert by_us(day_file, "--root", root).code == by_node(day_file, f"--root={root}").code == 0
    assert by_us(hour_file, "--root", root, "--root", "0x" + hour_root).code == 0
    assert by_node(hour_file, f"--root={root}", f"--root={hour_root}").code == 0
    assert by_us(hour_file, "--statement", statements).code == 0
    # The day's root says nothing of the hours.
    assert by_us(hour_file, "--root", root).code == by_node(hour_file, f"--root={root}").code == 1
    wrong = by_us(day_file, "--root", "00" * 32)
    assert wrong.code == by_node(day_file, f"--root={'00' * 32}").code == 1
    assert root in wrong.lines[0]
    refused = by_us(day_file, "--statement", foreign)
    assert (refused.code, refused.lines) == (
        1,
        [f"{day_file}: not valid: the statement is not among the published ones"],
    )


def test_what_is_not_pinned_is_said(tmp_path):
    day = SealedDay()
    proof, receipt = written(tmp_path, [("", day.proof(1)), ("", day.receipt(0))])
    told = by_us(proof, receipt)
    assert told.code == 0
    assert "the root is not pinned" in told.lines[2]
    assert "the key is not pinned" in told.lines[5]
    key = day.receipt(0).public_key
    pinned = by_us(receipt, "--key", key, "--root", day.seal.root.hex())
    assert pinned.code == 0
    assert not any("not pinned" in line for line in pinned.lines)
    assert by_us(receipt, "--key", "11" * 32).code == by_node(receipt, f"--key={'11' * 32}").code == 1
    assert by_node(receipt, f"--key={key}").code == 0


def test_ours_insists_on_the_order_of_keys(tmp_path):
    honest = plain(SealedDay().proof(1))
    told = msgspec.json.decode(honest["statement"])
    honest["statement"] = msgspec.json.encode(dict(reversed(told.items()))).decode()
    (file,) = written(tmp_path, [("", honest)])
    assert "the keys of the statement are not in their order" in by_us(file).lines[0]


def test_a_key_under_which_anybody_can_sign_is_refused(tmp_path):
    neutral = b"\1" + bytes(31)  # of the curve: k times it is itself, whatever was signed
    anybodys = plain(SealedDay().receipt(1)) | {
        "public_key": neutral.hex(),
        "signature": (neutral + bytes(32)).hex(),
    }
    (file,) = written(tmp_path, [("", anybodys)])
    assert "the public key is none that anybody could have" in by_us(file).lines[0]


def test_a_reason_may_hold_whatever_ends_lines_elsewhere(tmp_path):
    day = SealedDay(reason=ODD)
    (file,) = written(tmp_path, [("", day.proof(1, hour=2))])
    statements = tmp_path / "published.jsonl"
    statements.write_text(day.proof(0).statement + "\n")
    assert by_us(file, "--statement", statements).code == 0
    assert by_node(file, f"--statement={statements}").code == 0


def test_a_receipt_is_held_against_published_statements(tmp_path):
    day, other = SealedDay(), SealedDay(nodes=3)
    (receipt,) = written(tmp_path, [("", day.receipt(0))])
    for seal_of, code in ((day, 0), (other, 1)):
        statements = tmp_path / "published.jsonl"
        statements.write_text(seal_of.proof(0).statement)
        assert by_us(receipt, "--statement", statements).code == code


def test_a_proof_may_come_by_standard_input():
    told = by_command("-", "--json", stdin=msgspec.json.encode(SealedDay().proof(1, hour=3)))
    (found,) = msgspec.json.decode(told.lines[0])["files"]
    assert told.code == 0
    assert (found["what"], found["hour"], found["day"], found["root_pinned"]) == (
        "proof",
        3,
        "2026-01-31",
        False,
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"{}", b'{"a": 1}', b"\xff\xfe", b"[" * 5_000])
def test_what_is_neither_proof_nor_receipt_is_not_readable(content, tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    found = by_us(file)
    assert found.code == 2
    assert ": not readable: " in found.lines[0]
    assert by_node(file).code in (1, 2)


def test_a_file_that_is_not_there_is_not_readable_and_the_worst_counts(tmp_path):
    honest = SealedDay().proof(1)
    good, bad = written(tmp_path, [("", honest), ("", plain(honest) | {"place": 5})])
    gone = tmp_path / "gone.json"
    assert by_us(good, bad).code == by_node(good, bad).code == 1
    assert by_us(good, bad, gone).code == by_node(bad, good, gone).code == 2


def test_a_wrong_pin_is_a_wrong_usage(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(msgspec.json.encode(SealedDay().proof(1)))
    assert by_us(file, "--root", "abc").code == 2
    assert by_us(file, "--statement", tmp_path / "gone").code == 2


def test_the_independent_verifier_is_short_and_uses_the_standard_library_only():
    text = (TOP / "docs" / "verify.mjs").read_text()
    assert len(text.splitlines()) < 60
    imported = [line for line in text.splitlines() if line.startswith("import")]
    assert imported
    assert all(' from "node:' in line for line in imported)
