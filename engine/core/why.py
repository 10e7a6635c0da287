"""Why was I not paid: every unpaid interval of a day with its cause and what stands behind it.

Pure. What each instant counts as is compose.py's alone; here each unpaid interval of such an answer is
matched with the records that made it so. Nothing is summed anew: the intervals are those of the composition.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, Literal, TypeVar

import msgspec

from engine.core.coverage import OPEN_END, Coverage
from engine.core.leases import StandbySpan
from engine.core.records import BASE_KINDS, PAID_KINDS, BaseInterval, Event, Gap, Window

INTERVALS_MAX = 2_000  # told of one day; what is beyond is counted, and in the sums as always
RECORDS_MAX = 20  # gaps, windows or standbys told of one interval

What = Literal[
    "other_run",
    "our_gap",
    "own_window",
    "not_reported_yet",
    "not_in_session",
    "node_silent",
    "unhealthy",
    "stopped",
    "updating",
    "claimed",
    "claimed_up",
]

TEXTS: dict[What, str] = {
    "other_run": "Another run held the licence, so this one was on standby. One licence pays one run at a "
    "time: stop the run that is not wanted, or give this one a licence of its own.",
    "our_gap": "We were not listening: this is our fault, and it does not count against the workload. A "
    "node that kept its unacknowledged beats can hand them in (backfill) until the day is sealed.",
    "own_window": "The operator had opened a maintenance window, and the workload was not heard in it. Such "
    "a window protects from alerts; it is not paid.",
    "not_reported_yet": "The node had not reported this workload yet: time counts from the first beat "
    "that says healthy, unhealthy or updating.",
    "not_in_session": "The node's session was opened without this workload, so its beats could say nothing "
    "of it. The manager must open a new session.",
    "node_silent": "No beat of the node arrived: it was off, without network, or its beats were refused (see "
    "`refused`).",
    "unhealthy": "The node said that the workload was unhealthy, or did not run at all.",
    "stopped": "The node said that it stops, and was stopped until its next beat.",
    "updating": "The node said that the workload was updating, outside of a maintenance window. Updates that "
    "NodePulse orders open a window of their own, which is paid.",
    "claimed": "We were not listening; what it was then the node handed in afterwards, and this "
    "is what it said.",
    "claimed_up": "We were not listening; the node handed in afterwards that it was up. By the project's "
    "policy of that day such claims are not paid.",
}


class Session(msgspec.Struct, frozen=True):
    """A session of the node: whether the workload was in its frozen slot map."""

    opened_ms: int
    has_workload: bool


S = TypeVar("S", Gap, Window, StandbySpan)


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """The records around a day, those that `compose` was given and those that people hear of.

    `events`: of the node and of this workload, by since, from some time before the day. `sessions`: by
    opened_ms, from the last one before the day on. `base`: with the open row, as `compose` takes it.
    """

    base: Sequence[BaseInterval] = ()
    gaps: Sequence[Gap] = ()
    windows: Sequence[Window] = ()
    standbys: Sequence[StandbySpan] = ()
    events: Sequence[Event] = ()
    sessions: Sequence[Session] = ()
    first_report: int | None = None
    provisional_from_ms: int | None = None


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What made an interval what it is. Only what belongs to `what` is set.

    `since_ms`: when the state began, perhaps before the interval. `last_beat_ms`: the last one known before
    it. `provisional`: a beat that comes in time, or the end of a gap, can still change it.
    """

    what: What
    since_ms: int | None = None
    last_beat_ms: int | None = None
    event_id: str | None = None
    gaps: tuple[Gap, ...] = ()
    windows: tuple[str, ...] = ()
    standbys: tuple[StandbySpan, ...] = ()
    provisional: bool = False


class Unpaid(msgspec.Struct, frozen=True):
    """An interval [from_ms, to_ms) that is not paid."""

    kind: str
    from_ms: int
    to_ms: int
    cause: Cause


def why(
    intervals: Sequence[tuple[str, int, int]],
    around: Around,
    *,
    pay_claims: bool,
    intervals_max: int = INTERVALS_MAX,
) -> tuple[list[Unpaid], int]:
    """The unpaid ones of a composition's `intervals`, in their order, each with its cause; how many more
    there are than `intervals_max`."""
    unpaid = [
        one for one in intervals if one[0] not in PAID_KINDS or (one[0] == "claimed_up" and not pay_claims)
    ]
    looked = _Looked(around)
    told = [
        Unpaid(kind, from_ms, to_ms, looked.cause(kind, from_ms, to_ms))
        for kind, from_ms, to_ms in unpaid[:intervals_max]
    ]
    return told, len(unpaid) - len(told)


