"""What each kind of event is called in words, what it means, and what is to be done. A table.

How a notice is put together from them is wording.py's.
"""

from __future__ import annotations

# kind -> (what changed, as in "Node <change>: <which>"; what it means and what to do)
PHRASES: dict[str, tuple[str, str]] = {
    "node.down": (
        "down",
        "Nothing has been heard of this node for three of its intervals, so nothing is counted as up.\n"
        "What to do: see that the machine runs and is online, then look at its manager\n"
        "(`lfgnode status`; restart it with `lfgnode start`). It counts again from its next beat.",
    ),
    "node.up": ("up", "The node is heard again and its time counts. Nothing is to be done."),
    "node.stopped": (
        "stopped",
        "Its manager said that it stops, so nothing is counted until it starts again.\n"
        "What to do: nothing, if you stopped it; else start it (`lfgnode start`).",
    ),
    "node.flapping": (
        "going up and down",
        "It fell and came back six times within an hour. You hear of it again when it has been steady for\n"
        "half an hour; until then its falls and returns are recorded and not told.\n"
        "What to do: look at the machine's network, and at its manager (`lfgnode status`).",
    ),
    "node.steady": (
        "steady again",
        "It has neither fallen nor come back for half an hour; the detail says how it stands.\n"
        "What to do: if it is down, see that the machine runs and is online.",
    ),
    "node.clone": (
        "running twice",
        "Beats with this node's key come from two places in turn, so somebody runs a copy of it.\n"
        "What to do: stop one of the two; if you know of no second one, give the node a new key.",
    ),
    "workload.down": (
        "down",
        "The node is heard, but reports this workload as not healthy.\n"
        "What to do: look at it on the machine (`lfgnode workload status`) and restart it if need be\n"
        "(`lfgnode workload restart`).",
    ),
    "workload.up": ("up", "The node reports the workload as healthy again. Nothing is to be done."),
    "workload.flapping": (
        "going up and down",
        "It fell and came back six times within an hour. You hear of it again when it has been steady for\n"
        "half an hour.\n"
        "What to do: look at it on the machine (`lfgnode workload status`).",
    ),
    "workload.steady": (
        "steady again",
        "It has neither fallen nor come back for half an hour; the detail says how it stands.\n"
        "What to do: if it is down, look at it on the machine (`lfgnode workload status`).",
    ),
    "workload.below_minimum": (
        "below the minimum version",
        "Its project asks for a newer version than the one that runs. Its time counts all the same for now.\n"
        "What to do: see that its manager runs and can fetch (`lfgnode status`): it updates by itself.",
    ),
    "licence.conflict": (
        "in conflict",
        "Another run holds this workload's licence, so this one stands by and is not paid meanwhile.\n"
        "What to do: stop one of the two. This one takes over when the other is gone.",
    ),
    "licence.flapping": (
        "in conflict again and again",
        "Runs of this workload's licence take it from each other: six conflicts within an hour. You hear of\n"
        "it again when there was none for half an hour; until then conflicts are recorded and not told.\n"
        "What to do: stop all but one of the runs.",
    ),
    "licence.steady": (
        "no longer in conflict",
        "There was no conflict over this workload's licence for half an hour; the detail says how many were\n"
        "recorded meanwhile. Nothing is to be done.",
    ),
    "dispute.opened": ("opened", "Somebody doubts a sealed day.\nWhat to do: look at it and answer it."),
    "dispute.answered": ("answered", "What to do: read the answer; it is with the dispute."),
    "seal.done": ("done", "The day is sealed and can be proved. Nothing is to be done."),
    "points.committed": ("committed", "The points of a day are in the ledger. Nothing is to be done."),
    "publication.done": ("done", "The root of a sealed day was published. Nothing is to be done."),
    "publication.failed": (
        "failed",
        "The root of a sealed day could not be published; it is tried again.\n"
        "What to do: see that the place it is published to is there and takes it.",
    ),
    "gap.opened": (
        "opened",
        "A shard did not listen for a while. Nobody is punished for it: what nobody can know is not held\n"
        "against anybody.\n"
        "What to do: look at the engine's log for the cause.",
    ),
    "gap.closed": ("closed", "The shard listens again. Nothing is to be done."),
    "shard.degraded": (
        "degraded",
        "Many of a shard's nodes fell silent at once, which is more likely our fault than theirs. Nobody is\n"
        "judged or told until it is over.\n"
        "What to do: look at the ingress of this shard: network, firewall, load.",
    ),
    "shard.recovered": ("recovered", "Nodes are judged again. Nothing is to be done."),
    "region.down": (
        "falling",
        "Many nodes of one region fell within two minutes.\n"
        "What to do: look for a cause that they share: a provider, a route, our ingress there.",
    ),
    "ingress.down": (
        "falling",
        "Many nodes that one shard hears fell within two minutes.\n"
        "What to do: look at the ingress of this shard: network, firewall, load.",
    ),
    "clock.stepped": (
        "stepped",
        "The system's clock jumped by more than a second; recorded time goes on without a jump.\n"
        "What to do: look at the machine's time service.",
    ),
    "actor.quarantined": (
        "quarantined",
        "One actor kept crashing and rests for an hour. Its beats are credited all the same.\n"
        "What to do: look at the engine's log, and report the crash.",
    ),
}
