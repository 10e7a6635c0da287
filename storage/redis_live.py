"""The live view in Redis or Valkey: per shard two strings of packed records and a header, and one stream.

Keys: ``PREFIX:rows:SHARD``, ``PREFIX:slots:SHARD``, ``PREFIX:head:SHARD``, ``PREFIX:events``. Each write and
each read is one script, so a reader never sees a header beside records it does not speak of. The layout of
the records is in engine/core/liveview.py.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
import numpy as np
import redis.asyncio
import redis.exceptions
import trio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from engine.core.liveview import ROW_BYTES, ROW_DTYPE, SLOT_BYTES, LivePage, decode, live_page
from engine.core.ports import LiveRow, Page, StoreUnavailableError
from engine.core.records import Event, ShardHead
from storage.bridge import await_host, end_tasks, is_closed_transport
from storage.hint import Hint
from storage.settings import RedisSettings

T = TypeVar("T")

CONNECTIONS_MAX = 16
EVENTS_PER_ENTRY = 100  # events of one call go into the stream in entries of at most so many
TAIL_BLOCK_MS_MAX = 2_000
TAIL_RETRY_S = 0.5
_HEADS_AT_ONCE = 64
assert ROW_DTYPE.fields is not None
_SLOT_BASE_AT = ROW_DTYPE.fields["slot_base"][1]

# KEYS: rows, slots, head. ARGV: epoch, head, then for rows and for slots each: offsets and lengths (u32
# pairs), the pages one after the other. SETRANGE also grows the string, with zeros.
_WRITE = """
local stored = redis.call('GET', KEYS[3])
if not stored or cjson.decode(stored).epoch ~= ARGV[1] then return 0 end
for part = 0, 1 do
  local places, pages, from = ARGV[3 + 2 * part], ARGV[4 + 2 * part], 1
  for at = 1, #places, 8 do
    local offset, length = struct.unpack('<I4I4', places, at)
    redis.call('SETRANGE', KEYS[1 + part], offset, string.sub(pages, from, from + length - 1))
    from = from + length
  end
