"""Stores in memory that a test can steer: late, away, or changing between two reads.

The memory twins in storage/ behave; these here misbehave on demand. One `World` holds them, a clock that
follows trio's, and the app made over them.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.fleet import EventFilter, NodeFilter, Place, Sight
from engine.core.keys import MasterSecrets
from engine.core.people import Principal
from engine.core.ports import (
    NodeRecord,
    NodeRefusedError,
    NonceSeenError,
    Project,
    RateLimitedError,
    StoreUnavailableError,
    WorkloadRecord,
)
from engine.core.records import (
    BaseInterval,
    Event,
    Gap,
    LiveNode,
    LiveSlot,
    Recorded,
    RowSpec,
    SessionSpec,
    ShardHead,
    SlotSpec,
    event_id,
)
from engine.core.timing import ttl_of_interval
from web.app import WebApp, create_app
from web.settings import WebSettings

BASE_MS = 1_780_000_000_000  # 2026-05-28T20:26:40Z
DAY_MS = 86_400_000
ADMIN_KEY, PROJECT_KEY, FOREIGN_KEY = "admin-key", "project-key", "foreign-key"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Ingest(msgspec.Struct, frozen=True, kw_only=True):
    port: int = 7900
    public_udp: str = ""
    public_http: str = ""
    allow_plaintext: bool = False


class FakeDirectory:
    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        self.keys: dict[bytes, Principal] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.workloads: dict[str, WorkloadRecord] = {}
        self.generations: dict[str, int] = {}
        self.nonces: set[tuple[str, str]] = set()
        self.clients: list[tuple[str, str]] = []  # who asked for sessions: address, version
        self.requests: dict[str, int] = {}
        self.gone: set[str] = set()
        self.position = 0
        self.away = False
        self.lookups = 0

    def _here(self) -> None:
        if self.away:
            raise StoreUnavailableError("fake directory")

    async def principal(self, key_sha256: bytes, *, now_ms: int) -> Principal | None:
        await trio.lowlevel.checkpoint()
        self._here()
        self.lookups += 1
        return self.keys.get(key_sha256)

    async def project(self, slug: str) -> Project | None:
        self._here()
        return self.projects.get(slug)

    async def node(self, node_id: str) -> NodeRecord | None:
        self._here()
        return self.nodes.get(node_id)

    async def workload(self, workload_id: str) -> WorkloadRecord | None:
        self._here()
        return self.workloads.get(workload_id)

    async def workloads_of_project(self, project_id: str, ids: Any) -> dict[str, WorkloadRecord]:
        self._here()
        found = {each: self.workloads[each] for each in ids if each in self.workloads}
        return {each: workload for each, workload in found.items() if workload.project_id == project_id}

    async def list_nodes(self, project_id: str | None, *, after: str | None, limit: int) -> list[NodeRecord]:
        nodes = [n for n in self.nodes.values() if project_id in (None, n.project_id)]
        return sorted((n for n in nodes if n.node_id > (after or "")), key=lambda n: n.node_id)[:limit]

    async def open_session(
        self,
        node_id: str,
        *,
        nonce: str,
        nonce_expires_ms: int,
        rate_per_min: int,
        now_ms: int,
        life_ms: int,
        secret_id: int,
        manager_version: str = "",
        client_address: str = "",
    ) -> tuple[RowSpec, SessionSpec, int]:
        await trio.lowlevel.checkpoint()
        self._here()
        self.clients.append((client_address, manager_version))
        if node_id in self.gone:
            raise NodeRefusedError
        self.requests[node_id] = self.requests.get(node_id, 0) + 1
        if self.requests[node_id] > rate_per_min:
            raise RateLimitedError
        if (node_id, nonce) in self.nonces:
            raise NonceSeenError
        self.nonces.add((node_id, nonce))
        self.generations[node_id] = self.generations.get(node_id, 0) + 1
        self.position += 1
        return *self._specs(node_id, now_ms, life_ms, secret_id), self.position

    def _specs(self, node_id: str, now_ms: int, life_ms: int, secret_id: int) -> tuple[RowSpec, SessionSpec]:
        node = self.nodes[node_id]
        slots = tuple(
            SlotSpec(slot=w.slot, workload_id=w.workload_id, created_ms=w.created_ms, retired_ms=w.retired_ms)
            for w in self.workloads.values()
            if w.node_id == node_id
        )
        session = SessionSpec(
            generation=self.generations[node_id],
            secret_id=secret_id,
            salt=b"saltsalt",
            opened_ms=now_ms,
            expires_ms=now_ms + life_ms,
            interval_ms=node.interval_ms,
            ttl_ms=ttl_of_interval(node.interval_ms),
            slots=sum(1 << slot.slot for slot in slots if slot.retired_ms is None),
        )
        row = RowSpec(
            row=node.row,
            node_id=node_id,
            project_id=node.project_id,
            kind="node",
            interval_ms=node.interval_ms,
            revoked=False,
            retired=False,
            capability_generation=0,
            slots=slots,
            current=session,
            previous=None,
        )
        return row, session


class FakeLive:
    """`lag_ms` behind the clock; `applied` None: every registry position is applied at once."""

    def __init__(self, now_ms: Callable[[], int], directory: FakeDirectory, *, shards: int) -> None:
        self._now_ms = now_ms
        self._directory = directory
        self.shards = shards
        self.nodes: dict[int, LiveNode] = {}
        self.lag_ms = 0
        self.applied: int | None = None
        self.away = False
        self.silent = False  # no headers at all, as after a flush
        self.frozen_at_ms: int | None = None  # the engine is dead: headers no longer change
        self.provisional_from_ms: int | None = None
        self.announced = trio.Event()
        self.head_reads = self.row_reads = 0

    def head(self, shard: int) -> ShardHead:
        now_ms = self._now_ms() if self.frozen_at_ms is None else self.frozen_at_ms
        return ShardHead(
            shard=shard,
            shards=self.shards,
            epoch="e1",
            watermark_ms=now_ms - self.lag_ms,
            registry_position=self._directory.position if self.applied is None else self.applied,
            rows=1,
            degraded=False,
            provisional_from_ms=self.provisional_from_ms,
            wall_ms=now_ms,
        )

    async def heads(self) -> dict[int, ShardHead]:
        await trio.lowlevel.checkpoint()
        self.head_reads += 1
        if self.away:
            raise StoreUnavailableError("fake live view")
        return {} if self.silent else {shard: self.head(shard) for shard in range(self.shards)}

    async def read(self, row: int, *, shards: int) -> tuple[ShardHead, LiveNode | None] | None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailableError("fake live view")
        return None if self.silent else (self.head(row % shards), self.nodes.get(row))

    async def read_rows(self, rows: Any, *, shards: int) -> dict[int, tuple[ShardHead, LiveNode | None]]:
        self.row_reads += 1
        found = {row: await self.read(row, shards=shards) for row in rows}
        return {row: one for row, one in found.items() if one is not None}

    async def wait_events(self, timeout_s: float) -> None:
        if self.away:
            raise StoreUnavailableError("fake live view")
        with trio.move_on_after(timeout_s):
            await self.announced.wait()
        self.announced = trio.Event()


class FakeHistory:
    """`watermark_lag_ms` behind the clock; `on_read` is called before rows are given out."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.rows: dict[str, list[BaseInterval]] = {}
        self.all_gaps: list[Gap] = []
        self.all_windows: list[Any] = []
        self.all_leases: list[Any] = []
        self.all_events: list[Event] = []
        self.watermark_lag_ms = 0
        self.stuck_at_ms: int | None = None
        self.away = False
        self.on_watermark: Callable[[], None] = lambda: None
        self.event_reads = 0

    def _here(self) -> None:
        if self.away:
            raise StoreUnavailableError("fake history")

    async def watermark(self, shard: int) -> int:
        await trio.lowlevel.checkpoint()
        self._here()
        self.on_watermark()
        return self._now_ms() - self.watermark_lag_ms if self.stuck_at_ms is None else self.stuck_at_ms

    async def intervals(self, workload_id: str, from_ms: int, to_ms: int) -> list[BaseInterval]:
        await trio.lowlevel.checkpoint()
        self._here()
        rows = sorted(self.rows.get(workload_id, []), key=lambda row: row.started_ms)
        touching = [i for i, row in enumerate(rows) if row.started_ms < to_ms and from_ms < row.ended_ms]
        before = [i for i, row in enumerate(rows) if row.ended_ms <= from_ms][-1:]
        after = [i for i, row in enumerate(rows) if row.started_ms >= to_ms][:1]
        return [rows[i] for i in [*before, *touching, *after]]

    async def gaps(self, row: int, from_ms: int, to_ms: int) -> list[Gap]:
        self._here()
        mine = [gap for gap in self.all_gaps if row % gap.shards == gap.shard]
        return [gap for gap in mine if gap.from_ms < to_ms and from_ms < gap.to_ms]

    async def leases(self, workload_id: str, from_ms: int, to_ms: int) -> list[Any]:
        self._here()
        return self.all_leases

    async def windows(self, workload_id: str, from_ms: int, to_ms: int) -> list[Any]:
        return [w for w in self.all_windows if w.from_ms < to_ms and from_ms < w.to_ms]

    async def claims(self, workload_id: str, from_ms: int, to_ms: int) -> list[Any]:
        return []

    async def recorded(
        self, workload_id: str, row: int, *, shard: int, window: tuple[int, int], around: tuple[int, int]
    ) -> Recorded:
        return Recorded(
            watermark_ms=await self.watermark(shard),
            gaps=await self.gaps(row, *around),
            intervals=await self.intervals(workload_id, *around),
            leases=await self.leases(workload_id, *window),
            windows=await self.windows(workload_id, *window),
            claims=await self.claims(workload_id, *around),
        )

    async def events(self, *, project_id: str | None, after: int, limit: int) -> list[tuple[int, Event]]:
        await trio.lowlevel.checkpoint()
        self._here()
        self.event_reads += 1
        numbered = enumerate(self.all_events, start=1)
        wanted = [(n, e) for n, e in numbered if n > after and project_id in (None, e.project_id)]
        return wanted[:limit]


