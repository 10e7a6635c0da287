"""The notifier's decisions put together: one pure function from state and facts to state and notices.

Events first, in their order; then what is due. What was told, to whom and why not is all in the result.
"""

from __future__ import annotations

import msgspec

from engine.core.newsroom import (
    COLLECT_MS,
    Decision,
    Facts,
    Item,
    ItemKey,
    Lane,
    Policy,
    Recipient,
    State,
    Subject,
    licence_of,
    news_of,
)
from engine.core.records import Event
from worker.deciding import areas, beliefs, flapping
from worker.deciding.digests import tell_due
from worker.deciding.kinds import CHANGES, kind_of, subject_of
from worker.deciding.routing import Audience, node_of, takes

FLAPPING, UNCONFIRMED = "flapping", "unconfirmed"


def step(state: State, facts: Facts, policy: Policy) -> Decision:
    """What follows from the events of `facts` and from what is due. `state` itself is left as it is."""
    work = _Work(state, facts, policy)
    for event in facts.events:
        work.hear(event)
    for name, subject in list(work.state.subjects.items()):
        if subject.due_ms <= facts.as_of_ms:
            work.subject_is_due(name)
    for name, area in list(work.state.areas.items()):
        if area.due_ms <= facts.as_of_ms:
            del work.state.areas[name]
    tell_due(work.decision, facts)
    return work.decision


