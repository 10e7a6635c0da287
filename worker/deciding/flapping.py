"""Damping: what falls and rises without end is one notice, and then silence until it is steady.

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
    """The subject after a fall or a return, and whether it begins to flap with it."""
    if before is not None and before.flaps:
        after = Subject(changes=(), last=event, flaps=True, due_ms=event.at_ms + QUIET_MS)
        return after, False
    recent = [] if before is None else [at for at in before.changes if at > event.at_ms - FLAP_MS]
    changes = (*recent, event.at_ms)
    if len(changes) >= FLAP_CHANGES:
        return Subject(changes=(), last=event, flaps=True, due_ms=event.at_ms + QUIET_MS), True
    return Subject(changes=changes, last=event, due_ms=event.at_ms + FLAP_MS), False


def flapping_event(event: Event) -> Event:
    """What is told and recorded when a subject begins to flap with this change."""
    return _said(event, "flapping", event.at_ms, f"{FLAP_CHANGES} changes within an hour")


def steady_event(subject: Subject, at_ms: int) -> Event:
    """What is told and recorded when it has been quiet. Its detail is its present state: up or down."""
    return _said(subject.last, "steady", at_ms, "down" if is_down(subject) else "up")


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
