"""Damping: what falls and rises without end is one notice, and then silence until it is steady. A licence
that is in conflict again and again, too.

Pure. Who is told of it is step.py's.
"""

from __future__ import annotations

from engine.core.newsroom import Subject
from engine.core.records import Event, event_id
from worker.deciding.kinds import subject_of

FLAP_CHANGES = 6  # falls and returns of one subject,
FLAP_MS = 3_600_000  # within this time
QUIET_MS = 30 * 60_000  # so long without a change: steady again


def changed(before: Subject | None, event: Event) -> tuple[Subject, bool]:
    """The subject after a fall, a return or a conflict, and whether it begins to flap with it."""
    before = before or Subject(changes=(), last=event, due_ms=event.at_ms)
    recent = [at for at in before.changes if at > event.at_ms - FLAP_MS]
    changes = (*recent, event.at_ms)
    begins = not before.flaps and len(changes) >= FLAP_CHANGES
    flaps = before.flaps or begins
    after = Subject(
        changes=() if flaps else changes,
        last=event,
        flaps=flaps,
        fell_ms=before.fell_ms,
        quiet=before.quiet + 1 if flaps else 0,
        due_ms=event.at_ms + (QUIET_MS if flaps else FLAP_MS),
    )
    return after, begins


def flapping_event(event: Event) -> Event:
    """What is told and recorded when a subject begins to flap with this change."""
    what = "conflicts" if event.kind == "licence.conflict" else "changes"
    return _said(event, "flapping", event.at_ms, f"{FLAP_CHANGES} {what} within an hour")


def steady_event(subject: Subject, at_ms: int) -> Event:
    """What is told and recorded when it has been quiet. Its detail is its present state: up or down; of a
    licence, how many conflicts were recorded meanwhile and not told."""
    detail = "down" if is_down(subject) else "up"
    if subject.last.kind == "licence.conflict":
        detail = f"{subject.quiet} conflicts were recorded and not told"
    return _said(subject.last, "steady", at_ms, detail)


def is_down(subject: Subject) -> bool:
    return subject.last.kind.endswith(".down")


def _said(event: Event, what: str, at_ms: int, detail: str) -> Event:
    kind = f"{event.kind.partition('.')[0]}.{what}"
    return Event(
        event_id=event_id(kind, subject_of(event), at_ms),
        kind=kind,
        shard=event.shard,
        project_id=event.project_id,
        node_id=event.node_id,
        workload_id=event.workload_id,
        since_ms=event.since_ms,
        at_ms=at_ms,
        workloads=event.workloads,
        detail=detail,
    )
