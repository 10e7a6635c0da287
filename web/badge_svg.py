"""A badge as SVG: two words side by side. Plain shapes and attributes; nothing in it runs or is loaded."""

from __future__ import annotations

import re
from typing import Literal
from xml.sax.saxutils import escape

import msgspec

Colour = Literal["green", "yellow", "red", "blue", "grey"]
CHARS_MAX = 40  # of each side; longer ones are cut
_COLOURS: dict[Colour, str] = {
    # Dark enough for white letters on them (WCAG AA).
    "green": "#2b7a3d",
    "yellow": "#8a5a00",
    "red": "#b4232a",
    "blue": "#1864ab",
    "grey": "#5c636a",
}
_CHAR_WIDTH, _PADDING, _HEIGHT = 6.6, 6, 20  # px; letters are squeezed or stretched to what is reserved here
_WIDE = 11.0  # px of what is not Latin
# What XML cannot hold, and what turns the direction of text.
_UNFIT = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{said}">'
    "<title>{said}</title>"
    '<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>'
    '<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#3b4048"/>'
    '<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>'
    '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">'
    '<text x="{left_middle}" y="14" textLength="{left_text}">{label}</text>'
    '<text x="{right_middle}" y="14" textLength="{right_text}">{message}</text></g></svg>'
)


class Badge(msgspec.Struct, frozen=True):
    """What a badge says; `status` 404: there is none to be seen."""

    label: str
    message: str
    colour: Colour
    status: int = 200


def badge(said: Badge) -> bytes:
    """The SVG document; whatever is in the words is text in it."""
    label, message = fit(said.label) or "–", fit(said.message) or "–"
    left_text, right_text = _width(label), _width(message)
    left, right = left_text + 2 * _PADDING, right_text + 2 * _PADDING
    quotes = {'"': "&quot;", "'": "&#39;"}
    return _SVG.format(
        width=_px(left + right),
        left=_px(left),
        right=_px(right),
        left_middle=_px(left / 2),
        right_middle=_px(left + right / 2),
        left_text=_px(left_text),
        right_text=_px(right_text),
        colour=_COLOURS[said.colour],
        label=escape(label, quotes),
        message=escape(message, quotes),
        said=escape(f"{label}: {message}", quotes),
    ).encode()


def fit(text: str) -> str:
    """In one line, without what XML cannot hold, cut to CHARS_MAX."""
    line = " ".join(_UNFIT.sub("", text).split())
    return line if len(line) <= CHARS_MAX else line[: CHARS_MAX - 1] + "…"


def _width(text: str) -> float:
    return sum(_CHAR_WIDTH if char < "\u0530" else _WIDE for char in text)


def _px(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
