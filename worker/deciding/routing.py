"""Who hears of an event: the channels of its audience that take its kind. Pure; when is gates.py's."""

from __future__ import annotations

from engine.core.newsroom import Facts, NodeFacts, Recipient
from engine.core.records import Event
from worker.deciding.kinds import kind_of


def recipients_of(event: Event, facts: Facts, *, kinds: tuple[str, ...] = ()) -> list[Recipient]:
    """The channels that hear of an event, by id. `kinds`: those that a channel may name instead of its own."""
    heard = [one for one in facts.recipients.values() if _audience_has(event, one, facts)]
    told = [one for one in heard if any(takes(one, kind, event) for kind in (event.kind, *kinds))]
    return sorted(told, key=lambda one: one.channel_id)


def takes(recipient: Recipient, kind: str, event: Event) -> bool:
    """Whether a channel that hears of the event's subject wants this kind."""
    if recipient.event_kinds:
        return kind in recipient.event_kinds
    return not kind_of(event).named


def node_of(event: Event, facts: Facts) -> NodeFacts | None:
    """Of a workload's event that names no node, the node of the workload."""
    return facts.nodes.get(event.node_id or event.workload_id or "")


def _audience_has(event: Event, recipient: Recipient, facts: Facts) -> bool:
    match kind_of(event).audience:
        case "installation":
            return recipient.operator and recipient.user_id is not None
        case "project":
            owners = facts.owners.get(event.project_id or "", ())
            return recipient.project_id == event.project_id or recipient.user_id in owners
        case "node":
            if recipient.project_id is not None:
                return recipient.project_id == event.project_id
            node = node_of(event, facts)
            return node is not None and node.owner_id is not None and recipient.user_id == node.owner_id
