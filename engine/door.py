"""The door: what those who take beats in (UDP, the HTTP listener, the forwarder) ask of a shard.

Everything here is a plain call on the one thread that the host loop and trio share (DESIGN.md, decision 1):
a caller hands beats in with a callback and is called back exactly once, when the beat is decided: later, or
(when it is refused at once) before the call returns. What stands behind the door is not told here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

GONE = -1  # in `PlainAnswer.code`: the generation is unknown, revoked or expired


class PlainBeat(NamedTuple):
    """A beat without seq: JSON, ping or push. It is ordered by `t_ms` and leaves the last seq alone."""

    row: int
    generation: int  # of the session (JSON) or of the capability (ping, push)
    capability: bool  # which of the two `generation` is
    flags: int  # FLAG_STOPPING or 0
    plane0: int
    plane1: int
    t_ms: int  # receive time: when the last byte of the body was read
    unknown_ids: bool  # answered with code RESYNC when nothing above it applies
    source: int = 0  # where it came from (clones.source_of), if a key of the node's was shown; 0: not known


class PlainAnswer(NamedTuple):
    """What became of a plain beat. `code` is one of np1's or GONE; a crediting code means durable."""

    code: int
    next_ms: int
    ttl_ms: int
    server_ms: int


class Door(Protocol):
    """One shard, as seen from those who bring it beats."""

    def now_ms(self) -> int:
        """The server's clock, unix milliseconds."""
        ...

    def owns(self, row: int) -> bool:
        """Whether this shard judges the row."""
        ...

    def shards(self) -> int:
        """How many shards there are; a row belongs to shard ``row % shards``."""
        ...

    def submit_frames(
        self, frames: bytes, t_ms: int, reply: Callable[[bytes], None], *, source: int = 0
    ) -> None:
        """Take n frames (n * 48 bytes) of rows this shard owns. `source`: as in PlainBeat.

        `reply` gets n * 48 bytes in the same order once all are decided; a frame that UDP would drop in
        silence gets 48 zero bytes.
        """
        ...

    def submit_plain(self, beat: PlainBeat, reply: Callable[[PlainAnswer], None]) -> None:
        """Take one beat without seq of a row this shard owns."""
        ...

    def refuse_token(self, row: int, t_ms: int) -> None:
        """Count a beat that came under a token of ours which is no longer good: the row is this shard's."""
        ...

    def session_slots(self, row: int, generation: int) -> dict[str, int] | None:
        """Workload id -> slot of that generation's frozen map; None: not a live generation."""
        ...

    def capability_live(self, row: int, generation: int) -> bool:
        """Whether this is the row's capability generation now: for `/ping/<uuid>/log`, which is no beat."""
        ...
