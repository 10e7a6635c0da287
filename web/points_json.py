"""One JSON object with one long list in it, read piece by piece: a million rows are never held whole.

Values are read by the scanner of the standard library, which is C; here is only what finds the values: a
window of text that is moved over the file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from web.problems import RefusedError, malformed

WINDOW_BYTES = 256 * 1024  # read at once
VALUE_CHARS_MAX = 64 * 1024  # of one row, or of one field beside the list
_SPACE = re.compile(r"[ \t\r\n]*")


def json_parts(file: IO[bytes], name_of_list: str) -> Iterator[tuple[str | None, Any]]:
    """(name, value) of each field, but (None, item) of each item of the list, and then (its name, None).

    RefusedError 400 for what is no such object.
    """
    text = _Window(file)
    text.expect("{")
    names: set[str] = set()
    while text.next() != "}" or names:
        name = text.value()
        if not isinstance(name, str) or name in names:
            raise malformed("not JSON: a field is named twice, or by what is no text")
        names.add(name)
        text.expect(":")
        if name == name_of_list:
            yield from ((None, item) for item in _items(text, name))
            yield name, None
        else:
            yield name, text.value()
        if text.next() == "}":
            break
        text.expect(",")
    text.expect("}")
    if text.next():
        raise malformed("not JSON: something follows the object")


def _items(text: _Window, name: str) -> Iterator[Any]:
    if text.next() != "[":
        raise malformed(f"Expected `array` - at `$.{name}`")
    text.expect("[")
    if text.next() == "]":
        text.expect("]")
        return
    while True:
        yield text.value()
        if text.next() == "]":
            text.expect("]")
            return
        text.expect(",")


class _Window:
    """What was read of the file and not yet used. What it refuses is malformed: RefusedError 400."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        decoder = json.JSONDecoder(parse_constant=_no_number)
        self._scan: Callable[[str, int], tuple[Any, int]] = vars(decoder)["scan_once"]
        self._text = ""
        self._at = 0
        self._ended = False

    def next(self) -> str:
        """The next character that is no space, which stays; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None, "it matches nothing, too"
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        if self.next() != character:
            raise malformed(f"not JSON: {character} expected")
        self._at += 1

    def value(self) -> Any:
        """The value that begins here."""
        self.next()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except (StopIteration, ValueError) as error:  # not whole yet, or not JSON
                if len(self._text) - self._at > VALUE_CHARS_MAX or not self._more():
                    raise malformed(f"not JSON: {error}") from error
            except RecursionError as error:
                raise malformed("nested too deeply") from error
            else:
                # A number at the window's end may go on.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _more(self) -> bool:
        if self._ended:
            return False
        read = self._file.read(WINDOW_BYTES)
        self._ended = not read
        try:
            self._text = self._text[self._at :] + self._utf8.decode(read, final=self._ended)
        except UnicodeDecodeError as error:
            raise malformed("not UTF-8") from error
        self._at = 0
        return not self._ended


def _no_number(text: str) -> RefusedError:
    raise malformed(f"not JSON: {text} is no number")
