"""The table of broken proofs and receipts that every verifier must refuse: (what is wrong, the document).

Made in three ways: each field of an honest document changed by itself; honest-looking documents over seals
that do not add up; parts of a tree passed off for others.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from engine.core.merkle import leaf_hash, node_hash
from engine.core.receipts import receipt_text
from engine.core.sealed import DAY_DOMAIN, HOUR_DOMAIN, SealedRow
from tests.proofs.sealed_day import DAY_START_MS, KEY_ID, SealedDay, signed

Broken = tuple[str, Any]
Path = tuple[str | int, ...]


def plain(document: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document))


def broken_proofs() -> Iterator[Broken]:
    """Of a day and of an hour."""
    day = SealedDay()
    for place, hour in ((6, None), (3, 10)):
        honest = plain(day.proof(place, hour=hour))
        yield from each_field_changed(f"proof of {place}, {hour}", honest)
        yield from _text_changed(f"proof of {place}, {hour}", honest, "row")
        yield from _text_changed(f"proof of {place}, {hour}", honest, "statement")
    lonely = SealedDay(nodes=1, workloads_per_node=1)
    yield from each_field_changed("the proof of a tree of one leaf", plain(lonely.proof(0, hour=0)))
    yield from _wrong_trees(day)
    yield from _other_parts(day)
    for what, change in DISHONEST.items():
        yield f"a seal over a row in which {what}", plain(SealedDay(change=change).proof(3))
    for what, text in DISHONEST_TEXTS.items():
        yield f"a seal over a text in which {what}", plain(SealedDay(text=text).proof(3))
    for what, content in DISHONEST_HOURS.items():
        yield f"a seal over an hour in which {what}", plain(SealedDay(content=content).proof(3, hour=10))
    for no_day in ("2026-1-31", "20260131", "2026-02-30", "2026-01-31T00:00", "yesterday"):
        yield f"a seal of the day {no_day}", plain(SealedDay(day=no_day).proof(3))
    march = SealedDay(day="2026-02-30", change=_thirty_days_later)
    yield "the second of March as a day of February", plain(march.proof(3))


def broken_receipts() -> Iterator[Broken]:
    day = SealedDay()
    honest = plain(day.receipt(1))
    yield from each_field_changed("receipt", honest)
    yield from _text_changed("receipt", honest, "statement")
    other = plain(day.receipt(2))
    for name in ("statement", "signature"):
        yield f"a receipt with another's {name}", honest | {name: other[name]}
    for what, change in DISHONEST.items():
        yield f"a signature over a row in which {what}", plain(SealedDay(change=change).receipt(1))
    statement = plain(msgspec.json.decode(honest["statement"]))
    rows = [row for row in day.rows if row.node_id == day.node_ids[1]]
    text = receipt_text(day.seal, day.node_ids[1], rows, key_id=KEY_ID)
    total = text.replace(b'"paid_ms":%d,"refused"' % statement["paid_ms"], b'"paid_ms":1,"refused"')
    assert total != text
    yield "a signed total that is not the sum", plain(signed(total))
    yield "a signed text of version 2", plain(signed(text.replace(b'"v":1,', b'"v":2,')))
    yield "a signed text with a space", plain(signed(text.replace(b'"v":1,', b'"v":1, ')))
    yield "another key is named than stated", plain(day.receipt(1)) | {"key_id": "9-9"}


def each_field_changed(what: str, document: Any) -> Iterator[Broken]:
    """Every value flipped, every field gone, every list shortened, turned round and lengthened."""
    for path, value in _walk(document):
        for how, other in _others(value):
            yield f"{what}: {_name(path)} {how}", _with(document, path, other)
        if path and isinstance(path[-1], str):
            yield f"{what}: {_name(path)} gone", _without(document, path)
    yield f"{what}: one field too many", document | {"more": 1}


def _walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _walk(each, (*path, key))


def _others(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case bool() | None:
            yield "is something", {"content": ""}
        case int():
            yield "one more", value + 1
            yield "one less", value - 1
            yield "as text", str(value)
            yield "far away", value + (1 << 32)
        case "left" | "right":
            yield "the other side", "right" if value == "left" else "left"
            yield "no side", ""
        case str():
            if value:
                yield "flipped at its start", chr(ord(value[0]) ^ 1) + value[1:]
                yield "flipped at its end", value[:-1] + chr(ord(value[-1]) ^ 1)
                yield "cut", value[:-2]
            yield "with more", value + "00"
            if value.upper() != value:
                yield "in upper case", value.upper()
            yield "no text", 7
        case [_, _, *_]:
            yield "shortened at its start", value[1:]
            yield "shortened at its end", value[:-1]
            yield "turned round", value[::-1]
            yield "with one twice", [*value, value[-1]]
            yield "with the first two swapped", [value[1], value[0], *value[2:]]
        case dict() | list():
            yield "something else", "x"


def _with(document: Any, path: Path, value: Any) -> Any:
    made = copy.deepcopy(document)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


def _without(document: Any, path: Path) -> Any:
    made = copy.deepcopy(document)
    at = made
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return made


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _text_changed(what: str, document: Any, name: str) -> Iterator[Broken]:
    """Every field inside of a hashed or signed text changed, and the text written otherwise."""
    inside = msgspec.json.decode(document[name])
    for path, value in _walk(inside):
        for how, other in _others(value):
            text = msgspec.json.encode(_with(inside, path, other)).decode()
            yield f"{what}: in the {name} {_name(path)} {how}", document | {name: text}
    for how, text in {
        "with a space": document[name].replace('"v":1,', '"v":1, '),
        "with a key twice": document[name].replace('"v":1,', '"v":1,"v":1,'),
        "with its keys sorted": msgspec.json.encode(dict(sorted(inside.items()))).decode(),
        "with one more key": document[name][:-1] + ',"more":1}',
        "empty": "",
        "no object": "[]",
    }.items():
        yield f"{what}: the {name} {how}", document | {name: text}


def _wrong_trees(day: SealedDay) -> Iterator[Broken]:
    """Inner nodes passed off as leaves, leaves of the other domain, paths cut or carried on."""
    honest = plain(day.proof(0, hour=10))
    short = honest["hour"] | {"path": honest["hour"]["path"][1:], "place": 0}
    children = b"".join(day.hour_leaves[10][:2])
    assert node_hash(*day.hour_leaves[10][:2]) != leaf_hash(HOUR_DOMAIN, children)
    yield "an inner node as an hour's leaf", honest | {"hour": short | {"content": children.hex()}}
    yield "an hour's content as a row", honest | {"row": bytes.fromhex(honest["hour"]["content"]).hex()}
    row_as_content = honest["hour"] | {
        "content": honest["row"].encode().hex(),
        "path": honest["path"],
        "place": honest["place"],
        "root": honest["root"],
    }
    yield "a row as an hour's content", honest | {"hour": row_as_content}
    inner = leaf_hash(DAY_DOMAIN, honest["row"].encode()).hex()
    yield (
        "the leaf once more in its path",
        honest | {"path": [{"side": "right", "hash": inner}, *honest["path"]]},
    )
    yield "no path at all", honest | {"path": []}
    lonely = plain(SealedDay(nodes=1, workloads_per_node=1).proof(0))
    yield "the root's own row with a sibling", lonely | {"path": [{"side": "right", "hash": "00" * 32}]}


def _other_parts(day: SealedDay) -> Iterator[Broken]:
    """Parts that hold by themselves and do not belong together."""
    honest, other = plain(day.proof(3, hour=10)), plain(day.proof(2, hour=11))
    foreign = plain(SealedDay(reason="corrected").proof(3, hour=10))
    for name in ("row", "path", "place", "hour"):
        yield f"the {name} of another proof", honest | {name: other[name]}
    shifted = plain(SealedDay(nodes=6).proof(3))
    for name in ("row", "path", "root", "statement"):
        yield (
            f"the {name} of another seal",
            honest | {name: shifted[name]} if shifted[name] != honest[name] else honest | {"version": 2},
        )
    for name in ("content", "index", "place", "path", "root"):
        if other["hour"][name] != honest["hour"][name]:
            swapped = honest["hour"] | {name: other["hour"][name]}
            yield f"the hour's {name} of another hour", honest | {"hour": swapped}
    told_more = SealedDay(content=_silent_instead_of_up).proof(3, hour=10)
    yield "the hour of another seal", honest | {"hour": plain(told_more)["hour"]}
    yield "the hour of another node", honest | {"hour": plain(day.proof(5, hour=10))["hour"]}
    yield "the hour of another workload", honest | {"hour": honest["hour"] | {"index": 0}}
    lines = msgspec.json.decode(foreign["statement"])
    lines["revision"] = 2
    yield "the statement of another revision", honest | {"statement": msgspec.json.encode(lines).decode()}


def _silent_instead_of_up(content: bytes) -> bytes:
    """Each workload's hour turned round: it adds up, and the day has that much of it."""
    entries = [content[at : at + 64] for at in range(24, len(content), 64)]
    turned = [each[:16] + each[16:20] + each[60:64] + each[24:60] + each[20:24] for each in entries]
    return content[:24] + b"".join(turned)


