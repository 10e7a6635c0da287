"""A simulated fleet: nodes that beat by the real client, fail, are updated, stop and return.

What each does next comes from one seeded generator; when it happens depends on the machine, so this is a show
and no test of the engine (tests/sim is). What NodePulse makes of it is the demo's to ask.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import trio

from node.calls import StateName
from node.client import NodeClient, NodeEvent
from np1.effects import Credited

Doing = Literal["beating", "silent", "stopped"]
STOP_S = 1.0


class Temper(NamedTuple):
    """How long a machine beats and is away, in intervals; `stops`: how often it does so in order, 0 to 1."""

    beats: tuple[float, float]
    away: tuple[float, float]
    stops: float


# Seldom enough that a machine is told of each time, and not as one that goes down and up all the time.
CALM = Temper(beats=(30, 600), away=(4, 20), stops=0.2)
RESTLESS = Temper(beats=(6, 20), away=(5, 10), stops=0.0)  # falls, and is back before one looks away


class Machine:
    """One machine of the fleet, with its manager (the client) and its workloads."""

    def __init__(
        self,
        described: dict[str, Any],
        *,
        url: str,
        interval_ms: int,
        rng: random.Random,
        temper: Temper = CALM,
    ) -> None:
        self.node_id: str = described["node_id"]
        self.doing: Doing = "stopped"
        self.beats = 0
        self._workloads: list[str] = described["workloads"]
        self._private_key: str = described["private_key"]
        self._url = url
        self._interval_s = interval_ms / 1000
        self._rng = rng
        self._temper = temper

    async def live(self) -> None:
        """Beat and misbehave until cancelled."""
        while True:
            stops = self._rng.random() < self._temper.stops
            await self._beat_for(self._interval_s * self._rng.uniform(*self._temper.beats), stops=stops)
            self.doing = "stopped" if stops else "silent"
            await trio.sleep(self._interval_s * self._rng.uniform(*self._temper.away))
            self._temper = CALM

    async def _beat_for(self, seconds: float, *, stops: bool) -> None:
        """One life of the manager: it ends by falling silent, or by a planned stop."""
        client = NodeClient(
            self._url,
            node_id=self.node_id,
            private_key=self._private_key,
            manager_version="demo/1",
            on_event=self._count,
            first_within_ms=round(self._interval_s * 1000),
            rng=random.Random(self._rng.random()),
        )
        client.set_states(dict.fromkeys(self._workloads, "healthy"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            self.doing = "beating"
            nursery.start_soon(self._change_health, client)
            await trio.sleep(seconds)
            if stops:
                await client.stop(timeout_s=STOP_S)
            nursery.cancel_scope.cancel()

    async def _change_health(self, client: NodeClient) -> None:
        while True:
            await trio.sleep(self._interval_s * self._rng.uniform(5, 60))
            states: dict[str, StateName] = dict.fromkeys(self._workloads, "healthy")
            if self._rng.random() < 0.5 and states:
                states[self._rng.choice(self._workloads)] = self._rng.choice(("unhealthy", "updating"))
            client.set_states(states)

    def _count(self, event: NodeEvent) -> None:
        if isinstance(event, Credited):
            self.beats += 1


class Fleet:
    """All machines together; the first ones are `restless` once."""

    def __init__(
        self,
        nodes: Sequence[dict[str, Any]],
        *,
        url: str,
        interval_ms: int,
        seed: int,
        restless: int = 0,
    ) -> None:
        rng = random.Random(seed)
        self.machines = [
            Machine(
                node,
                url=url,
                interval_ms=interval_ms,
                rng=random.Random(rng.random()),
                temper=RESTLESS if number < restless else CALM,
            )
            for number, node in enumerate(nodes)
        ]
        self._interval_s = interval_ms / 1000

    async def run(self) -> None:
        """Switch the machines on, spread over a few intervals, and let them live until cancelled."""
        async with trio.open_nursery() as nursery:
            for machine in self.machines:
                nursery.start_soon(machine.live)
                await trio.sleep(3 * self._interval_s / len(self.machines))

    def statistics(self) -> dict[str, int]:
        """Machines by what they do, and beats credited."""
        doing = Counter(machine.doing for machine in self.machines)
        return {
            **{str(name): count for name, count in doing.items()},
            "beats": sum(machine.beats for machine in self.machines),
        }
