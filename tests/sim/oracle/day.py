"""What a sealed row of a day must say, and what it is worth (LIVENESS.md 2, 5, 6; decision 0068).

Sums over pieces of time, each cut wherever anything begins or ends, and whole numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.sim.observed import KINDS
from tests.sim.oracle.base import FOREVER
from tests.sim.oracle.compose import Composed
from tests.sim.oracle.leases import Binding
from tests.sim.oracle.oracle import Oracle

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Who owned a licence when; `to_ms` None = still does."""

    licence_id: str
    owner: str
    from_ms: int
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a row's day: under this licence, of this owner."""

    licence_id: str
    owner: str
    from_ms: int
    to_ms: int
    paid_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRow:
    """`hours`: milliseconds by kind of each of the 24, those outside life empty of all."""

    from_ms: int
    to_ms: int
    ms: Mapping[str, int]
    hours: tuple[Mapping[str, int], ...]
    paid_ms: int
    held: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A linear rule, in micro-points. `licensed_only`: it counts only time in which somebody owned the
    licence that was run under (decision 0077); then no points belong to the rest (0068)."""

    micro_points_per_paid_s: int
    licensed_only: bool = False
    floor_paid_ms: int = 0
    daily_cap_micro_points: int | None = None
    kind_weight_ppm: Mapping[str, int] | None = None


def paid(ms: Mapping[str, int], *, pay_claims: bool) -> int:
    """[2] up + maintenance + claimed_up, the last by the project's policy."""
    return ms["up"] + ms["maintenance"] + (ms["claimed_up"] if pay_claims else 0)


def day_row(
    oracle: Oracle,
    workload_id: str,
    day_ms: int,
    *,
    bindings: Sequence[Binding] = (),
    owned: Sequence[Owned] = (),
    pay_claims: bool = True,
) -> DayRow | None:
    """None: the workload did not live on that day."""
    end_ms = day_ms + DAY_MS

    def between(from_ms: int, to_ms: int) -> Composed:
        return oracle.compose(workload_id, from_ms=from_ms, to_ms=to_ms)

    whole = between(day_ms, end_ms)
    if whole.from_ms >= whole.to_ms:
        return None
    hours = [between(at, at + HOUR_MS).ms for at in range(day_ms, end_ms, HOUR_MS)]
    parts: list[Part] = []
    mine = [b for b in bindings if b.workload_id == workload_id]
    for binding in mine:
        for own in owned:
            if own.licence_id != binding.licence_id:
                continue
            a = max(whole.from_ms, binding.from_ms, own.from_ms)
            b = min(whole.to_ms, *(FOREVER if x is None else x for x in (binding.to_ms, own.to_ms)))
            if a < b:
                parts.append(
                    Part(
                        licence_id=own.licence_id,
                        owner=own.owner,
                        from_ms=a,
                        to_ms=b,
                        paid_ms=paid(between(a, b).ms, pay_claims=pay_claims),
                    )
                )
    parts.sort(key=lambda part: part.from_ms)
    assert all(a.to_ms <= b.from_ms for a, b in pairwise(parts)), "a licence has one owner at a time"
    assert sum(whole.ms.values()) == whole.to_ms - whole.from_ms
    assert all(sum(hour[kind] for hour in hours) == whole.ms[kind] for kind in KINDS)
    return DayRow(
        from_ms=whole.from_ms,
        to_ms=whole.to_ms,
        ms=whole.ms,
        hours=tuple(hours),
        paid_ms=paid(whole.ms, pay_claims=pay_claims),
        held=tuple(parts),
    )


def points(rule: Rule, paid_ms: int, kind: str | None = None) -> int:
    """Micro-points, rounded once, down; nothing below the floor, never above the cap."""
    if paid_ms < rule.floor_paid_ms:
        return 0
    weight = (rule.kind_weight_ppm or {}).get(kind or "", 1_000_000)
    worth = paid_ms * rule.micro_points_per_paid_s * weight // (1_000 * 1_000_000)
    return worth if rule.daily_cap_micro_points is None else min(worth, rule.daily_cap_micro_points)


def counted_ms(rule: Rule, row: DayRow) -> int:
    """How much of its paid time the rule counts."""
    return sum(part.paid_ms for part in row.held) if rule.licensed_only else row.paid_ms


def shares(
    row: DayRow, micro_points: int, *, otherwise: str, licensed_only: bool = False
) -> dict[tuple[str, str], int]:
    """Whose the points of a row are, by (licence, owner); ("", otherwise) without any owner all day, and
    ("", "nobody") for paid time that nobody held, unless only licensed time was counted."""
    if micro_points == 0:
        return {}
    if not row.held:
        return {("", otherwise): micro_points}
    weigh: dict[tuple[str, str], int] = {}
    for part in row.held:
        key = (part.licence_id, part.owner)
        weigh[key] = weigh.get(key, 0) + part.paid_ms
    if not licensed_only:
        weigh["", "nobody"] = row.paid_ms - sum(weigh.values())
    if sum(weigh.values()) == 0:
        weigh = {}
        for part in row.held:
            key = (part.licence_id, part.owner)
            weigh[key] = weigh.get(key, 0) + part.to_ms - part.from_ms
    whole = sum(weigh.values())
    given = {key: micro_points * weight // whole for key, weight in weigh.items()}
    left = micro_points - sum(given.values())
    order = list(weigh)  # earlier parts first where remainders are equal
    order.sort(key=lambda key: -(micro_points * weigh[key] % whole))
    for key in order[:left]:
        given[key] += 1
    return {key: value for key, value in given.items() if value}
