"""The notifier's decisions put together: one pure function from state and facts to state and notices.

Events first, in their order; then what is due. What was told, to whom and why not is all in the result.
"""

from __future__ import annotations

import msgspec

from engine.core.newsroom import Decision, Facts, Item, ItemKey, Policy, Recipient, State
from engine.core.records import Event
from worker.deciding import areas, beliefs, flapping
from worker.deciding.digests import tell_due
from worker.deciding.kinds import CHANGES, kind_of, subject_of
from worker.deciding.routing import Audience, node_of, takes

FLAPPING = "flapping"


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
        self._audience = Audience(facts)
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
        match kind_of(event).effect:
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
        others = (event.kind.replace("steady", "flapping"), subject.last.kind)
        told = self._audience.hears(event, kinds=others)
        down = flapping.is_down(subject)
        if not down:
            for key, _ in self._items_of(name):
                self._set(key, None)
        for recipient in told:
            key = (name, recipient.channel_id)
            item = self.state.items.get(key, Item())
            held = beliefs.waiting(item, event, "news", recipient, self.policy)
            self._set(key, msgspec.structs.replace(held, lane="fall" if down else "news"))

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
            self._set((event.event_id, recipient.channel_id), held)

    def _fell_in_areas(self, event: Event) -> None:
        node = node_of(event, self.facts)
        for name in areas.areas_of(event, "" if node is None else node.region):
            area = areas.fell(self.state.areas.get(name), event.at_ms)
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

    def _count(self, reason: str | None) -> None:
        if reason is not None:
            self.decision.dropped[reason] = self.decision.dropped.get(reason, 0) + 1
