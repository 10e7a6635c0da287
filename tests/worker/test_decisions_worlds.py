"""Whatever falls and returns, in whatever order: what the notifier's decisions keep to.

A model of what each channel was told stands beside the decisions and judges them after every step.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.newsroom import RISE_GATHER_MS, Policy
from tests.worker.newsdesk import ANN, BOB, MINUTE, PROJECT, Desk, at, person, project
from worker.deciding.flapping import QUIET_MS

NODES = ("a", "b", "c", "d")
DELAYS_S = {"ann-mail": 0, "bob-mail": 300, "project-hook": 120}
SLACK_MS = 60_000  # of gates that ask again


class Worlds(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.desk = Desk(
            person(down_delay_s=DELAYS_S["ann-mail"]),
            person(BOB, down_delay_s=DELAYS_S["bob-mail"]),
            project(),
            policy=Policy(project_delay_ms=DELAYS_S["project-hook"] * 1000),
        )
        for number, node in enumerate(NODES):
            self.desk.node(node, (ANN, BOB)[number % 2])
        self.minute = 0.0
        self.down: dict[str, float] = {}  # node -> since which minute
        self.judged = 0  # notices that were looked at
        self.believed: dict[tuple[str, str], str] = {}  # (channel, node) -> the event it was told of
        self.told_falls: set[tuple[str, str]] = set()
        self.troubled: dict[str, float] = {}  # node -> the last minute that something else silenced it
        self.degraded, self.doubted = False, 0.0  # the shard, and when it last was

    @rule(node=st.sampled_from(NODES))
    def change(self, node: str) -> None:
        """A node falls, or returns; verdicts of a shard in doubt are not given."""
        if self.degraded and node not in self.down:
            return
        self._tick(0.01)
        kind = "node.up" if node in self.down else "node.down"
        self.desk.happen(self.desk.event(kind, node, self.minute))
        if self.down.pop(node, None) is None:
            self.down[node] = self.minute

    @rule(node=st.sampled_from(NODES), count=st.integers(2, 9))
    def flap(self, node: str, count: int) -> None:
        for _ in range(count):
            self.change(node)

    @rule(minutes=st.sampled_from((0.5, 1.5, 4, 7, 31, 90, 25 * 60)))
    def wait(self, minutes: float) -> None:
        self._tick(minutes)

    @rule(node=st.sampled_from(NODES), minutes=st.integers(1, 60))
    def maintain(self, node: str, minutes: int) -> None:
        self.desk.windows[node] = (at(self.minute), at(self.minute + minutes))
        self.troubled[node] = self.minute + minutes

    @rule()
    def doubt(self) -> None:
        self._tick(0.01)
        kind = "shard.recovered" if self.degraded else "shard.degraded"
        self.desk.happen(self.desk.event(kind, "", self.minute))
        self.degraded = not self.degraded

    @invariant()
    def keeps_its_promises(self) -> None:
        if not hasattr(self, "desk"):
            return
        for _, channel, notice in self.desk.notices[self.judged :]:
            for event in notice.events:
                key = (channel, event.node_id or "")
                match notice.form, event.kind:
                    case "reminder", _:
                        assert key in self.believed, "reminded of what was not told"
                    case _, "node.down":
                        assert (channel, event.event_id) not in self.told_falls, "a fall told twice"
                        assert key not in self.believed, "told of a fall on top of another"
                        self.told_falls.add((channel, event.event_id))
                        self.believed[key] = event.event_id
                    case _, "node.up":
                        assert self.believed.pop(key, None) is not None, "a return without a fall"
                    case _, "node.steady" if event.detail == "down":
                        self.believed[key] = event.event_id
                    case _, "node.steady":
                        self.believed.pop(key, None)
        self.judged = len(self.desk.notices)

    @invariant()
    def who_stays_down_is_told_of(self) -> None:
        if not hasattr(self, "desk") or self.degraded:
            return
        for node, since in self.down.items():
            subject = self.desk.state.subjects.get(node)
            if subject is not None and subject.flaps:
                continue
            for channel in ("project-hook", f"{self.desk.nodes[node].owner_id}-mail"):
                delay_ms = DELAYS_S[channel] * 1000
                # Held, gathered with others, and put off by what silenced it.
                free = max(since, self.troubled.get(node, 0), self.doubted, self._flapped(node))
                latest = free + (2 * delay_ms + RISE_GATHER_MS + SLACK_MS) / MINUTE
                assert self.minute < latest or (channel, node) in self.believed, "down and not told"

    def _tick(self, minutes: float) -> None:
        self.minute += minutes
        self.desk.pass_until(self.minute)
        if self.degraded:
            self.doubted = self.minute
            assert len(self.desk.notices) == self.judged, "told of a node of a shard in doubt"

    def _flapped(self, node: str) -> float:
        """When it was last found steady."""
        times = [event.at_ms for event in self.desk.recorded if event.node_id == node]
        return max(((each - at(0) + QUIET_MS) / MINUTE for each in times), default=0.0)


Worlds.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
TestWhateverFallsAndReturns = Worlds.TestCase


def test_the_model_knows_the_desk() -> None:
    assert Desk(project()).recipients["project-hook"].project_id == PROJECT
