"""A page of documentation as a test sees it: its sh blocks, as steps with what the page says of each answer.

In a block, a line ``# 201 slug="edge-ai", items.0.name, retired_at=null`` after a call says what it answers:
the status, and fields of the JSON body, each with its value or just that it is there and not null.
``# 200 shows TEXT``: the body has the text in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SAID = re.compile(r"# (\d{3})(?: (.*))?")
_FIELD = re.compile(r'([\w.-]+)(?:=("[^"]*"|[^,]+))?(?:, |$)')


class Said(NamedTuple):
    """What the page says of one call."""

    status: int
    fields: dict[str, str | None]  # JSON text of the value; None: there, and not null
    shows: str


class Step(NamedTuple):
    """Lines that are run together, and what is said of the last call in them; None when there is no call."""

    line: int  # of the page, where it begins
    script: str
    said: Said | None


def steps_of(page: str) -> list[Step]:
    """All steps of all sh blocks, in order. A step ends with what is said, or with the block."""
    found: list[Step] = []
    for block in _BLOCK.finditer(page):
        first = page[: block.start(1)].count("\n") + 1
        pending: list[str] = []
        for number, line in enumerate(block[1].splitlines(), first):
            if (said := _SAID.fullmatch(line)) is not None:
                found.append(Step(number - len(pending), "\n".join(pending), _said(said)))
                pending = []
            else:
                pending.append(line)
        if any(pending):
            found.append(Step(number + 1 - len(pending), "\n".join(pending), None))
    return found


def _said(match: re.Match[str]) -> Said:
    text = match[2] or ""
    if text.startswith("shows "):
        return Said(int(match[1]), {}, text.removeprefix("shows "))
    fields = {one[1]: one[2] or None for one in _FIELD.finditer(text)}
    assert "".join(one[0] for one in _FIELD.finditer(text)) == text, f"cannot read: {text}"
    return Said(int(match[1]), fields, "")


def differences(said: Said, status: int, body: bytes) -> Iterator[str]:
    """Where an answer is not what the page says."""
    if status != said.status:
        yield f"status {status} instead of {said.status}: {body[:500]!r}"
        return
    if said.shows and said.shows not in body.decode():
        yield f"does not show {said.shows}: {body[:500]!r}"
    for path, wanted in said.fields.items():
        try:
            value = at(json.loads(body), path)
        except (LookupError, TypeError):
            yield f"has no {path}: {body[:500]!r}"
            continue
        if (value is None) if wanted is None else (value != json.loads(wanted)):
            yield f"{path} is {value!r}, not {wanted or 'there'}"


def at(value: Any, path: str) -> Any:
    """What stands at ``items.0.name``."""
    for name in path.split("."):
        value = value[int(name) if name.isdigit() else name]
    return value
