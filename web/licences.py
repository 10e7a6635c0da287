"""`/v1/licences`, and what a person's wallet holds: licences, their owners over time, balances.

Every answer tells its source (`Source` of collections.py): when the chain cannot be read the last known owner
stands, and the answer says how old that is. Binding a workload to a licence is workloads.py's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from quart import Response, request

from engine.core.inventory import SINCE_EVER, Licence, LicenceFilter, Ownership
from engine.core.people import Principal
from web import sight
from web.backend import Backend
from web.collections import Source, source_of
from web.ids import canonical_uuid
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import bad_parameter
from web.routing import Answer, Parameter, Route, boolean_parameter, reply
from web.times import format_rfc3339, parse_rfc3339

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}", re.ASCII)
_MS_MAX = parse_rfc3339("9999-12-31T00:00:00Z")


class LicenceAnswer(msgspec.Struct, frozen=True):
    """A token. `token_id`: decimal digits. `owner`: the last known one; null when it was burned.

    `workload_ids`: the workloads that run under it and are not retired.
    """

    licence_id: str
    project_id: str
    collection_id: str
    token_id: str
    owner: str | None
    workload_ids: list[str]
    created_at: str
    retired_at: str | None


class OneLicenceAnswer(LicenceAnswer, frozen=True, kw_only=True):
    """A licence, and how old that is."""

    source: Source


class LicencesAnswer(msgspec.Struct, frozen=True):
    """A page of licences by id. `sources`: of the collections that they are of."""

    items: list[LicenceAnswer]
    next_cursor: str | None
    sources: list[Source]


class OwnerItem(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Who owned it from when to when, half-open, by the time of blocks.

    `from` null: since before it was first looked at. `to` null: still does, as far as is known. `block`: at
    which that was seen; null where `from` is.
    """

    owner: str
    from_: str | None
    to: str | None
    block: int | None


class LicenceOwnersAnswer(msgspec.Struct, frozen=True):
    """Owners by time; times in which nobody owned it are left out."""

    licence_id: str
    items: list[OwnerItem]
    next_cursor: str | None
    source: Source


class BalanceItem(msgspec.Struct, frozen=True):
    """`amount`: in the contract's smallest unit, decimal digits.

    `block`: at which it was seen to have changed; null: it was so when the contract was first read.
    """

    collection_id: str
    chain_id: int
    contract: str
    name: str
    amount: str
    block: int | None


class BalancesAnswer(msgspec.Struct, frozen=True):
    """What a wallet has, above zero, by collection. `sources`: of those collections."""

    items: list[BalanceItem]
    next_cursor: str | None
    sources: list[Source]


async def list_licences(backend: Backend, caller: Principal) -> Response:
    slug = request.args.get("project")
    project = None if slug is None else await sight.public_project(backend, caller, slug)
    which = LicenceFilter(
        projects=None if caller.scope == "admin" else caller.owned_projects,
        seen_by=None if caller.scope == "admin" else await sight.own_wallet(backend, caller),
        project_id=None if project is None else project.project_id,
        owner=_address_parameter("owner"),
        collection_id=_id_parameter("collection"),
        bound=boolean_parameter("bound") if "bound" in request.args else None,
    )
    return await _page_of(backend, which)


async def list_user_licences(backend: Backend, caller: Principal, *, user_id: str) -> Response:
    wallet = (await sight.user(backend, caller, user_id)).wallet
    return await _page_of(backend, LicenceFilter(projects=(), seen_by=wallet))


async def _page_of(backend: Backend, which: LicenceFilter) -> Response:
    limit = limit_parameter()
    found = await backend.stores.inventory.licences(which, after=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda each: each.licence_id)
    answer = LicencesAnswer(
        items=[LicenceAnswer(**_fields(licence)) for licence in page],
        next_cursor=next_cursor,
        sources=await _sources(backend, [licence.collection_id for licence in page]),
    )
    return reply(answer, headers=link_headers(next_cursor))


async def get_licence(backend: Backend, caller: Principal, *, licence_id: str) -> Response:
    licence = await sight.licence(backend, caller, licence_id)
    (source,) = await _sources(backend, [licence.collection_id])
    return reply(OneLicenceAnswer(**_fields(licence), source=source))


async def list_licence_owners(backend: Backend, caller: Principal, *, licence_id: str) -> Response:
    at_ms, after_ms, limit = _time_parameter("at"), _ms_cursor(), limit_parameter()
    licence = await sight.licence(backend, caller, licence_id)
    (source,) = await _sources(backend, [licence.collection_id])
    inventory = backend.stores.inventory
    page: Sequence[Ownership]
    next_cursor = None
    if at_ms is not None:
        one = await inventory.owner_at(licence.licence_id, at_ms)
        page = [] if one is None else [one]
    else:
        found = await inventory.owners(licence.licence_id, after_ms=after_ms, limit=limit + 1)
        page, next_cursor = cut(found, limit, lambda each: str(each.from_ms))
    answer = LicenceOwnersAnswer(licence.licence_id, [_owner(each) for each in page], next_cursor, source)
    return reply(answer, headers=link_headers(next_cursor))


