"""What a channel believes of a subject, and what waits to be told there: how an Item follows events. Pure.

A channel believes in a fall that it was told of, until it is told of the return. So a fall that is over
before it was told is never told; a return is told to those alone who believe in the fall; and who believes in
a fall is not told of the next one, if the return between them was never told.
"""

from __future__ import annotations

from engine.core.newsroom import COLLECT_MS, Item, Lane, Policy, Recipient
from engine.core.records import Event
from worker.deciding.kinds import REMINDED, kind_of

REMINDER_MS = 24 * 3_600_000
REMINDERS_MAX = 3
# Why something is not told after all.
RECOVERED, FELL_AGAIN, STOPPED, KNOWN, UNWANTED = "recovered", "fell_again", "stopped", "known", "unwanted"


def fallen(item: Item, event: Event, recipient: Recipient, policy: Policy) -> tuple[Item, str | None]:
    """After a fall: the item, and why the fall is not told."""
    if item.told is None:
        if item.lane == "fall":
            return item, KNOWN
        return waiting(item, event, "fall", recipient, policy), None
    if item.lane == "rise":
        return believing(item, event.at_ms), FELL_AGAIN
    return item, KNOWN


def risen(
    item: Item, event: Event, recipient: Recipient, policy: Policy, *, wanted: bool
) -> tuple[Item | None, str | None]:
    """After a return: the item (None: nothing is left), and why the return is not told."""
    if item.told is None:
        return None, RECOVERED
    if not wanted:
        return None, UNWANTED
    return waiting(item, event, "rise", recipient, policy), None


def stopped(item: Item) -> tuple[Item | None, str | None]:
    """After a stop in order: what fell is not told any more, and nobody is reminded of it."""
    if item.told is None:
        return None, STOPPED
    return (item if item.lane == "rise" else silent(item)), None


def waiting(item: Item, event: Event, lane: Lane, recipient: Recipient, policy: Policy) -> Item:
    """The item with an event to be told when its hold is over."""
    hold_ms = 0
    if not kind_of(event).urgent:
        hold_ms = {
            "fall": recipient.delay_ms(policy),
            "rise": recipient.gather_ms(policy, "rise"),
        }.get(lane, 0)
    return Item(
        told=item.told,
        reminders=item.reminders,
        waits=event,
        lane=lane,
        held_ms=event.at_ms,
        due_ms=event.at_ms + max(hold_ms, COLLECT_MS),
    )


def after_telling(item: Item, at_ms: int) -> Item | None:
    """The item after what waited was told. None: nothing is left to be known."""
    if item.lane == "reminder":
        return believing(Item(told=item.told, reminders=item.reminders + 1), at_ms)
    assert item.waits is not None, "nothing waited"
    return believing(Item(told=item.waits), at_ms) if item.lane == "fall" else None


def believing(item: Item, at_ms: int) -> Item:
    """The item with nothing to tell but, for nodes, reminders."""
    assert item.told is not None, "nobody is reminded of what was not told"
    if item.told.kind not in REMINDED or item.reminders >= REMINDERS_MAX:
        return silent(item)
    return Item(
        told=item.told,
        reminders=item.reminders,
        lane="reminder",
        held_ms=at_ms,
        due_ms=at_ms + REMINDER_MS,
    )


def silent(item: Item) -> Item:
    """The item with nothing to tell at all."""
    return Item(told=item.told, reminders=item.reminders)
