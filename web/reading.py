"""How a workload's time is put together from the live view and history, and why the seam does not show.

The open base row is in the live view, closed rows, gaps, leases, windows and claims are in history. Between
the two a row is on its way: closed in the table, gone from the view, not yet flushed. So:

1. wait (bounded) until the shard's watermark has passed the moment of asking: whoever has an ACK asks later
   than the beat's t, so the view that is read then knows that beat;
2. read the view **first**, history after. A row closed in between is then found twice, and history's is taken
   (same start, its end is final); read the other way round it could be found nowhere;
3. what the view no longer holds must be in history. The engine writes history before the view, and its
   watermark speaks for both (gaps included); that is not taken on trust alone: rows of a workload do not
   overlap, so once history's own watermark has reached the start of the open row (without one: has passed the
   end of the last coverage) no row is on its way. Wait for that (bounded), read rows and gaps only then.

When a bound runs out, or the view is away, the answer is older, never wrong: as_of falls back to the end of
the last closed row, up to which history alone is whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from engine.core.asks import Found
from engine.core.compose import OPEN_END, Composition, compose, needed_range
from engine.core.ports import StoreUnavailableError, WorkloadRecord
from engine.core.records import (
    BASE_NONE,
    BASE_STOPPED,
    BASE_UP,
    BaseInterval,
    Gap,
    LiveNode,
    LiveSlot,
    Recorded,
    ShardHead,
)
from storage.bulk_reading import MARGIN_MS, ROUNDS_MAX
from storage.view_arrays import HISTORY_TOLD_MS
from web.backend import Backend

HISTORY_POLL_S = 0.05
ASK_S_MAX = 0.5  # a shard that answers later than this is not waited for: the view is read


class Look(msgspec.Struct, frozen=True):
    """One row of the live view. `head` None: the view is away, or has not been rebuilt yet.

    `asked`: told by the shard itself, ahead of view and history. `gaps`: of the row, those that history may
    not have yet.
    """

    shard: int
    head: ShardHead | None
    node: LiveNode | None
    gaps: tuple[Gap, ...] = ()
    asked: bool = False


class Answer(msgspec.Struct, frozen=True):
    """A composition and what it was made with. `gaps`: the shard's, also those of `records`.

    `records`: its intervals include the open row; what has no say in the window may be missing.
    """

    composition: Composition
    gaps: tuple[Gap, ...]
    records: Recorded
    first_report: int | None


class Reader:
    """Reads for one request: all its waits together end at one deadline. Not `patient`: that is now."""

    def __init__(self, backend: Backend, *, patient: bool = True) -> None:
        self._backend = backend
        wait_ms = backend.settings.read_wait_ms_max if patient else 0
        self._deadline = trio.current_time() + wait_ms / 1000

    def now_ms(self, row: int) -> int:
        """The end of a window up to now: one past the shard's clock, so that this very instant is in it."""
        return self._backend.heads.now_ms(row % self._backend.shards) + 1

    async def look(self, row: int, *, up_to_ms: int) -> Look:
        """The row in the live view, once the view has everything up to `up_to_ms` or time is out.

        Up to now, the shard itself is asked first: the view is written too seldom to be waited for.
        """
        shard = row % self._backend.shards
        told = await self._ask([row], shard, up_to_ms)
        if told is not None:
            head, node = told.rows[row]
            gaps = tuple(gap for gap in told.gaps if row % gap.shards == gap.shard)
            return Look(shard=shard, head=head, node=node, gaps=gaps, asked=True)
        return await self._view(row, up_to_ms)

    async def _view(self, row: int, up_to_ms: int) -> Look:
        """The row in the live view, once that has everything up to `up_to_ms` or time is out."""
        shard = row % self._backend.shards
        await self._backend.heads.wait_watermark(shard, up_to_ms, timeout_s=self._left_s())
        found = None
        # More than what is left: a view that answers slowly is worth a moment, one that hangs is away.
        with trio.move_on_after(self._left_s() + 0.5):
            try:
                found = await self._backend.live.read(row, shards=self._backend.shards)
            except StoreUnavailableError:
                found = None
        if found is None or found[0].watermark_ms <= 0:
            return Look(shard=shard, head=None, node=None)
        return Look(shard=shard, head=found[0], node=found[1])

    async def _ask(self, rows: Sequence[int], shard: int, up_to_ms: int) -> Found | None:
        """Rows of one shard as they are now; None when the view has them already or nobody answers."""
        head = self._backend.heads.head(shard)
        if self._backend.asks is None or head is None or head.watermark_ms >= up_to_ms:
            return None
        return await self._backend.asks.ask(
            rows, shards=self._backend.shards, timeout_s=min(ASK_S_MAX, self._left_s())
        )

    async def look_many(self, rows: Sequence[int]) -> dict[int, LiveNode | None]:
        """Many rows in one read, without slots; left out: those of which the view can tell nothing now."""
        backend = self._backend
        for shard in sorted({row % backend.shards for row in rows}):
            await backend.heads.wait_watermark(shard, backend.heads.now_ms(shard), timeout_s=self._left_s())
        with trio.move_on_after(self._left_s() + 0.5):
            try:
                found = await backend.live.read_rows(rows, shards=backend.shards)
            except StoreUnavailableError:
                return {}
            return {row: node for row, (head, node) in found.items() if head.watermark_ms > 0}
        return {}

    async def uptime(self, workload: WorkloadRecord, look: Look, *, from_ms: int, to_ms: int) -> Answer:
        """What [from_ms, to_ms) was, as of the view's watermark or, failing that, earlier.

        StoreUnavailableError when history is away.
        """
        if look.asked and _just_closed(look, workload.slot):
            assert look.head is not None
            look = await self._view(workload.row, look.head.watermark_ms)
        if look.head is None:
            return await self._from_history(workload, look, from_ms, to_ms)
        slot = None if look.node is None else look.node.slots.get(workload.slot)
        open_row = _open_row(slot)
        as_of = look.head.watermark_ms
        if open_row is not None and _covers(open_row, max(from_ms, workload.created_ms), min(to_ms, as_of)):
            # The commonest question by far ("how is it now"), and no closed row or gap has a say in it.
            found = await self._beside(workload, open_row, (from_ms, to_ms))
            return _composed(workload, found, slot, as_of=as_of, window=(from_ms, to_ms))
        settled_ms = _settled_ms(look, slot, as_of)
        answer = await self._gather(
            workload, look, open_row, slot, as_of, (from_ms, to_ms), settled_ms=settled_ms
        )
        return answer or await self._from_history(workload, look, from_ms, to_ms)

    async def state(self, workload: WorkloadRecord, look: Look) -> tuple[str, int]:
        """(``new`` or a kind, as_of): what the last instant that can be told was."""
        slot = None if look.node is None else look.node.slots.get(workload.slot)
        as_of = self.now_ms(workload.row) if look.head is None else look.head.watermark_ms
        if _first_report(workload, slot) is None:
            return "new", as_of
        end_ms = min(as_of, workload.retired_ms or as_of)
        composition = (await self.uptime(workload, look, from_ms=end_ms - 1, to_ms=end_ms)).composition
        if composition.as_of < end_ms:  # an older answer: of its own last instant
            end_ms = composition.as_of
            composition = (await self.uptime(workload, look, from_ms=end_ms - 1, to_ms=end_ms)).composition
        kind = composition.intervals[-1][0] if composition.intervals else "silent"
        return kind, composition.as_of

    async def _from_history(self, workload: WorkloadRecord, look: Look, from_ms: int, to_ms: int) -> Answer:
        """The answer as of the last closed row's end: later than that an unseen row may be open."""
        last = await self._backend.history.intervals(workload.workload_id, OPEN_END - 1, OPEN_END)
        as_of = max([workload.created_ms, *(row.ended_ms for row in last if row.ended_ms < OPEN_END)])
        blind = Look(shard=look.shard, head=None, node=None)
        answer = await self._gather(workload, blind, None, None, as_of, (from_ms, to_ms), settled_ms=0)
        assert answer is not None, "history has passed the beginning of time"
        return answer

    async def _beside(
        self, workload: WorkloadRecord, open_row: BaseInterval, window: tuple[int, int]
    ) -> Recorded:
        """What else has a say where one open row covers the whole window."""
        history = self._backend.history
        if open_row.kind != BASE_UP:
            around = (window[0] - MARGIN_MS, window[1])
            found = await history.recorded(
                workload.workload_id, workload.row, shard=0, window=window, around=around
            )
            return msgspec.structs.replace(found, gaps=[], intervals=[open_row])
        # Over `up` neither a window nor a claim has a say.
        leases = await history.leases(workload.workload_id, *window) if workload.leased else []
        return Recorded(watermark_ms=0, gaps=[], intervals=[open_row], leases=leases, windows=[], claims=[])

    async def _gather(
        self,
        workload: WorkloadRecord,
        look: Look,
        open_row: BaseInterval | None,
        slot: LiveSlot | None,
        as_of: int,
        window: tuple[int, int],
        *,
        settled_ms: int,
    ) -> Answer | None:
        """Read rows and gaps as far around the window as they have a say in it, and compose.

        Once history has everything up to `settled_ms`; None: not in time.
        """
        from_ms, to_ms = window
        end_ms = max(from_ms, min(to_ms, as_of))
        low, high = from_ms - MARGIN_MS, end_ms + MARGIN_MS
        for _ in range(ROUNDS_MAX):
            found = await self._settled(workload, look.shard, window, (low, high), settled_ms)
            if found is None:
                return None
            told = [gap for gap in look.gaps if gap not in found.gaps]
            gaps = [*found.gaps, *(gap for gap in told if gap.from_ms < high and low < gap.to_ms)]
            gaps += _undecided(look)
            base = _with_open(found.intervals, open_row)
            need_low, need_high = needed_range(gaps, from_ms, end_ms, base=base)
            if low <= need_low and need_high <= high:
                break
            low, high = min(low, need_low), max(high, need_high)
        assert found is not None
        found = msgspec.structs.replace(found, gaps=gaps, intervals=base)
        return _composed(workload, found, slot, as_of=as_of, window=window)

    async def _settled(
        self,
        workload: WorkloadRecord,
        shard: int,
        window: tuple[int, int],
        around: tuple[int, int],
        settled_ms: int,
    ) -> Recorded | None:
        """What is recorded, once history's own watermark has reached `settled_ms`. None: not in time."""
        while True:
            found = await self._backend.history.recorded(
                workload.workload_id, workload.row, shard=shard, window=window, around=around
            )
            if found.watermark_ms >= settled_ms:
                return found
            if self._left_s() <= 0:
                return None
            await trio.sleep(min(HISTORY_POLL_S, self._left_s()))

    def _left_s(self) -> float:
        return max(0.0, self._deadline - trio.current_time())


