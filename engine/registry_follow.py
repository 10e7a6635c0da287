"""Following the registry: rows, sessions and windows as Postgres has them, within 250 ms.

Registry changes carry a sequence number; this loop asks for what came after the last one it applied, journals
it (a restart without Postgres then still knows every session) and applies it. The position applied is told in
the live view: a session's reply waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import trio

from engine.core.keys import MasterSecrets
from engine.core.ports import RegistryFeed, StoreUnavailableError
from engine.core.records import RowSpec
from engine.journal import Journal
from engine.journal_blocks import Kind
from engine.rows import apply_spec
from engine.settings import FlushSettings
from engine.table import Table
from engine.windows import Windows

_RETRY_S = 1.0


class RegistryBlock(msgspec.Struct, frozen=True):
    """Registry changes as journaled: the specs that were applied and the position they brought us to."""

    position: int
    specs: list[RowSpec]


class RegistryStatistics(NamedTuple):
    position: int
    applied_rows: int
    away: bool
    loaded: bool
    unknown_secrets: dict[int, int]  # sessions passed over, by the id of the secret that we do not have


class RegistryFollower:
    """Keeps one shard's rows in step with the registry."""

    def __init__(
        self,
        feed: RegistryFeed,
        table: Table,
        windows: Windows,
        journal: Journal,
        secrets: MasterSecrets,
        settings: FlushSettings,
        *,
        position: int,
        now_ms: Callable[[], int],
        appended: Callable[[], None],
        away: Callable[[bool], None],
        unknown_secret: Callable[[int], None],
        went_back: Callable[[int, int], None] = lambda _from, _to: None,
    ) -> None:
        self._feed = feed
        self._table = table
        self._windows = windows
        self._journal = journal
        self._secrets = secrets
        self._settings = settings
        self.position = position
        self._now_ms = now_ms
        self._appended = appended
        self._tell_away = away
        self._tell_unknown_secret = unknown_secret
        self._tell_went_back = went_back
        self._unknown_told: set[int] = set()
        self.away = False
        self._reload = False
        self.loaded = position > 0
        self._rows = 0
        table.honour_expired(honour=False)  # the registry may have been away when a snapshot was taken

    async def load(self, *, seq_floor_ms: int) -> None:
        """Load all rows, of a shard that has none yet or may miss some. StoreUnavailableError.

        seq_floor_ms: of sessions that the table does not know yet no seq below this time is taken.
        """
        self._tell_unknown()
        position = await self._feed.position()
        async for page in self._feed.load(shard=self._table.shard, shards=self._table.shards):
            for spec in page:
                self._apply(spec, seq_floor_ms)
            self._journal_block(RegistryBlock(0, page))
            await trio.lowlevel.checkpoint()
        self.position, self.loaded = position, True
        self._journal_block(RegistryBlock(position, []))

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.catch_up()
                self.set_away(away=False)
                await self._feed.wait_hint(self._settings.registry_poll_ms / 1_000)
            except StoreUnavailableError:
                self.set_away(away=True)
                await trio.sleep(_RETRY_S)

    def reload(self) -> None:
        """PostgreSQL was restored to an earlier time: its numbers may mean other changes than we know of."""
        self._reload = True

    async def catch_up(self) -> None:
        """Apply everything that is committed now. StoreUnavailableError."""
        self._tell_unknown()  # also of what a recovery found
        while True:
            position, specs = await self._feed.changes(
                self.position, shard=self._table.shard, shards=self._table.shards
            )
            if position == self.position and not self._reload:
                return
            if position < self.position or self._reload:
                self._tell_went_back(self.position, position)
                self._reload = False
                await self.load(seq_floor_ms=self._now_ms())
                return
            for spec in specs:
                self._apply(spec, 0)
            self.position = position
            if specs:
                self._journal_block(RegistryBlock(position, specs))

    def _apply(self, spec: RowSpec, seq_floor_ms: int) -> None:
        index = apply_spec(self._table, spec, self._secrets, seq_floor_ms=seq_floor_ms)
        self._windows.replace(index, spec.windows)
        self._rows += 1
        self._tell_unknown()

    def _tell_unknown(self) -> None:
        """Once per secret: each session that names it would say the same."""
        for secret_id in self._table.unknown_secrets.keys() - self._unknown_told:
            self._unknown_told.add(secret_id)
            self._tell_unknown_secret(secret_id)

    def _journal_block(self, block: RegistryBlock) -> None:
        self._journal.append(Kind.REGISTRY, self._now_ms(), msgspec.msgpack.encode(block))
        self._appended()

    def set_away(self, *, away: bool) -> None:
        """The registry cannot be reached (or can again): who holds a session keeps it meanwhile."""
        if away or self.away:
            self._table.honour_expired(honour=away)
        if away != self.away:
            self.away = away
            self._tell_away(away)

    def statistics(self) -> RegistryStatistics:
        unknown = dict(self._table.unknown_secrets)
        return RegistryStatistics(self.position, self._rows, self.away, self.loaded, unknown)