class _Looked:
    """The records, put in order once for all intervals of a day: who flaps has thousands of each."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._coverage = Coverage(around.base)
        self._starts = [row.started_ms for row in self._coverage.rows]
        self._gaps = _Spans(around.gaps)
        self._own = _Spans([window for window in around.windows if window.own])
        self._standbys = _Spans(around.standbys)
        self._events: dict[str, list[Event]] = {}
        for event in sorted(around.events, key=_since_ms):
            self._events.setdefault(event.kind, []).append(event)

    def cause(self, kind: str, from_ms: int, to_ms: int) -> Cause:
        match kind:
            case "standby":
                held = self._standbys.touching(from_ms, to_ms)
                return Cause(what="other_run", since_ms=_first(held), standbys=tuple(held))
            case "unobserved":
                return self._unobserved(from_ms, to_ms)
            case "maintenance_own":
                windows = self._own.touching(from_ms, to_ms)
                ids = tuple(window.window_id for window in windows)
                return Cause(what="own_window", since_ms=_first(windows), windows=ids)
            case "silent":
                return self._silent(from_ms, to_ms)
            case "claimed_up" | "claimed_updating" | "claimed_unhealthy":
                what: What = "claimed_up" if kind == "claimed_up" else "claimed"
                return Cause(what=what, since_ms=from_ms, gaps=self._behind(from_ms, to_ms))
            case "unhealthy":
                event = self._standing("workload.down", "workload.up", from_ms, to_ms)
                return Cause(what="unhealthy", since_ms=self._since(kind, from_ms), event_id=event)
            case "stopped":
                event = self._standing("node.stopped", "node.up", from_ms, to_ms)
                return Cause(what="stopped", since_ms=self._since(kind, from_ms), event_id=event)
            case "updating":
                return Cause(what="updating", since_ms=self._since(kind, from_ms))
        raise AssertionError(f"a kind that is paid, or unknown: {kind}")

    def _unobserved(self, from_ms: int, to_ms: int) -> Cause:
        gaps, began = self._behind(from_ms, to_ms), self._around.provisional_from_ms
        provisional = began is not None and began < to_ms
        return Cause(what="our_gap", since_ms=_first(gaps), gaps=gaps, provisional=provisional)

    def _behind(self, from_ms: int, to_ms: int) -> tuple[Gap, ...]:
        """The gaps of ours behind a time that is forgiven: those in it and, where it began after the end of
        one (what is forgiven goes on until the first beat), the last one before."""
        inside = self._gaps.touching(from_ms, to_ms)
        if not any(gap.from_ms <= from_ms for gap in inside):
            before = self._gaps.before(from_ms)
            inside = [*([] if before is None else [before]), *inside]
        return tuple(inside[:RECORDS_MAX])

    def _silent(self, from_ms: int, to_ms: int) -> Cause:
        first = self._around.first_report
        if first is None or first >= to_ms:
            return Cause(what="not_reported_yet")
        event = self._standing("node.down", "node.up", from_ms, to_ms)
        last_beat_ms = self._coverage.previous_beat(from_ms - 1)
        opened = [one for one in self._around.sessions if one.opened_ms <= from_ms]
        session = max(opened, key=lambda one: one.opened_ms, default=None)
        if event is None and session is not None and not session.has_workload:
            return Cause(what="not_in_session", since_ms=session.opened_ms, last_beat_ms=last_beat_ms)
        at = bisect_left(self._starts, from_ms) - 1
        lapsed_ms = self._coverage.rows[at].ended_ms if at >= 0 else None
        return Cause(what="node_silent", since_ms=lapsed_ms, last_beat_ms=last_beat_ms, event_id=event)

    def _since(self, kind: str, at_ms: int) -> int | None:
        """Since when the base rows say so without a break."""
        rows, since_ms = self._coverage.rows, None
        for at in range(bisect_right(self._starts, at_ms) - 1, -1, -1):
            row = rows[at]
            if BASE_KINDS[row.kind] != kind or row.ended_ms < (at_ms if since_ms is None else since_ms):
                break
            since_ms = row.started_ms
        return since_ms

    def _standing(self, fell: str, rose: str, from_ms: int, to_ms: int) -> str | None:
        """The event of the fall that still stood in the interval: none told of a rise before it began."""
        falls, rises = self._events.get(fell, []), self._events.get(rose, [])
        at = bisect_left(falls, to_ms, key=_since_ms) - 1
        if at < 0:
            return None
        risen = bisect_right(rises, from_ms, key=_since_ms) - 1
        over = risen >= 0 and rises[risen].since_ms > falls[at].since_ms
        return None if over else falls[at].event_id


class _Spans(Generic[S]):
    """Half-open spans that may overlap, found by time."""

    def __init__(self, spans: Iterable[S]) -> None:
        self._spans: list[S] = sorted(spans, key=lambda span: span.from_ms)
        self._ends = list(accumulate((_end(span) for span in self._spans), max))  # the latest up to each

    def touching(self, from_ms: int, to_ms: int) -> list[S]:
        """Those that touch [from_ms, to_ms), by start; at most the last RECORDS_MAX."""
        found: list[S] = []
        for at in range(bisect_left(self._spans, to_ms, key=lambda span: span.from_ms) - 1, -1, -1):
            if self._ends[at] <= from_ms or len(found) == RECORDS_MAX:
                break
            if _end(self._spans[at]) > from_ms:
                found.append(self._spans[at])
        return found[::-1]

    def before(self, at_ms: int) -> S | None:
        """The one with the latest end at or before this instant, of those that ended before a later began."""
        at = bisect_right(self._ends, at_ms) - 1
        return None if at < 0 else max(self._spans[: at + 1][-RECORDS_MAX:], key=_end)


def _end(span: Gap | Window | StandbySpan) -> int:
    return OPEN_END if span.to_ms is None else span.to_ms


def _first(spans: Sequence[Gap | Window | StandbySpan]) -> int | None:
    return min((span.from_ms for span in spans), default=None)


def _since_ms(event: Event) -> int:
    return event.since_ms
