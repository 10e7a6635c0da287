"""What is told together: the due items of one channel become one notice. Pure.

Falls wait for those that fell soon after the first of them, each for its full hold; reminders are told apart
from the rest. A digest that is larger than a step is told at its first part; the other parts follow under it.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from engine.core.news import EVENTS_TOLD_MAX, Notice, NoticeForm, notice_of
from engine.core.newsroom import Decision, Facts, Group, Item, ItemKey, Lane, Recipient, Telling
from engine.core.records import Event
from worker.deciding.beliefs import after_telling
from worker.deciding.gates import opens_at
from worker.deciding.kinds import kind_of
from worker.deciding.routing import node_of

GONE, NO_CHANNEL = "gone", "no_channel"
Part = list[tuple[ItemKey, Item]]


def tell_due(decision: Decision, facts: Facts) -> None:
    """Tell what is due of each group of `facts.due`, or put it off. Changes the decision."""
    parts: dict[Group, Part] = {group: [] for group in facts.due}
    for key, item in decision.state.items.items():
        group = (key[1], item.lane == "reminder")
        until_ms = facts.as_of_ms if (under := decision.state.telling.get(group)) is None else under.upto_ms
        if group in parts and item.due_ms is not None and item.due_ms <= until_ms:
            parts[group].append((key, item))
    for group, part in parts.items():
        part.sort(key=lambda pair: (pair[1].held_ms or 0, pair[0]))
        if (under := decision.state.telling.get(group)) is not None:
            _go_on(decision, facts, group, part)
        else:
            _begin(decision, facts, group, part)


def _begin(decision: Decision, facts: Facts, group: Group, part: Part) -> None:
    beyond = facts.due[group]
    recipient = facts.recipients.get(group[0])
    if recipient is None:
        for key, _ in part:
            _drop(decision, key, NO_CHANNEL)
        return
    ready = _put_off(decision, facts, recipient, part)
    if not ready or (beyond and len(ready) < len(part)):
        return  # what was put off makes room for the others: the next step has them
    notice = _notice(group, [item for _, item in ready], beyond + len(ready), facts)
    decision.notices.append((notice, group[0]))
    _mark(decision, facts, ready)
    if beyond:
        decision.state.telling[group] = Telling(notice.notice_id, facts.as_of_ms)


def _go_on(decision: Decision, facts: Facts, group: Group, part: Part) -> None:
    _mark(decision, facts, part)
    if facts.due[group] == 0:
        del decision.state.telling[group]


def _mark(decision: Decision, facts: Facts, part: Part) -> None:
    for key, item in part:
        after = after_telling(item, facts.as_of_ms)
        decision.reminders += item.lane == "reminder"
        if after is None:
            del decision.state.items[key]
        else:
            decision.state.items[key] = after


def _put_off(decision: Decision, facts: Facts, recipient: Recipient, part: Part) -> Part:
    """Those that may be told now; the others are dropped, or fall due later."""
    ready: Part = []
    for key, item in part:
        event = item.waits or item.told
        assert event is not None, "an item that is due has something to tell"
        node = node_of(event, facts)
        at_ms = opens_at(event, recipient, facts, decision.state.degraded)
        if node is not None and node.gone and item.lane != "news":
            _drop(decision, key, GONE)
        elif at_ms > facts.as_of_ms:
            _defer(decision, key, item, at_ms)
        else:
            ready.append((key, item))
    for lane in ("fall", "rise"):
        until_ms = facts.gather.get((recipient.channel_id, lane), 0)
        if until_ms > facts.as_of_ms:
            _gather(decision, ready, lane, until_ms)
            ready = [pair for pair in ready if pair[1].lane != lane]
    return ready


def _gather(decision: Decision, ready: Part, lane: Lane, until_ms: int) -> None:
    for key, item in ready:
        if item.lane == lane:
            _defer(decision, key, item, until_ms)


def _defer(decision: Decision, key: ItemKey, item: Item, due_ms: int) -> None:
    decision.state.items[key] = msgspec.structs.replace(item, due_ms=due_ms)


def _drop(decision: Decision, key: ItemKey, reason: str) -> None:
    del decision.state.items[key]
    decision.dropped[reason] = decision.dropped.get(reason, 0) + 1


def _notice(group: Group, items: list[Item], count: int, facts: Facts) -> Notice:
    channel_id, reminds = group
    events = [event for item in items if (event := item.waits or item.told) is not None]
    if count == 1 and not reminds:
        return msgspec.structs.replace(notice_of(events[0]), urgent=kind_of(events[0]).urgent)
    form: NoticeForm = "reminder" if reminds else "digest"
    projects = {event.project_id for event in events}
    return Notice(
        notice_id=_digest_id(form, channel_id, events, items[0].reminders, facts.as_of_ms),
        form=form,
        kind=Counter(event.kind for event in events).most_common(1)[0][0],
        at_ms=max(event.at_ms for event in events),
        since_ms=min(event.since_ms for event in events),
        events=tuple(events[:EVENTS_TOLD_MAX]),
        count=count,
        project_id=projects.pop() if len(projects) == 1 and count == len(events) else None,
        urgent=any(kind_of(event).urgent for event in events),
    )


def _digest_id(form: str, channel_id: str, events: list[Event], number: int, at_ms: int) -> str:
    """Of the same decision the same id."""
    parts = (form, channel_id, events[0].event_id, str(number), str(at_ms))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
