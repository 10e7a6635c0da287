"""The memory twin of postgres_newsroom.py, and what a step is shown of a state that is in memory as a whole.

People, their settings and regions are not known in memory: channels are of projects.
"""

from __future__ import annotations

from engine.core.newsroom import (
    Decided,
    Facts,
    Group,
    Lane,
    NodeFacts,
    Policy,
    Recipient,
    State,
    Step,
    Waiting,
)
from storage.memory_outbox import MemoryOutbox
from storage.memory_world import MemoryWorld


class MemoryNewsroom:
    """engine.core.newsroom.Newsroom in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world
        self._outbox = MemoryOutbox(world)

    async def decide(self, step: Step, *, policy: Policy, now_ms: int, limit: int) -> Decided:
        await self._world.enter()
        world, state = self._world, self._world.newsroom
        telling = bool(state.telling)
        events = () if telling else tuple(world.events[world.notifier_cursor :][:limit])
        full = len(events) == limit
        as_of_ms = min(now_ms, events[-1].at_ms) if full else now_ms
        channels = [
            each for each in world.channels.values() if each.channel_id not in world.disabled_channels
        ]
        recipients = {
            each.channel_id: Recipient(
                channel_id=each.channel_id, project_id=each.project_id, event_kinds=each.event_kinds
            )
            for each in channels
        }
        facts = Facts(
            as_of_ms=as_of_ms,
            events=events,
            nodes={
                each.node_id: NodeFacts(gone=each.retired_ms is not None) for each in world.nodes.values()
            },
            recipients=recipients,
            windows={
                window.workload_id or node.node_id: window.to_ms
                for node in world.nodes.values()
                for window in node.windows
                if window.from_ms <= as_of_ms < window.to_ms
            },
            due=due_of(state, as_of_ms),
            gather=gather_of(state, recipients, policy, as_of_ms),
        )
        decision = step(state, facts, policy)
        before = len(world.deliveries)
        self._outbox.put_nowait(decision.notices, now_ms=now_ms)
        world.newsroom, world.notifier_cursor = decision.state, world.notifier_cursor + len(events)
        for event in decision.recorded:
            if event.event_id not in world.event_ids:
                world.event_ids.add(event.event_id)
                world.events.append(event)
        due = [item.due_ms for item in decision.state.items.values() if item.due_ms is not None]
        due += [subject.due_ms for subject in decision.state.subjects.values()]
        return Decided(
            cursor=world.notifier_cursor,
            events=len(events),
            lag_ms=max(0, now_ms - events[-1].at_ms) if full else 0,
            more=full or bool(decision.state.telling),
            next_due_ms=min(due, default=None),
            notices=len(world.deliveries) - before,
            digests=sum(notice.form == "digest" for notice, _ in decision.notices),
            reminders=decision.reminders,
            dropped=decision.dropped,
        )

    async def waiting(self) -> Waiting:
        await self._world.enter()
        items, subjects = self._world.newsroom.items.values(), self._world.newsroom.subjects.values()
        return Waiting(sum(item.waits is not None for item in items), sum(each.flaps for each in subjects))

    async def prune(self, *, now_ms: int, limit: int) -> int:
        await self._world.enter()
        world, items = self._world, self._world.newsroom.items
        nodes = {each.node_id for each in world.nodes.values() if each.retired_ms is not None}
        gone = [key for key, item in items.items() if item.lane is None and key[0] in nodes][:limit]
        for key in gone:
            del items[key]
        return len(gone)


def due_of(state: State, as_of_ms: int) -> dict[Group, int]:
    """The groups of which something is due; all of it is in `items`."""
    return {
        (channel, item.lane == "reminder"): 0
        for (_, channel), item in state.items.items()
        if item.due_ms is not None and item.due_ms <= as_of_ms
    }


def gather_of(
    state: State, recipients: dict[str, Recipient], policy: Policy, as_of_ms: int
) -> dict[tuple[str, Lane], int]:
    """When the last is due of those that fell, or rose, soon after the first which is due."""
    found: dict[tuple[str, Lane], int] = {}
    for channel_id, reminds in due_of(state, as_of_ms):
        recipient = recipients.get(channel_id)
        if reminds or recipient is None:
            continue
        lanes: tuple[Lane, ...] = ("fall", "rise")
        for lane in lanes:
            times = [
                (item.held_ms or 0, item.due_ms or 0)
                for (_, channel), item in state.items.items()
                if channel == channel_id and item.lane == lane
            ]
            first_ms = min((held_ms for held_ms, due_ms in times if due_ms <= as_of_ms), default=None)
            if first_ms is not None:
                last_ms = first_ms + recipient.gather_ms(policy, lane)
                latest_ms = last_ms + recipient.delay_ms(policy)
                joins = [due for held, due in times if held <= last_ms and due <= latest_ms]
                found |= {(channel_id, lane): max(joins)} if joins else {}
    return found
