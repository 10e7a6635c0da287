"""The forms in which subgraphs are asked and answer: query texts, where the fields lie, and strict reading.

There is no standard schema for ERC-721 tokens, so a form is data: OpenZeppelin's and the eip721 subgraphs'
are here, a third comes from the configuration. Nothing is guessed: an answer that is not just as promised is
refused (GraphError) as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.inventory import NOBODY, UINT256_MAX, Block, Collection, Held, Purse, Token
from worker.ownership.graphql import GraphError
from worker.settings import CustomSubgraph

PAGE_ITEMS = 1_000  # the most that a subgraph gives at once
NUMBER_MAX = (1 << 53) - 1
_DIGITS = re.compile(r"[0-9]{1,78}", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
_MISSING = object()
_VARIABLES = "$first: Int!, $block: Block_height!, $check: Boolean!, $before: Int!"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One form.

    The query takes the variables of `_VARIABLES`. `items`, `id`, `key`, `value`, `contract` are paths with
    dots in its answer, the last four within an item; `contract_filter` and `key_filter` are fields of its
    filter. An empty `contract` or `contract_filter`: the subgraph is of one contract only. `purses`:
    balances, not tokens.
    """

    query: str
    items: str
    id: str
    key: str
    value: str
    contract: str
    contract_filter: str
    key_filter: str
    purses: bool = False


def _query(field: str, of: str, fields: str) -> str:
    return (
        f"query NodePulse($where: {of}!, {_VARIABLES}) {{\n"
        "  _meta(block: $block) { block { number hash timestamp } hasIndexingErrors }\n"
        "  before: _meta(block: {number: $before}) @include(if: $check) { block { number hash } }\n"
        f"  {field}(first: $first, orderBy: id, orderDirection: asc, where: $where, block: $block)"
        f" {{ {fields} }}\n}}"
    )


OPENZEPPELIN = Form(
    query=_query("erc721Tokens", "ERC721Token_filter", "id identifier owner { id } contract { id }"),
    items="erc721Tokens",
    id="id",
    key="identifier",
    value="owner.id",
    contract="contract.id",
    contract_filter="contract",
    key_filter="identifier_in",
)
EIP721 = Form(
    query=_query("tokens", "Token_filter", "id contract tokenID owner"),
    items="tokens",
    id="id",
    key="tokenID",
    value="owner",
    contract="contract",
    contract_filter="contract",
    key_filter="tokenID_in",
)
BALANCES = Form(
    query=_query("erc20Balances", "ERC20Balance_filter", "id account { id } valueExact contract { id }"),
    items="erc20Balances",
    id="id",
    key="account.id",
    value="valueExact",
    contract="contract.id",
    contract_filter="contract",
    key_filter="account_in",
    purses=True,
)


class Page(msgspec.Struct, frozen=True):
    """One page as it was read. `before_hash`: of the block that was asked about; None: not told.

    `rows`: how many it had, those included that are nobody's.
    """

    block: Block
    before_hash: str | None
    items: tuple[Held, ...]
    last_id: str  # of the last item; that of the page before when there is none
    rows: int


def form_of(collection: Collection, *, preset: str, custom: CustomSubgraph) -> Form:
    """The form in which a collection's subgraph is asked; `preset` where it names none. GraphError."""
    if collection.standard == "erc20":
        return BALANCES
    match collection.preset or preset:
        case "openzeppelin":
            return OPENZEPPELIN
        case "eip721":
            return EIP721
    if not custom.query:
        raise GraphError("the preset is custom, but worker.ownership.custom.query is empty")
    return Form(**msgspec.structs.asdict(custom))


def filter_of(form: Form, contract: str, *, last_id: str) -> dict[str, Any]:
    """The filter of everything of the contract after an id ("": from the beginning)."""
    where: dict[str, Any] = {"id_gt": last_id}
    if form.contract_filter:
        where[form.contract_filter] = contract
    return where


def read_page(form: Form, data: Mapping[str, Any], *, contract: str, last_id: str) -> Page:
    """A page that comes after `last_id`. GraphError says what is wrong and where."""
    meta = _at(data, "_meta")
    if _at(meta, "hasIndexingErrors") is not False:
        raise GraphError("the subgraph has indexing errors")
    block = Block(
        _number(meta, "block.number"),
        _text(meta, "block.hash", _HASH),
        _number(meta, "block.timestamp") * 1000,
    )
    before = data.get("before")
    before_hash = None
    if before is not None and _at(before, "block.hash") is not None:
        before_hash = _text(before, "block.hash", _HASH)
    rows = _at(data, form.items)
    if not isinstance(rows, list) or len(rows) > PAGE_ITEMS:
        raise GraphError(f"{form.items} is no list of at most {PAGE_ITEMS}")
    items = []
    for row in rows:
        new_id = _at(row, form.id)
        if not isinstance(new_id, str) or new_id <= last_id:
            raise GraphError(f"{form.items}.{form.id} {new_id!r:.100} comes after {last_id!r:.100}")
        last_id = new_id
        held = _item(form, row, contract)
        if held is not None:
            items.append(held)
    return Page(block, before_hash, tuple(items), last_id, len(rows))


def _item(form: Form, row: Any, contract: str) -> Held | None:
    if form.contract and _text(row, form.contract, _ADDRESS) != contract:
        raise GraphError(f"{form.items} has an item of another contract")
    if form.purses:
        if _at(row, form.key.partition(".")[0]) is None:
            return None  # the total supply, which OpenZeppelin keeps as the balance of nobody
        return Purse(_text(row, form.key, _ADDRESS), _uint256(row, form.value))
    owner = _text(row, form.value, _ADDRESS)
    return Token(_uint256(row, form.key), None if owner == NOBODY else owner)


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING:
            raise GraphError(f"the answer has no {path}")
    return value


def _text(value: Any, path: str, form: re.Pattern[str]) -> str:
    text = _at(value, path)
    if not isinstance(text, str) or not form.fullmatch(text):
        raise GraphError(f"{path} is {text!r:.100}: not of the promised form")
    return text.lower()


def _number(value: Any, path: str) -> int:
    number = _at(value, path)
    if type(number) is not int or not 0 <= number <= NUMBER_MAX:
        raise GraphError(f"{path} is {number!r:.100}: not a whole number")
    return number


def _uint256(value: Any, path: str) -> int:
    number = int(_text(value, path, _DIGITS))
    if number > UINT256_MAX:
        raise GraphError(f"{path} is above 2**256 - 1")
    return number
