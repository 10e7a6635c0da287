"""Who hears of an event: the channels of its audience that take its kind. Pure; when is gates.py's."""

from __future__ import annotations

from engine.core.newsroom import Facts, NodeFacts, Recipient
from engine.core.records import Event
from worker.deciding.kinds import is_named, kind_of


class Audience:
    """Some of the recipients that a step knows of, by whom they belong to."""

    def __init__(self, facts: Facts, recipients: dict[str, Recipient]) -> None:
        self._facts = facts
        self._of_projects: dict[str, list[Recipient]] = {}
        self._of_people: dict[str, list[Recipient]] = {}
        self._operators: list[Recipient] = []
        for _, one in sorted(recipients.items()):
            if one.project_id is not None:
                self._of_projects.setdefault(one.project_id, []).append(one)
            elif one.user_id is not None:
                self._of_people.setdefault(one.user_id, []).append(one)
                if one.operator:
                    self._operators.append(one)

    def hears(self, event: Event, *, kinds: tuple[str, ...] = ()) -> list[Recipient]:
        """The channels that hear of an event. `kinds`: others of which naming one is enough."""
        return [one for one in self._heard(event) if any(takes(one, kind) for kind in (event.kind, *kinds))]

    def _heard(self, event: Event) -> list[Recipient]:
        audience = kind_of(event).audience
        if audience == "installation":
            return self._operators
        project_id = event.project_id or ""
        if audience == "project":
            people = self._facts.owners.get(project_id, ())
        else:
            node = node_of(event, self._facts)
            people = () if node is None or node.owner_id is None else (node.owner_id,)
        heard = list(self._of_projects.get(project_id, ()))
        for user_id in people:
            heard += self._of_people.get(user_id, ())
        return heard


def takes(recipient: Recipient, kind: str) -> bool:
    """Whether a channel wants a kind of event at all."""
    return kind in recipient.event_kinds if recipient.event_kinds else not is_named(kind)


def node_of(event: Event, facts: Facts) -> NodeFacts | None:
    """Of a workload's event that names no node, the node of the workload."""
    return facts.nodes.get(event.node_id or event.workload_id or "")
