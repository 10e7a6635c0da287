"""Which metrics, labels and matchers a PromQL expression uses: a strict scan of the part of it that we use.

No parser of PromQL can be had as a kept package. This one knows every word it lets pass: what it does not
know (a function, a character, a clause) fails, so that nothing slips through unread. Subqueries, offsets and
`@` are not used and not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

FUNCTIONS = frozenset(["rate", "increase", "histogram_quantile", "time"])
AGGREGATIONS = frozenset(["sum", "min", "max", "avg", "count", "topk", "bottomk"])
GROUPINGS = frozenset(["by", "without", "on", "ignoring", "group_left", "group_right"])
OPERATORS = frozenset(["and", "or", "unless", "bool"])

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<range>\[[^\]]*\])
    |(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![a-z]))
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]))""",
    re.VERBOSE,
)
_RANGE = re.compile(r"\[(?:\d+[smhdw]|\$__rate_interval|\$__range)\]")


class NotUnderstoodError(Exception):
    """The expression holds what this scan does not know, or is no PromQL."""


class Matcher(NamedTuple):
    label: str
    sign: str
    value: str


class Used(NamedTuple):
    """One selector: a metric, its matchers, and the labels that what stands around it groups by."""

    metric: str
    matchers: tuple[Matcher, ...]


class Read(NamedTuple):
    selectors: list[Used]
    grouped_by: set[str]


def read(expression: str) -> Read:
    """The selectors and grouping labels of an expression. NotUnderstoodError."""
    tokens = list(_tokens(expression))
    found, grouped = [], set[str]()
    at, depth = 0, 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and text in GROUPINGS:
            names, at = _names(tokens, at + 1)
            grouped |= names
            continue
        if (
            kind == "name"
            and (text in FUNCTIONS or text in AGGREGATIONS)
            and following in ("(", "by", "without")
        ):
            at += 1
            continue
        if kind == "name" and text in OPERATORS:
            at += 1
            continue
        if kind == "name":
            if following == "(":
                raise NotUnderstoodError(f"{text}() is no function that is known here")
            matchers, at = _matchers(tokens, at + 1) if following == "{" else ((), at + 1)
            found.append(Used(text, matchers))
            continue
        depth += (text == "(") - (text == ")")
        if depth < 0 or text in "{}=" or text in ("=~", "!~"):
            raise NotUnderstoodError(f"{text!r} stands where it cannot: {expression}")
        at += 1
    if depth:
        raise NotUnderstoodError(f"brackets are left open: {expression}")
    if not found:
        raise NotUnderstoodError(f"no metric is asked for: {expression}")
    return Read(found, grouped)


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while expression[at:].strip():
        match = _TOKEN.match(expression, at)
        if match is None:
            raise NotUnderstoodError(f"{expression[at : at + 20]!r} is not understood")
        at = match.end()
        kind = str(match.lastgroup)
        if kind == "range" and not _RANGE.fullmatch(match[kind]):
            raise NotUnderstoodError(f"{match[kind]} is no range")
        yield kind, match[kind]


def _names(tokens: list[tuple[str, str]], at: int) -> tuple[set[str], int]:
    """The labels of `by (a, b)`, from its bracket on."""
    if tokens[at : at + 1] != [("sign", "(")]:
        raise NotUnderstoodError("a grouping without its labels")
    names, at = set[str](), at + 1
    while tokens[at][1] != ")":
        if tokens[at][0] == "name":
            names.add(tokens[at][1])
        elif tokens[at][1] != ",":
            raise NotUnderstoodError(f"{tokens[at][1]!r} is no label")
        at += 1
    return names, at + 1


def _matchers(tokens: list[tuple[str, str]], at: int) -> tuple[tuple[Matcher, ...], int]:
    """The matchers of `{a="b", c=~"d"}`, from its bracket on."""
    found, at = [], at + 1
    while tokens[at][1] != "}":
        (kind, label), (_, sign), (value_kind, value) = tokens[at : at + 3]
        if kind != "name" or sign not in ("=", "!=", "=~", "!~") or value_kind != "string":
            raise NotUnderstoodError(f"{label} {sign} {value} is no matcher")
        found.append(Matcher(label, sign, value[1:-1]))
        at += 3
        if tokens[at][1] == ",":
            at += 1
    return tuple(found), at + 1
