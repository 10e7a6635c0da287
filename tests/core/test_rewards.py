"""A project's own rule, case by case: linear in paid seconds, with floor, weight and cap, in integers."""

from __future__ import annotations

import pytest

from engine.core.amounts import MICRO_POINTS_MAX
from engine.core.catalog import RewardRule
from engine.core.rewards import RuleOfDay, reward_of

DAY_MS = 86_400_000
RATE = RewardRule(micro_points_per_paid_s=145)
FLOORED = RewardRule(micro_points_per_paid_s=145, floor_paid_ms=3_600_000)
CAPPED = RewardRule(micro_points_per_paid_s=145, daily_cap_micro_points=10_000_000)
WEIGHED = RewardRule(
    micro_points_per_paid_s=145, kind_weights_ppm={"gpu": 2_500_000, "free": 0, "third": 333_333}
)
EVERYTHING = RewardRule(
    micro_points_per_paid_s=1_000,
    daily_cap_micro_points=100_000_000,
    floor_paid_ms=60_000,
    kind_weights_ppm={"gpu": 1_500_000},
)
CASES = [
    # a whole day is 86,400 s
    (RATE, None, DAY_MS, 86_400 * 145),
    (RATE, "any", DAY_MS, 86_400 * 145),
    # what is not paid earns nothing; milliseconds count, the rest of a micro-point does not
    (RATE, None, 0, 0),
    (RATE, None, 1, 0),
    (RATE, None, 6, 0),
    (RATE, None, 7, 1),
    (RATE, None, 999, 144),
    (RATE, None, 1_000, 145),
    # a day below the floor earns nothing, one at the floor all of it
    (FLOORED, None, 3_599_999, 0),
    (FLOORED, None, 3_600_000, 3_600 * 145),
    # no more than the cap
    (CAPPED, None, DAY_MS, 10_000_000),
    (CAPPED, None, 1_000, 145),
    # a kind that is named has its weight, all others one
    (WEIGHED, "gpu", DAY_MS, 31_320_000),
    (WEIGHED, "free", DAY_MS, 0),
    (WEIGHED, "other", DAY_MS, 12_528_000),
    (WEIGHED, None, DAY_MS, 12_528_000),
    (WEIGHED, "third", DAY_MS, 4_175_995),  # 4,175,995.8...: rounded down once, at the end
    (WEIGHED, "third", 1_000, 48),  # 48.33...
    # the cap is on the amount after the weight
    (EVERYTHING, "gpu", DAY_MS, 100_000_000),
    (EVERYTHING, None, DAY_MS, 86_400_000),
    (EVERYTHING, "gpu", 60_000, 90_000),
    (EVERYTHING, "gpu", 59_999, 0),
    # nobody decided
    (RewardRule(), "gpu", DAY_MS, 0),
    # more than a row can hold is what a row can hold
    (RewardRule(micro_points_per_paid_s=10**18), None, DAY_MS, MICRO_POINTS_MAX),
]


@pytest.mark.parametrize(("rule", "kind", "paid_ms", "micro"), CASES)
def test_the_rule_pays(rule: RewardRule, kind: str | None, paid_ms: int, micro: int) -> None:
    of = RuleOfDay(rule, has_licences=False)
    assert reward_of(of, kind=kind, paid_ms=paid_ms, held_paid_ms=0) == micro


LICENSED, ALL, OPEN = (
    RewardRule(micro_points_per_paid_s=1_000, floor_paid_ms=1_000, licensed_only=licensed_only)
    for licensed_only in (True, False, None)
)
# rule, whether the project has licences, paid ms, of that under licences, micro-points
LICENCES = [
    (LICENSED, True, DAY_MS, DAY_MS, 86_400_000),
    (LICENSED, True, DAY_MS, DAY_MS // 2, 43_200_000),
    (LICENSED, True, DAY_MS, 0, 0),
    (LICENSED, False, DAY_MS, 0, 0),
    (LICENSED, True, DAY_MS, 999, 0),  # the floor is on what is counted
    (LICENSED, True, DAY_MS, 1_000, 1_000),
    (LICENSED, True, 5_000, 6_000, 5_000),  # never more than was paid
    (ALL, True, DAY_MS, 0, 86_400_000),
    (ALL, True, DAY_MS, DAY_MS // 2, 86_400_000),
    (ALL, False, DAY_MS, 0, 86_400_000),
    # who decided nothing counts by licences where there are any
    (OPEN, True, DAY_MS, 0, 0),
    (OPEN, True, DAY_MS, 2_000, 2_000),
    (OPEN, False, DAY_MS, 0, 86_400_000),
    (OPEN, False, DAY_MS, 2_000, 86_400_000),
]


@pytest.mark.parametrize(("rule", "has_licences", "paid_ms", "held_paid_ms", "micro"), LICENCES)
def test_the_rule_counts_time_under_licences(
    rule: RewardRule, has_licences: bool, paid_ms: int, held_paid_ms: int, micro: int
) -> None:
    of = RuleOfDay(rule, has_licences=has_licences)
    assert reward_of(of, kind=None, paid_ms=paid_ms, held_paid_ms=held_paid_ms) == micro


def test_no_paid_millisecond_ever_costs_points() -> None:
    of = RuleOfDay(EVERYTHING, has_licences=False)
    amounts = [
        reward_of(of, kind="gpu", paid_ms=paid_ms, held_paid_ms=0) for paid_ms in range(59_000, 200_000, 7)
    ]
    assert amounts == sorted(amounts)
