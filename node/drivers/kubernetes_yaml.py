"""Reading a kubeconfig: JSON, or the plain block YAML that kubectl and K3s write. No YAML library is needed.

Read: nested maps and lists by indent, plain and quoted texts, comments, empty `{}` and `[]`. Refused, with
the line: everything else (anchors, tags, block texts, inline collections, tabs). Writing YAML is
kubernetes_install.py's.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

DEPTH_MAX = 20
_KEY = re.compile(
    r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'#&*!|>%@`{}\[\],?:-][^#{}\[\],"']*?)\s*:(?:\s+(.*))?"""
)
_NOT_PLAIN = "\"'&*!|>%@`{}[],?"
_HOW = "`kubectl config view --raw --flatten -o json` writes it as JSON, which is read too"
_NAMED: dict[str, Any] = {"null": None, "~": None, "true": True, "false": False}


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


def read_yaml(text: str) -> Any:
    """What the text says; numbers stay texts. ValueError names the line that is not understood."""
    if text.lstrip().startswith("{"):
        return json.loads(text)
    lines = [line for line in map(_line, range(1, text.count("\n") + 2), text.split("\n")) if line.text]
    if not lines:
        raise ValueError("it is empty")
    value, rest = _block(lines, 0, 0)
    if rest != len(lines):
        raise _refused(lines[rest])
    return value


def _line(number: int, raw: str) -> _Line:
    text = raw.rstrip()
    if text in ("---", "") or text.lstrip().startswith("#"):
        return _Line(number, 0, "")
    if "\t" in raw:  # where one may stand is a chapter of its own
        raise _refused(_Line(number, 0, text))
    indent = len(text) - len(text.lstrip(" "))
    return _Line(number, indent, text[indent:])


def _refused(line: _Line) -> ValueError:
    return ValueError(f"line {line.number}: YAML that is not read here; {_HOW}")


def _block(lines: list[_Line], at: int, depth: int) -> tuple[Any, int]:
    """The map or list that begins at this line, and where it ends."""
    if depth > DEPTH_MAX:
        raise _refused(lines[at])
    if lines[at].text == "-" or lines[at].text.startswith("- "):
        return _list(lines, at, depth)
    return _map(lines, at, depth)


def _map(lines: list[_Line], at: int, depth: int) -> tuple[dict[str, Any], int]:
    indent, found = lines[at].indent, dict[str, Any]()
    while at < len(lines) and lines[at].indent == indent and not lines[at].text.startswith("- "):
        match = _KEY.fullmatch(lines[at].text)
        key = _scalar(lines[at], match[1]) if match else None
        if match is None or not isinstance(key, str) or key in found:
            raise _refused(lines[at])
        line, told = lines[at], _uncommented(match[2] or "")
        at += 1
        if told:
            found[key] = _scalar(line, told)
        elif at < len(lines) and _is_inner(lines[at], indent):
            found[key], at = _block(lines, at, depth + 1)
        else:
            found[key] = None
    return found, at


def _is_inner(line: _Line, indent: int) -> bool:
    return line.indent > indent or (line.indent == indent and line.text.startswith("- "))


def _list(lines: list[_Line], at: int, depth: int) -> tuple[list[Any], int]:
    indent, found = lines[at].indent, []
    while at < len(lines) and lines[at].indent == indent and lines[at].text.startswith("- "):
        inner = lines[at].text[1:].lstrip()
        if _KEY.fullmatch(inner):
            # A map that begins behind the dash: its other keys stand below the first.
            begun = _Line(lines[at].number, indent + len(lines[at].text) - len(inner), inner)
            value, at = _map([*lines[:at], begun, *lines[at + 1 :]], at, depth + 1)
        else:
            value, at = _scalar(lines[at], _uncommented(inner)), at + 1
        found.append(value)
    return found, at


def _uncommented(text: str) -> str:
    if text[:1] in ("'", '"'):
        end = re.match(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s+#.*""", text)
        return end[1] if end else text
    return "" if text.startswith("#") else text.split(" #", 1)[0].rstrip()


def _scalar(line: _Line, text: str) -> Any:
    if text in ("{}", "[]"):
        return json.loads(text)
    try:
        if text.startswith('"'):
            return str(json.loads(text))
    except ValueError as error:
        raise _refused(line) from error
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    looks_like_more = ": " in text or text.endswith(":") or text == "-" or text.startswith("- ")
    if not text or text[0] in _NOT_PLAIN or looks_like_more:
        raise _refused(line)
    return _NAMED.get(text, text)
