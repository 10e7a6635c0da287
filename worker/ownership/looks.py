"""One look at a collection's subgraph: what changed, or everything; whole, as of one block, or not at all.

The first page says which block is the newest; all others are asked for as of just that block (by its hash).
A page may be shorter than it might be, so only an empty one ends the reading, and what seems gone is asked
for by name before it is believed. Blocks may be taken back: each look reads again from `depth_blocks` before
the last one, and asks again for whatever our books say changed since then but the subgraph does not. Why it
is so: docs/decisions/0051-ownership.md. When to look is schedule.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import structlog
import trio

from engine.core.inventory import Applied, Block, Collection, Held, InventorySync, Key, Pass, Purse, Token
from worker.ownership.forms import (
    PAGE_ITEMS,
    Form,
    Page,
    filter_of,
    form_of,
    read_page,
)
from worker.ownership.graphql import Endpoint, GraphAwayError, GraphClient, GraphError, GraphSaysError
from worker.settings import OwnershipSettings

LOOK_S = 120.0  # what a look may take in any case ...
ITEMS_PER_S = 50.0  # ... and how many items must have come, or been asked for by name, in each second more

log = structlog.get_logger()


def patience_s(items: int) -> float:
    """How long a look may have taken when it has read so many items: a place is held for nobody for ever."""
    return LOOK_S + items / ITEMS_PER_S


class Looker:
    """Looks, by whichever endpoint and form a collection asks for."""

    def __init__(
        self,
        *,
        client: GraphClient,
        sync: InventorySync,
        settings: OwnershipSettings,
        now_ms: Callable[[], int],
        patience_s: Callable[[int], float] = patience_s,
    ) -> None:
        self._client = client
        self._patience_s = patience_s
        self._sync = sync
        self._settings = settings
        self._now_ms = now_ms

    async def look(self, collection: Collection, *, whole: bool) -> Applied:
        """Read and write it down. GraphError (nothing was written), PassOvertakenError."""
        form = form_of(collection, preset=self._settings.preset, custom=self._settings.custom)
        asked_before = self._client.queries
        look = _Look(self._client, self._settings, collection, form, self._now_ms(), self._patience_s)
        found = await self._find(look, whole=whole or collection.synced_block is None)
        applied = await self._sync.apply(collection, found, now_ms=self._now_ms())
        log.info(
            "ownership.looked",
            collection_id=collection.collection_id,
            whole=found.whole,
            block=found.block.number,
            fork=found.fork,
            queries=self._client.queries - asked_before,
            **msgspec.structs.asdict(applied),
        )
        return applied

    async def _find(self, look: _Look, *, whole: bool) -> Pass:
        seen = await look.read(since=None if whole else look.since)
        if look.fork and not whole:
            # How deep it goes nobody says: everything is read again, as of the block that was found.
            whole, seen = True, await look.read(since=None)
        block = look.block
        assert block is not None
        keys = {held.key for held in seen}
        if whole:
            await self._check_gone(look, seen, keys)
            again: list[Held] = []
        else:
            young = await self._sync.young(look.collection, look.since)
            again = await look.read_again([key for key in young if key not in keys])
        return Pass(
            block=block,
            whole=whole,
            seen=seen,
            again=again,
            after_block=look.since,
            fork=look.fork,
        )

    async def _check_gone(self, look: _Look, seen: list[Held], keys: set[Key]) -> None:
        """Add to `seen` as gone what our books have and the subgraph does not, also when asked by name."""
        gone = [key for key in await self._sync.known(look.collection) if key not in keys]
        if gone and not seen:
            raise GraphError(f"the subgraph knows nothing of this contract, of which {len(gone)} are known")
        for held in await look.read_again(gone):
            if not _is_gone(held):
                raise GraphError(f"pages were cut: {held.key} was left out of a full pass")
            seen.append(held)


class _Look:
    """One reading of one subgraph: its pages, the block they are as of, whether some were taken back."""

    def __init__(
        self,
        client: GraphClient,
        settings: OwnershipSettings,
        collection: Collection,
        form: Form,
        now_ms: int,
        patience_s: Callable[[int], float],
    ) -> None:
        self.collection = collection
        self.block: Block | None = None
        self.fork = False
        self._client = client
        self._settings = settings
        self._form = form
        self._now_ms = now_ms
        self._endpoint = _endpoint(collection, settings)
        self._patience_s = patience_s
        self._began_s = trio.current_time()
        self._items = 0  # that came, or were asked for by name

    @property
    def since(self) -> int:
        """The block from which on is read again."""
        return max(0, (self.collection.synced_block or 0) - self._settings.depth_blocks)

    async def read(self, *, since: int | None) -> list[Held]:
        """Everything, or what changed in the block `since` or later."""
        where: dict[str, Any] = {} if since is None else {"_change_block": {"number_gte": since}}
        seen: dict[Key, Held] = {}
        rows = 0
        async with aclosing(self._pages(where)) as pages:
            async for page in pages:
                for held in page.items:
                    if seen.setdefault(held.key, held) is not held:
                        raise GraphError(f"{held.key} is there twice")
                rows += page.rows  # and not what is in `seen`: those that are nobody's may have no end
                if rows > self._settings.tokens_max:
                    raise GraphError(f"there are more than {self._settings.tokens_max}")
        return list(seen.values())

    async def read_again(self, keys: Sequence[Key]) -> list[Held]:
        """What these are as of the block; those that are not there are gone."""
        found: list[Held] = []
        for start in range(0, len(keys), PAGE_ITEMS):
            missing = dict.fromkeys(keys[start : start + PAGE_ITEMS])
            where = {self._form.key_filter: [str(key) for key in missing]}
            self._items += len(missing)
            async with aclosing(self._pages(where)) as pages:
                async for page in pages:
                    for held in page.items:
                        if held.key not in missing:
                            raise GraphError(f"{held.key} is there and was not asked for")
                        del missing[held.key]
                    found += page.items
                    if not missing:
                        break
            found += [_gone(key) for key in missing]
        return found

    async def _pages(self, where: Mapping[str, Any]) -> AsyncGenerator[Page, None]:
        """Pages up to the first empty one."""
        last_id = ""
        while True:
            page = await self._page(where, last_id)
            if page.last_id == last_id:
                return
            last_id = page.last_id
            self._items += page.rows
            if trio.current_time() - self._began_s > self._patience_s(self._items):
                raise GraphAwayError("it is too slow: the look was given up")
            yield page

    async def _page(self, where: Mapping[str, Any], last_id: str) -> Page:
        contract = self.collection.contract
        variables = {
            "first": PAGE_ITEMS,
            "where": {**filter_of(self._form, contract, last_id=last_id), **where},
            "block": {"number_gte": self.collection.synced_block or 0},
            "check": False,
            "before": 0,
        }
        if self.block is not None:
            variables["block"] = {"hash": self.block.hash}
        elif self.collection.synced_block is not None:
            variables |= {"check": True, "before": self.collection.synced_block}
        data = await self._ask(variables)
        page = read_page(self._form, data, contract=contract, last_id=last_id)
        if self.block is None:
            self._begin(page)
        elif page.block.number != self.block.number or page.block.hash != self.block.hash:
            raise GraphError(
                "the block changed while it was read: it was taken back, or another server answered"
            )
        return page

    async def _ask(self, variables: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.query(self._endpoint, self._form.query, variables)
        except GraphSaysError as error:
            if not variables["check"]:
                raise
            # It may know nothing any more of the block where we stopped (it was pruned): ask without that.
            log.info("ownership.unchecked", collection_id=self.collection.collection_id, error=str(error))
            unchecked = variables | {"check": False, "before": 0}
            return await self._client.query(self._endpoint, self._form.query, unchecked)

    def _begin(self, page: Page) -> None:
        """Take the newest block for that of the whole look, if it is new enough. GraphError."""
        block, ours = page.block, self.collection
        age_s = (self._now_ms - block.ms) / 1000
        if age_s > self._settings.block_age_s_max:
            raise GraphError(
                f"its newest block {block.number} is {age_s:.0f} s old: it does not follow the chain"
            )
        if ours.synced_block is not None:
            if block.number < ours.synced_block:
                raise GraphError(
                    f"its newest block {block.number} is before block {ours.synced_block}, read earlier"
                )
            told = block.hash if block.number == ours.synced_block else page.before_hash
            self.fork = told is not None and told != ours.synced_hash
        self.block = block


def _endpoint(collection: Collection, settings: OwnershipSettings) -> Endpoint:
    """A project's own URL is a stranger's word; the configuration's is ours and may lie in our network."""
    if collection.subgraph_url:
        return Endpoint(collection.subgraph_url, settings.allow_private)
    if not settings.url:
        raise GraphError("no subgraph: neither the collection nor worker.ownership.url names one")
    return Endpoint(settings.url, True)


def _gone(key: Key) -> Held:
    return Token(key, None) if isinstance(key, int) else Purse(key, 0)


def _is_gone(held: Held) -> bool:
    return held.owner is None if isinstance(held, Token) else held.amount == 0
