"""Addresses of pages that carry what was asked for, and days as they stand in them."""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import quote, urlencode

from web.pages.asking import ApiError


def link(path: str, **query: Any) -> str:
    """A path with what there is of a query; what is None or empty is left out."""
    words = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return f"{path}?{words}" if words else path


def segment(text: str) -> str:
    """A part of a path out of the address of a page: it stays one part, whatever is in it."""
    return quote(text, safe="")


def day_of(text: str | None, default: date) -> str:
    """The day that a page is asked for. ApiError 400 for what is none."""
    if not text:
        return str(default)
    try:
        found = date.fromisoformat(text)
        if found == date.max:
            raise ValueError("no day follows it")
        return str(found)
    except ValueError as error:
        raise ApiError(400, {"detail": "That is not a day: days are written like 2026-01-31."}) from error
