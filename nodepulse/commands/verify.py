"""`verify`: whether proofs and receipts hold, offline, without a configuration or a database.

What holds is decided by engine/core/proof_check.py and receipts.py; here are the files, what is pinned, and
the words. docs/verify.mjs does the same without any of our code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.core.proof_check import CheckedProof, NotValidError, Statement, check_proof, need, read_text
from engine.core.proofs import ProofDocument
from engine.core.receipts import ReceiptDocument, ReceiptStatement, check_receipt
from nodepulse.commands.output import json_option, print_json

DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
_HEX32 = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)
VALID, NOT_VALID, NOT_READABLE = 0, 1, 2


class NotReadableError(Exception):
    """It is neither a proof nor a receipt, or cannot be read at all."""


class Pins(msgspec.Struct, frozen=True):
    """What is known from elsewhere: roots, published statements, public keys of the installation."""

    roots: tuple[str, ...] = ()
    statements: dict[str, Statement] | None = None  # by their text
    keys: tuple[str, ...] = ()


def _hex32(_context: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    for text in given:
        if not _HEX32.fullmatch(text):
            raise click.BadParameter(f"{text!r} is not 32 bytes in hex", param=option)
    return tuple(text.removeprefix("0x").lower() for text in given)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--root", "roots", multiple=True, metavar="HEX", callback=_hex32, help="A published root.")
@click.option(
    "--statement",
    "published",
    type=click.Path(),
    help="A file of published statements, one a line: the seal's must be among them.",
)
@click.option(
    "--key", "keys", multiple=True, metavar="HEX", callback=_hex32, help="A public key of the installation."
)
@json_option
def verify(
    *,
    files: Sequence[str],
    roots: tuple[str, ...],
    published: str | None,
    keys: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check proofs and receipts, offline; `-` reads one from standard input.

    Exit code 0: all are valid, 1: one is not, 2: one cannot be read.
    """
    try:
        pins = Pins(roots, None if published is None else _statements(published), keys)
    except (NotReadableError, NotValidError) as error:
        raise click.UsageError(f"--statement {published}: {error}") from error
    found = [_look_at(name, pins) for name in files]
    if as_json:
        print_json({"files": found})
    else:
        for each in found:
            click.echo("\n".join(_lines(each)))
    raise SystemExit(max(each["exit_code"] for each in found))


def _look_at(name: str, pins: Pins) -> dict[str, Any]:
    """What was found about one file; `notes` are for people."""
    report: dict[str, Any] = {"file": name}
    try:
        document = _read(name)
        if isinstance(document, ProofDocument):
            report |= {"what": "proof"} | _of_proof(check_proof(document), pins)
        else:
            report |= {"what": "receipt"} | _of_receipt(document, pins)
    except NotReadableError as error:
        return report | {"valid": False, "exit_code": NOT_READABLE, "error": str(error)}
    except NotValidError as error:
        return report | {"valid": False, "exit_code": NOT_VALID, "error": str(error)}
    return report | {"valid": True, "exit_code": VALID}


def _read(name: str) -> ProofDocument | ReceiptDocument:
    raw = _bytes_of(name)
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotReadableError(f"is not JSON: {error}") from error
    keys = fields.keys() if isinstance(fields, dict) else set()
    kind: type[ProofDocument] | type[ReceiptDocument]
    if "row" in keys:
        kind = ProofDocument
    elif "signature" in keys:
        kind = ReceiptDocument
    else:
        raise NotReadableError("is neither a proof nor a receipt")
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise NotValidError(f"is not of the form of its kind: {error}") from error


def _bytes_of(name: str) -> bytes:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise NotReadableError(f"cannot be read: {error.strerror}") from error
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise NotReadableError(f"is longer than {DOCUMENT_BYTES_MAX} bytes")
    return raw


def _statements(name: str) -> dict[str, Statement]:
    try:
        lines = _bytes_of(name).decode().split("\n")  # a reason may hold other ends of lines
    except UnicodeError as error:
        raise NotReadableError("is not UTF-8") from error
    found = {line: read_text(line, Statement, "statement") for line in lines if line.strip()}
    if not found:
        raise NotReadableError("has no statement")
    return found


def _of_proof(checked: CheckedProof, pins: Pins) -> dict[str, Any]:
    row, statement = checked.row, checked.statement
    if pins.statements is not None:
        need(checked.statement_text in pins.statements, "the statement is not among the published ones")
    if pins.roots:
        need(statement.root in pins.roots, f"the root is {statement.root}, which is none of those given")
        need(
            pins.statements is not None or checked.roots[-1] in pins.roots,
            "the root of the hour is none of those given: give it as well, or the published statement",
        )
    return {
        "project": row.project,
        "day": row.day,
        "revision": row.revision,
        "node": row.node,
        "workload": row.workload,
        "hour": checked.hour,
        "paid_ms": row.paid_ms,
        "root": statement.root,
        "root_pinned": bool(pins.roots) or pins.statements is not None,
    }


def _of_receipt(receipt: ReceiptDocument, pins: Pins) -> dict[str, Any]:
    said = check_receipt(receipt, verifies=_verifies)
    if pins.keys:
        need(
            receipt.public_key in pins.keys,
            f"it is signed with the key {receipt.public_key}, which is none of those given",
        )
    if pins.roots:
        need(said.root in pins.roots, f"the root is {said.root}, which is none of those given")
    if pins.statements is not None:
        need(_is_published(said, pins.statements), "its seal is not among the published statements")
    return {
        "project": said.project,
        "day": said.day,
        "revision": said.revision,
        "node": said.node,
        "workloads": len(said.workloads),
        "paid_ms": said.paid_ms,
        "root": said.root,
        "root_pinned": bool(pins.roots) or pins.statements is not None,
        "key_id": receipt.key_id,
        "public_key": receipt.public_key,
        "key_pinned": bool(pins.keys),
    }


def _is_published(said: ReceiptStatement, published: dict[str, Statement]) -> bool:
    wanted = (said.project, said.day, said.revision, said.root)
    return any((it.project, it.day, it.revision, it.root) == wanted for it in published.values())


def _verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _lines(found: dict[str, Any]) -> list[str]:
    """A file's report for people."""
    name = "standard input" if found["file"] == "-" else found["file"]
    if not found["valid"]:
        verdict = "not valid" if found["exit_code"] == NOT_VALID else "not readable"
        return [f"{name}: {verdict}: {found['error']}"]
    of = f"{found['project']}, {found['day']}, revision {found['revision']}"
    if found["what"] == "proof":
        hour = "" if found["hour"] is None else f" and its hour {found['hour']}"
        lines = [
            f"{name}: valid proof ({of})",
            f"  workload {found['workload']}{hour}: {found['paid_ms']} ms paid that day",
        ]
    else:
        lines = [
            f"{name}: valid receipt ({of})",
            f"  node {found['node']}: {found['workloads']} workloads, {found['paid_ms']} ms paid that day",
        ]
        if not found["key_pinned"]:
            lines.append(
                f"  the key is not pinned: {found['public_key']} came with the file. Compare it with the"
                " installation's (GET /v1/receipt-keys), or give that by --key"
            )
    if not found["root_pinned"]:
        lines.append(
            f"  the root is not pinned: compare {found['root']} with the published one, or give that by"
            " --root or --statement"
        )
    return lines