def _composed(
    workload: WorkloadRecord,
    found: Recorded,
    slot: LiveSlot | None,
    *,
    as_of: int,
    window: tuple[int, int],
) -> Answer:
    composition = compose(
        base=found.intervals,
        gaps=found.gaps,
        leases=found.leases,
        maintenances=found.windows,
        claims=found.claims,
        life=(workload.created_ms, workload.retired_ms),
        first_report=_first_report(workload, slot),
        as_of=as_of,
        from_ms=window[0],
        to_ms=window[1],
    )
    return Answer(
        composition=composition,
        gaps=tuple(found.gaps),
        records=found,
        first_report=_first_report(workload, slot),
    )


def _just_closed(look: Look, slot_number: int) -> bool:
    """Whether the slot's last row may be on its way to history, with no telling when it will have arrived.

    The shard closed it at some moment before it was asked. The view tells that only after history has it.
    """
    slot = None if look.node is None else look.node.slots.get(slot_number)
    return slot is not None and slot.kind == BASE_NONE and slot.first_report_ms != 0


def _first_report(workload: WorkloadRecord, slot: LiveSlot | None) -> int | None:
    """From the registry once it was flushed there, else from the view."""
    if workload.first_report_ms is not None:
        return workload.first_report_ms
    return None if slot is None or slot.first_report_ms == 0 else slot.first_report_ms


