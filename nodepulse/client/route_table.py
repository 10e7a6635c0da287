"""The table of all routes in docs/api.md, made from the description. Pure: text in, text out.

By resource (tag), in the order of the description; who may call is what the description says of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nodepulse.client.operations import Operation, operations

BEGIN = "<!-- routes: python -m nodepulse.client.generate -->"
END = "<!-- end of routes -->"


def table(document: Mapping[str, Any]) -> str:
    """The whole table, with the marks around it."""
    by_tag: dict[str, list[Operation]] = {}
    for operation in operations(document):
        by_tag.setdefault(operation.described["tags"][0], []).append(operation)
    pieces = [BEGIN]
    for tag in sorted(by_tag):
        pieces += ["", f"### {tag}", "", "| route | who | what |", "|---|---|---|"]
        pieces += [
            f"| `{one.method} {one.path}` | {_who(one)} | {one.described['summary'].replace('|', ' ')} |"
            for one in by_tag[tag]
        ]
    return "\n".join([*pieces, "", END])


def replaced(page: str, document: Mapping[str, Any]) -> str:
    """The page with the table as it is now. LookupError when the page has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise LookupError(f"no {BEGIN} ... {END}")
    return f"{before}{table(document)}{after}"


def _who(operation: Operation) -> str:
    told = re.match(r"For: ([\w, ]+)\.", operation.described["description"])
    return told[1] if told else "anybody"
