"""`/v1/projects/{slug}/collections`: the contracts whose tokens are a project's licences, or only balances.

Also what every answer of the inventory tells of its source (`Source`): how far a collection was read, how old
that is and what is wrong. Who follows the chain is the worker; licences are in licences.py.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from quart import Response

from engine.core.inventory import (
    Collection,
    CollectionChange,
    CollectionExistsError,
    NewCollection,
    Preset,
    Standard,
    WrongPresetError,
)
from engine.core.people import Principal, Role
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import canonical_uuid
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, not_found
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339

_CHAIN_ID_MAX = (1 << 53) - 1  # what every reader of JSON can hold
Name = Annotated[str, msgspec.Meta(max_length=200)]
Address = Annotated[str, msgspec.Meta(pattern="^0[xX][0-9a-fA-F]{40}$", max_length=42)]
Url = Annotated[str, msgspec.Meta(pattern="^(https?://[!-~]+)?$", max_length=1_000)]
ChainId = Annotated[int, msgspec.Meta(ge=1, le=_CHAIN_ID_MAX)]


class Source(msgspec.Struct, frozen=True):
    """How far the collection was read from the chain. Null: not yet.

    `block_time`: of the block `synced_block`, up to which everything is in. `age_ms`: since then.
    `checked_at`: when that was last found to be so. `stale`: older than the installation thinks right; the
    last known owners stand all the same. `error`: why the last look failed, in words; empty: it did not.
    """

    collection_id: str
    synced_block: int | None
    block_time: str | None
    checked_at: str | None
    age_ms: int | None
    stale: bool
    error: str


def source_of(backend: Backend, collection: Collection) -> Source:
    """What is told of a collection now."""
    age_ms = None if collection.block_ms is None else max(0, backend.clock() - collection.block_ms)
    return Source(
        collection_id=collection.collection_id,
        synced_block=collection.synced_block,
        block_time=_time(collection.block_ms),
        checked_at=_time(collection.checked_ms),
        age_ms=age_ms,
        stale=age_ms is None or age_ms > backend.settings.ownership_stale_s * 1000,
        error=collection.sync_error,
    )


class CollectionAnswer(msgspec.Struct, frozen=True):
    """`subgraph_url` is told to those who run the project only, else null; empty: the installation's own.

    `preset`: empty means the installation's own. `swept_at`: the last time that everything was read.
    """

    collection_id: str
    project_id: str
    chain_id: int
    contract: str
    standard: Standard
    name: str
    subgraph_url: str | None
    preset: Preset
    created_at: str
    retired_at: str | None
    swept_at: str | None
    source: Source


class CollectionsAnswer(msgspec.Struct, frozen=True):
    """A page of collections by id."""

    items: list[CollectionAnswer]
    next_cursor: str | None


class CollectionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`contract`: of the chain with this EIP-155 number.

    `subgraph_url`, `preset`: empty for the installation's own.
    """

    chain_id: ChainId
    contract: Address
    standard: Standard
    name: Name = ""
    subgraph_url: Url = ""
    preset: Preset = ""


class CollectionChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Null, or left out, leaves a thing as it is. `retired`: read no more; its licences stay as they are."""

    name: Name | None = None
    subgraph_url: Url | None = None
    preset: Preset | None = None
    retired: bool | None = None


async def list_collections(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.public_project(backend, caller, slug)
    limit = limit_parameter()
    found = await backend.stores.inventory.collections(project.project_id, after=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda each: each.collection_id)
    return reply(
        CollectionsAnswer(
            items=[_answer(backend, caller, collection) for collection in page], next_cursor=next_cursor
        ),
        headers=link_headers(next_cursor),
    )


async def create_collection(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    body, _ = await read_body(CollectionBody)
    _check_url(body.subgraph_url)
    new = NewCollection(
        project_id=project.project_id,
        chain_id=body.chain_id,
        contract=body.contract.lower(),
        standard=body.standard,
        name=body.name,
        subgraph_url=body.subgraph_url,
        preset=body.preset,
    )
    try:
        made = await backend.stores.inventory.add_collection(new, act=act_of(backend, caller))
    except CollectionExistsError as error:
        raise RefusedError(409, "collection_exists", str(error)) from error
    except WrongPresetError as error:
        raise _wrong_preset(error) from error
    return reply(_answer(backend, caller, made), 201)


async def change_collection(
    backend: Backend, caller: Principal, *, slug: str, collection_id: str
) -> Response:
    project = await sight.project(backend, caller, slug)
    key = canonical_uuid(collection_id)
    there = await backend.stores.inventory.collection(key) if key else None
    if there is None or there.project_id != project.project_id:
        raise not_found("collection")
    body, _ = await read_body(CollectionChangeBody)
    _check_url(body.subgraph_url or "")
    change = CollectionChange(
        name=body.name, subgraph_url=body.subgraph_url, preset=body.preset, retired=body.retired
    )
    try:
        changed = await backend.stores.inventory.change_collection(
            there.collection_id, change, act=act_of(backend, caller)
        )
    except WrongPresetError as error:
        raise _wrong_preset(error) from error
    if changed is None:
        raise not_found("collection")
    return reply(_answer(backend, caller, changed))


def _check_url(text: str) -> None:
    """RefusedError 422. Where it leads is looked at whenever the worker goes there (worker/addresses.py)."""
    if not text:
        return
    try:
        parts = urlsplit(text)
        well = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        well = False
    if not well:
        fault = Fault("must be a URL with a host and without a user name", "/subgraph_url")
        raise RefusedError(422, "bad_url", fault.detail, errors=[fault])


def _wrong_preset(error: WrongPresetError) -> RefusedError:
    return RefusedError(422, "wrong_preset", str(error), errors=[Fault(str(error), "/preset")])


def _answer(backend: Backend, caller: Principal, collection: Collection) -> CollectionAnswer:
    runs = sight.roles_over(caller, project_id=collection.project_id) & (Role.OWNER | Role.ADMIN)
    return CollectionAnswer(
        collection_id=collection.collection_id,
        project_id=collection.project_id,
        chain_id=collection.chain_id,
        contract=collection.contract,
        standard=collection.standard,
        name=collection.name,
        subgraph_url=collection.subgraph_url if runs else None,
        preset=collection.preset,
        created_at=format_rfc3339(collection.created_ms),
        retired_at=_time(collection.retired_ms),
        swept_at=_time(collection.swept_ms),
        source=source_of(backend, collection),
    )


def _time(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else format_rfc3339(unix_ms)


_PATH = "/v1/projects/{slug}/collections"
ROUTES = (
    Route(
        method="GET",
        path=_PATH,
        handler=list_collections,
        summary="A project's collections and how far they were read, by cursor",
        tag="inventory",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of collections", type=CollectionsAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="POST",
        path=_PATH,
        handler=create_collection,
        summary="Follow a contract",
        tag="inventory",
        creates=True,
        body=CollectionBody,
        answers={201: Answer(description="The collection; it is read soon", type=CollectionAnswer)},
        refusals=(404, 409, 422),
    ),
    Route(
        method="PATCH",
        path=_PATH + "/{collection_id}",
        handler=change_collection,
        summary="Rename a collection, read it from elsewhere, retire it",
        tag="inventory",
        body=CollectionChangeBody,
        answers={200: Answer(description="The collection as it is now", type=CollectionAnswer)},
        refusals=(404, 422),
    ),
)
