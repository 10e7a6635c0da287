"""Two runs on one node key, seen by their taking turns (LIVENESS.md 5, its last sentence).

Pure. Who takes turns are source addresses of beats (engine/sources.py) or managers that open sessions
(storage/postgres_sessions.py). Evidence for people; nobody is punished for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from engine.core.records import Event, event_id

ALTERNATIONS = 3
WITHIN_MS = 600_000
SAME_CASE_MS = 3_600_000  # after the last one that counted: until then it is told already

W = TypeVar("W")


class Turns(NamedTuple, Generic[W]):
    """The turns of one node so far: `pair` took them at `at_ms` (the last ALTERNATIONS of them)."""

    pair: frozenset[W]
    at_ms: tuple[int, ...]
    told_until_ms: int = 0


def alternate(turns: Turns[W] | None, was: W, now: W, t_ms: int) -> tuple[Turns[W], int | None]:
    """`now` comes where `was` came before. The turns after that and, when there is a case to tell of that is
    not told already, since when: the first of the alternations.

    A, B, A, B are three alternations between two; a third one in between begins anew, so that a machine that
    wanders through many addresses is no clone.
    """
    pair = frozenset((was, now))
    before = turns.at_ms if turns is not None and turns.pair == pair else ()
    at_ms = (*before, t_ms)[-ALTERNATIONS:]
    told_until_ms = 0 if turns is None else turns.told_until_ms
    if len(at_ms) < ALTERNATIONS or t_ms - at_ms[0] > WITHIN_MS:
        return Turns(pair, at_ms, told_until_ms), None
    told = t_ms < told_until_ms
    return Turns(pair, at_ms, t_ms + SAME_CASE_MS), None if told else at_ms[0]


class Case(NamedTuple, Generic[W]):
    """Two that take turns. `since_ms`: the first alternation, to be told; 0: it is told already."""

    pair: frozenset[W]
    since_ms: int
    told_until_ms: int


def case_of(seen: Sequence[tuple[int, W]], told_until_ms: int) -> Case[W] | None:
    """Whether the last of those seen (time, who; in order of time) makes a case.

    For those who keep nothing but who was seen in the last WITHIN_MS, with the one before, and until when a
    case is told.
    """
    turns: Turns[W] | None = None
    for (_, was), (t_ms, now) in pairwise(seen):
        if was != now:
            turns, _ = alternate(turns, was, now, t_ms)
    if turns is None or turns.told_until_ms != seen[-1][0] + SAME_CASE_MS:
        return None  # the last one was no alternation, or not the third of ten minutes
    told = seen[-1][0] < told_until_ms
    return Case(turns.pair, 0 if told else turns.at_ms[0], turns.told_until_ms)


class Manager(NamedTuple):
    """Who opened a session: a client address, and the version that it said it has."""

    address: str
    version: str


def clone_of_managers(
    opened: Sequence[tuple[int, Manager]],
    told_until_ms: int,
    *,
    node_id: str,
    project_id: str,
    shard: int,
) -> tuple[Event | None, int]:
    """The event for the last session opened, if two managers take turns and it is not told already, and until
    when it now is told. `opened`: as in `case_of`; those without an address are passed over."""
    seen = [(t_ms, Manager(_comparable(who.address), who.version)) for t_ms, who in opened if who.address]
    case = case_of(seen, told_until_ms) if len(seen) > ALTERNATIONS else None
    if case is None:
        return None, told_until_ms
    if not case.since_ms:
        return None, case.told_until_ms
    first, second = (f"{who.address} (version {who.version})" for who in sorted(case.pair))
    event = Event(
        event_id=event_id("node.clone", node_id, case.since_ms),
        kind="node.clone",
        shard=shard,
        project_id=project_id,
        node_id=node_id,
        workload_id=None,
        since_ms=case.since_ms,
        at_ms=seen[-1][0],
        detail=f"two managers take turns at opening sessions: {first} and {second}",
    )
    return event, case.told_until_ms


def source_of(address: str) -> int:
    """An address as a number to compare: an IPv4 one itself, of an IPv6 one its network of 64 bits, in which
    one machine has as many addresses as it likes. 0: none that can be told apart."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return 0
    if isinstance(found, IPv4Address):
        return 0xFFFF << 32 | int(found)
    number = int(found)
    return number >> 64 or number & (1 << 64) - 1


def source_text(source: int) -> str:
    """What people read for a number of `source_of`."""
    if source >> 32 == 0xFFFF:
        return str(IPv4Address(source & 0xFFFFFFFF))
    if source < 1 << 32:
        return str(IPv6Address(source))
    return f"{IPv6Address(source << 64)}/64"


def _comparable(address: str) -> str:
    """Two addresses of one network are one, and its text stands for both."""
    source = source_of(address)
    return source_text(source) if source else address
