"""Many nodes of one region, or of one ingress (a shard), that fall at once: one notice to the operators.

Besides what the nodes' own people are told: a cable or a provider is nothing each of them can mend. Pure.
"""

from __future__ import annotations

from engine.core.newsroom import Area, Policy
from engine.core.records import Event, event_id

BUCKET_MS = 10_000
AT_ONCE_MS = 120_000
AGAIN_MS = 30 * 60_000  # an area that was told of is not told of again before that


def areas_of(event: Event, region: str) -> list[str]:
    """The areas that a node which fell is in."""
    return [*([f"region:{region}"] if region else []), f"ingress:{event.shard}"]


def fell(before: Area | None, at_ms: int, *, before_ms: int | None) -> Area:
    """The area after the fall of a node, which fell last at `before_ms`: one node, however often it falls."""
    falls = dict(before.falls if before is not None else ())
    if before_ms is not None and falls.get(_bucket(before_ms), 0):
        falls[_bucket(before_ms)] -= 1
    falls[_bucket(at_ms)] = falls.get(_bucket(at_ms), 0) + 1
    told_ms = before.told_ms if before is not None else None
    recent = tuple(sorted((each, n) for each, n in falls.items() if n and each > at_ms - AT_ONCE_MS))
    kept_ms = AT_ONCE_MS if told_ms is None else max(AT_ONCE_MS, told_ms + AGAIN_MS - at_ms)
    return Area(falls=recent, told_ms=told_ms, due_ms=at_ms + kept_ms)


def _bucket(at_ms: int) -> int:
    return at_ms - at_ms % BUCKET_MS


def is_remarkable(area: Area, at_ms: int, *, total: int, policy: Policy) -> bool:
    """Whether so many fell at once that operators are told. `total`: the nodes of the area."""
    if area.told_ms is not None and at_ms < area.told_ms + AGAIN_MS:
        return False
    count = falls_at_once(area)
    return count >= policy.area_nodes_min and count * 100 >= policy.area_percent_min * total


def told(area: Area, at_ms: int) -> Area:
    return Area(falls=area.falls, told_ms=at_ms, due_ms=at_ms + AGAIN_MS)


def area_event(name: str, area: Area, *, total: int, shard: int, at_ms: int) -> Event:
    """What operators are told, and what is recorded."""
    thing, _, which = name.partition(":")
    kind, since_ms = f"{thing}.down", area.falls[0][0]
    return Event(
        event_id=event_id(kind, which, at_ms),
        kind=kind,
        shard=shard,
        project_id=None,
        node_id=None,
        workload_id=None,
        since_ms=since_ms,
        at_ms=at_ms,
        detail=f"{falls_at_once(area)} of {total} nodes of {thing} {which} fell within two minutes",
    )


def falls_at_once(area: Area) -> int:
    return sum(count for _, count in area.falls)
