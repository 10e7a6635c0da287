"""The words of a notice: what people read in a mail. Pure.

What a program reads (webhooks) is in webhooks.py; who is told is decided in deciding/.
"""

from __future__ import annotations

from datetime import UTC, datetime

from engine.core.news import Notice
from engine.core.records import Event
from worker.phrases import PHRASES

WORKLOADS_NAMED_MAX = 64  # as many as a row has slots


def rfc3339(unix_ms: int) -> str:
    """``2026-11-22T00:19:03.250Z``."""
    at = datetime.fromtimestamp(unix_ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{at}.{unix_ms % 1000:03d}Z"


def subject(notice: Notice) -> str:
    """One line: what, which, since when."""
    if notice.title:
        return f"[NodePulse] {' '.join(notice.title.split())}"
    if notice.count == 1 and notice.events:
        still = "Still: " if notice.form == "reminder" else ""
        return f"[NodePulse] {still}{_subject_of(notice.events[0])}"
    since = rfc3339(notice.since_ms)[:16].replace("T", " ")
    still = "still " if notice.form == "reminder" else ""
    thing, change = _thing_and_change(notice.events[0]) if notice.events else ("", notice.kind)
    if any(event.kind != notice.events[0].kind for event in notice.events):
        return f"[NodePulse] {notice.count} pieces of news since {since} UTC"
    return f"[NodePulse] {notice.count} {thing}s {still}{change} since {since} UTC"


def text(notice: Notice) -> str:
    """The whole message: the facts, what to do, and the id by which a repetition is recognised."""
    if notice.count == 1 and notice.events and not notice.text:
        return _text_of(notice.events[0])
    lines = [notice.text, ""] if notice.text else []
    lines += [f"{rfc3339(each.since_ms)}  {each.kind}  {which(each)}" for each in notice.events]
    if notice.count > len(notice.events) > 0:
        lines.append(f"and {notice.count - len(notice.events)} more")
    lines += ["", advice(notice)] if advice(notice) else []
    lines += ["", f"Notice {notice.notice_id}"]
    return "\n".join(lines) + "\n"


def advice(notice: Notice) -> str:
    """What it means and what to do about it; empty where the notice says so itself."""
    return "" if notice.text else PHRASES.get(notice.kind, ("", ""))[1]


def _subject_of(event: Event) -> str:
    thing, change = _thing_and_change(event)
    since = rfc3339(event.since_ms)[:16].replace("T", " ")
    return f"{thing.capitalize()} {change}: {which(event)} since {since} UTC"


def _text_of(event: Event) -> str:
    thing, change = _thing_and_change(event)
    lines = [
        f"{thing.capitalize()} {which(event)} is {change}.",
        "",
        f"Since:    {rfc3339(event.since_ms)}",
        f"Noticed:  {rfc3339(event.at_ms)}",
    ]
    if event.node_id:
        lines.append(f"Node:     {event.node_id}")
    if event.workload_id:
        lines.append(f"Workload: {event.workload_id}")
    if event.detail:
        lines.append(f"Detail:   {event.detail}")
    if event.workloads:
        lines += ["", f"Its workloads ({len(event.workloads)}):"]
        lines += [f"  {workload}" for workload in event.workloads[:WORKLOADS_NAMED_MAX]]
    lines += ["", PHRASES.get(event.kind, ("", ""))[1], "", f"Event {event.event_id}"]
    return "\n".join(lines) + "\n"


def _thing_and_change(event: Event) -> tuple[str, str]:
    thing, _, change = event.kind.partition(".")
    return thing, PHRASES[event.kind][0] if event.kind in PHRASES else change


def which(event: Event) -> str:
    """What an event is about, by its id."""
    return event.workload_id or event.node_id or "installation"
