"""The words of a notice: what people read in a mail. Pure.

What a program reads (webhooks) is in webhooks.py; who is told is decided in notifier.py.
"""

from __future__ import annotations

from datetime import UTC, datetime

from engine.core.news import Notice
from engine.core.records import Event

WORKLOADS_NAMED_MAX = 64  # as many as a row has slots

_ADVICE: dict[str, str] = {
    "node.down": (
        "Nothing has been heard of this node for three of its intervals, so nothing is counted as up.\n"
        "What to do: see that the machine runs and is online, then look at its manager\n"
        "(`lfgnode status`; restart it with `lfgnode start`). It counts again from its next beat."
    ),
    "node.up": "The node is heard again and its time counts. Nothing is to be done.",
    "workload.down": (
        "The node is heard, but reports this workload as not healthy.\n"
        "What to do: look at it on the machine (`lfgnode workload status`) and restart it if need be\n"
        "(`lfgnode workload restart`)."
    ),
    "workload.up": "The node reports the workload as healthy again. Nothing is to be done.",
    "workload.below_minimum": (
        "Its project asks for a newer version than the one that runs. Its time counts all the same for now.\n"
        "What to do: see that the node's manager runs and can fetch (`lfgnode status`): it updates by itself."
    ),
}
_CHANGES: dict[str, str] = {"workload.below_minimum": "below the minimum version"}


def rfc3339(unix_ms: int) -> str:
    """``2026-11-22T00:19:03.250Z``."""
    at = datetime.fromtimestamp(unix_ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{at}.{unix_ms % 1000:03d}Z"


def subject(notice: Notice) -> str:
    """One line: what, which, since when."""
    if notice.title:
        return f"[NodePulse] {' '.join(notice.title.split())}"
    if notice.count == 1 and notice.events:
        return _subject_of(notice.events[0])
    since = rfc3339(notice.since_ms)[:16].replace("T", " ")
    return f"[NodePulse] {notice.count} x {notice.kind} since {since} UTC"


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
    return "" if notice.text else _ADVICE.get(notice.kind, "")


def _subject_of(event: Event) -> str:
    thing, change = _thing_and_change(event)
    since = rfc3339(event.since_ms)[:16].replace("T", " ")
    return f"[NodePulse] {thing.capitalize()} {change}: {which(event)} since {since} UTC"


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
    lines += ["", _ADVICE.get(event.kind, ""), "", f"Event {event.event_id}"]
    return "\n".join(lines) + "\n"


def _thing_and_change(event: Event) -> tuple[str, str]:
    thing, _, change = event.kind.partition(".")
    return thing, _CHANGES.get(event.kind, change)


def which(event: Event) -> str:
    """What an event is about, by its id."""
    return event.workload_id or event.node_id or "installation"
