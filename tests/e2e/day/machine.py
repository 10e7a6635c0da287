"""A node of the story, and the log of all it sent that was acknowledged: what an outside party knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from np1.codec import FLAG_STOPPING, Ack, Code, State, planes
from tests.e2e.api import Api, now_ms, rfc3339
from tests.e2e.node import Node
from tests.e2e.stranger.backfill import ORDER, backfill_body, claim
from tests.sim.history import Claim, Frame

CREDITING = {Code.OK, Code.EARLY, Code.RESYNC, Code.REKEY, Code.STANDBY}


@dataclass
class Machine:
    """Beats by UDP, hands in what it missed, and remembers both."""

    name: str
    made: dict[str, Any]
    api: Api
    ahead_ms: int
    frames: list[Frame] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    codes: list[tuple[int, Code]] = field(default_factory=list)  # (t, code)

    def __post_init__(self) -> None:
        self.node = Node(self.api, self.made, ahead_ms=self.ahead_ms)
        self.node_id: str = self.made["node_id"]
        self.workload_id: str = self.made["workloads"][0]
        self.row = self.node.grant.row

    def now_ms(self) -> int:
        """The installation's clock, as well as this machine knows it."""
        return now_ms() + self.ahead_ms

    def beat(self, state: State = State.HEALTHY, *, stopping: bool = False) -> Ack:
        ack = self.node.beat({0: state}, flags=FLAG_STOPPING if stopping else 0)
        assert ack.code in CREDITING, ack
        plane0, plane1 = planes({0: state})
        self.codes.append((ack.server_ms, Code(ack.code)))
        self.frames.append(
            Frame(
                frame_id=len(self.frames),
                row=self.row,
                t_ms=ack.server_ms,
                via="udp",
                generation=self.node.grant.generation,
                seq=ack.seq,
                plane0=plane0,
                plane1=plane1,
                ttl_ms=self.node.grant.ttl_ms if stopping else ack.ttl_ms,
                stopping=stopping,
            )
        )
        return ack

    def miss(self, state: State = State.HEALTHY) -> None:
        """A beat that nobody took: to be handed in later."""
        plane0, plane1 = planes({0: state})
        generation = self.node.grant.generation
        self.claims.append(Claim(at_ms=self.now_ms(), generation=generation, plane0=plane0, plane1=plane1))

    def hand_in(self) -> Mapping[str, Any]:
        """The backfill of what was missed; what the server answered."""
        beats = [claim(one.at_ms, {0: one.plane0 + 2 * one.plane1}, one.generation) for one in self.claims]
        body = backfill_body(self.made, beats, order=ORDER, sent_at=rfc3339(self.now_ms()))
        headers = {"content-type": "application/json"}
        reply = self.api.request("POST", "/v1/beats/backfill", body=body, headers=headers)
        assert reply.status == 200, reply
        answer: Mapping[str, Any] = reply.json
        return answer

    def close(self) -> None:
        self.node.close()
