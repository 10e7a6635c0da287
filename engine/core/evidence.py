"""What was not credited, and why: beats refused per node and UTC day, by reason.

Here: the reasons with their sentences, and the port, which also
reads what else bears on a workload's day. Counting is engine/refusals.py's, causes are why.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from engine.core.ports import WorkloadRecord
from engine.core.records import Event
from engine.core.why import Session

EVENTS_MAX = 2_000  # read back from a day's end, of a node and one workload of it; older ones are not named
SESSIONS_MAX = 2_000

Reason = Literal["stale", "clock", "busy", "token", "session", "mac"]
REASONS: tuple[Reason, ...] = ("stale", "clock", "busy", "token", "session", "mac")
# Anybody can send such datagrams in anybody's name: a hint to the operator, and no evidence.
UNTRUSTED: frozenset[Reason] = frozenset({"session", "mac"})

# What each reason means to the operator of the node, and what to do about it.
ADVICE: dict[Reason, str] = {
    "stale": "Their sequence numbers were not above the last accepted one: a replay, a restored backup, or a "
    "second machine that beats with the same key. Stop the other machine, or open a new session.",
    "clock": "The time in their sequence numbers was more than 90 s off the server's. Set the clock of the "
    "machine (NTP), or let the manager take the time that every reply tells.",
    "busy": "We could not record them, and said so: the fault is ours. What was sent again was credited, and "
    "what was lost lies in a gap of ours. There is nothing to do.",
    "token": "They came over HTTP with a token or a ping address of this node that was good once: it had "
    "expired, or its session was ended or replaced. Open a new session, and use the newest token only.",
    "session": "They named a session of this node that is not honoured: it has expired, or was replaced or "
    "revoked. Open a new session. Anybody can send such datagrams, so this counts against nobody.",
    "mac": "They named this node and a session that is honoured, but their tag was wrong. Anybody can send "
    "such datagrams, so this counts against nobody; if your manager gets no replies, open a new session.",
}


class Owned(msgspec.Struct, frozen=True):
    """Who owned a licence that the workload ran under, within the range asked for."""

    licence_id: str
    owner: str  # a wallet, lower case
    from_ms: int
    to_ms: int


class SealMark(msgspec.Struct, frozen=True):
    """The newest seal of the day."""

    revision: int
    reason: str
    sealed_ms: int


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around a workload's day besides the records of `History.recorded`."""

    events: list[Event]
    sessions: list[Session]
    owned: list[Owned]
    refused: dict[str, int]  # of its node, by reason
    sealed: SealMark | None


class Evidence(Protocol):
    """What was refused, and what else bears on a day, as it is read."""

    async def surroundings(self, workload: WorkloadRecord, day: str) -> Surroundings:
        """Of that UTC day (YYYY-MM-DD), as of one moment.

        At most EVENTS_MAX events and SESSIONS_MAX sessions, the last before the day's end: events from before
        the day are among them.
        """
        ...

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        """See `History.refused_during`."""
        ...
