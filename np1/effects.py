"""What the client's state machine asks its shell to do, and what it tells it (np1/client.py returns these).

All frozen. Times named `at_ms` in an order to the shell are on the shell's own monotonic clock; those in a
record of a beat are estimated server time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from np1.codec import Ack
from np1.session import BackfillBeat


class Path(StrEnum):
    """Which way frames travel now."""

    UDP = "udp"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class SendUdp:
    """Send the frame as one datagram to `endpoint` ("host:port"). A failure to send needs no report."""

    frame: bytes
    endpoint: str
    seq: int
    generation: int


@dataclass(frozen=True, slots=True)
class SendHttp:
    """POST the body to ``{endpoint}/v1/beats`` and hand the reply to `BeatClient.on_http_reply`."""

    body: bytes
    endpoint: str
    seq: int
    generation: int


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session now (the jitter has passed); report by `on_session` or `on_session_refused`.

    `sent_at_ms` is what the request shall name as its time, unix ms.
    """

    sent_at_ms: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `wake` at this moment, unless another call comes first and says otherwise. The last effect."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Credited:
    """A beat was recorded durably."""

    ack: Ack
    path: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """A valid ACK that credits nothing: STALE, CLOCK, MOVED or BUSY."""

    ack: Ack
    path: Path


@dataclass(frozen=True, slots=True)
class Unacknowledged:
    """A beat came to its end without being credited. It is kept for the backfill."""

    beat: BackfillBeat


@dataclass(frozen=True, slots=True)
class PathChanged:
    """From the next beat on frames travel another way."""

    path: Path


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session is in use. `unknown` are workloads that have a state but no slot, in name order."""

    row: int
    generation: int
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The STOPPING beat was credited, or its tries are over. No further effect will come."""

    credited: bool


Effect = (
    SendUdp
    | SendHttp
    | OpenSession
    | Wake
    | Credited
    | Refused
    | Unacknowledged
    | PathChanged
    | SessionOpened
    | Stopped
)