class _Work:
    """A decision in the making."""

    def __init__(self, state: State, facts: Facts, policy: Policy) -> None:
        self.facts = facts
        self.policy = policy
        self.state = State(
            items=dict(state.items),
            subjects=dict(state.subjects),
            areas=dict(state.areas),
            degraded=dict(state.degraded),
            telling=dict(state.telling),
        )
        self.decision = Decision(state=self.state, notices=[], recorded=[], dropped={})
        self._audience = Audience(facts, facts.recipients)
        self._unconfirmed = Audience(facts, facts.unconfirmed)
        self._channels: dict[str, set[str]] = {}  # by subject, of those there are items of
        for subject, channel_id in state.items:
            self._channels.setdefault(subject, set()).add(channel_id)

    def hear(self, event: Event) -> None:
        subject = subject_of(event)
        if event.kind == "shard.degraded":
            self.state.degraded[event.shard] = event.since_ms
        elif event.kind == "shard.recovered":
            self.state.degraded.pop(event.shard, None)
        if event.kind in CHANGES and self._flaps(subject, event):
            return
        licence = licence_of(event)
        if licence is not None and self._contends(licence, event):
            return
        effect = kind_of(event).effect
        if effect in ("fall", "stop", "news"):
            self._count(UNCONFIRMED, len(self._unconfirmed.hears(event)))
        match effect:
            case "fall":
                self._fall(subject, event)
            case "rise":
                self._rise(subject, event)
            case "stop":
                self._stop(subject)
                self._news(event, self._audience.hears(event))
            case "news":
                self._news(event, self._audience.hears(event))
            case "never":
                pass

    def subject_is_due(self, name: str) -> None:
        """A flapping subject was quiet: its people hear how it stands. Another was quiet: it is forgotten."""
        subject = self.state.subjects.pop(name)
        if not subject.flaps:
            return
        event = flapping.steady_event(subject, self.facts.as_of_ms)
        self.decision.recorded.append(event)
        if licence_of(subject.last) is not None:
            self._rise(name, event)
            return
        others = (event.kind.replace("steady", "flapping"), subject.last.kind)
        told = self._audience.hears(event, kinds=others)
        down = flapping.is_down(subject)
        hearing = {recipient.channel_id for recipient in told}
        for key, _ in self._items_of(name):
            if not down and key[1] not in hearing:
                self._set(key, None)
        for recipient in told:
            key = (name, recipient.channel_id)
            item = self.state.items.get(key, Item())
            held = beliefs.waiting(item, event, "news", recipient, self.policy)
            # Who believes in a fall does so until this is told: another fall meanwhile is none to them.
            up: Lane = "news" if item.told is None else "rise"
            self._set(key, msgspec.structs.replace(held, lane="fall" if down else up))

    def _flaps(self, name: str, event: Event) -> bool:
        """Whether nothing is told of this change because its subject flaps."""
        after, begins = flapping.changed(self.state.subjects.get(name), event)
        self.state.subjects[name] = after
        if begins:
            said = flapping.flapping_event(event)
            self.decision.recorded.append(said)
            self._news(said, self._audience.hears(said))
            for key, item in self._items_of(name):
                self._set(key, beliefs.silent(item) if item.told is not None else None)
        if after.flaps:
            self._count(FLAPPING)
        return after.flaps

    def _contends(self, name: str, event: Event) -> bool:
        """Whether nothing is told of this conflict because its licence is in conflict again and again. Each
        who would have heard of one hears of that once."""
        after, _ = flapping.changed(self.state.subjects.get(name), event)
        self.state.subjects[name] = after
        if not after.flaps:
            return False
        self._count(FLAPPING)
        said = flapping.flapping_event(event)
        heard = self._audience.hears(said, kinds=(event.kind,))
        new = [one for one in heard if (name, one.channel_id) not in self.state.items]
        if new or after.quiet == 1:
            self.decision.recorded.append(said)
        self._news(said, new)
        for one in new:
            self._set((name, one.channel_id), Item(told=said))
        return True

    def _fall(self, subject: str, event: Event) -> None:
        for recipient in self._audience.hears(event):
            key = (subject, recipient.channel_id)
            item, reason = beliefs.fallen(self.state.items.get(key, Item()), event, recipient, self.policy)
            self._set(key, item)
            self._count(reason)
        if event.kind == "node.down":
            self._fell_in_areas(event)

    def _rise(self, subject: str, event: Event) -> None:
        for key, item in self._items_of(subject):
            recipient = self.facts.recipients.get(key[1])
            if recipient is None:
                self._set(key, None)
                continue
            wanted = takes(recipient, event.kind)
            after, reason = beliefs.risen(item, event, recipient, self.policy, wanted=wanted)
            self._set(key, after)
            self._count(reason)

    def _stop(self, subject: str) -> None:
        for key, item in self._items_of(subject):
            after, reason = beliefs.stopped(item)
            self._set(key, after)
            self._count(reason)

    def _news(self, event: Event, recipients: list[Recipient]) -> None:
        for recipient in recipients:
            held = beliefs.waiting(Item(), event, "news", recipient, self.policy)
            due_ms = self._gathered_until(event, recipient)
            self._set((event.event_id, recipient.channel_id), msgspec.structs.replace(held, due_ms=due_ms))

    def _gathered_until(self, event: Event, recipient: Recipient) -> int:
        """When news is told: the first of its kind at once, what comes within the gathering time after it."""
        due_ms = event.at_ms + COLLECT_MS
        kind = kind_of(event)
        if kind.urgent or kind.effect == "never":
            return due_ms
        name, gather_ms = news_of(event.kind, recipient.channel_id), self.policy.gather_ms_max
        before = self.state.subjects.get(name)
        if before is not None:
            (told_ms,) = before.changes
            if event.at_ms <= told_ms:
                due_ms = told_ms
            else:
                due_ms = max(due_ms, told_ms + gather_ms)
        self.state.subjects[name] = Subject(changes=(due_ms,), last=event, due_ms=due_ms + gather_ms)
        return due_ms

    def _fell_in_areas(self, event: Event) -> None:
        node, subject = node_of(event, self.facts), self.state.subjects[subject_of(event)]
        self.state.subjects[subject_of(event)] = msgspec.structs.replace(subject, fell_ms=event.at_ms)
        for name in areas.areas_of(event, "" if node is None else node.region):
            area = areas.fell(self.state.areas.get(name), event.at_ms, before_ms=subject.fell_ms)
            total = self.facts.totals.get(name, 0)
            if areas.is_remarkable(area, event.at_ms, total=total, policy=self.policy):
                said = areas.area_event(name, area, total=total, shard=event.shard, at_ms=event.at_ms)
                self.decision.recorded.append(said)
                self._news(said, self._audience.hears(said))
                area = areas.told(area, event.at_ms)
            self.state.areas[name] = area

    def _items_of(self, subject: str) -> list[tuple[ItemKey, Item]]:
        keys = [(subject, channel_id) for channel_id in sorted(self._channels.get(subject, ()))]
        return [(key, self.state.items[key]) for key in keys if key in self.state.items]

    def _set(self, key: ItemKey, item: Item | None) -> None:
        if item is None:
            self.state.items.pop(key, None)
        elif item != self.state.items.get(key):
            self.state.items[key] = item
            self._channels.setdefault(key[0], set()).add(key[1])

    def _count(self, reason: str | None, count: int = 1) -> None:
        if reason is not None and count:
            self.decision.dropped[reason] = self.decision.dropped.get(reason, 0) + count
