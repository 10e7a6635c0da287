"""The newsroom: what the notifier knows when it decides, what it decides, and the port that keeps both.

Records only. The decisions are pure functions (worker/deciding/); the store reads events by cursor and what
is due, asks them, and writes state, notices and cursor in one transaction (`Newsroom.decide`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import msgspec

from engine.core.news import Notice
from engine.core.records import Event

COLLECT_MS = 200  # what is told at once waits this long for its like: a crowd becomes one digest
RISE_GATHER_MS = 60_000  # returns within this time are one digest, for those who wait for falls, too
Lane = Literal["fall", "rise", "news", "reminder"]
Group: TypeAlias = tuple[str, bool]  # channel id; reminders, or everything else
ItemKey: TypeAlias = tuple[str, str]  # subject, channel id


def licence_of(event: Event) -> str | None:
    """The subject by which conflicts of licences are damped: the licence, or the run if none is named."""
    if event.kind != "licence.conflict":
        return None
    named, _, _ = event.detail.removeprefix("licence ").partition(" ")
    return f"licence:{named or event.workload_id}"


def news_of(kind: str, channel_id: str) -> str:
    """The subject under which is kept when a channel was told last of a kind of news."""
    return f"{kind} {channel_id}"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the installation sets. Times in milliseconds."""

    project_delay_ms: int = 300_000  # how long a project's channels wait for a return
    gather_ms_max: int = 300_000  # falls (within the delay, if that is shorter) and news are one digest
    area_nodes_min: int = 20  # falls of a region or an ingress within two minutes that operators hear of,
    area_percent_min: int = 15  # and their share of its nodes


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """A living channel, with what its owner has set. Exactly one of `project_id` and `user_id` is given."""

    channel_id: str
    project_id: str | None = None
    user_id: str | None = None
    event_kinds: tuple[str, ...] = ()
    operator: bool = False  # of the installation
    down_delay_s: int = 300
    quiet_from: str | None = None  # local time, HH:MM
    quiet_to: str | None = None
    time_zone: str = "UTC"

    def delay_ms(self, policy: Policy) -> int:
        """How long a fall is held."""
        return policy.project_delay_ms if self.project_id is not None else self.down_delay_s * 1000

    def gather_ms(self, policy: Policy, lane: Lane) -> int:
        """How long after the first of a digest others may join it."""
        if lane == "fall":
            return min(self.delay_ms(policy), policy.gather_ms_max)
        return min(self.delay_ms(policy), RISE_GATHER_MS) if lane == "rise" else 0


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be known of the node of an event. `gone`: revoked or retired."""

    owner_id: str | None = None
    region: str = ""
    gone: bool = False


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What one channel was told of one subject (`told`: a fall it believes in) and will be (`waits`).

    In `lane` since `held_ms`, until `due_ms`; a reminder waits with `waits` None. No lane: nothing waits.
    """

    told: Event | None = None
    waits: Event | None = None
    reminders: int = 0
    lane: Lane | None = None
    held_ms: int | None = None
    due_ms: int | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Times of the last changes of a node, a workload or a licence, the newest of them, and whether it flaps.
    Of a kind of news at a channel (`news_of`): when it was told last, or will be.

    `fell_ms`: of a node, its newest fall that areas count, in its bucket. `quiet`: how many changes were not
    told because it flaps.
    """

    changes: tuple[int, ...]
    last: Event
    flaps: bool = False
    fell_ms: int | None = None
    quiet: int = 0
    due_ms: int


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of a region or an ingress that fell: (start, count) of ten seconds each, a node where it fell
    last; `told_ms`: its last notice."""

    falls: tuple[tuple[int, int], ...] = ()
    told_ms: int | None = None
    due_ms: int


class Telling(msgspec.Struct, frozen=True):
    """A digest under way whose items did not fit one step: those due up to `upto_ms` are told in it."""

    notice_id: str
    upto_ms: int


class State(msgspec.Struct, kw_only=True):
    """All that is carried from step to step, as far as a step concerns it. A missing key: nothing yet."""

    items: dict[ItemKey, Item] = {}
    subjects: dict[str, Subject] = {}
    areas: dict[str, Area] = {}
    degraded: dict[int, int] = {}  # shard -> since
    telling: dict[Group, Telling] = {}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step looks at. Timers are judged as of `as_of_ms`: while more events wait to be read, that is
    the time of the newest that was."""

    as_of_ms: int
    events: tuple[Event, ...] = ()  # in cursor order
    nodes: dict[str, NodeFacts] = {}  # by node id, or by workload id where an event names no node
    owners: dict[str, tuple[str, ...]] = {}  # user ids by project id
    recipients: dict[str, Recipient] = {}  # by channel id
    unconfirmed: dict[str, Recipient] = {}  # who would hear of things, had they confirmed their channel
    windows: dict[str, int] = {}  # node or workload in maintenance -> the end of it
    totals: dict[str, int] = {}  # nodes by area
    due: dict[Group, int] = {}  # groups of which something is due, and how many besides what `items` holds
    gather: dict[tuple[str, Lane], int] = {}  # when the last is due of those that may join a digest


class Decision(msgspec.Struct, kw_only=True):
    """What follows: the state after, notices with the channel each goes to, and events to be recorded."""

    state: State
    notices: list[tuple[Notice, str]] = []
    recorded: list[Event] = []
    dropped: dict[str, int] = {}  # what is not told after all, by reason
    reminders: int = 0


Step: TypeAlias = Callable[[State, Facts, Policy], Decision]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What one step came to. `more`: go on at once; else nothing is due before `next_due_ms`."""

    cursor: int
    events: int
    lag_ms: int  # the age of the newest event read, when others wait behind it; else 0
    more: bool
    next_due_ms: int | None
    notices: int
    digests: int
    reminders: int
    dropped: dict[str, int]


class Waiting(msgspec.Struct, frozen=True):
    """How many things told later are held, and how many subjects flap."""

    held: int
    flapping: int


class Newsroom(Protocol):
    """The notifier's state, and its steps. Its lock is the outbox's."""

    async def decide(self, step: Step, *, policy: Policy, now_ms: int, limit: int) -> Decided:
        """Read at most `limit` events and due items, ask `step`, write what it decides: one transaction.

        Two that decide at once do so one after the other, each over what the other left.
        """
        ...

    async def waiting(self) -> Waiting: ...

    async def prune(self, *, now_ms: int, limit: int) -> int:
        """Forget what channels believe of nodes and workloads that are gone, and what channels that are gone
        believe; how many. What waits is left to the steps."""
        ...
