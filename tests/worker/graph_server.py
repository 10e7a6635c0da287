"""A subgraph server to be tested against: real HTTP, queries parsed and validated against the schemas as
graph-node makes them (graphql-core), over a chain in memory that has history and can take blocks back.

Both schemas of tokens are served (`/openzeppelin`, `/eip721`) and balances with the first. Faults are
switches of `GraphServer`, or `Fault`s in line for the next requests.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphql import GraphQLError, build_schema, graphql_sync

NOBODY = "0x" + "0" * 40
CONTRACT = "0x" + "ab" * 20
START_MS = 1_700_000_000_000
BLOCK_MS = 12_000
FIRST_MAX = 1_000

_COMMON = """
scalar Bytes
scalar BigInt
scalar BigDecimal
enum OrderDirection { asc desc }
input Block_height { hash: Bytes number: Int number_gte: Int }
input BlockChangedFilter { number_gte: Int! }
type _Block_ { hash: Bytes number: Int! timestamp: Int parentHash: Bytes }
type _Meta_ { block: _Block_! deployment: String! hasIndexingErrors: Boolean! }
"""


def _listing(field: str, of: str) -> str:
    return (
        f"{field}(skip: Int = 0, first: Int = 100, orderBy: {of}_orderBy, orderDirection: OrderDirection,"
        f" where: {of}_filter, block: Block_height): [{of}!]!"
    )


OPENZEPPELIN = build_schema(
    _COMMON
    + """
type Account { id: Bytes! }
type ERC721Contract { id: Bytes! }
type ERC721Token { id: ID! contract: ERC721Contract! identifier: BigInt! owner: Account! uri: String }
enum ERC721Token_orderBy { id contract identifier owner }
input ERC721Token_filter {
  id_gt: ID contract: String identifier: BigInt identifier_in: [BigInt!] _change_block: BlockChangedFilter }
type ERC20Contract { id: Bytes! }
type ERC20Balance {
  id: ID! contract: ERC20Contract! account: Account value: BigDecimal! valueExact: BigInt! }
enum ERC20Balance_orderBy { id contract account valueExact }
input ERC20Balance_filter {
  id_gt: ID contract: String account_in: [String!] _change_block: BlockChangedFilter }
