"""The words of a report, as text and as HTML with a small picture per part. Pure.

The text says everything; the picture shows it once more. Who gets which parts is reports.py's.
"""

from __future__ import annotations

from html import escape

import msgspec

from engine.core.amounts import points_of_micro
from engine.core.reports import WORST_MAX, DaySum, Worst, ratio_of
from worker.bars import bars
from worker.inline_images import as_data

_HOUR_MS = 3_600_000
_DAYS_A_LINE = 4


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A project, or one person's nodes in it.

    `days`: of the period, YYYY-MM-DD; `shown`: of the picture, the period among them. `sums`: those of them
    that are sealed, by day. `points`: micro-points committed by day of the period; None: it is not told.
    """

    title: str
    days: tuple[str, ...]
    shown: tuple[str, ...]
    sums: dict[str, DaySum]
    points: dict[str, int] | None = None

    @property
    def told(self) -> tuple[DaySum, ...]:
        """The sealed days of the period."""
        return tuple(self.sums[day] for day in self.days if day in self.sums)


def title(days: tuple[str, ...]) -> str:
    """What the report is called."""
    return f"Report of {days[0]}" if len(days) == 1 else f"Report of {days[0]} to {days[-1]}"


def text(parts: list[Part], *, gaps: tuple[int, int]) -> str:
    """The whole report for those who read text. `gaps`: of ours, how many and how long together, in ms."""
    blocks = []
    for part in parts:
        lines = [part.title, *(f"  {line}" for line in _facts(part))]
        if worst := _worst(part):
            lines += ["  Least paid:", *(f"    {line}" for line in worst)]
        blocks.append("\n".join([*lines, f"  The last {len(part.shown)} days:", *_days(part)]))
    return "\n\n".join([*blocks, _gaps(gaps)])


def html(parts: list[Part], *, gaps: tuple[int, int]) -> str:
    """The same for those who read HTML, each part with its picture as a `data:` address."""
    blocks = []
    for part in parts:
        ratios = [part.sums[day].ratio if day in part.sums else None for day in part.shown]
        told = escape("; ".join(line.strip() for line in _days(part)), quote=True)
        worst = "".join(f"<li>{escape(line)}</li>" for line in _worst(part))
        blocks += [
            f'<h2 style="font-size:1.05em;margin-bottom:.2em">{escape(part.title)}</h2>',
            f'<p style="margin:.2em 0">{"<br>".join(escape(line) for line in _facts(part))}</p>',
            f'<p style="margin:.4em 0"><img src="{as_data(bars(ratios))}" alt="Uptime by day: {told}"><br>',
            f'<span style="color:#777;font-size:.85em">{part.shown[0]} to {part.shown[-1]}</span></p>',
            f"<p>Least paid:</p><ul>{worst}</ul>" if worst else "",
        ]
    return "\n".join(filter(None, [*blocks, f"<p>{escape(_gaps(gaps))}</p>"]))


def _facts(part: Part) -> list[str]:
    told = part.told
    if not told:
        return ["Not sealed yet: " + ", ".join(part.days)]
    paid_ms = sum(each.paid_ms for each in told)
    payable_ms = sum(each.window_ms - each.unobserved_ms for each in told)
    machines = f"{max(each.workloads for each in told)} workloads on {max(each.nodes for each in told)} nodes"
    lines = [f"Paid: {_hours(paid_ms)} of {_hours(payable_ms)} ({percent(ratio_of(told))}), {machines}"]
    if unobserved_ms := sum(each.unobserved_ms for each in told):
        lines.append(f"Not observed, our fault, counts neither way: {_hours(unobserved_ms)}")
    if missing := [day for day in part.days if day not in part.sums]:
        lines.append("Not sealed yet: " + ", ".join(missing))
    if part.points is not None:
        lines += _points(part.days, part.points)
    return lines


def _points(days: tuple[str, ...], points: dict[str, int]) -> list[str]:
    missing = [day for day in days if day not in points]
    lines = [f"Points committed: {points_of_micro(sum(points.values()))}"] if points else []
    return [*lines, "Points not committed: " + ", ".join(missing)] if missing else lines


def _worst(part: Part) -> list[str]:
    found = [(_share(worst), each.day, worst) for each in part.told for worst in each.worst]
    found.sort(key=lambda one: (one[0], one[1], one[2].node_id))
    return [
        f"{' '.join(worst.name.split()) or 'a node'} ({worst.node_id}): {percent(share)} on {day},"
        f" {_hours(worst.payable_ms - worst.paid_ms)} unpaid"
        for share, day, worst in found[:WORST_MAX]
    ]


def _share(worst: Worst) -> float:
    return worst.paid_ms / worst.payable_ms if worst.payable_ms > 0 else 1.0


def _days(part: Part) -> list[str]:
    """Some days a line, all of the picture."""
    told = [f"{day} {percent(part.sums[day].ratio) if day in part.sums else 'unknown'}" for day in part.shown]
    return [
        "    " + "  ".join(told[number : number + _DAYS_A_LINE])
        for number in range(0, len(told), _DAYS_A_LINE)
    ]


def _gaps(gaps: tuple[int, int]) -> str:
    count, ms = gaps
    if not count:
        return "NodePulse listened all the time."
    times = "once" if count == 1 else f"{count} times"
    return f"NodePulse itself did not listen {times}, {ms / 1000:.1f} s together: nobody loses by that."


def _hours(ms: int) -> str:
    return f"{ms / _HOUR_MS:,.1f} h"


def percent(ratio: float | None) -> str:
    """Two decimals, cut off and not rounded: 100.00 % is what was paid whole."""
    return "nothing to pay" if ratio is None else f"{int(ratio * 10_000) / 100:.2f} %"