class FakeFleet:
    """The fakes' directory and history, as lists ask them."""

    def __init__(self, directory: FakeDirectory, history: FakeHistory) -> None:
        self._directory = directory
        self._history = history
        self.asked_after: list[int] = []  # for events

    async def node_places(
        self, sight: Sight, which: NodeFilter, *, after: str | None, limit: int
    ) -> list[Place]:
        await trio.lowlevel.checkpoint()
        nodes = sorted(self._directory.nodes.values(), key=lambda node: node.node_id)
        mine = [n for n in nodes if sight.everything or n.project_id in sight.projects]
        return [Place(n.node_id, n.row, 0) for n in mine if n.node_id > (after or "")][:limit]

    async def nodes(self, ids: Any) -> list[NodeRecord]:
        return [self._directory.nodes[each] for each in ids]

    async def events(
        self, sight: Sight, which: EventFilter, *, after: int, limit: int
    ) -> list[tuple[int, Event]]:
        everything = await self._history.events(project_id=None, after=after, limit=1_000_000)
        self.asked_after.append(after)
        seen = [one for one in everything if sight.everything or one[1].project_id in sight.projects]
        seen = [one for one in seen if not which.kinds or one[1].kind in which.kinds]
        return [one for one in seen if which.project_id in (None, one[1].project_id)][:limit]

    async def newest_cursor(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self._history.all_events)


