"""What an engine did with a `History`: its answers, rows, verdicts and events, as the checker reads them.

Plain frozen dataclasses, standard library only. A field that is None was not looked at and is not judged.
Kinds of intervals are the words of LIVENESS.md 2, states those of section 4 in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KINDS = (
    "standby",
    "up",
    "claimed_up",
    "maintenance",
    "updating",
    "claimed_updating",
    "claimed_unhealthy",
    "unhealthy",
    "stopped",
    "unobserved",
    "maintenance_own",
    "silent",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A reply that left the engine. For JSON `code` is the number of the word answered; for a ping any
    crediting code will do. `server_ms`, `ttl_ms`, `next_ms` are None where the reply has no such field."""

    code: int
    server_ms: int | None = None
    ttl_ms: int | None = None
    next_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRow:
    """A base interval that was written: kind up | updating | unhealthy | stopped. The ttl of stopped is not
    looked at."""

    workload_id: str
    kind: str
    started_ms: int
    ended_ms: int
    ttl_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRow:
    """A base interval that still lives in the table. `last_t_ms`: the last beat that spoke of the slot."""

    workload_id: str
    kind: str
    started_ms: int
    last_t_ms: int
    ttl_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `compose` answered to (workload, from, to) at `as_of_ms`.

    `from_ms` and `to_ms` are as asked, not as cut. `upto`: the answer was computed from the first so many
    records of the history; None = from all of them. `intervals` are (kind, started, ended), `ms` by kind.
    """

    workload_id: str
    from_ms: int
    to_ms: int
    as_of_ms: int
    ms: Mapping[str, int]
    intervals: tuple[tuple[str, int, int], ...] | None = None
    provisional: bool | None = None
    upto: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """node.down | node.up | node.stopped | workload.down | workload.up; other kinds are passed over.
    `workload_id` is None for node events; `workloads` is judged for node.down only."""

    event_id: str
    kind: str
    project_id: str
    node_id: str
    workload_id: str | None
    since_ms: int
    at_ms: int
    workloads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The row's state became `state`, judged at `at_ms`."""

    row: int
    state: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything seen of one engine. `acks` and `credited` go by `Frame.frame_id`; a frame without an ack was
    met with silence; `credited` are the frames that the journal holds as accepted beats."""

    acks: Mapping[int, Ack]
    credited: frozenset[int]
    base_rows: tuple[BaseRow, ...] = ()
    open_rows: tuple[OpenRow, ...] | None = None
    answers: tuple[Answer, ...] = ()
    events: tuple[Event, ...] | None = None
    verdicts: tuple[Verdict, ...] | None = None
    first_reports: Mapping[str, int] | None = None
