"""What states, kinds of time and events are called on pages. What they mean is the engine's."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "up": "up",
    "maintenance": "maintenance by the project",
    "claimed_up": "up, handed in afterwards",
    "updating": "updating",
    "claimed_updating": "updating, handed in afterwards",
    "unhealthy": "unhealthy",
    "claimed_unhealthy": "unhealthy, handed in afterwards",
    "stopped": "stopped",
    "unobserved": "not observed (our fault)",
    "standby": "standby: another run held the licence",
    "maintenance_own": "maintenance of your own",
    "silent": "silent",
}
EVENTS: dict[str, str] = {
    "node.down": "Node went down",
    "node.up": "Node is back",
    "node.stopped": "Node was stopped in order",
    "node.flapping": "Node goes down and up all the time",
    "node.steady": "Node is steady again",
    "node.clone": "Two machines beat with one key",
    "workload.down": "Workload went unhealthy",
    "workload.up": "Workload is healthy again",
    "workload.flapping": "Workload goes down and up all the time",
    "workload.steady": "Workload is steady again",
    "workload.below_minimum": "Workload runs below the minimum version",
    "licence.conflict": "Two runs claim one licence",
    "dispute.opened": "A dispute was opened",
    "dispute.answered": "A dispute was answered",
    "seal.done": "A day was sealed",
    "points.committed": "Points were committed",
    "publication.done": "A seal was published",
    "publication.failed": "A seal could not be published",
    "gap.opened": "We do not listen",
    "gap.closed": "We listen again",
    "shard.degraded": "Many nodes fell silent at once",
    "shard.recovered": "Verdicts are given again",
    "region.down": "A region went down",
    "ingress.down": "A way in went down",
    "clock.stepped": "Our clock jumped",
    "actor.quarantined": "An actor was set aside",
    "announcement": "Announcements",
}
REFUSED: dict[str, str] = {
    "stale": "not newer than the last one",
    "clock": "clock more than 90 s off",
    "busy": "we were too busy",
    "token": "token no longer good",
    "session": "session not honoured",
    "mac": "tag was wrong",
}
# After a form: what it did, by the word in the address (`?told=`).
TOLD: dict[str, str] = {
    "window-opened": "The maintenance window is entered.",
    "window-ended": "The maintenance window was taken back, or has ended now.",
    "bound": "The workload runs under this licence now.",
    "unbound": "The workload runs under no licence now.",
    "dispute-opened": "Your dispute is open. The project is told; what it says appears here.",
    "said": "It is on record.",
    "settings-kept": "Your settings are kept.",
    "channel-removed": "The channel is removed; what was still to be told there is dropped.",
    "channel-enabled": "Notices go there again.",
    "asked-again": "The letter is on its way once more.",
    "channel-disabled": "Nothing goes there until you switch it on again; what was due is given up.",
    "test-sent": "A test is on its way. What came of it stands in the history below.",
    "public": "Anybody can see it now.",
    "private": "Nobody sees it any more, within half a minute.",
    "person-added": "They are entered and can sign in now.",
    "person-kept": "It is kept.",
    "person-retired": "They are retired: their keys and logins end within a second.",
    "owner-added": "They own the project now.",
    "owner-removed": "They own the project no longer.",
    "announced": "It is in the outbox. How far it is stands below.",
    "replayed": "They are due again; what comes of it stands in the history below.",
    "decided": "The rule is entered; it holds from the day that it names.",
    "committed": "It is committed.",
    "correction-asked": "The day is sealed once more, within seconds.",
    "name-kept": "Your name is kept.",
    "kind-made": "The kind is there. Offer a version of it, and roll it out.",
    "kind-changed": "It is kept. Managers whose orders it changes hear of it with their next beat.",
    "version-made": "The version is offered. What managers report of it appears in the table.",
    "rolled-out": "Managers hear of it with their next beat; who runs what appears in the table.",
    "restarted": "The restart is ordered: the manager hears of it with its next beat, and it costs nothing.",
    "key-revoked": "The key is revoked: it is refused everywhere within a second.",
}


def state_words(word: str | None) -> str:
    """A state or a kind of time as people read it."""
    return "not known now" if not word else KINDS.get(word, word.replace("_", " "))


def event_words(kind: str) -> str:
    return EVENTS.get(kind, kind)


def told(word: str | None) -> str:
    """What is said above a page after a form; nothing for a word that is none."""
    return TOLD.get(word or "", "")
