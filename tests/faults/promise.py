"""What LIVENESS.md promises of acknowledged beats, held against the answers of the API.

The one law: for a run not on standby, time vouched for by acknowledged beats is in the answer. It is checked
from the ACK log alone, to the millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.e2e.api import Api, Uptime
from tests.e2e.load import KIND_OF, SAYS, Load

Span = tuple[int, int]


def vouched(t_ms: np.ndarray[Any, Any], ttl_ms: int) -> list[Span]:
    """The union of [t, t + ttl) over beats that all say the same and hold equally long."""
    if not len(t_ms):
        return []
    t = np.sort(t_ms)
    breaks = np.flatnonzero(t[1:] - t[:-1] > ttl_ms)
    starts = np.concatenate([t[:1], t[breaks + 1]])
    ends = np.concatenate([t[breaks], t[-1:]]) + ttl_ms
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def missing(wanted: Sequence[Span], found: Sequence[Span], *, until_ms: int) -> list[Span]:
    """The parts of `wanted` before `until_ms` that no span of `found` covers. Both ascending and disjoint."""
    left: list[Span] = []
    for start, end in wanted:
        at, end = start, min(end, until_ms)
        for found_start, found_end in found:
            if found_end <= at:
                continue
            if found_start >= end:
                break
            if found_start > at:
                left.append((at, found_start))
            at = max(at, found_end)
        if at < end:
            left.append((at, end))
    return left


def answers(api: Api, load: Load, *, to_ms: int, at_once: int = 6) -> Iterator[tuple[int, int, Uptime]]:
    """(node, slot, uptime of its whole life up to `to_ms`) of every workload; each sums to its window."""
    wanted = [
        (node, slot, workload)
        for node, made in enumerate(load.nodes)
        for slot, workload in enumerate(made["workloads"])
    ]

    def ask(one: tuple[int, int, str]) -> tuple[int, int, Uptime]:
        node, slot, workload = one
        answer = api.uptime(workload, 0, to_ms)
        answer.check_sum()
        return node, slot, answer

    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(ask, wanted)


def check_acknowledged(api: Api, load: Load, *, to_ms: int) -> int:
    """Every acknowledged beat is in the answer; how many ms of workload time were vouched for and found.

    And nobody is punished for our faults: from its first acknowledged beat to the end of what its last one
    vouched for no workload is `silent`. (The nodes of a load beat all the time, until they stop for good.)
    """
    credited = load.credited()
    ttls = set(credited["ttl_ms"].tolist())
    assert len(ttls) == 1, f"this check needs beats that hold equally long: {ttls}"
    ttl_ms = ttls.pop()
    by_node = [vouched(credited["t_ms"][credited["node"] == node], ttl_ms) for node in range(len(load.nodes))]
    lost: dict[tuple[int, int], list[Span]] = {}
    punished: dict[tuple[int, int], list[Span]] = {}
    total = 0
    for node, slot, answer in answers(api, load, to_ms=to_ms):
        assert answer.as_of >= to_ms, answer.raw
        wanted = by_node[node]
        if gone := missing(wanted, answer.of(KIND_OF[SAYS[slot % len(SAYS)]]), until_ms=to_ms):
            lost[node, slot] = gone
        total += sum(min(end, to_ms) - start for start, end in wanted if start < to_ms)
        if wanted:
            life = wanted[0][0], min(wanted[-1][1], to_ms)
            if silent := [one for one in answer.of("silent") if one[0] < life[1] and life[0] < one[1]]:
                punished[node, slot] = silent
    assert lost == {}, f"{len(lost)} workloads lost acknowledged time"
    assert punished == {}, f"{len(punished)} workloads are punished for our faults"
    return total