def _thirty_days_later(row: SealedRow) -> SealedRow:
    later_ms = 30 * 86_400_000
    return msgspec.structs.replace(row, from_ms=row.from_ms + later_ms, to_ms=row.to_ms + later_ms, held=())


def _changed(**fields: Any) -> Callable[[SealedRow], SealedRow]:
    return lambda row: msgspec.structs.replace(row, **fields)


def _shift(row: SealedRow, kind: int, by: int) -> tuple[int, ...]:
    return tuple(ms + by if at == kind else ms for at, ms in enumerate(row.ms))


def _held(**fields: Any) -> Callable[[SealedRow], SealedRow]:
    return lambda row: msgspec.structs.replace(
        row, held=tuple(msgspec.structs.replace(each, **fields) for each in row.held)
    )


# Of a statement these hang on nothing else in a proof: they hold as far as the statement is published.
ONLY_STATED = re.compile(
    r"in the statement (reason|rows|nodes|paid_ms|sealed_ms|hours\.\d+) "
    r"|in the statement hours (turned round|with the first two swapped)"
    "|the statement (with its keys sorted|with one more key)"
)
# Rows that an honest seal never has, sealed and signed as if they were right.
DISHONEST: dict[str, Callable[[SealedRow], SealedRow]] = {
    "the kinds sum to more": lambda row: msgspec.structs.replace(row, ms=_shift(row, 1, 1)),
    "the kinds sum to less": lambda row: msgspec.structs.replace(row, ms=_shift(row, 11, -1)),
    "the window is shorter than its kinds": _changed(from_ms=DAY_START_MS + 1),
    "a foreign day's window is told": _changed(
        from_ms=DAY_START_MS - 86_400_000, to_ms=DAY_START_MS, held=()
    ),
    "more is paid than was up": lambda row: msgspec.structs.replace(row, paid_ms=row.ms[1] + 1),
    "a kind is less than nothing": lambda row: msgspec.structs.replace(
        row, ms=tuple(ms + {0: -1, 1: 1}.get(at, 0) for at, ms in enumerate(row.ms))
    ),
    "kinds are fractions": lambda row: msgspec.structs.replace(
        row, ms=tuple(ms + {0: 0.5, 1: -0.5}.get(at, 0) for at, ms in enumerate(row.ms)), paid_ms=0, held=()
    ),
    "less than nothing is paid": _changed(paid_ms=-1, held=()),
    "an owner is paid more than the window": _held(paid_ms=3_600_001),
    "owners are paid more than the workload": lambda row: msgspec.structs.replace(row, paid_ms=0),
    "an owner's time lies outside": _held(to_ms=DAY_START_MS + 86_400_001),
    "owners overlap": _held(from_ms=DAY_START_MS, to_ms=DAY_START_MS + 5, paid_ms=0),
}
# Texts and hours that an honest seal never has, in honest trees.
DISHONEST_TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "the version is 2": lambda text: text.replace(b'"v":1,', b'"v":2,'),
    "there is a thirteenth kind": lambda text: text.replace(b'"silent":', b'"more":0,"silent":'),
    "a kind is missing": lambda text: text.replace(b'"standby":0,', b""),
    "there is a space": lambda text: text.replace(b'"v":1,', b'"v":1, '),
}
DISHONEST_HOURS: dict[str, Callable[[bytes], bytes]] = {
    "another hour is told": lambda content: (
        (int.from_bytes(content[:8], "big") + 3_600_000).to_bytes(8, "big") + content[8:]
    ),
    "another node is told": lambda content: content[:8] + bytes(16) + content[24:],
    "the kinds sum to more": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "the kinds sum to nothing": lambda content: content[:40] + bytes(48) + content[88:104] + bytes(48),
    "a kind is more than in the day": lambda content: (
        content[:40] + content[44:48] + bytes(44) + content[88:104] + content[108:112] + bytes(44)
    ),
    "there is a byte too many": lambda content: content + b"\0",
}
