"""The inventory as records and as ports: collections of tokens, licences, who owned them when, balances.

`Inventory` is what people read and change, `InventorySync` what the worker writes that follows the chain by a
subgraph. Times are unix ms, token ids and amounts are whole numbers up to 2**256 - 1, addresses are `0x` and
40 hex digits in lower case. What ownership means is told in docs/decisions/0051-ownership.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec

from engine.core.people import Act

Standard = Literal["erc721", "erc20"]
Preset = Literal["", "openzeppelin", "eip721", "custom"]
UINT256_MAX = (1 << 256) - 1
NOBODY = "0x" + "0" * 40  # whoever burns sends it here
SINCE_EVER = 0  # `from_ms` and `from_block` of who owned a licence when its collection was first read


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A contract whose tokens are licences (erc721) or only balances (erc20), and how far it was read.

    `subgraph_url`, `preset`: empty stand for the configuration's. `synced_block`, `synced_hash`, `block_ms`:
    everything up to this block is in; None before the first pass. `checked_ms`: the last look that succeeded.
    `swept_ms`: the last full pass. `sync_error`: why the last look failed; empty when it did not.
    """

    collection_id: str
    project_id: str
    chain_id: int
    contract: str
    standard: Standard
    name: str
    subgraph_url: str
    preset: Preset
    created_ms: int
    retired_ms: int | None = None
    synced_block: int | None = None
    synced_hash: str | None = None
    block_ms: int | None = None
    checked_ms: int | None = None
    swept_ms: int | None = None
    sync_error: str = ""