type Query {
  _meta(block: Block_height): _Meta_
"""
    + _listing("erc721Tokens", "ERC721Token")
    + _listing("erc20Balances", "ERC20Balance")
    + "}"
)
EIP721 = build_schema(
    _COMMON
    + """
type Token { id: ID! contract: String! tokenID: BigInt! owner: String! }
enum Token_orderBy { id contract tokenID owner }
input Token_filter {
  id_gt: ID contract: String tokenID_in: [BigInt!] _change_block: BlockChangedFilter }
type Query {
  _meta(block: Block_height): _Meta_
"""
    + _listing("tokens", "Token")
    + "}"
)


@dataclass(frozen=True)
class ChainBlock:
    number: int
    hash: str
    ms: int


class Chain:
    """Blocks from 0 on, and for every token and wallet what it was from which block on (None: nothing)."""

    def __init__(self) -> None:
        self.blocks: list[ChainBlock] = []
        self.tokens: dict[int, list[tuple[int, str | None]]] = {}
        self.amounts: dict[str | None, list[tuple[int, int | None]]] = {}
        self.known_hashes: dict[str, int] = {}  # of blocks that were taken back as well
        self._branch = 0
        self.mine()

    @property
    def head(self) -> ChainBlock:
        return self.blocks[-1]

    def mine(
        self,
        count: int = 1,
        *,
        owners: dict[int, str | None] | None = None,
        amounts: dict[str | None, int | None] | None = None,
    ) -> ChainBlock:
        """Add blocks; what is told happens in the first of them."""
        first = len(self.blocks)
        for token, owner in (owners or {}).items():
            self.tokens.setdefault(token, []).append((first, owner))
        for account, amount in (amounts or {}).items():
            self.amounts.setdefault(account, []).append((first, amount))
        for number in range(first, first + count):
            digest = hashlib.sha256(f"{self._branch}/{number}".encode()).hexdigest()
            self.blocks.append(ChainBlock(number, f"0x{digest}", START_MS + number * BLOCK_MS))
            self.known_hashes[f"0x{digest}"] = number
        return self.blocks[first]

    def take_back(self, count: int) -> None:
        """The newest blocks never were; those that follow have other hashes."""
        del self.blocks[-count:]
        self._branch += 1
        for histories in (self.tokens, self.amounts):
            for history in histories.values():
                while history and history[-1][0] >= len(self.blocks):
                    history.pop()


@dataclass
class Fault:
    """What one request meets instead of, or on top of, its answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the answer
    edit: Callable[[dict[str, Any]], None] | None = None  # changes the answer's `data`
    error: str = ""  # GraphQL's errors in a 200
    cut_json: bool = False  # a complete answer that holds half of the JSON
    cut_connection: bool = False  # closed in the middle
    hang: bool = False
    before: Callable[[], None] | None = None  # happens before it is answered


class GraphServer:
    """The switches, and what was asked. Made by `serving_graph`."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.faults: list[Fault | None] = []  # of the next requests; None: none
        self.page_items_max = FIRST_MAX  # pages are cut to this
        self.indexing_errors = False
        self.behind_blocks = 0  # of the head that it knows
        self.tells_hashes = False  # also of a block asked for by number, which graph-node does not
        self.forgets_hashes = True  # of blocks taken back
        self.earliest = 0  # of older blocks it knows nothing (pruned)
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.port = 0
        self.closing = threading.Event()

    def url(self, schema: str = "openzeppelin") -> str:
        return f"http://127.0.0.1:{self.port}/{schema}"

    @property
    def newest(self) -> ChainBlock:
        return self.chain.blocks[-1 - self.behind_blocks]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        schema = EIP721 if path.endswith("eip721") else OPENZEPPELIN
        root = {
            "_meta": self._meta,
            "erc721Tokens": lambda info, **asked: self._tokens(asked, _as_openzeppelin, "identifier_in"),
            "tokens": lambda info, **asked: self._tokens(asked, _as_eip721, "tokenID_in"),
            "erc20Balances": lambda info, **asked: self._balances(asked),
        }
        result = graphql_sync(
            schema, body["query"], root_value=root, variable_values=body.get("variables") or {}
        )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:  # graph-node gives no data then
            answer = {"errors": [{"message": error.message} for error in result.errors]}
        return answer

    def _at(self, asked: dict[str, Any] | None) -> int:
        asked = asked or {}
        newest = self.newest.number
        if "hash" in asked:
            number = self.chain.known_hashes.get(asked["hash"])
            taken_back = number is not None and not (
                number < len(self.chain.blocks) and self.chain.blocks[number].hash == asked["hash"]
            )
            if number is None or (taken_back and self.forgets_hashes):
                raise GraphQLError("Failed to decode `block.hash` value: `no block with that hash found`")
            return number
        wanted = asked.get("number", asked.get("number_gte", 0))
        if wanted > newest:
            raise GraphQLError(
                f"Failed to decode `block.number` value: `subgraph Qm has only indexed up to block number"
                f" {newest} and data for block number {wanted} is therefore not yet available`"
            )
        if "number" in asked:
            if wanted < self.earliest:
                raise GraphQLError(f"subgraph Qm only has data starting at block number {self.earliest}")
            return int(wanted)
        return newest

    def _meta(self, _info: object, block: dict[str, Any] | None = None) -> dict[str, Any]:
        number = self._at(block)
        hidden = "number" in (block or {}) and not self.tells_hashes
        there = self.chain.blocks[min(number, self.chain.head.number)]
        known = (block or {}).get("hash", there.hash)
        return {
            "block": {
                "number": number,
                "hash": None if hidden else known,
                "timestamp": None if hidden else there.ms // 1000,
            },
            "deployment": "Qm",
            "hasIndexingErrors": self.indexing_errors,
        }

    def _tokens(
        self, asked: dict[str, Any], shape: Callable[[int, str], dict[str, Any]], key_filter: str
    ) -> list[dict[str, Any]]:
        keys = asked["where"].get(key_filter)
        histories = self.chain.tokens
        chosen = histories if keys is None else {int(key): histories.get(int(key), []) for key in keys}
        rows = (
            (f"{CONTRACT}/0x{token:x}", lambda owner, token=token: shape(token, owner), history)
            for token, history in chosen.items()
        )
        return self._page(asked, rows)

    def _balances(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        accounts = asked["where"].get("account_in")
        rows = (
            (
                f"{CONTRACT}/{account or 'totalSupply'}",
                lambda amount, account=account: {
                    "contract": {"id": CONTRACT},
                    "account": None if account is None else {"id": account},
                    "value": str(amount / 10**18),
                    "valueExact": str(amount),
                },
                history,
            )
            for account, history in self.chain.amounts.items()
            if accounts is None or account in accounts
        )
        return self._page(asked, rows)

    def _page(self, asked: dict[str, Any], rows: Iterator[Any]) -> list[dict[str, Any]]:
        where, first = asked["where"], asked["first"]
        assert asked["skip"] == 0, "nobody may skip"
        if not 1 <= first <= FIRST_MAX:
            raise GraphQLError(f"The value of the `first` argument must be between 1 and {FIRST_MAX}")
        at = self._at(asked.get("block"))
        since = where.get("_change_block", {}).get("number_gte", 0)
        found = []
        for entity_id, shape, history in rows:
            if entity_id <= where["id_gt"] or where.get("contract", CONTRACT) != CONTRACT:
                continue
            began, value = next((each for each in reversed(history) if each[0] <= at), (0, None))
            if value is not None and began >= since:
                found.append((entity_id, shape, value))
        found.sort(key=lambda each: each[0])
        page = found[: min(first, self.page_items_max)]
        return [{"id": entity_id, **shape(value)} for entity_id, shape, value in page]


def _as_openzeppelin(token: int, owner: str) -> dict[str, Any]:
    return {"identifier": str(token), "owner": {"id": owner}, "contract": {"id": CONTRACT}}


def _as_eip721(token: int, owner: str) -> dict[str, Any]:
    return {"tokenID": str(token), "owner": owner, "contract": CONTRACT}


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_POST(self) -> None:
        graph = self.server.graph
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        graph.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        fault = (graph.faults.pop(0) if graph.faults else None) or Fault()
        if fault.before is not None:
            fault.before()
        if fault.hang:
            graph.closing.wait()
            return
        raw = fault.body if fault.body is not None else self._answer(graph, body, fault)
        if fault.cut_json:
            raw = raw[: len(raw) // 2]
        self.send_response(fault.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if fault.cut_connection else raw)

    def _answer(self, graph: GraphServer, body: dict[str, Any], fault: Fault) -> bytes:
        answer = graph.answer(self.path, body)
        if fault.edit is not None:
            fault.edit(answer["data"])
        if fault.error:
            answer["errors"] = [{"message": fault.error}]
        return json.dumps(answer).encode()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    graph: GraphServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle may."""


@contextmanager
def serving_graph(chain: Chain) -> Iterator[GraphServer]:
    graph = GraphServer(chain)
    http = _Http(("127.0.0.1", 0), _Handler)
    http.graph, graph.port = graph, http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield graph
    finally:
        graph.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()
