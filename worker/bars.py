"""A small picture for reports: one bar per day, as a PNG made of the standard library alone (zlib, struct).

Most mail clients show no SVG. Colours are in a palette of a few, so a picture is about a kilobyte. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

BAR_PX, GAP_PX, HEIGHT_PX, MARGIN_PX = 18, 6, 72, 6
LEAST_PX = 4  # of a day of nothing, and of an unknown one
# Palette: background, the bar's empty part, well, middling, bad, not sealed, line of 100 %.
_PALETTE = bytes.fromhex("ffffff edf0f2 2e9d5b e0a526 cf3f3a c3cad0 b9c1c7".replace(" ", ""))
_PAPER, _EMPTY, _WELL, _MIDDLING, _BAD, _UNKNOWN, _LINE = range(7)
WELL_FROM, MIDDLING_FROM = 0.99, 0.9  # of the ratio


def bars(ratios: Sequence[float | None]) -> bytes:
    """A PNG with a bar for each day, from left to right; None: nothing is known of that day.

    A bar is as high as the day's ratio.
    """
    assert ratios, "a picture of no day at all"
    width = 2 * MARGIN_PX + len(ratios) * (BAR_PX + GAP_PX) - GAP_PX
    height = HEIGHT_PX + 2 * MARGIN_PX
    rows = [bytearray([_PAPER]) * width for _ in range(height)]
    rows[MARGIN_PX - 2] = bytearray([_LINE]) * width
    for number, ratio in enumerate(ratios):
        left = MARGIN_PX + number * (BAR_PX + GAP_PX)
        filled = LEAST_PX if ratio is None else max(LEAST_PX, round(min(1.0, max(0.0, ratio)) * HEIGHT_PX))
        for y in range(HEIGHT_PX):
            colour = _colour(ratio) if HEIGHT_PX - y <= filled else _EMPTY
            rows[MARGIN_PX + y][left : left + BAR_PX] = bytes([colour]) * BAR_PX
    return _png(width, rows)


def _colour(ratio: float | None) -> int:
    if ratio is None:
        return _UNKNOWN
    if ratio >= WELL_FROM:
        return _WELL
    return _MIDDLING if ratio >= MIDDLING_FROM else _BAD


def _png(width: int, rows: Sequence[bytes | bytearray]) -> bytes:
    """Eight bits a pixel by palette, no filter (PNG, third edition: 11.2, 12)."""
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    chunks = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
