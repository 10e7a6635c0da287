"""Cursors of lists of points that do not go by ids: fields joined by `~`, which none of them has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from quart import request

from web.days import day_parameter
from web.problems import bad_parameter

A = TypeVar("A")
B = TypeVar("B")
_BENEFICIARY = re.compile(r"(wallet|user|node|nobody)~([0-9a-fx-]{0,64})", re.ASCII)
_AMOUNT = re.compile(rf"([0-9]{{1,38}})~{_BENEFICIARY.pattern}", re.ASCII)


def text_of(*fields: str) -> str:
    return "~".join(fields)


def day_cursor() -> str | None:
    """RefusedError 400; as all of these."""
    return day_parameter("after")


def pair_cursor(first: Callable[[str], A], second: Callable[[str], B]) -> tuple[A, B] | None:
    """Two fields, read by functions that raise ValueError."""
    text = request.args.get("after")
    if text is None:
        return None
    one, _, other = text.partition("~")
    try:
        return first(one), second(other)
    except ValueError:
        _refuse()


def beneficiary_cursor() -> tuple[str, str] | None:
    text = request.args.get("after")
    if text is None:
        return None
    match = _BENEFICIARY.fullmatch(text)
    return (match[1], match[2]) if match else _refuse()


def amount_cursor() -> tuple[int, str, str] | None:
    text = request.args.get("after")
    if text is None:
        return None
    match = _AMOUNT.fullmatch(text)
    return (int(match[1]), match[2], match[3]) if match else _refuse()


def _refuse() -> NoReturn:
    raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
