"""The kinds of events: who hears of each, and what each does to what a recipient believes. A table."""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.core.records import Event

# fall: held for the recipient's delay, reminded of. rise: told to those who were told of the fall.
# stop: ends a fall's hold and reminders. news: told once. never: the notifier's own, and told already.
Effect = Literal["fall", "rise", "stop", "news", "never"]
# node: the project's channels and the person whose node it is. project: the project's channels and those of
# its owners. installation: its operators' own.
Audience = Literal["node", "project", "installation"]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """`named`: told only to channels that name it. `urgent`: goes through quiet hours, without delay."""

    effect: Effect
    audience: Audience
    named: bool = False
    urgent: bool = False


KINDS: dict[str, Kind] = {
    "node.down": Kind(effect="fall", audience="node"),
    "node.up": Kind(effect="rise", audience="node"),
    "node.stopped": Kind(effect="stop", audience="node", named=True),
    "node.flapping": Kind(effect="never", audience="node"),
    "node.steady": Kind(effect="never", audience="node"),
    "node.clone": Kind(effect="news", audience="node"),
    "workload.down": Kind(effect="fall", audience="node"),
    "workload.up": Kind(effect="rise", audience="node"),
    "workload.flapping": Kind(effect="never", audience="node"),
    "workload.steady": Kind(effect="never", audience="node"),
    "workload.below_minimum": Kind(effect="news", audience="node"),
    "licence.conflict": Kind(effect="news", audience="node"),
    "licence.flapping": Kind(effect="never", audience="node"),
    "licence.steady": Kind(effect="never", audience="node"),
    "dispute.opened": Kind(effect="news", audience="project"),
    "dispute.answered": Kind(effect="news", audience="node"),
    "seal.done": Kind(effect="news", audience="project", named=True),
    "points.committed": Kind(effect="news", audience="project", named=True),
    "publication.done": Kind(effect="news", audience="project", named=True),
    "publication.failed": Kind(effect="news", audience="installation"),
    # A gap is known when it is over as often as not, so its end undoes nothing: both are told.
    "gap.opened": Kind(effect="news", audience="installation", urgent=True),
    "gap.closed": Kind(effect="news", audience="installation", urgent=True),
    "shard.degraded": Kind(effect="fall", audience="installation", urgent=True),
    "shard.recovered": Kind(effect="rise", audience="installation", urgent=True),
    "region.down": Kind(effect="never", audience="installation", urgent=True),
    "ingress.down": Kind(effect="never", audience="installation", urgent=True),
    "clock.stepped": Kind(effect="news", audience="installation"),
    "actor.quarantined": Kind(effect="news", audience="installation"),
}
_OF_PROJECTS = Kind(effect="news", audience="project")
_OF_THE_INSTALLATION = Kind(effect="news", audience="installation")
CHANGES = frozenset({"node.down", "node.up", "workload.down", "workload.up"})  # that flapping is counted by
REMINDED = frozenset({"node.down", "node.steady"})


def kind_of(event: Event) -> Kind:
    """A kind that is not in the table is news to operators, or to its project.

    An event of no project is the installation's, whatever the table says of its kind.
    """
    known = KINDS.get(event.kind)
    if event.project_id is None and (known is None or known.audience != "installation"):
        if known is None:
            return _OF_THE_INSTALLATION
        return msgspec.structs.replace(known, audience="installation")
    return known if known is not None else _OF_PROJECTS


def is_named(kind: str) -> bool:
    """Whether a kind is told only to channels that name it."""
    known = KINDS.get(kind)
    return known is not None and known.named


def subject_of(event: Event) -> str:
    """What falls and rises: a workload, a node, or a shard."""
    return event.workload_id or event.node_id or f"shard:{event.shard}"
