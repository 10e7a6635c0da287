"""Uptime as pictures made on the server: a strip of days, and the course of one day. Plain SVG.

A bar is as high as the day was paid and has a colour as well; the words of each bar are in the picture. What
the numbers are is the API's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

import msgspec

from web.pages.rendering import percent
from web.times import DAY_MS, parse_rfc3339

BAR, STEP, HEIGHT = 6, 8, 28  # of a strip, in its own units
LEAST = 4  # even of a day that was not paid at all something is seen
MINUTE_MS = 60_000


class Bar(msgspec.Struct, frozen=True):
    """One day. `shade`: a class of pages.css; `words`: what it says."""

    day: str
    x: int
    y: float
    height: float
    shade: str
    words: str


class Strip(msgspec.Struct, frozen=True):
    bars: tuple[Bar, ...]
    ratio: float | None  # paid of what could be paid, over all its days
    words: str

    @property
    def width(self) -> int:
        return len(self.bars) * STEP - (STEP - BAR)


class Band(msgspec.Struct, frozen=True):
    """A part of a day, in minutes from its beginning."""

    x: float
    width: float
    kind: str
    words: str


def strip_of(days: Iterable[Mapping[str, Any]], *, count: int, last: date, counted: str = "paid") -> Strip:
    """`count` days up to `last`, of answers with window_ms, paid_ms and unobserved_ms by day. `counted`: what
    the paid share is called there."""
    told = {day["day"]: day for day in days}
    wanted = [str(last - timedelta(days=back)) for back in range(count - 1, -1, -1)]
    known = [told[day] for day in wanted if day in told]
    ratio = _ratio(
        sum(day["paid_ms"] for day in known), sum(day["window_ms"] - day["unobserved_ms"] for day in known)
    )
    words = f"{count} days up to {last}: " + (
        f"{percent(ratio)} {counted} on {len(known)} of them" if known else "nothing is known of them yet"
    )
    return Strip(tuple(_bar(at, day, told.get(day), counted) for at, day in enumerate(wanted)), ratio, words)


def _bar(at: int, day: str, told: Mapping[str, Any] | None, counted: str) -> Bar:
    if told is None:
        return Bar(day, at * STEP, HEIGHT - 2, 2, "unknown", f"{day}: nothing known")
    ratio = _ratio(told["paid_ms"], told["window_ms"] - told["unobserved_ms"])
    if ratio is None:
        return Bar(day, at * STEP, 0, HEIGHT, "ours", f"{day}: we did not observe it")
    height = round(LEAST + (HEIGHT - LEAST) * ratio, 2)
    open_yet = told.get("revision", 1) is None
    words = f"{day}: {percent(ratio)} {counted}" + (", not sealed yet" if open_yet else "")
    return Bar(day, at * STEP, round(HEIGHT - height, 2), height, shade_of(ratio), words)


def shade_of(ratio: float) -> str:
    """The class of a share."""
    for least, shade in ((0.999, "full"), (0.95, "most"), (0.5, "part")):
        if ratio >= least:
            return shade
    return "low"


def _ratio(paid_ms: int, owed_ms: int) -> float | None:
    return paid_ms / owed_ms if owed_ms > 0 else None


def bands_of(why: Mapping[str, Any]) -> list[Band]:
    """The course of a day as `/why` tells it: paid where nothing is said, then every unpaid interval."""
    midnight = parse_rfc3339(why["day"] + "T00:00:00Z")

    def band(kind: str, since: str, until: str) -> Band:
        begin, end = ((parse_rfc3339(each) - midnight) / MINUTE_MS for each in (since, until))
        begin, end = max(begin, 0), min(end, DAY_MS / MINUTE_MS)
        words = f"{since[11:19]} to {until[11:19]}"
        return Band(round(begin, 3), round(max(end - begin, 1), 3), kind, words)

    if why["note"]:
        return []
    unpaid = [band(one["kind"], one["from"], one["to"]) for one in why["unpaid"]]
    return [band("paid", why["from"], why["to"]), *unpaid]
