"""A project's own rule: what a workload's paid time of a day is worth. Pure, in integers.

The rule is catalog.RewardRule; what of a day was paid stands in its seal. The amount of one workload:

    0                                                        if counted_ms < floor_paid_ms or counted_ms = 0
    min(floor(counted_ms * micro_points_per_paid_s * weight_ppm / 1000 / 1000000), daily_cap)      otherwise

What is counted is all paid time, or, for licensed_only, that in which somebody owned the licence that the
workload ran under. A rule that leaves it open counts by licences where there are any: else one licence would
pay for as many machines as one likes, by binding none of them.

The division is one, at the end, and rounds down to a whole micro-point: what is lost is below a millionth of
a point for each workload and day. The cap is on the amount after the weight.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.amounts import MICRO_POINTS_MAX
from engine.core.catalog import RewardRule

PPM = 1_000_000
_DIVISOR = 1_000 * PPM  # paid milliseconds are told, seconds are paid; weights are in millionths


class RuleOfDay(NamedTuple):
    """`has_licences`: at the day's end the project had a collection whose tokens are licences."""

    rule: RewardRule
    has_licences: bool

    @property
    def licensed_only(self) -> bool:
        """Whether it counts only time under licences."""
        return self.has_licences if self.rule.licensed_only is None else self.rule.licensed_only


def counted_ms(of: RuleOfDay, *, paid_ms: int, held_paid_ms: int) -> int:
    """How much of a day's paid time the rule counts. `held_paid_ms`: of that, what was under licences."""
    return min(paid_ms, held_paid_ms) if of.licensed_only else paid_ms


def reward_of(of: RuleOfDay, *, kind: str | None, paid_ms: int, held_paid_ms: int) -> int:
    """Micro-points of one workload and day. `kind`: its slug; one without, or that is not named, weighs 1.

    Never more than a row of a commit may have (amounts.MICRO_POINTS_MAX).
    """
    rule, paid_ms = of.rule, counted_ms(of, paid_ms=paid_ms, held_paid_ms=held_paid_ms)
    if paid_ms < max(rule.floor_paid_ms, 1):
        return 0
    weight = PPM if kind is None else rule.kind_weights_ppm.get(kind, PPM)
    amount = paid_ms * rule.micro_points_per_paid_s * weight // _DIVISOR
    if rule.daily_cap_micro_points is not None:
        amount = min(amount, rule.daily_cap_micro_points)
    return min(amount, MICRO_POINTS_MAX)
