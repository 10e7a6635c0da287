"""Notices: what somebody is told. One event, or many rolled into one; an announcement; a report; a test.

A record only. Which event becomes a notice for whom, and when, is decided by the notifier (worker/); how it
is sent by the senders.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.core.records import Event

NoticeForm = Literal["event", "digest", "reminder", "announcement", "report", "test"]
EVENTS_TOLD_MAX = 50  # of a digest; `count` tells how many there were


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The same for each attempt and each channel it goes to; `notice_id` lets a receiver tell doubles.

    `form` event: exactly one event, whose id is the notice's. `digest`: the first EVENTS_TOLD_MAX of `count`
    events. `title`, `text`: plain words for people, of announcements and reports and what the notifier wants
    said; empty: told from the events. `html`: of a report. `since_ms`, `at_ms`: of the first event, and when
    the newest of them was noticed (unix ms).
    """

    notice_id: str
    form: NoticeForm
    kind: str  # of the event; for a digest the kind of most of them; announcement, report, test
    at_ms: int
    since_ms: int
    events: tuple[Event, ...] = ()
    count: int = 0
    project_id: str | None = None
    title: str = ""
    text: str = ""
    html: str = ""
    urgent: bool = False  # goes through quiet hours


def notice_of(event: Event) -> Notice:
    """The notice of a single event: its id is the event's."""
    return Notice(
        notice_id=event.event_id,
        form="event",
        kind=event.kind,
        at_ms=event.at_ms,
        since_ms=event.since_ms,
        events=(event,),
        count=1,
        project_id=event.project_id,
    )
