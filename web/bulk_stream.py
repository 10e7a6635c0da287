"""A stream of bulk uptime: its rows read chunk by chunk, one chunk ahead of what is being written.

A chunk is all that is ever held. Who reads slowly holds up only this: the channel has room for one chunk. How
rows look is bulk_formats.py; how they are put together bulk_reading.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType

import structlog
import trio
from quart.wrappers.response import ResponseBody

from engine.core.bulk import BulkItem
from engine.core.ports import StoreUnavailableError
from engine.core.uptime_source import UptimeSourceError
from storage.bulk_datagram import read_datagram
from storage.bulk_reading import Asked, BulkReader
from web.backend import Backend
from web.bulk_formats import BulkRow, Lines, Owners, rows_of
from web.counted import Counted
from web.problems import CutOffError
from web.reading import HISTORY_POLL_S
from web.view_arrays import wait_view

CHUNK = 2_000  # workloads read at once
SLICE = 500  # rows encoded before others have their turn
LATE_MAX = 10_000  # workloads that wait for history; at so many no others are read meanwhile
_log = structlog.get_logger("web")


class Source:
    """The rows of one request, chunk by chunk: all of the project after a workload, or so many."""

    def __init__(
        self, backend: Backend, project_id: str, asked: Asked, *, after: str, limit: int | None
    ) -> None:
        self._backend = backend
        self._project_id = project_id
        self._asked = asked
        stores = backend.stores
        self._reader = BulkReader(stores.bulk, backend.live, shards=backend.shards, asked=asked)
        self._after = after
        self._left = limit
        self._late: list[tuple[float, BulkItem]] = []  # since when, oldest first
        self._begun = self._exhausted = False
        self.next_cursor: str | None = None  # once there are no more rows: of what the limit left out

    async def next_rows(self) -> list[BulkRow] | None:
        """The next rows, now and then none; None: that was all.

        StoreUnavailableError; UptimeSourceError.
        """
        if not self._begun:
            self._begun = True
            await wait_view(self._backend, up_to_ms=self._asked.to_ms)
        fresh = await self._fresh()
        if not fresh:
            if not self._late:
                return None
            await trio.sleep(HISTORY_POLL_S)
        waited, now = self._late, trio.current_time()
        patient_since = now - self._backend.settings.read_wait_ms_max / 1000
        items = [*(item for _, item in waited), *fresh]
        if self._asked.source == "datagram":
            assert self._backend.uptime_source is not None, "refused before"
            chunk = await read_datagram(self._backend.uptime_source, items, self._asked, now_ms=self._now_ms)
        else:
            overdue = sum(since <= patient_since for since, _ in waited)
            chunk = await self._reader.read(items, overdue=overdue)
        self._late = [
            (waited[place][0] if place < len(waited) else now, chunk.items[place]) for place in chunk.late
        ]
        return rows_of(chunk, await self._owners(chunk.items), self._asked)

    async def _fresh(self) -> list[BulkItem]:
        """The next workloads in order; none while too many wait, or when there are no more."""
        if self._exhausted or len(self._late) >= LATE_MAX:
            return []
        size = CHUNK if self._left is None else min(CHUNK, self._left)
        found = await self._backend.stores.bulk.page(
            self._project_id,
            after=self._after,
            limit=size + 1,
            from_ms=self._asked.from_ms,
            to_ms=self._asked.to_ms,
        )
        more, found = len(found) > size, found[:size]
        if self._left is not None:
            self._left -= len(found)
        self._exhausted = not more or self._left == 0
        if found:
            self._after = found[-1].workload_id
        self.next_cursor = self._after if more else None
        return found

    def _now_ms(self, item: BulkItem) -> int:
        return self._backend.heads.now_ms(item.row % self._backend.shards) + 1

    async def _owners(self, items: Sequence[BulkItem]) -> Owners:
        licences = sorted({item.licence_id for item in items if item.licence_id is not None})
        if not licences:
            return Owners({}, {})
        stores, asked = self._backend.stores, self._asked
        spans = await stores.inventory.owners_during(licences, asked.from_ms, asked.to_ms)
        wallets = sorted({span.owner for each in spans.values() for span in each})
        return Owners(spans, await stores.bulk.users(wallets))


class BulkStream(ResponseBody):
    """The body. Counted in on construction (TooManyError), out when it ends."""

    def __init__(self, source: Source, lines: Lines, counted: Counted) -> None:
        self._left = True
        counted.enter()
        self._left = False
        self._counted = counted
        self._source = source
        self._lines = lines
        self._pieces: deque[bytes] = deque([lines.head] if lines.head else [])
        self._rows: deque[list[BulkRow]] = deque()
        self._count = 0
        self._ended = False

    async def begin(self) -> None:
        """Read the first rows, before anything is answered: what is away then is a refusal, not a cut.

        StoreUnavailableError; UptimeSourceError.
        """
        try:
            self._slice(await self._source.next_rows() or [])
        except BaseException:
            self._leave()
            raise

    def _slice(self, rows: list[BulkRow]) -> None:
        self._rows.extend(rows[at : at + SLICE] for at in range(0, len(rows), SLICE))

    async def __aenter__(self) -> BulkStream:
        self._sender, self._receiver = trio.open_memory_channel[list[BulkRow] | None](0)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._read)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(exc_type, exc, trace)

    def __del__(self) -> None:
        self._leave()  # the client was gone before the first byte

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._counted.leave()

    def __aiter__(self) -> BulkStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._rows:
                rows = self._rows.popleft()
                self._count += len(rows)
                self._pieces.append(self._lines.rows(rows))
            elif self._ended:
                raise StopAsyncIteration
            else:
                await self._take()
        return self._pieces.popleft()

    async def _take(self) -> None:
        """The next chunk, or the end of it all."""
        try:
            rows = await self._receiver.receive()
        except trio.EndOfChannel:
            self._ended = True
            self._pieces.append(self._lines.end(self._count))
            return
        if rows is not None:
            self._slice(rows)
        elif self._lines.broken is None:
            raise CutOffError
        else:
            self._ended = True
            self._pieces.append(self._lines.broken)

    async def _read(self) -> None:
        async with self._sender:
            try:
                while (rows := await self._source.next_rows()) is not None:
                    await self._sender.send(rows)
            except (StoreUnavailableError, UptimeSourceError) as error:
                _log.warning("bulk_stream_broken", error=str(error))
                await self._sender.send(None)