end
redis.call('SET', KEYS[3], ARGV[2])
return 1
"""
# KEYS: rows, slots, head. ARGV: the row's index in its shard.
_READ = f"""
local head = redis.call('GET', KEYS[3])
if not head then return false end
local at = ARGV[1] * {ROW_BYTES}
local row = redis.call('GETRANGE', KEYS[1], at, at + {ROW_BYTES - 1})
if #row < {ROW_BYTES} then return {{head, '', ''}} end
local base, count = struct.unpack('<I4I2', row, {_SLOT_BASE_AT + 1})
if count == 0 then return {{head, row, ''}} end
return {{head, row, redis.call('GETRANGE', KEYS[2], base * {SLOT_BYTES}, (base + count) * {SLOT_BYTES} - 1)}}
"""
# KEYS as above. ARGV: the rows' indices. Their records one after the other; zeros for one not there.
_READ_ROWS = f"""
local head = redis.call('GET', KEYS[3])
if not head then return false end
local found = {{}}
for index = 1, #ARGV do
  local at = ARGV[index] * {ROW_BYTES}
  local row = redis.call('GETRANGE', KEYS[1], at, at + {ROW_BYTES - 1})
  found[index] = row .. string.rep(string.char(0), {ROW_BYTES} - #row)
end
return {{head, table.concat(found)}}
"""
# KEYS as above. ARGV: first indices and numbers of runs of rows (u32 pairs). The rows' records one after the
# other, zeros for one not there, and their slots'; slots that lie one after the other are read at once.
_READ_PAGE = f"""
local head = redis.call('GET', KEYS[3])
if not head then return false end
local rows, slots, from, to = {{}}, {{}}, 0, 0
local function take_slots()
  if to > from then
    local page = redis.call('GETRANGE', KEYS[2], from * {SLOT_BYTES}, to * {SLOT_BYTES} - 1)
    slots[#slots + 1] = page .. string.rep(string.char(0), (to - from) * {SLOT_BYTES} - #page)
  end
end
for at = 1, #ARGV[1], 8 do
  local first, count = struct.unpack('<I4I4', ARGV[1], at)
  local page = redis.call('GETRANGE', KEYS[1], first * {ROW_BYTES}, (first + count) * {ROW_BYTES} - 1)
  page = page .. string.rep(string.char(0), count * {ROW_BYTES} - #page)
  rows[#rows + 1] = page
  for place = {_SLOT_BASE_AT + 1}, #page, {ROW_BYTES} do
    local base, number = struct.unpack('<I4I2', page, place)
    if number > 0 then
      if base ~= to then
        take_slots()
        from = base
      end
      to = base + number
    end
  end
end
take_slots()
return {{head, table.concat(rows), table.concat(slots)}}
"""


class RedisLiveView:
    """engine.core.ports.LiveView on Redis or Valkey. `open` first, `close` last."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._redis: Any = None
        self._calls = 0
        self._hint = Hint()
        self._tail: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects to nothing: the server may be away."""
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            self._settings.url,
            max_connections=CONNECTIONS_MAX,
            timeout=self._settings.timeout_s,
            socket_timeout=self._settings.timeout_s,
            socket_connect_timeout=self._settings.timeout_s,
            # A connection that a restart of the server left dead is replaced at once; a second failure tells.
            retry=Retry(NoBackoff(), 1),
            retry_on_error=[redis.exceptions.ConnectionError],
            protocol=2,
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)
        self._write = self._redis.register_script(_WRITE)
        self._read = self._redis.register_script(_READ)
        self._read_rows = self._redis.register_script(_READ_ROWS)
        self._read_page = self._redis.register_script(_READ_PAGE)

    async def close(self) -> None:
        """Close the connections."""
        await await_host(self._close)

    async def write(
        self,
        head: ShardHead,
        *,
        rows: Sequence[Page],
        slots: Sequence[Page],
    ) -> bool:
        arguments = [head.epoch, msgspec.json.encode(head), *_packed(rows), *_packed(slots)]
        return bool(await self._call(lambda: self._write(keys=self._keys(head.shard), args=arguments)))

    async def reset(self, head: ShardHead) -> None:
        await self._call(lambda: self._reset(msgspec.structs.replace(head, watermark_ms=0)))

    async def heads(self) -> dict[int, ShardHead]:
        """Only of the present number of shards: what an earlier, larger number left behind is not told."""
        return await self._call(self._heads)

    async def read(self, row: int, *, shards: int) -> LiveRow | None:
        keys = self._keys(row % shards)
        found = await self._call(lambda: self._read(keys=keys, args=[row // shards]))
        if found is None:
            return None
        head = _head(found[0])
        if head.shards != shards:
            return None  # of a time when another shard had this row
        record, slots = found[1], found[2]
        return head, decode(record, slots) if record.strip(b"\0") else None

    async def read_rows(self, rows: Sequence[int], *, shards: int) -> dict[int, LiveRow]:
        of_shard: dict[int, list[int]] = {}
        for row in rows:
            of_shard.setdefault(row % shards, []).append(row)
        found = await self._call(lambda: self._read_shards(of_shard, shards)) if of_shard else []
        read: dict[int, LiveRow] = {}
        for wanted, answer in zip(of_shard.values(), found, strict=True):
            if answer is None or (head := _head(answer[0])).shards != shards:
                continue
            for place, row in enumerate(wanted):
                record = answer[1][place * ROW_BYTES : (place + 1) * ROW_BYTES]
                read[row] = head, decode(record, b"") if record.strip(b"\0") else None
        return read

    async def read_page(self, shard: int, indices: Sequence[int], *, shards: int) -> LivePage | None:
        keys, places = self._keys(shard), _runs(indices)
        found = await self._call(lambda: self._read_page(keys=keys, args=[places]))
        if found is None or (head := _head(found[0])).shards != shards:
            return None
        return live_page(head, found[1], found[2])

    async def announce_events(self, events: Iterable[Event]) -> None:
        waiting = iter(events)
        entries = []
        while chunk := list(islice(waiting, EVENTS_PER_ENTRY)):
            entries.append(msgspec.json.encode(chunk))
        if entries:
            await self._call(lambda: self._announce(entries))

    async def wait_events(self, timeout_s: float) -> None:
        if self._tail is None:
            token = trio.lowlevel.current_trio_token()
            self._tail = asyncio.get_running_loop().create_task(self._follow(token))
        elif self._tail.done():
            self._tail.result()  # it never ends but by a bug
        await self._hint.wait(timeout_s)

    def statistics(self) -> dict[str, int]:
        """Calls under way, and how many can be without one waiting for another's connection."""
        return {"redis_calls": self._calls, "redis_connections_max": CONNECTIONS_MAX}

    def _keys(self, shard: int) -> list[str]:
        return [f"{self._settings.prefix}:{name}:{shard}" for name in ("rows", "slots", "head")]

    @property
    def _stream(self) -> str:
        return f"{self._settings.prefix}:events"

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Await a command on the host loop. StoreUnavailableError."""
        self._calls += 1
        try:
            return await await_host(self._on_host, command)
        finally:
            self._calls -= 1

    async def _on_host(self, command: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await command()
        except Exception as error:
            if _is_unavailable(error):
                raise StoreUnavailableError(f"Redis cannot be reached: {error}") from error
            raise

    async def _reset(self, head: ShardHead) -> None:
        rows, slots, head_key = self._keys(head.shard)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(rows, slots)
            pipe.set(head_key, msgspec.json.encode(head))
            await pipe.execute()

    async def _read_shards(self, of_shard: dict[int, list[int]], shards: int) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for shard, wanted in of_shard.items():
                await self._read_rows(
                    keys=self._keys(shard), args=[row // shards for row in wanted], client=pipe
                )
            return list(await pipe.execute())

    async def _heads(self) -> dict[int, ShardHead]:
        heads: list[ShardHead] = []
        first, shards = 0, 1
        while first < shards:
            keys = [self._keys(shard)[2] for shard in range(first, first + _HEADS_AT_ONCE)]
            heads += [_head(text) for text in await self._redis.mget(keys) if text is not None]
            shards = max((head.shards for head in heads), default=0)
            first += _HEADS_AT_ONCE
        return present_heads(heads)

    async def _announce(self, entries: list[bytes]) -> None:
        entries_max = max(1, self._settings.event_stream_max // EVENTS_PER_ENTRY)
        async with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries[-entries_max:]:
                pipe.xadd(self._stream, {"events": entry}, maxlen=entries_max, approximate=True)
            await pipe.execute()

    async def _follow(self, token: trio.lowlevel.TrioToken) -> None:
        """On the host: wake who waits whenever the stream has grown. Who waits looks by itself, too."""
        last: bytes | str | None = None
        block_ms = min(TAIL_BLOCK_MS_MAX, int(self._settings.timeout_s * 500))
        while True:
            try:
                newest = await self._redis.xrevrange(self._stream, count=1)
                at = newest[0][0] if newest else "0-0"
                if last is not None and at != last:
                    token.run_sync_soon(self._hint.tell)
                last = at
                await self._redis.xread({self._stream: last}, block=block_ms, count=1)
            except Exception as error:
                if not _is_unavailable(error):
                    raise
                await asyncio.sleep(TAIL_RETRY_S)

    async def _close(self) -> None:
        if self._tail is not None:
            await end_tasks([self._tail])
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)


_UNAVAILABLE = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    OSError,
)


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, _UNAVAILABLE) or is_closed_transport(error)


def present_heads(heads: Iterable[ShardHead]) -> dict[int, ShardHead]:
    """The headers by shard, less those of another number of shards than the newest header tells."""
    newest = max(heads := list(heads), key=lambda head: head.wall_ms, default=None)
    return {head.shard: head for head in heads if newest is not None and head.shards == newest.shards}


def _head(text: bytes) -> ShardHead:
    return msgspec.json.decode(text, type=ShardHead)


def _runs(indices: Sequence[int]) -> bytes:
    """Rising indices as u32 pairs: the first of each run, and how many follow one after the other."""
    array = np.asarray(indices, np.int64)
    firsts = np.flatnonzero(np.diff(array, prepend=-2) != 1)
    runs = np.stack([array[firsts], np.diff(firsts, append=len(array))], axis=1)
    return runs.astype("<u4").tobytes()


def _packed(pages: Sequence[Page]) -> tuple[bytes, bytes]:
    places = [number for offset, page in pages for number in (offset, len(page))]
    return struct.pack(f"<{len(places)}I", *places), b"".join([page for _, page in pages])
