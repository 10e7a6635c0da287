"""The oracle itself: one history in, and every answer that LIVENESS.md and WIRE.md give of it.

Slow and obvious. It keeps what it has worked out, but nothing here advances with time: each answer is read
off the whole list of records.
"""

from __future__ import annotations

from tests.sim.history import Degraded, Frame, Gap, History, Row, Slot
from tests.sim.oracle.acceptance import Acceptance, Judged, judge_all
from tests.sim.oracle.base import (
    FOREVER,
    BaseLine,
    Splits,
    first_report_of,
    lines_of,
    same_instant,
    spans_of,
    splits_of,
    touching,
)
from tests.sim.oracle.compose import Composed, Records, claim_spans, compose
from tests.sim.oracle.flips import Flip, flips_of
from tests.sim.oracle.forgiveness import forgiven_spans
from tests.sim.oracle.rules import Beat, Rules
from tests.sim.oracle.verdicts import (
    Circumstances,
    Silence,
    Transition,
    silences_of,
    since_of,
    transitions_of,
)


class Oracle:
    """`tolerance_ms`: how late a verdict, an event, or the writing of an ended base row may be."""

    def __init__(self, history: History, *, tolerance_ms: int = 1_000, rules: Rules | None = None) -> None:
        self.history = history
        self.tolerance_ms = tolerance_ms
        self.rules = rules or Rules()
        self._acceptance: Acceptance = judge_all(history, self.rules)
        self._place = {slot.workload_id: (row, slot) for row in history.rows for slot in row.slots}
        self._about: dict[int, Circumstances] = {}
        self._records: dict[tuple[str, int, int | None], Records] = {}

    # --- frames
    def judged(self) -> list[Judged]:
        """What must become of each offered frame, in journal order."""
        return self._acceptance.judged

    def beats(self, row: Row, upto: int | None = None) -> list[Beat]:
        """The row's accepted beats among the first `upto` records."""
        return [b for b in self._acceptance.beats[row.row] if upto is None or b.index < upto]

    def frame(self, frame_id: int) -> Frame:
        return next(r for r in self.history.records if isinstance(r, Frame) and r.frame_id == frame_id)

    def gaps(self, upto: int | None = None) -> list[tuple[int, Gap]]:
        """Gap records with their place in the journal."""
        records = self.history.records[:upto]
        return [(index, r) for index, r in enumerate(records) if isinstance(r, Gap)]

    # --- workloads
    def workloads(self) -> list[str]:
        return list(self._place)

    def place(self, workload_id: str) -> tuple[Row, Slot]:
        return self._place[workload_id]

    def first_report(self, workload_id: str, upto: int | None = None) -> int | None:
        row, slot = self._place[workload_id]
        return first_report_of(self.beats(row, upto), slot.slot)

    def base(self, workload_id: str, upto: int | None = None) -> list[BaseLine]:
        """All base rows with their true ends, from the first beat on (before the first report, too)."""
        row, slot = self._place[workload_id]
        beats = self.beats(row, upto)
        spans = spans_of(self.rules, beats, slot.slot)
        return lines_of(spans, splits_of(beats, spans, self.gaps(upto)))

    def optional_splits(self, workload_id: str) -> frozenset[int]:
        """Times at which a base row may be cut in two or not."""
        row, slot = self._place[workload_id]
        beats = self.beats(row)
        spans = spans_of(self.rules, beats, slot.slot)
        splits: Splits = splits_of(beats, spans, self.gaps())
        return (splits.may | touching(spans) | same_instant(beats)) - splits.must

    def records(self, workload_id: str, as_of_ms: int, upto: int | None = None) -> Records:
        key = (workload_id, as_of_ms, upto)
        if key not in self._records:
            row, slot = self._place[workload_id]
            beats = self.beats(row, upto)
            gaps = [gap for _, gap in self.gaps(upto)]
            self._records[key] = Records(
                row=row,
                slot=slot,
                base=self.base(workload_id, upto),
                forgiven=forgiven_spans(self.rules, beats, gaps, as_of_ms),
                claims=claim_spans(row, slot.slot, beats),
                first_report_ms=first_report_of(beats, slot.slot),
            )
        return self._records[key]

    def compose(
        self,
        workload_id: str,
        *,
        from_ms: int,
        to_ms: int,
        as_of_ms: int | None = None,
        upto: int | None = None,
    ) -> Composed:
        """The answer to an uptime question; `as_of_ms` defaults to the history's."""
        as_of_ms = self.history.as_of_ms if as_of_ms is None else as_of_ms
        records = self.records(workload_id, as_of_ms, upto)
        return compose(records, from_ms=from_ms, to_ms=to_ms, as_of_ms=as_of_ms)

    def flips(self, workload_id: str, *, own_ttl: bool = True) -> list[Flip]:
        row, slot = self._place[workload_id]
        """All flips, also of a workload that is retired but still in a session's map."""
        return list(flips_of(self.rules, self.beats(row), slot.slot, own_ttl=own_ttl))

    def life(self, workload_id: str) -> tuple[int, int, int]:
        """When a workload is surely created, when it may be retired, and when it surely is: the registry's
        clock and the shard's knowledge may differ."""
        _, slot = self._place[workload_id]
        created = [slot.created_ms, slot.created_known_ms]
        retired = [t for t in (slot.retired_ms, slot.retired_known_ms) if t is not None] or [FOREVER]
        return max(t for t in created if t is not None), min(retired), max(retired)

    # --- rows
    def circumstances(self, row: Row) -> Circumstances:
        if row.row not in self._about:
            self._about[row.row] = self._circumstances(row)
        return self._about[row.row]

    def _circumstances(self, row: Row) -> Circumstances:
        sessions = [s for r in self.history.rows for s in r.sessions]
        ttls = [b.ttl_ms for r in self.history.rows for b in self.beats(r)] + [s.ttl_ms for s in sessions]
        longest = max((self.rules.interval(ttl) for ttl in ttls), default=0)
        return Circumstances(
            rules=self.rules,
            row=row,
            gaps=sorted((gap for _, gap in self.gaps()), key=lambda g: g.from_ms),
            degraded=[r for r in self.history.records if isinstance(r, Degraded)],
            as_of_ms=self.history.as_of_ms,
            tolerance_ms=self.tolerance_ms,
            slack_ms=self.rules.release_intervals * longest,
        )

    def silences(self, row: Row) -> list[Silence]:
        return silences_of(self.circumstances(row), self.beats(row))

    def transitions(self, row: Row) -> list[Transition]:
        return transitions_of(self.circumstances(row), self.beats(row), self.silences(row))

    def since(self, row: Row, last: Beat, at_ms: int) -> list[int]:
        return since_of(self.circumstances(row), self.beats(row), last, at_ms)
