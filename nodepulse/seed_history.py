"""What a seeded network has been through: rows of yesterday and today, events, and one gap.

Pure: times and ids in, a batch for the History port out. It is written under the control plane's own shard
number, so that no engine's position is touched, running or not. Nothing here beats: what is seeded falls
silent at the moment at which it was made.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.core.ports import NodeRecord
from engine.core.records import (
    BASE_UNHEALTHY,
    BASE_UP,
    BASE_UPDATING,
    INTERVAL_DTYPE,
    Event,
    FirstReport,
    FlushBatch,
    Gap,
    event_id,
)
from engine.core.timing import down_after_ms, ttl_of_interval
from nodepulse.seed_network import INTERVAL_MS
from storage.postgres_events import CONTROL_PLANE

DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000
TTL_MS = ttl_of_interval(INTERVAL_MS)
# A gap is of the rows with row mod shards = shard: with as many shards as there can be rows, of one row only.
ALL_ROWS = 2**31 - 1
FALLEN_EVERY, ILL_EVERY, UPDATED_EVERY = 7, 11, 13


class Span(NamedTuple):
    """A row of one workload: what it reported, from when until when."""

    kind: int
    from_ms: int
    to_ms: int


def began_ms(now_ms: int) -> int:
    """When the machines were set up: the day before yesterday, at noon (UTC)."""
    return now_ms // DAY_MS * DAY_MS - 2 * DAY_MS + 12 * HOUR_MS


def history_of(nodes: Sequence[NodeRecord], *, now_ms: int) -> FlushBatch:
    """What all of these nodes reported until now."""
    reported_ms = began_ms(now_ms) + 5 * MINUTE_MS
    yesterday_ms = now_ms // DAY_MS * DAY_MS - DAY_MS
    rows: list[tuple[int, int, int, int, int, int]] = []
    events: list[Event] = []
    gaps: list[Gap] = []
    for number, node in enumerate(nodes):
        silences: list[tuple[int, int]] = []
        if number == 0:
            gaps.append(_gap(node, yesterday_ms))
            silences.append((gaps[0].from_ms + MINUTE_MS, gaps[0].to_ms + MINUTE_MS // 3))
        if number % FALLEN_EVERY == 3:
            fallen_ms = yesterday_ms + 9 * HOUR_MS + number * MINUTE_MS
            silences.append((fallen_ms, fallen_ms + 20 * MINUTE_MS))
            events += _fall(node, *silences[-1])
        for place, workload_id in enumerate(node.workload_ids):
            told = _told(number * 5 + place, yesterday_ms)
            if told is not None and told.kind == BASE_UNHEALTHY:
                events += _illness(node, workload_id, told)
            spans = _spans(reported_ms, now_ms, silences, told)
            rows += [(*_halves(workload_id), *span, TTL_MS) for span in spans]
    return FlushBatch(
        shard=CONTROL_PLANE,
        position=0,
        watermark_ms=now_ms,
        intervals=np.array(rows, INTERVAL_DTYPE),
        events=tuple(sorted(events, key=lambda event: event.at_ms)),
        gaps=tuple(gaps),
        first_reports=tuple(
            FirstReport(workload_id, reported_ms) for node in nodes for workload_id in node.workload_ids
        ),
    )


def _gap(node: NodeRecord, yesterday_ms: int) -> Gap:
    """Three minutes in which nobody listened to this one row."""
    from_ms = yesterday_ms + 16 * HOUR_MS
    return Gap(node.row, from_ms, from_ms + 3 * MINUTE_MS, "restart", ALL_ROWS)


def _told(number: int, yesterday_ms: int) -> Span | None:
    """What a workload reported other than that it is well."""
    if number % ILL_EVERY == 5:
        from_ms = yesterday_ms + 14 * HOUR_MS
        return Span(BASE_UNHEALTHY, from_ms, from_ms + 45 * MINUTE_MS)
    if number % UPDATED_EVERY == 6:
        from_ms = yesterday_ms + 18 * HOUR_MS
        return Span(BASE_UPDATING, from_ms, from_ms + 5 * MINUTE_MS)
    return None


def _spans(from_ms: int, to_ms: int, silences: Sequence[tuple[int, int]], told: Span | None) -> list[Span]:
    """Up, but for what was told otherwise and for silences, which are left out."""
    cuts = [Span(-1, *silence) for silence in silences] + ([told] if told is not None else [])
    spans: list[Span] = []
    for cut in sorted(cuts, key=lambda one: one.from_ms):
        spans.append(Span(BASE_UP, from_ms, cut.from_ms))
        if cut.kind >= 0:
            spans.append(cut)
        from_ms = cut.to_ms
    spans.append(Span(BASE_UP, from_ms, to_ms))
    return [span for span in spans if span.to_ms > span.from_ms]


def _fall(node: NodeRecord, since_ms: int, back_ms: int) -> list[Event]:
    told_ms = since_ms - TTL_MS + down_after_ms(TTL_MS)
    return [
        _event("node.down", node, None, since_ms, told_ms),
        _event("node.up", node, None, back_ms, back_ms),
    ]


def _illness(node: NodeRecord, workload_id: str, span: Span) -> list[Event]:
    return [
        _event("workload.down", node, workload_id, span.from_ms, span.from_ms + INTERVAL_MS),
        _event("workload.up", node, workload_id, span.to_ms, span.to_ms + INTERVAL_MS),
    ]


def _event(kind: str, node: NodeRecord, workload_id: str | None, since_ms: int, at_ms: int) -> Event:
    return Event(
        event_id=event_id(kind, workload_id or node.node_id, since_ms),
        kind=kind,
        shard=CONTROL_PLANE,
        project_id=node.project_id,
        node_id=node.node_id,
        workload_id=workload_id,
        since_ms=since_ms,
        at_ms=at_ms,
        workloads=node.workload_ids if workload_id is None else (workload_id,),
    )


def _halves(workload_id: str) -> tuple[int, int]:
    number = uuid.UUID(workload_id).int
    return number >> 64, number & (1 << 64) - 1
