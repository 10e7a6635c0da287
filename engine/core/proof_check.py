"""Whether a proof holds: every field of it is checked, none is believed. Pure; offline.

A proof shows that a row and an hour are what stands behind a root. That the root is the published one is for
whoever has it to compare: the caller pins it (`CheckedProof` says which roots were met).
"""

from __future__ import annotations

import re
import uuid
from datetime import date
from itertools import pairwise
from typing import TypeVar

import msgspec
import numpy as np

from engine.core.merkle import climb, leaf_hash
from engine.core.proofs import HOUR_ENTRY_BYTES, HOUR_HEAD_BYTES, PROOF_VERSION, PathStep, ProofDocument
from engine.core.records import KINDS, PAID_KINDS
from engine.core.sealed import DAY_DOMAIN, DAY_MS, HOUR_DOMAIN, HOUR_DTYPE, HOURS, Held

HOUR_MS = DAY_MS // HOURS
# Our own reckoning adds up in every part; another source may tell whole days only, and each part by itself.
NATIVE = "native"
_HASH = re.compile(r"[0-9a-f]{64}")
_EPOCH = date(1970, 1, 1)
T = TypeVar("T")


class NotValidError(Exception):
    """It can be read and does not hold; the text says why in a sentence."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text of a row, read (sealed.row_text writes it)."""

    v: int
    project: str
    day: str
    revision: int
    workload: str
    node: str
    operator: str | None
    kind: str | None
    source: str
    from_ms: int
    to_ms: int
    ms: dict[str, int]
    paid_ms: int
    held: list[Held]
    refused: dict[str, int]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text of a statement, read (sealed.statement_text writes it)."""

    v: int
    project: str
    day: str
    revision: int
    reason: str
    rows: int
    nodes: int
    paid_ms: int
    root: str
    hours: list[str]
    sealed_ms: int


class CheckedProof(msgspec.Struct, frozen=True):
    """What holds. `hour`: which one was proved; None: only the day."""

    row: Row
    statement: Statement
    statement_text: str
    hour: int | None

    @property
    def roots(self) -> tuple[str, ...]:
        """Those that everything hangs on: the day's, and the hour's."""
        return (self.statement.root, *([] if self.hour is None else [self.statement.hours[self.hour]]))


def check_proof(document: ProofDocument) -> CheckedProof:
    """NotValidError."""
    need(document.version == PROOF_VERSION, f"this proof is of version {document.version}, not 1")
    row = read_text(document.row, Row, "row")
    statement = read_text(document.statement, Statement, "statement")
    need(row.v == 1 and statement.v == 1, "the row and the statement must be of version 1")
    for name in ("project", "day", "revision"):
        need(
            getattr(row, name) == getattr(statement, name),
            f"the row is of another {name} than the statement",
        )
    check_window(row, day_start_ms(row.day))
    need(document.root == statement.root, "the statement says another root than the proof")
    need(len(statement.hours) == HOURS, "the statement has not 24 roots of hours")
    _check_path(
        leaf_hash(DAY_DOMAIN, document.row.encode()),
        document.path,
        place=document.place,
        leaves=statement.rows,
        root=document.root,
        what="row",
    )
    if document.hour is not None:
        _check_hour(document, row, statement)
    return CheckedProof(
        row, statement, document.statement, None if document.hour is None else document.hour.hour
    )


def need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotValidError(otherwise)


def read_text(text: str, kind: type[T], what: str) -> T:
    """A hashed text as its record; only the one way of writing it is taken. NotValidError."""
    try:
        found = msgspec.json.decode(text, type=kind)
        same = msgspec.json.encode(msgspec.json.decode(text)) == text.encode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotValidError(f"the text of the {what} is not what such a text says: {error}") from error
    need(same, f"the text of the {what} is not in its one form: JSON without spaces or doubles")
    need(
        list(msgspec.json.decode(text)) == list(kind.__struct_fields__),  # type: ignore[attr-defined]
        f"the keys of the {what} are not in their order",
    )
    return found


def day_start_ms(day: str) -> int:
    """NotValidError for what is no day."""
    try:
        found = date.fromisoformat(day)
    except ValueError as error:
        raise NotValidError(f"{day!r} is not a day") from error
    need(found.isoformat() == day, f"{day!r} is not a day")
    return (found - _EPOCH).days * DAY_MS


class Window(msgspec.Struct, frozen=True):
    """What rows and the workloads of receipts have in common."""

    source: str
    from_ms: int
    to_ms: int
    ms: dict[str, int]
    paid_ms: int
    held: list[Held]


def check_window(row: Row | Window, start_ms: int) -> None:
    """The window lies within the day, the kinds sum to it, what is paid was of a paid kind. NotValidError."""
    need(
        start_ms <= row.from_ms <= row.to_ms <= start_ms + DAY_MS,
        "the window does not lie within the day",
    )
    need(list(row.ms) == list(KINDS), "the kinds are not the twelve in their order")
    need(min(row.ms.values()) >= 0, "a kind has less than no milliseconds")
    total, length = sum(row.ms.values()), row.to_ms - row.from_ms
    need(total == length, f"the kinds sum to {total} ms, the window is {length} ms long")
    payable = sum(row.ms[kind] for kind in PAID_KINDS)
    need(0 <= row.paid_ms <= payable, f"{row.paid_ms} ms are paid, only {payable} ms were of a paid kind")
    need(
        all(row.from_ms <= held.from_ms <= held.to_ms <= row.to_ms for held in row.held)
        and all(one.to_ms <= other.from_ms for one, other in pairwise(row.held)),
        "the times of the licence's owners overlap or leave the window",
    )
    owners = [held.paid_ms for held in row.held]
    need(
        all(0 <= held.paid_ms <= held.to_ms - held.from_ms for held in row.held)
        and (sum(owners) <= row.paid_ms or row.source != NATIVE),
        "the licence's owners were paid more than the window",
    )


def _check_path(leaf: bytes, path: list[PathStep], *, place: int, leaves: int, root: str, what: str) -> None:
    """Place and number of leaves say on which sides the siblings lie: the path must be just so."""
    need(0 <= place < leaves, f"the {what} lies at {place}, but there are {leaves} leaves")
    need(
        [step.side for step in path] == _sides(place, leaves),
        f"the path is not that of leaf {place} of {leaves}: too short, too long, or its sides are wrong",
    )
    need(
        all(_HASH.fullmatch(step.hash) for step in path),
        "the path has something that is not a hash of 64 hex digits",
    )
    steps = [(step.side == "left", bytes.fromhex(step.hash)) for step in path]
    need(climb(leaf, steps).hex() == root, f"the {what} and its path do not lead to the root")


def _sides(place: int, leaves: int) -> list[str]:
    sides = []
    while leaves > 1:
        if place ^ 1 < leaves:
            sides.append("left" if place & 1 else "right")
        place, leaves = place // 2, (leaves + 1) // 2
    return sides


def _check_hour(document: ProofDocument, row: Row, statement: Statement) -> None:
    hour = document.hour
    assert hour is not None
    need(0 <= hour.hour < HOURS, f"there is no hour {hour.hour}")
    need(hour.root == statement.hours[hour.hour], "the statement says another root of that hour")
    try:
        content = bytes.fromhex(hour.content)
    except ValueError as error:
        raise NotValidError("the hour's content is not hex") from error
    need(content.hex() == hour.content, "the hour's content is not hex in lower case")
    _check_path(
        leaf_hash(HOUR_DOMAIN, content),
        hour.path,
        place=hour.place,
        leaves=statement.nodes,
        root=hour.root,
        what="hour",
    )
    start_ms = day_start_ms(row.day) + hour.hour * HOUR_MS
    entries, left = divmod(len(content) - HOUR_HEAD_BYTES, HOUR_ENTRY_BYTES)
    need(entries >= 1 and left == 0, "the hour's content has not the length of whole workloads")
    need(int.from_bytes(content[:8], "big") == start_ms, "the hour's content is of another hour")
    need(str(uuid.UUID(bytes=content[8:24])) == row.node, "the hour's content is of another node")
    workloads = np.frombuffer(content, HOUR_DTYPE, offset=HOUR_HEAD_BYTES)
    need(0 <= hour.index < entries, f"the hour's content has no workload {hour.index}")
    entry = workloads[hour.index]
    found = uuid.UUID(int=int(entry["hi"]) << 64 | int(entry["lo"]))
    need(str(found) == row.workload, "at that index of the hour's content stands another workload")
    length = max(0, min(row.to_ms, start_ms + HOUR_MS) - max(row.from_ms, start_ms))
    total = int(entry["ms"].sum(dtype=np.int64))
    need(
        total == length or (total == 0 and row.source != NATIVE),
        f"the hour's kinds sum to {total} ms, its window is {length} ms long",
    )
    need(
        all(int(ms) <= row.ms[kind] for kind, ms in zip(KINDS, entry["ms"], strict=True)),
        "a kind has more milliseconds in the hour than in the day",
    )
