"""From which source a window of a workload is answered, and one answer made of what the sources tell.

By a project's policy (engine/core/catalog.py) a UTC day is measured by ourselves (`native`) or by Datagram,
which knows whole hours and nothing of kinds: there `up` is what it told and the rest is `silent`; of a node
that it does not know nothing is known, so all of it is `unobserved` and nobody's loss. A window over both is
the sum of both. Which days pay for claims is the policy's as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Literal

import msgspec

from engine.core.catalog import PolicyRecord, UptimeSource, policy_at
from engine.core.ports import WorkloadRecord
from engine.core.records import KINDS
from engine.core.uptime_source import HOUR_MS, UptimeSourceError, whole_hours
from web.backend import Backend
from web.problems import RefusedError
from web.reading import Answer, Reader
from web.times import DAY_MS

RETRY_AFTER_S = 60


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What [from_ms, to_ms) was. `readings`: of our own parts, with their intervals and gaps."""

    from_ms: int
    to_ms: int
    as_of: int
    ms: dict[str, int]
    paid_ms: int
    ratio: float | None
    provisional: bool
    source: Literal["native", "datagram", "mixed"]
    granularity_ms: int
    readings: tuple[Answer, ...]


class _Part(msgspec.Struct, frozen=True):
    """Days in a row that one source answers."""

    source: UptimeSource
    from_ms: int
    to_ms: int


class _Sum(msgspec.Struct, frozen=True):
    """One part as it was told."""

    source: UptimeSource
    from_ms: int
    to_ms: int
    as_of: int
    ms: dict[str, int]
    paid_ms: int
    provisional: bool = False
    readings: tuple[Answer, ...] = ()


async def told_uptime(
    backend: Backend, workload: WorkloadRecord, reader: Reader, *, from_ms: int, to_ms: int
) -> Told:
    """What a window was, by the project's policies. RefusedError 503 when Datagram is asked in vain."""
    policies = await backend.policies.of(workload.project_id)
    now_ms = reader.now_ms(workload.row)
    parts = _parts(policies, max(from_ms, workload.created_ms), min(to_ms, now_ms))
    if len(parts) <= 1:
        # All of the window as it was asked for: what is cut from it is told by whoever answers.
        source = parts[0].source if parts else policy_at(policies, _day(min(from_ms, now_ms))).uptime_source
        parts = [_Part(source, from_ms, to_ms)]
    sums: list[_Sum] = []
    for part in parts:
        if part.source == "datagram":
            sums.append(await _from_datagram(backend, workload, part, now_ms))
        else:
            sums.append(await _native(workload, reader, part, policies, now_ms))
        if sums[-1].to_ms < part.to_ms:
            break  # it could not be told to its end: what comes after would leave a hole
    return _together(sums)


def _parts(policies: Sequence[PolicyRecord], from_ms: int, to_ms: int) -> list[_Part]:
    """The window as runs of days of one source."""
    parts: list[_Part] = []
    for start_ms in range(from_ms - from_ms % DAY_MS, to_ms, DAY_MS):
        source = policy_at(policies, _day(start_ms)).uptime_source
        begin_ms, end_ms = max(start_ms, from_ms), min(start_ms + DAY_MS, to_ms)
        if parts and parts[-1].source == source:
            begin_ms = parts.pop().from_ms
        parts.append(_Part(source, begin_ms, end_ms))
    return parts


async def _native(
    workload: WorkloadRecord, reader: Reader, part: _Part, policies: Sequence[PolicyRecord], now_ms: int
) -> _Sum:
    look = await reader.look(workload.row, up_to_ms=min(part.to_ms, now_ms))
    reading = await reader.uptime(workload, look, from_ms=part.from_ms, to_ms=part.to_ms)
    composed = reading.composition
    return _Sum(
        source="native",
        from_ms=composed.from_ms,
        to_ms=composed.to_ms,
        as_of=composed.as_of,
        ms=composed.ms,
        paid_ms=composed.paid_ms - _unpaid_claims_ms(composed.intervals, policies),
        provisional=composed.provisional,
        readings=(reading,),
    )


def _unpaid_claims_ms(intervals: Sequence[tuple[str, int, int]], policies: Sequence[PolicyRecord]) -> int:
    """Of the time that is claimed up, what lies in days whose policy does not pay for claims."""
    unpaid_ms = 0
    for kind, started_ms, ended_ms in intervals:
        if kind != "claimed_up":
            continue
        for start_ms in range(started_ms - started_ms % DAY_MS, ended_ms, DAY_MS):
            if not policy_at(policies, _day(start_ms)).pay_claims:
                unpaid_ms += min(ended_ms, start_ms + DAY_MS) - max(started_ms, start_ms)
    return unpaid_ms


async def _from_datagram(backend: Backend, workload: WorkloadRecord, part: _Part, now_ms: int) -> _Sum:
    start_ms, end_ms = whole_hours(
        part.from_ms,
        part.to_ms,
        created_ms=workload.created_ms,
        retired_ms=workload.retired_ms,
        now_ms=now_ms,
    )
    node = await backend.directory.node(workload.node_id)
    partner_id = None if node is None else node.partner_node_id
    up_ms = await _ask(backend, partner_id, start_ms, end_ms)
    ms = dict.fromkeys(KINDS, 0)
    if up_ms is None:
        ms["unobserved"] = end_ms - start_ms
    else:
        ms["up"], ms["silent"] = up_ms, end_ms - start_ms - up_ms
    return _Sum(source="datagram", from_ms=start_ms, to_ms=end_ms, as_of=end_ms, ms=ms, paid_ms=ms["up"])


async def _ask(backend: Backend, partner_id: str | None, from_ms: int, to_ms: int) -> int | None:
    if partner_id is None or from_ms == to_ms:
        return None
    if backend.uptime_source is None:
        raise source_missing()
    try:
        return (await backend.uptime_source.up_ms([partner_id], from_ms, to_ms))[partner_id]
    except UptimeSourceError as error:
        raise source_away(str(error), retry_after_s=error.retry_after_s) from error


def source_missing() -> RefusedError:
    """409: the uptime comes from Datagram, and nobody has said how to ask there."""
    return RefusedError(409, "not_configured", "datagram.token is not set, so there is nobody to ask")


def source_away(detail: str, *, retry_after_s: float | None = None) -> RefusedError:
    """503: the project's uptime comes from elsewhere, and that cannot be asked now."""
    wait_s = RETRY_AFTER_S if retry_after_s is None else max(1, min(int(retry_after_s) + 1, 86_400))
    return RefusedError(503, "uptime_source_away", detail, headers={"retry-after": str(wait_s)})


def _together(sums: Sequence[_Sum]) -> Told:
    ms = {kind: sum(one.ms[kind] for one in sums) for kind in KINDS}
    paid_ms = sum(one.paid_ms for one in sums)
    told = [one for one in sums if one.from_ms < one.to_ms] or sums[:1]
    owed_ms = sum(ms.values()) - ms["unobserved"]
    sources = {one.source for one in told}
    return Told(
        from_ms=told[0].from_ms,
        to_ms=told[-1].to_ms,
        as_of=told[-1].as_of,
        ms=ms,
        paid_ms=paid_ms,
        ratio=paid_ms / owed_ms if owed_ms else None,
        provisional=any(one.provisional for one in sums),
        source="mixed" if len(sources) > 1 else sources.pop(),
        granularity_ms=HOUR_MS if any(one.source == "datagram" for one in told) else 1,
        readings=tuple(reading for one in sums for reading in one.readings),
    )


def _day(unix_ms: int) -> date:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).date()