async def list_user_balances(backend: Backend, caller: Principal, *, user_id: str) -> Response:
    wallet = (await sight.user(backend, caller, user_id)).wallet
    limit, after = limit_parameter(), id_cursor()
    inventory = backend.stores.inventory
    found = [] if wallet is None else await inventory.balances(wallet, after=after, limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda each: each.collection_id)
    collections = await inventory.collections_by_id([balance.collection_id for balance in page])
    items = [
        BalanceItem(
            collection_id=balance.collection_id,
            chain_id=collections[balance.collection_id].chain_id,
            contract=collections[balance.collection_id].contract,
            name=collections[balance.collection_id].name,
            amount=str(balance.amount),
            block=balance.block or None,
        )
        for balance in page
    ]
    sources = [source_of(backend, collections[item.collection_id]) for item in items]
    return reply(BalancesAnswer(items, next_cursor, sources), headers=link_headers(next_cursor))


async def _sources(backend: Backend, collection_ids: Sequence[str]) -> list[Source]:
    found = await backend.stores.inventory.collections_by_id(sorted(set(collection_ids)))
    return [source_of(backend, found[each]) for each in sorted(found)]


def _fields(licence: Licence) -> dict[str, Any]:
    return {
        "licence_id": licence.licence_id,
        "project_id": licence.project_id,
        "collection_id": licence.collection_id,
        "token_id": str(licence.token_id),
        "owner": licence.owner,
        "workload_ids": list(licence.workload_ids),
        "created_at": format_rfc3339(licence.created_ms),
        "retired_at": None if licence.retired_ms is None else format_rfc3339(licence.retired_ms),
    }


def _owner(one: Ownership) -> OwnerItem:
    ever = one.from_ms == SINCE_EVER
    return OwnerItem(
        owner=one.owner,
        from_=None if ever else format_rfc3339(one.from_ms),
        to=None if one.to_ms is None else format_rfc3339(one.to_ms),
        block=None if ever else one.from_block,
    )


def _address_parameter(name: str) -> str | None:
    text = request.args.get(name)
    if text is not None and not _ADDRESS.fullmatch(text):
        raise bad_parameter(name, "must be 0x and 40 hex digits")
    return None if text is None else text.lower()


def _id_parameter(name: str) -> str | None:
    text = request.args.get(name)
    key = canonical_uuid(text) if text is not None else None
    if text is not None and key is None:
        raise bad_parameter(name, "must be an id")
    return key


def _time_parameter(name: str) -> int | None:
    text = request.args.get(name)
    try:
        return None if text is None else min(max(parse_rfc3339(text), 0), _MS_MAX)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from error


def _ms_cursor() -> int:
    text = request.args.get("after")
    if text is None:
        return -1
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    return int(text)


_ID = {"type": "string", "format": "uuid"}
_WALLET = {"type": "string", "pattern": "^0[xX][0-9a-fA-F]{40}$"}
_OWNER = Parameter(name="owner", description="Only those that this wallet owns", schema=_WALLET)
_BOUND = {"type": "boolean"}

ROUTES = (
    Route(
        method="GET",
        path="/v1/licences",
        handler=list_licences,
        summary="Licences of your projects and of your wallet, by cursor",
        tag="inventory",
        parameters=(
            Parameter(name="project", description="Only those of this project (its slug)"),
            _OWNER,
            Parameter(name="collection", description="Only those of this collection", schema=_ID),
            Parameter(name="bound", description="true: workloads run under them; false: free", schema=_BOUND),
            *PARAMETERS,
        ),
        answers={200: Answer(description="A page of licences", type=LicencesAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/licences/{licence_id}",
        handler=get_licence,
        summary="A licence and its last known owner",
        tag="inventory",
        answers={200: Answer(description="The licence", type=OneLicenceAnswer)},
        refusals=(404,),
    ),
    Route(
        method="GET",
        path="/v1/licences/{licence_id}/owners",
        handler=list_licence_owners,
        summary="Who owned a licence when, or at one time",
        tag="inventory",
        parameters=(
            Parameter(
                name="at",
                description="Only who owned it then; after the source's block_time: the last known owner",
                schema={"type": "string", "format": "date-time"},
            ),
            *PARAMETERS,
        ),
        answers={200: Answer(description="Owners by time", type=LicenceOwnersAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/users/{user_id}/licences",
        handler=list_user_licences,
        summary="Licences in a person's wallet; none without a wallet",
        tag="inventory",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of licences", type=LicencesAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/users/{user_id}/balances",
        handler=list_user_balances,
        summary="Balances of a person's wallet; none without a wallet",
        tag="inventory",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of balances", type=BalancesAnswer)},
        refusals=(400, 404),
    ),
)
