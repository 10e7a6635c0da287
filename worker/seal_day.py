"""One seal: a project's day read page by page, composed, hashed and written, all of it or nothing.

The next page is read while one is hashed and written, so two pages are what is ever held. When a day may be
sealed is sealer.py's; how a page becomes rows seal_rows.py's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import numpy as np
import trio

from engine.core.bulk import Bulk, BulkItem
from engine.core.catalog import PolicyRecord, Projects
from engine.core.compose_many import Totals
from engine.core.evidence import Evidence
from engine.core.inventory import Inventory
from engine.core.leases import Leases
from engine.core.merkle import root_of
from engine.core.ports import LiveView
from engine.core.records import KINDS
from engine.core.sealed import DAY_TREE, HOURS, Seal, SealedRow, row_text
from engine.core.sealed_trees import DayTrees
from engine.core.sealing import Due, NotYetError, Sealing, Writing
from engine.core.uptime_source import HOUR_MS, UptimeSource, UptimeSourceError
from storage.bulk_datagram import read_datagram
from storage.bulk_reading import Asked, BulkReader
from storage.datagram import SETTLED_MS
from storage.seal_hours import encode_hours
from worker.seal_rows import Page, Spans, held_by, rows_of

PAGE_WORKLOADS = (
    2_000  # half a thousandth of a large seal, and all that the other parts ever wait for at once
)
LATE_POLL_S = 0.1
LATE_S_MAX = 30.0  # rows that are on their way into history for longer: something is wrong, look again later
AUTHOR = "system"  # who seals a day for the first time


class SealStores(msgspec.Struct, frozen=True, kw_only=True):
    """What a seal is made from."""

    sealing: Sealing
    bulk: Bulk
    live: LiveView
    projects: Projects
    inventory: Inventory
    leases: Leases
    evidence: Evidence


class DaySealer:
    """Seals one day of one project. Use once."""

    def __init__(
        self,
        stores: SealStores,
        due: Due,
        *,
        shards: int,
        source: UptimeSource | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._stores, self._due, self._source = stores, due, source
        self._shards, self._now_ms = shards, now_ms
        self._trees = DayTrees(due.day_ms)
        self._day = datetime.fromtimestamp(due.day_ms / 1000, UTC).date()
        self._paid_ms = 0
        self._kinds_ms = np.zeros(len(KINDS), np.int64)

    async def run(self) -> Seal | None:
        """None: another worker does it, or has done it. NotYetError; StoreUnavailableError."""
        policy = await self._stores.projects.policy_at(self._due.project_id, self._day)
        self._must_be_told(policy)
        async with self._stores.sealing.writing(self._due, now_ms=self._now_ms()) as writing:
            if writing is None:
                return None
            page = await self._next_page("", policy)
            while page is not None:
                after = page.items[-1].node_id
                page = await _meanwhile(
                    partial(self._next_page, after, policy), partial(self._put, page, writing)
                )
            return await self._finish(writing)

    def _must_be_told(self, policy: PolicyRecord) -> None:
        if policy.uptime_source == "datagram":
            if self._source is None:
                raise NotYetError("Datagram measures this day, and is not configured")
            if self._now_ms() < self._due.end_ms + SETTLED_MS:
                raise NotYetError("Datagram's figures of this day may still change")

    async def _next_page(self, after: str, policy: PolicyRecord) -> Page | None:
        due, stores = self._due, self._stores
        window = (due.day_ms, due.end_ms)
        items = await stores.sealing.page(
            due.project_id, after_node=after, limit=PAGE_WORKLOADS, from_ms=window[0], to_ms=window[1]
        )
        if not items:
            return None
        asked = Asked(
            from_ms=due.day_ms,
            to_ms=due.end_ms,
            source=policy.uptime_source,
            paying=(window,) if policy.pay_claims else (),
            hours=HOURS,
        )
        native = policy.uptime_source == "native"
        totals = await (self._composed(items, asked) if native else self._told(items, asked))
        held = await self._held(items, totals)
        return Page(
            items=items,
            totals=totals,
            source=policy.uptime_source,
            pay_claims=policy.pay_claims,
            held=held,
            refused=await stores.evidence.refused_during(
                list(dict.fromkeys(item.node_id for item in items)), str(self._day)
            ),
            asked_paid_ms={} if native else await self._split(items, totals, held),
        )

    async def _composed(self, items: Sequence[BulkItem], asked: Asked) -> Totals:
        """From our own records. NotYetError while they are not final."""
        reader = BulkReader(self._stores.bulk, self._stores.live, shards=self._shards, asked=asked)
        chunk = await reader.read(items, overdue=0)
        totals, late = chunk.totals, chunk.late
        deadline = trio.current_time() + LATE_S_MAX
        while late:
            if trio.current_time() > deadline:
                raise NotYetError("rows are on their way into history")
            await trio.sleep(LATE_POLL_S)
            again = await reader.read([items[place] for place in late], overdue=0)
            totals.take(late, again.totals)
            late = [late[place] for place in again.late]
        if bool((totals.as_of_ms < asked.to_ms).any()):
            raise NotYetError("the live view does not tell of all workloads")
        if bool(totals.provisional.any()):
            raise NotYetError("what a gap forgives is not decided for all workloads")
        return totals

    async def _told(self, items: Sequence[BulkItem], asked: Asked) -> Totals:
        """From Datagram, which tells of days and not of their hours."""
        assert self._source is not None, "see _must_be_told"
        try:
            chunk = await read_datagram(self._source, items, asked, now_ms=lambda _item: self._now_ms())
        except UptimeSourceError as error:
            raise NotYetError(f"Datagram cannot be asked: {error}") from error
        return chunk.totals

    async def _held(self, items: Sequence[BulkItem], totals: Totals) -> list[Spans]:
        """Of each workload which licence it ran under and whose that was."""
        due, stores = self._due, self._stores
        bindings = await stores.leases.bindings_during(
            [item.workload_id for item in items], due.day_ms, due.end_ms
        )
        licences = sorted({one.licence_id for each in bindings.values() for one in each})
        owners = await stores.inventory.owners_during(licences, due.day_ms, due.end_ms) if licences else {}
        windows = zip(totals.from_ms.tolist(), totals.to_ms.tolist(), strict=True)
        return [
            held_by(bindings.get(item.workload_id, ()), owners, *window)
            for item, window in zip(items, windows, strict=True)
        ]

    async def _split(
        self,
        items: Sequence[BulkItem],
        totals: Totals,
        held: Sequence[Spans],
    ) -> dict[int, list[int]]:
        """What Datagram tells of each part of a day that was not one owner's, in whole hours."""
        assert self._source is not None, "see _must_be_told"
        parts: dict[int, list[int]] = {}
        for place, spans in enumerate(held):
            from_ms, to_ms = int(totals.from_ms[place]), int(totals.to_ms[place])
            partner = items[place].partner_id
            if [span[2:] for span in spans] == [(from_ms, to_ms)] or partner is None:
                continue
            parts[place] = []
            for _, _, start, end in spans:
                low, high = max(from_ms, start - start % HOUR_MS), end - end % HOUR_MS
                parts[place].append(await self._up_ms(partner, low, high))
        return parts

    async def _up_ms(self, partner: str, from_ms: int, to_ms: int) -> int:
        assert self._source is not None, "see _must_be_told"
        if from_ms >= to_ms:
            return 0
        try:
            return (await self._source.up_ms([partner], from_ms, to_ms))[partner] or 0
        except UptimeSourceError as error:
            raise NotYetError(f"Datagram cannot be asked: {error}") from error

    async def _put(self, page: Page, writing: Writing) -> None:
        first_place = self._trees.rows
        rows, coded = await trio.to_thread.run_sync(self._hashed, page, writing.revision)
        await writing.write(rows, coded, first_place=first_place)

    def _hashed(self, page: Page, revision: int) -> tuple[list[SealedRow], list[bytes]]:
        """In a thread: rows, their hours as they are stored; all of them are in the trees then."""
        rows = rows_of(page)
        hours = page.totals.hours
        ms = np.zeros((len(rows), HOURS, page.totals.ms.shape[1]), np.int64) if hours is None else hours.ms
        day = str(self._day)
        self._trees.add(
            [row_text(row, project=self._due.project, day=day, revision=revision) for row in rows],
            [_bytes(row.node_id) for row in rows],
            [_bytes(row.workload_id) for row in rows],
            ms,
        )
        self._kinds_ms += page.totals.ms.sum(axis=0)
        self._paid_ms += sum(row.paid_ms for row in rows)
        return rows, encode_hours(ms)

    async def _finish(self, writing: Writing) -> Seal:
        due = self._due
        block_roots = await trio.to_thread.run_sync(self._trees.block_roots)
        seal = Seal(
            seal_no=writing.seal_no,
            project_id=due.project_id,
            project=due.project,
            day=str(self._day),
            revision=writing.revision,
            reason=due.reason,
            actor=due.actor or AUTHOR,
            rows=self._trees.rows,
            nodes=self._trees.nodes,
            paid_ms=self._paid_ms,
            root=root_of(block_roots[DAY_TREE]),
            hour_roots=tuple(root_of(block_roots[hour]) for hour in range(HOURS)),
            sealed_ms=self._now_ms(),
        )
        await writing.finish(
            seal,
            kinds_ms=self._kinds_ms.tolist(),
            block_roots=block_roots,
            node_blocks=self._trees.node_blocks,
        )
        return seal


def _bytes(workload_id: str) -> bytes:
    return bytes.fromhex(workload_id.replace("-", ""))


async def _meanwhile(
    wanted: Callable[[], Awaitable[Page | None]], other: Callable[[], Awaitable[None]]
) -> Page | None:
    """What `wanted` gives, with `other` done at the same time. Either's error, as itself."""
    errors: list[Exception] = []
    found: list[Page | None] = []

    async def kept(work: Callable[[], Awaitable[Any]], into: list[Any]) -> None:
        try:
            into.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept, wanted, found)
        nursery.start_soon(kept, other, [])
    if errors:
        raise errors[0]
    return found[0]
