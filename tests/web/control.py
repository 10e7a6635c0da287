"""The control plane over real stores: the app, two projects, and one credential for every role.

An engine pretends to follow (pretended_engine.py). People: `olga` operates the one node of project alpha,
`paul` owns project alpha as a person, `sam` is a stranger to both. Keys of the projects: `owner` (alpha),
`foreign` (beta). `admin` is the installation's. `manager` is the session token of alpha's node.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, NamedTuple

import asyncpg
import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.keys import MasterSecrets, Token
from engine.core.ports import NewNode, NodeRecord, Project
from engine.settings import IngestSettings
from storage.bridge import await_host
from storage.ids import new_id
from storage.open import AllStores
from tests.conftest import as_owner
from tests.web.pretended_engine import Engine
from web.app import WebApp, create_app
from web.main import system_ms
from web.settings import WebSettings

PEOPLE = ("olga", "paul", "sam")
_numbers = itertools.count(1)


class Answered(NamedTuple):
    status: int
    json: Any  # None when the body is not JSON
    headers: dict[str, str]  # names in lower case
    body: bytes


class Control:
    """Made by the fixture `control`."""

    def __init__(self, stores: AllStores, postgres_url: str, settings: WebSettings | None = None) -> None:
        self.stores, self.postgres_url = stores, postgres_url
        self._connection: Any = None  # of `sql`, one after the other
        self.secrets = MasterSecrets(secrets={1: bytes(range(32))})
        self.engine = Engine(stores)
        self.settings = settings or WebSettings()
        self.app: WebApp = self.new_app()
        self.client = self.app.test_client()
        self.bearers: dict[str, str] = {}
        self.users: dict[str, str] = {}  # user ids by name
        self.key_ids: dict[str, str] = {}
        self.alpha: Project
        self.beta: Project
        self.node: NodeRecord  # alpha's, olga's
        self.foreign_node: NodeRecord  # beta's, nobody's
        self.private_key = Ed25519PrivateKey.generate()  # of `node`

    def new_app(self) -> WebApp:
        """One more web process over the same stores; its backend is the caller's to run."""
        return create_app(
            self.stores, self.settings, self.secrets, system_ms, ingest=IngestSettings(), shards=1
        )

    async def fill(self) -> None:
        now_ms = system_ms()
        directory = self.stores.directory
        self.alpha = await directory.create_project("alpha", now_ms=now_ms)
        self.beta = await directory.create_project("beta", now_ms=now_ms)
        for name in PEOPLE:
            self.users[name] = new_id()
            await self.sql(
                "insert into account (user_id, name, wallet, email, created_ms) values ($1, $2, $3, $4, $5)",
                self.users[name],
                name,
                "0x" + hashlib.sha256(name.encode()).hexdigest()[:40],
                f"{name}@example.org",
                now_ms,
            )
        await self.sql(
            "insert into project_owner (project_id, user_id, created_ms) values ($1, $2, $3)",
            self.alpha.project_id,
            self.users["paul"],
            now_ms,
        )
        await self.add_key("admin", scope="admin")
        await self.add_key("owner", scope="project", project_id=self.alpha.project_id)
        await self.add_key("foreign", scope="project", project_id=self.beta.project_id)
        for name in PEOPLE:
            await self.add_key(name, scope="user", user_id=self.users[name])
        public = self.private_key.public_key().public_bytes_raw()
        mine = NewNode(
            self.alpha.project_id, "mine", "node", public, 60_000, ("w0", "w1"), (), self.users["olga"], "eu"
        )
        other = NewNode(self.beta.project_id, "other", "node", b"o" * 32, 60_000, ("w0",))
        self.node, self.foreign_node = await directory.create_nodes([mine, other], now_ms=now_ms)
        self.bearers["manager"] = await self.open_session(self.node.node_id)

    async def add_key(
        self,
        name: str,
        *,
        scope: str,
        project_id: str | None = None,
        user_id: str | None = None,
        permissions: tuple[str, ...] = ("read", "write", "points"),
        expires_ms: int | None = None,
    ) -> str:
        """A key under a name for `ask(by=...)`; its id."""
        self.bearers[name], self.key_ids[name] = f"np_{name}", new_id()
        await self.sql(
            """
            insert into api_key (key_id, key_sha256, scope, project_id, user_id, name, permissions,
              expires_ms, created_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            """,
            self.key_ids[name],
            hashlib.sha256(self.bearers[name].encode()).digest(),
            scope,
            project_id,
            user_id,
            name,
            list(permissions),
            expires_ms,
            system_ms(),
        )
        return self.key_ids[name]

    async def open_session(self, node_id: str) -> str:
        """A session of the node, opened in the store; its token."""
        now_ms = system_ms()
        row, session, _ = await self.stores.directory.open_session(
            node_id,
            nonce=f"{next(_numbers):032x}",
            nonce_expires_ms=now_ms + 300_000,
            rate_per_min=1_000,
            now_ms=now_ms,
            life_ms=86_400_000,
            secret_id=1,
        )
        return self.secrets.make_token(
            Token(row=row.row, generation=session.generation, expires_ms=session.expires_ms)
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        by: str | None = "admin",
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        key: str | None = "",
    ) -> Answered:
        """One request. `by`: whose credential, None = none. `key`: the Idempotency-Key; "" = a new one for
        each POST, None = none."""
        named = {} if by is None else {"authorization": f"Bearer {self.bearers[by]}"}
        if method == "POST" and key is not None:
            named["idempotency-key"] = key or f"test-{next(_numbers)}"
        data = msgspec.json.encode(json) if json is not None else body
        if json is not None:
            named["content-type"] = "application/json"
        response = await self.client.open(
            path, method=method, headers={**named, **(headers or {})}, data=data
        )
        raw = await response.get_data(as_text=False)
        is_json = "json" in (response.content_type or "") and "ndjson" not in response.content_type
        answer = msgspec.json.decode(raw) if is_json and raw else None
        return Answered(
            response.status_code, answer, {n.lower(): v for n, v in response.headers.items()}, raw
        )

    async def confirm_mail(self, address: str) -> Answered:
        """Whoever reads this address opens the link in the newest letter there and confirms."""
        (row,) = await self.sql(
            "select body from letter where address = $1 order by created_ms desc, letter_id desc limit 1",
            address,
        )
        link = next(word for word in row["body"].split() if "/v1/confirm/" in word)
        return await self.ask("POST", link[link.index("/v1/confirm/") :], by=None, key=None)

    async def wait_state(self, node_id: str, state: str) -> None:
        """Until the pretended engine's view has the node in this state."""
        with trio.fail_after(10):
            while (await self.ask("GET", f"/v1/nodes/{node_id}")).json["state"] != state:  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def sql(self, statement: str, *arguments: object) -> list[Any]:
        """Run a statement on the database itself, as its owner; its rows."""

        async def run() -> list[Any]:
            if self._connection is None:
                self._connection = await asyncpg.connect(as_owner(self.postgres_url))
            found: list[Any] = await self._connection.fetch(statement, *arguments)
            return found

        return await await_host(run)

    async def close(self) -> None:
        if self._connection is not None:
            await await_host(self._connection.close)