class FakeProjects:
    """Nobody decided on a policy."""

    async def policies(self, project_id: str) -> list[Any]:
        return []


class World:
    """One project with one node and its workloads, a foreign project, keys, and the app over all that."""

    def __init__(
        self, *, settings: WebSettings | None = None, ingest: Ingest | None = None, shards: int = 1
    ) -> None:
        self.started_ms = BASE_MS - int(trio.current_time() * 1000)
        self.directory = FakeDirectory()
        self.live = FakeLive(self.now_ms, self.directory, shards=shards)
        self.history = FakeHistory(self.now_ms)
        self.projects = FakeProjects()
        self.fleet = FakeFleet(self.directory, self.history)
        self.asks = None
        self.secrets = MasterSecrets(secrets={1: bytes(32)})
        self.system_offset_ms = 0  # how far the web machine's clock is off the engine's
        self.app: WebApp = create_app(
            self,
            settings or WebSettings(),
            self.secrets,
            lambda: self.now_ms() + self.system_offset_ms,
            ingest=ingest or Ingest(),
            shards=shards,
        )
        self.client = self.app.test_client()
        self.project = self._project("alpha", PROJECT_KEY)
        self.foreign = self._project("beta", FOREIGN_KEY)
        self._key(ADMIN_KEY, Principal(key_id="k0", scope="admin", project_id=None))
        self.private_key = Ed25519PrivateKey.generate()
        self.node = self.add_node(self.project, row=0, key=self.private_key)
        self.workload = self.add_workload(self.node, slot=0)

    def now_ms(self) -> int:
        return self.started_ms + int(trio.current_time() * 1000)

    def _project(self, slug: str, key: str) -> Project:
        project = Project(project_id=str(uuid.uuid4()), slug=slug)
        self.directory.projects[slug] = project
        self._key(key, Principal(key_id=key, scope="project", project_id=project.project_id))
        return project

    def _key(self, key: str, principal: Principal) -> None:
        self.directory.keys[hashlib.sha256(key.encode()).digest()] = principal

    def revoke(self, key: str) -> None:
        del self.directory.keys[hashlib.sha256(key.encode()).digest()]

    def add_node(self, project: Project, *, row: int, key: Ed25519PrivateKey | None) -> NodeRecord:
        node = NodeRecord(
            node_id=str(uuid.uuid4()),
            row=row,
            project_id=project.project_id,
            kind="node",
            name=f"node {row}",
            public_key=None if key is None else key.public_key().public_bytes_raw(),
            interval_ms=60_000,
            revoked=False,
            created_ms=BASE_MS - 10 * DAY_MS,
            workload_ids=(),
        )
        self.directory.nodes[node.node_id] = node
        return node

    def add_workload(
        self, node: NodeRecord, *, slot: int, first_report_ms: int | None = None
    ) -> WorkloadRecord:
        workload = WorkloadRecord(
            workload_id=str(uuid.uuid4()),
            node_id=node.node_id,
            project_id=node.project_id,
            row=node.row,
            slot=slot,
            name=f"workload {slot}",
            created_ms=node.created_ms,
            retired_ms=None,
            first_report_ms=first_report_ms,
            leased=True,  # as far as tests say so in the history
        )
        self.directory.workloads[workload.workload_id] = workload
        known = self.directory.nodes[node.node_id]
        self.directory.nodes[node.node_id] = msgspec.structs.replace(
            known, workload_ids=(*known.workload_ids, workload.workload_id)
        )
        return workload

    def report(self, *slots: LiveSlot, state: Any = "up", row: int = 0, ttl_ms: int = 90_000) -> None:
        """What the live view has of a row."""
        last_t_ms = max((slot.last_t_ms for slot in slots), default=0)
        self.live.nodes[row] = LiveNode(
            state=state,
            generation=1,
            ttl_ms=ttl_ms,
            last_t_ms=last_t_ms,
            since_ms=last_t_ms,
            slots=dict(enumerate(slots)),
        )

    def happen(self, kind: str, *, project: Project | None = None) -> Event:
        of = project or self.project
        event = Event(
            event_id=event_id(kind, self.node.node_id, self.now_ms() + len(self.history.all_events)),
            kind=kind,
            shard=0,
            project_id=of.project_id,
            node_id=self.node.node_id,
            workload_id=None,
            since_ms=self.now_ms() - 1_000,
            at_ms=self.now_ms(),
            workloads=(self.workload.workload_id,),
        )
        self.history.all_events.append(event)
        return event

    def session_body(self, **changes: Any) -> dict[str, str]:
        """A well-signed request, changed afterwards. `key`: another signer; `sent_ms`: another time."""
        from np1.session import SessionRequest, rfc3339_of_ms

        key = changes.pop("key", self.private_key)
        asked = SessionRequest(
            node_id=changes.pop("node_id", self.node.node_id),
            sent_at=rfc3339_of_ms(changes.pop("sent_ms", self.now_ms())),
            nonce=changes.pop("nonce", secrets.token_hex(16)),
            manager_version=changes.pop("manager_version", "1.0"),
        )
        signature = key.sign(asked.signed_bytes())
        return {**msgspec.json.decode(asked.body(signature)), **changes}


def up_slot(started_ms: int, last_t_ms: int, *, ttl_ms: int = 90_000, kind: int = 1) -> LiveSlot:
    return LiveSlot(
        kind=kind, ttl_ms=ttl_ms, started_ms=started_ms, last_t_ms=last_t_ms, first_report_ms=started_ms
    )
