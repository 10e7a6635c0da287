"""A desk for the notifier's decisions in memory: people, channels and a clock, and what each channel is told.

The pure step over a state that is kept as a whole: no store, no task. Times are minutes after a Monday noon.
"""

from __future__ import annotations

from engine.core.news import Notice
from engine.core.newsroom import Facts, NodeFacts, Policy, Recipient, State
from engine.core.records import Event, event_id
from storage.memory_newsroom import due_of, gather_of
from worker.deciding.step import step

NOON = 1_789_992_000_000  # Monday 2026-09-21 12:00 UTC
MINUTE = 60_000
PROJECT = "project"
ANN, BOB, OPS = "ann", "bob", "ops"  # owners of nodes; an operator of the installation


def person(name: str = ANN, **more) -> Recipient:
    return Recipient(channel_id=f"{name}-mail", user_id=name, **more)


def project(**more) -> Recipient:
    return Recipient(channel_id="project-hook", project_id=PROJECT, **more)


def operator(**more) -> Recipient:
    return person(OPS, operator=True, **more)


def at(minutes: float) -> int:
    return NOON + round(minutes * MINUTE)


class Desk:
    """Recipients, nodes and time; `told` is what went to whom, in order."""

    def __init__(self, *recipients: Recipient, policy: Policy | None = None, limit: int = 1_000) -> None:
        self.recipients = {one.channel_id: one for one in recipients}
        self.policy = policy or Policy()
        self.limit = limit
        self.state = State()
        self.nodes: dict[str, NodeFacts] = {}
        self.windows: dict[str, tuple[int, int]] = {}
        self.totals: dict[str, int] = {}
        self.recorded: list[Event] = []
        self.notices: list[tuple[float, str, Notice]] = []  # minute, channel, notice
        self.dropped: dict[str, int] = {}

    def node(self, name: str, owner: str | None = ANN, *, region: str = "") -> None:
        self.nodes[name] = NodeFacts(owner_id=owner, region=region)

    def event(self, kind: str, subject: str, minute: float, *, shard: int = 0, **more) -> Event:
        """`subject`: a node, `node/workload`, or empty."""
        node, _, workload = subject.partition("/")
        if node and node not in self.nodes:
            self.node(node)
        fields = {
            "event_id": event_id(kind, f"{subject}:{shard}", at(minute)),
            "kind": kind,
            "shard": shard,
            "project_id": PROJECT if node else None,
            "node_id": node or None,
            "workload_id": workload or None,
            "since_ms": at(minute),
            "at_ms": at(minute),
        }
        return Event(**fields | more)

    def happen(self, *events: Event) -> None:
        """Events are read; time stands at the newest of them."""
        self._step(events, max(event.at_ms for event in events))

    def pass_until(self, minute: float) -> None:
        """Time passes: every timer on the way is met when it is due."""
        while (due_ms := self._next_due_ms()) is not None and due_ms <= at(minute):
            self._step((), due_ms)
        self._step((), at(minute))

    def play(self, *story: tuple[float, str, str]) -> None:
        """(minute, kind, subject), in order."""
        for minute, kind, subject in story:
            self.pass_until(minute)
            self.happen(self.event(kind, subject, minute))

    @property
    def told(self) -> list[tuple[float, str, str, int]]:
        """(minute, channel, form or kind, how many events): collecting takes 200 ms, which is not shown."""
        return [
            (
                minute,
                channel,
                notice.kind if notice.form == "event" else f"{notice.form} {notice.kind}",
                notice.count,
            )
            for minute, channel, notice in self.notices
        ]

    def _next_due_ms(self) -> int | None:
        items = [item.due_ms for item in self.state.items.values() if item.due_ms is not None]
        subjects = [each.due_ms for each in self.state.subjects.values()]
        return min(items + subjects, default=None)

    def _step(self, events: tuple[Event, ...], now_ms: int) -> None:
        """One step, and those that go on with a digest under way; nothing else is due again at once."""
        while True:
            decision = step(self.state, self._facts(events, now_ms), self.policy)
            self.state, events = decision.state, ()
            self.recorded += decision.recorded
            self.notices += [
                (round((now_ms - NOON) / MINUTE, 1), channel, notice) for notice, channel in decision.notices
            ]
            for reason, count in decision.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + count
            if not decision.state.telling and not decision.recorded:
                return
            events = tuple(decision.recorded)  # as they come back by the cursor

    def _facts(self, events: tuple[Event, ...], now_ms: int) -> Facts:
        return Facts(
            as_of_ms=now_ms,
            events=events,
            nodes=self.nodes,
            owners={PROJECT: (BOB,)},
            recipients=self.recipients,
            windows={name: end for name, (start, end) in self.windows.items() if start <= now_ms < end},
            totals=self.totals,
            due=due_of(self.state, now_ms),
            gather=gather_of(self.state, self.recipients, self.policy, now_ms),
        )
