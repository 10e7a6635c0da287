"""Reading JSON from a stranger: every member is asked for by name, type and bounds.

Total: whatever the bytes are, the outcome is a value or `MalformedAnswerError` naming the path. No schema
library, because np1 is standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Any


class MalformedAnswerError(ValueError):
    """The bytes are not the JSON that was to be expected; the text says where."""


class Shape:
    """A JSON object under its path. Each method reads one member or raises MalformedAnswerError."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise MalformedAnswerError(f"{path or 'body'}: not an object")
        self._members: dict[str, Any] = value
        self.path = path

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _get(self, name: str) -> object:
        if name not in self._members:
            raise MalformedAnswerError(f"{self._at(name)}: missing")
        return self._members[name]

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer in [low, high]; true and 1.0 are none."""
        value = self._get(name)
        if type(value) is not int or not low <= value <= high:
            raise MalformedAnswerError(f"{self._at(name)}: not an integer from {low} to {high}")
        return value

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        """A string that matches the pattern as a whole."""
        value = self._get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise MalformedAnswerError(f"{self._at(name)}: not {pattern.pattern}")
        return value

    def is_null(self, name: str) -> bool:
        """Whether the member is there and null."""
        return self._get(name) is None

    def object(self, name: str) -> Shape:
        return Shape(self._get(name), self._at(name))

    def items(self, name: str, items_max: int) -> list[Shape]:
        """A list of at most `items_max` objects."""
        value = self._get(name)
        if not isinstance(value, list) or len(value) > items_max:
            raise MalformedAnswerError(f"{self._at(name)}: not a list of at most {items_max}")
        return [Shape(item, f"{self._at(name)}[{index}]") for index, item in enumerate(value)]


def parse_object(body: bytes, *, bytes_max: int) -> Shape:
    """The JSON object in `body`. MalformedAnswerError for anything else, however deep, big or broken."""
    if len(body) > bytes_max:
        raise MalformedAnswerError(f"body: longer than {bytes_max} bytes")
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise MalformedAnswerError("body: not JSON in UTF-8") from error
    return Shape(value, "")
