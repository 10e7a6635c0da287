"""A line chart as SVG, written by hand: no library is worth its weight for this."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 200, 40, 50
_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
_TICKS = 5
Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """What is drawn along a side. A logarithmic one leaves out what is not above zero."""

    title: str
    log: bool = False


def draw(path: Path, *, title: str, x: Axis, y: Axis, lines: Mapping[str, Points]) -> None:
    """Write the chart of some named lines."""
    shown = {
        name: [point for point in points if not (x.log and point[0] <= 0) and not (y.log and point[1] <= 0)]
        for name, points in lines.items()
    }
    every = [point for points in shown.values() for point in points]
    across = _scale([point[0] for point in every], x.log, _LEFT, _WIDTH - _RIGHT, from_zero=False)
    up = _scale([point[1] for point in every], y.log, _HEIGHT - _BOTTOM, _TOP, from_zero=not y.log)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 20, title, "start", size=14),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x.title, "middle"),
        _text(_LEFT, _TOP - 6, y.title, "start"),
    ]
    for value, at in across.ticks:
        parts.append(f'<path d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#eee"/>')
        parts.append(_text(at, _HEIGHT - _BOTTOM + 16, _told(value), "middle"))
    for value, at in up.ticks:
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#eee"/>')
        parts.append(_text(_LEFT - 6, at + 4, _told(value), "end"))
    for number, (name, points) in enumerate(shown.items()):
        color = _COLORS[number % len(_COLORS)]
        path_of = " ".join(f"{across.at(a):.1f},{up.at(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path_of}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="3" fill="{color}"/>' for a, b in points
        ]
        parts.append(_text(_WIDTH - _RIGHT + 10, _TOP + 14 + 18 * number, name, "start", color=color))
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


class _Scale(NamedTuple):
    at: Callable[[float], float]
    ticks: list[tuple[float, float]]


def _scale(values: Sequence[float], log: bool, start: float, end: float, *, from_zero: bool) -> _Scale:
    low, high = (0.0 if from_zero else min(values, default=0.0)), max(values, default=1.0)
    if log:
        bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
        top = max(top, bottom + 1)
        marks = [10.0**power for power in range(bottom, top + 1)]
        return _placed(lambda value: (math.log10(value) - bottom) / (top - bottom), marks, start, end)
    high = high if high > low else low + 1
    step = 10 ** math.floor(math.log10((high - low) / _TICKS))
    step *= next(size for size in (1, 2, 5, 10) if (high - low) / (size * step) <= _TICKS)
    top = math.ceil(high / step) * step
    bottom_value = math.floor(low / step) * step
    marks = [bottom_value + step * number for number in range(round((top - bottom_value) / step) + 1)]
    return _placed(lambda value: (value - bottom_value) / (top - bottom_value), marks, start, end)


def _placed(share: Callable[[float], float], marks: list[float], start: float, end: float) -> _Scale:
    def at(value: float) -> float:
        return start + share(value) * (end - start)

    return _Scale(at, [(mark, at(mark)) for mark in marks])


def _told(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12, color: str = "#333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">'
        f"{escape(text)}</text>"
    )
