"""Many nodes and workloads of the live view at once, as arrays: for bulk uptime, lists, summaries and seals.

What single reads ask of the view, web/reading.py asks. What an instant counts as is not known here: `heard`
says what beats alone say of now.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import trio

from engine.core.coverage import OPEN_END
from engine.core.liveview import LivePage
from engine.core.ports import LiveView, StoreUnavailableError
from engine.core.records import BASE_KINDS, BASE_NONE, BASE_STOPPED, NODE_STATES, Gap

HISTORY_TOLD_MS = 1_000  # with nothing to write, history's own watermark is told this often
ANSWER_S_MAX = 2.5  # a view that answers later than this is away
# What beats alone say of a workload now: never reported, or the kind of its base row.
HEARD: tuple[str, ...] = ("new", "up", "unhealthy", "updating", "stopped", "silent")
_OF_KIND = np.array([HEARD.index(kind) for kind in BASE_KINDS])


class Seen(NamedTuple):
    """What the view says of n workloads: arrays of shape (n,), unix ms, 0 for what it does not know."""

    known: np.ndarray  # the shard's header could be read: else nothing else is known
    as_of_ms: np.ndarray
    node_state: np.ndarray  # index in NODE_STATES; `new` for a node never heard of
    kind: np.ndarray  # of the open row; BASE_NONE: there is none
    ttl_ms: np.ndarray
    started_ms: np.ndarray
    ended_ms: np.ndarray  # of its coverage
    first_report_ms: np.ndarray
    settled_ms: np.ndarray  # with history's watermark here, it has every row that the view does not show

    @property
    def heard(self) -> np.ndarray:
        """What beats alone say of each now: index in HEARD. Of one that is not known: nothing."""
        kind = np.where(self.ended_ms > self.as_of_ms, self.kind, BASE_NONE)
        return np.where(self.first_report_ms == 0, HEARD.index("new"), _OF_KIND[kind])


async def look(live: LiveView, shards: int, row: np.ndarray, slot: np.ndarray) -> tuple[Seen, dict[int, Gap]]:
    """These slots of these rows, and by shard the gaps that have begun and are not decided.

    One atomic read per shard; a shard whose view is away is not known.
    """
    seen = Seen(np.zeros(len(row), bool), *(np.zeros(len(row), np.int64) for _ in Seen._fields[1:]))
    undecided: dict[int, Gap] = {}
    for shard in np.unique(row % shards).tolist():
        mine = np.flatnonzero(row % shards == shard)
        indices, place = np.unique(row[mine] // shards, return_inverse=True)
        page = await _page(live, shards, shard, indices.tolist())
        if page is None or page.head.watermark_ms <= 0:
            continue
        _fill(seen, mine, page, place, slot[mine])
        if page.head.provisional_from_ms is not None:
            began_ms = page.head.provisional_from_ms
            undecided[shard] = Gap(shard, began_ms, OPEN_END, "degraded", page.head.shards)
    return seen, undecided


async def _page(live: LiveView, shards: int, shard: int, indices: list[int]) -> LivePage | None:
    with trio.move_on_after(ANSWER_S_MAX):
        try:
            return await live.read_page(shard, indices, shards=shards)
        except StoreUnavailableError:
            return None
    return None


def _fill(seen: Seen, mine: np.ndarray, page: LivePage, place: np.ndarray, slot: np.ndarray) -> None:
    """Put a page of the view into the arrays. `place`: of each workload of `mine` its row in the page."""
    seen.known[mine] = True
    seen.as_of_ms[mine] = page.head.watermark_ms
    heard: np.ndarray = np.asarray(page.rows.view(np.uint8).reshape(len(page.rows), -1).any(axis=1))
    states = np.where(heard, page.rows["state"], NODE_STATES.index("new"))
    seen.node_state[mine] = states[place]
    there = np.flatnonzero(heard[place] & (slot < page.rows["slot_count"][place]))
    mine, row = mine[there], page.rows[place[there]]
    record = page.slots[page.first_slot[place[there]] + slot[there]]
    names = ("ttl_ms", "started_ms", "first_report_ms")
    ttl, started, first = (record[name].astype(np.int64) for name in names)
    last = np.where(record["own_t_ms"] != 0, record["own_t_ms"], row["last_t_ms"])
    closed = record["kind"] == BASE_NONE
    # As web/reading.py: a slot of which its node has stopped to speak may seem to lapse in the future.
    lapsed = last + np.maximum(ttl, row["ttl_ms"]) + 1
    settled = np.where(closed, np.minimum(lapsed, page.head.watermark_ms - HISTORY_TOLD_MS), started)
    seen.settled_ms[mine] = np.where(closed & (first == 0), 0, settled)
    seen.first_report_ms[mine] = first
    ended = np.where(record["kind"] == BASE_STOPPED, OPEN_END, last + ttl)
    opened = ~closed & (ended > started)
    seen.kind[mine] = np.where(opened, record["kind"], BASE_NONE)
    seen.started_ms[mine], seen.ended_ms[mine], seen.ttl_ms[mine] = started, ended, ttl