def _open_row(slot: LiveSlot | None) -> BaseInterval | None:
    """The open row with the end of its coverage, not cut at any as_of."""
    if slot is None or slot.kind == BASE_NONE:
        return None
    end_ms = OPEN_END if slot.kind == BASE_STOPPED else slot.last_t_ms + slot.ttl_ms
    if end_ms <= slot.started_ms:
        return None
    return BaseInterval(kind=slot.kind, started_ms=slot.started_ms, ended_ms=end_ms, ttl_ms=slot.ttl_ms)


def _covers(row: BaseInterval, from_ms: int, to_ms: int) -> bool:
    return row.started_ms <= from_ms and to_ms <= row.ended_ms


def _settled_ms(look: Look, slot: LiveSlot | None, as_of: int) -> int:
    """With history's watermark here, it has every row of this slot that the view does not show."""
    if slot is None or look.node is None or (slot.first_report_ms == 0 and slot.kind == BASE_NONE):
        return 0
    if slot.kind != BASE_NONE:
        return slot.started_ms
    lapsed_ms = slot.last_t_ms + max(slot.ttl_ms, look.node.ttl_ms)
    # A slot of which its node has stopped to speak may seem to lapse only in the future.
    return min(lapsed_ms + 1, as_of - HISTORY_TOLD_MS)


def _with_open(closed: list[BaseInterval], open_row: BaseInterval | None) -> list[BaseInterval]:
    """Closed rows and the open one; where a row is both, the closed one's end is the final one."""
    if open_row is None or any(row.started_ms == open_row.started_ms for row in closed):
        return closed
    return sorted([*closed, open_row], key=lambda row: row.started_ms)


def _undecided(look: Look) -> list[Gap]:
    """A gap that the shard has begun and not decided: open towards the future."""
    if look.head is None or look.head.provisional_from_ms is None:
        return []
    began_ms = look.head.provisional_from_ms
    return [
        Gap(shard=look.shard, from_ms=began_ms, to_ms=OPEN_END, cause="degraded", shards=look.head.shards)
    ]