class NewCollection(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    chain_id: int
    contract: str
    standard: Standard
    name: str = ""
    subgraph_url: str = ""
    preset: Preset = ""


class CollectionChange(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a thing as it is."""

    name: str | None = None
    subgraph_url: str | None = None
    preset: Preset | None = None
    retired: bool | None = None


class Licence(msgspec.Struct, frozen=True, kw_only=True):
    """`owner` None and `retired_ms`: burned. `workload_ids`: the living workloads that run under it."""

    licence_id: str
    collection_id: str
    project_id: str
    token_id: int
    owner: str | None
    created_ms: int
    retired_ms: int | None
    workload_ids: tuple[str, ...] = ()


class LicenceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which licences. The first two say whose eyes look: licences of `projects` or of the wallet `seen_by`
    (both None: all). The others narrow that down; None does not."""

    projects: tuple[str, ...] | None = None
    seen_by: str | None = None
    project_id: str | None = None
    owner: str | None = None
    collection_id: str | None = None
    bound: bool | None = None


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """Who owned a licence from `from_ms` (SINCE_EVER: since before it was first looked at) to `to_ms`.

    Half-open; `to_ms` None: still does. `from_block`: the block at which that was seen.
    """

    licence_id: str
    owner: str
    from_ms: int
    from_block: int
    to_ms: int | None


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an erc20 collection a wallet has; `block`: at which that was seen to have changed."""

    collection_id: str
    owner: str
    amount: int
    block: int


class CollectionExistsError(Exception):
    """This contract of this chain is in the inventory already."""


class WrongPresetError(Exception):
    """The preset does not fit the standard."""


class LicenceRefusedError(Exception):
    """The workload may not run under this licence; the text says why."""


def check_preset(standard: Standard, preset: Preset) -> None:
    """WrongPresetError: balances are read in one form only."""
    if standard == "erc20" and preset not in ("", "openzeppelin"):
        raise WrongPresetError("balances of an erc20 contract are read as OpenZeppelin's subgraphs have them")


def check_binding(licence: Licence | None, *, project_id: str, wallet: str | None, as_owner: bool) -> None:
    """Whether a workload of this project may run under this licence. LicenceRefusedError.

    `wallet`: of the person who asks. `as_owner`: it is asked by one who runs the project, who may bind any
    licence of the project; everybody else binds only what their own wallet owns.
    """
    if licence is None or licence.project_id != project_id:
        raise LicenceRefusedError("there is no such licence in this project")
    if licence.retired_ms is not None or licence.owner is None:
        raise LicenceRefusedError("this licence was burned")
    if not as_owner and (wallet is None or licence.owner != wallet):
        raise LicenceRefusedError("there is no such licence in your wallet")


class Inventory(Protocol):
    """What people ask and change."""

    async def collections(self, project_id: str, *, after: str | None, limit: int) -> list[Collection]: ...
    async def collection(self, collection_id: str) -> Collection | None: ...
    async def collections_by_id(self, ids: Sequence[str]) -> dict[str, Collection]: ...
    async def add_collection(self, new: NewCollection, *, act: Act) -> Collection:
        """The collection with the id `act.made_id`; the one that is there if it was made before.

        CollectionExistsError, WrongPresetError.
        """
        ...

    async def change_collection(
        self, collection_id: str, change: CollectionChange, *, act: Act
    ) -> Collection | None:
        """None: there is none. WrongPresetError. Another source means that everything is read again."""
        ...

    async def had_licences(self, project_id: str, at_ms: int) -> bool:
        """Whether, right before that time, the project had a collection whose tokens are licences."""
        ...

    async def licences(self, which: LicenceFilter, *, after: str | None, limit: int) -> list[Licence]: ...
    async def licence(self, licence_id: str) -> Licence | None: ...
    async def owners(self, licence_id: str, *, after_ms: int, limit: int) -> list[Ownership]:
        """Those whose time began after `after_ms` (-1: all), in order."""
        ...

    async def owner_at(self, licence_id: str, at_ms: int) -> Ownership | None: ...
    async def owners_during(
        self, licence_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[Ownership]]:
        """Per licence who owned it within [from_ms, to_ms), by time; licences without any are left out.

        The spans are whole, not cut to the window. One statement, however many licences.
        """
        ...

    async def balances(self, owner: str, *, after: str | None, limit: int) -> list[Balance]:
        """What a wallet has, above zero, by collection, of collections with an id after `after`."""
        ...


class Block(msgspec.Struct, frozen=True):
    """A block of the chain; `ms`: its timestamp."""

    number: int
    hash: str
    ms: int


class Token(msgspec.Struct, frozen=True):
    """A token as it was read; `owner` None: burned."""

    token_id: int
    owner: str | None

    @property
    def key(self) -> int:
        return self.token_id


class Purse(msgspec.Struct, frozen=True):
    """How much of an erc20 contract a wallet was read to have; 0: nothing (any more)."""

    owner: str
    amount: int

    @property
    def key(self) -> str:
        return self.owner


Held = Token | Purse
Key = int | str  # a token's id, or a wallet


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a subgraph brought, all of it as of one block.

    `whole`: everything was read, so what is missing is gone. `seen`: all, or what changed. `again`: what our
    books say changed after `after_block`, but the subgraph does not, as it is now: those changes were taken
    back. `fork`: it is known that blocks after `after_block` were taken back. `before_hash`: what the books
    were at when the look began.
    """

    block: Block
    whole: bool
    seen: Sequence[Held]
    again: Sequence[Held] = ()
    after_block: int = 0
    fork: bool = False
    before_hash: str | None = None


class Applied(msgspec.Struct, frozen=True):
    """How many rows a pass changed: new tokens or wallets, owners or amounts that changed, what is gone."""

    added: int = 0
    changed: int = 0
    gone: int = 0


class PassOvertakenError(Exception):
    """The books moved on since the look began: another worker's look came first. Nothing was written."""


class InventorySync(Protocol):
    """What the worker that follows the chain reads and writes."""

    async def living(self) -> list[Collection]:
        """All collections that are not retired."""
        ...

    def holding(self, collection_id: str) -> AbstractAsyncContextManager[bool]:
        """For the time of the block True in at most one worker of all; False when another one has it."""
        ...

    async def known(self, collection: Collection) -> list[Key]:
        """Tokens that somebody owns, or wallets that have something, by our books."""
        ...

    async def young(self, collection: Collection, after_block: int) -> list[Key]:
        """Tokens or wallets of which our books say that they changed after a block."""
        ...

    async def apply(self, collection: Collection, found: Pass, *, now_ms: int) -> Applied:
        """Write a pass and how far it brought us, in one transaction. PassOvertakenError."""
        ...

    async def failed(self, collection_id: str, error: str) -> None:
        """Tell why the last look failed; nothing else changes."""
        ...
