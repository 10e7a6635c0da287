"""What a day waits for before it is sealed (LIVENESS.md 6), condition by condition."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.records import ShardHead
from engine.core.sealing import conditions, kept_back_by

END = 86_400_000
HEAD = ShardHead(0, 2, "p", END + 1_000, 1, 0, False, None, END + 1_000)


def given(**more: Any) -> dict[str, Any]:
    """Two shards that lack nothing."""
    return {
        "end_ms": END,
        "after_ms": 600,
        "shards": 2,
        "watermarks": {0: END + 600, 1: END + 600},
        "leases_ms": END,
        "heads": {0: HEAD, 1: msgspec.structs.replace(HEAD, shard=1)},
        **more,
    }


def lacking(**more: Any) -> list[tuple[str, int | None]]:
    asked = given(**more)
    found = conditions(**asked)
    lacks = [each for each in found if each.lacks]
    assert kept_back_by(**asked) == (lacks[0].lacks if lacks else None), "the worker is told the first"
    return [(each.what, each.shard) for each in lacks]


def other(**changes: Any) -> dict[int, ShardHead]:
    """The heads, with this about the second shard."""
    return {0: HEAD, 1: msgspec.structs.replace(HEAD, shard=1, **changes)}


def test_a_day_that_lacks_nothing_is_sealed_and_every_condition_is_named():
    assert lacking() == []
    told = conditions(**given())
    assert len(told) == 11
    assert {each.what for each in told} == {
        "view",
        "history",
        "after_midnight",
        "gaps",
        "degraded",
        "leases",
    }


def test_each_condition_holds_a_day_back_for_its_shard():
    assert lacking(watermarks={0: END + 600, 1: END + 599}) == [("history", 1)]
    assert lacking(watermarks={0: END + 600}) == [("history", 1)]
    assert lacking(heads=other(watermark_ms=END + 599)) == [("after_midnight", 1)]
    assert lacking(heads=other(provisional_from_ms=END - 1)) == [("gaps", 1)]
    assert lacking(heads=other(provisional_from_ms=END)) == [], "a gap of the next day"
    assert lacking(heads=other(degraded=True)) == [("degraded", 1)]
    assert lacking(leases_ms=END - 1) == [("leases", None)]


def test_of_a_shard_that_is_not_in_the_live_view_nothing_is_known():
    unknown = [("view", 1), ("after_midnight", 1), ("gaps", 1), ("degraded", 1)]
    assert lacking(heads={0: HEAD}) == unknown
    assert lacking(heads=other(shards=3)) == unknown, "it is of another division into shards"
