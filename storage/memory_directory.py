"""The memory twin of postgres_directory.py and postgres_sessions.py."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from engine.core.clones import Manager, clone_of_managers
from engine.core.keys import SALT_BYTES
from engine.core.maintenance import check_window, days_of
from engine.core.people import Act, Principal, Scope
from engine.core.ports import (
    NewNode,
    NodeRecord,
    NodeRefusedError,
    NonceSeenError,
    Project,
    RateLimitedError,
    RowFullError,
    WorkloadRecord,
)
from engine.core.records import RowSpec, SessionSpec, Window
from engine.core.timing import SLOTS_MAX, ttl_of_interval
from storage.ids import new_id
from storage.memory_world import MemoryNode, MemoryWorld
from storage.postgres_events import CONTROL_PLANE
from storage.postgres_nodes import CAPABILITY_GENERATION_MAX
from storage.postgres_sessions import next_generation
from storage.postgres_signed import RATE_WINDOW_MS


class MemoryDirectory:
    """engine.core.ports.Directory in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    async def principal(self, key_sha256: bytes, *, now_ms: int) -> Principal | None:
        await self._world.enter()
        return self._world.keys.get(key_sha256)

    async def manager(self, row: int, generation: int, *, now_ms: int) -> Principal | None:
        await self._world.enter()
        if row >= len(self._world.rows):
            return None
        node = self._world.nodes[self._world.rows[row]]
        honoured = [one.generation for one in node.sessions[-1:] if one.expires_ms > now_ms]
        if node.revoked_ms is not None or generation not in honoured:
            return None
        return Principal(key_id=node.node_id, scope="manager", project_id=None, node_id=node.node_id)

    async def project(self, slug: str) -> Project | None:
        await self._world.enter()
        return self._world.projects.get(slug)

    async def node(self, node_id: str) -> NodeRecord | None:
        await self._world.enter()
        node = self._world.nodes.get(node_id)
        return self._world.node_record(node) if node else None

    async def workload(self, workload_id: str) -> WorkloadRecord | None:
        await self._world.enter()
        found = self._world.workloads.get(workload_id)
        return found and msgspec.structs.replace(found, leased=bool(self._world.leases.get(workload_id)))

    async def workloads_of_project(self, project_id: str, ids: Sequence[str]) -> dict[str, WorkloadRecord]:
        await self._world.enter()
        known = [self._world.workloads[one] for one in ids if one in self._world.workloads]
        return {one.workload_id: one for one in known if one.project_id == project_id}

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
        await self._world.enter()
        node = self._world.living_node(node_id)
        requests = self._world.signed_requests
        requests.append((node_id, now_ms))
        if requests_of(requests, node_id, after_ms=now_ms - RATE_WINDOW_MS) > rate_per_min:
            raise RateLimitedError(f"more than {rate_per_min} signed requests in a minute")
        if (node_id, nonce) in self._world.nonces:
            raise NonceSeenError("this nonce was used before")
        self._world.nonces[node_id, nonce] = nonce_expires_ms
        session = self._raise_generation(node, now_ms, life_ms, secret_id)
        node.opened.append((session.opened_ms, Manager(client_address, manager_version)))
        event, node.clone_told_until_ms = clone_of_managers(
            node.opened,
            node.clone_told_until_ms,
            node_id=node.node_id,
            project_id=node.project_id,
            shard=CONTROL_PLANE,
        )
        if event is not None:
            self._world.events.append(event)
        position = self._world.announce(node)
        return self._world.spec(node.row), session, position

    def _raise_generation(self, node: MemoryNode, now_ms: int, life_ms: int, secret_id: int) -> SessionSpec:
        node.generation, node.salt = next_generation(node.generation, node.salt)
        living = [one for one in node.workload_ids if self._world.workloads[one].retired_ms is None]
        last_ms = max((one.opened_ms for one in node.sessions), default=now_ms - 1)
        session = SessionSpec(
            generation=node.generation,
            secret_id=secret_id,
            salt=node.salt,
            opened_ms=max(now_ms, last_ms + 1),
            expires_ms=now_ms + life_ms,
            interval_ms=node.interval_ms,
            ttl_ms=ttl_of_interval(node.interval_ms),
            slots=sum(1 << self._world.workloads[one].slot for one in living),
        )
        node.sessions.append(session)
        return session

    async def create_project(self, slug: str, *, now_ms: int) -> Project:
        await self._world.enter()
        return self._world.projects.setdefault(slug, Project(new_id(), slug))

    async def create_key(
        self, *, scope: Scope, project_id: str | None, key_sha256: bytes, name: str, now_ms: int
    ) -> str:
        await self._world.enter()
        key_id = new_id()
        self._world.keys[key_sha256] = Principal(key_id, scope, project_id)
        return key_id

    async def revoke_key(self, key_id: str, *, now_ms: int) -> bool:
        await self._world.enter()
        found = [sha256 for sha256, key in self._world.keys.items() if key.key_id == key_id]
        for sha256 in found:
            del self._world.keys[sha256]
        return bool(found)

    async def create_nodes(
        self, nodes: Sequence[NewNode], *, now_ms: int, act: Act | None = None
    ) -> list[NodeRecord]:
        await self._world.enter()
        assert all(len(node.workloads) <= SLOTS_MAX for node in nodes), "a row has 64 slots"
        made = []
        for new in nodes:
            node = MemoryNode(
                node_id=new_id(),
                row=len(self._world.rows),
                project_id=new.project_id,
                kind=new.kind,
                name=new.name,
                public_key=new.public_key,
                interval_ms=new.interval_ms,
                created_ms=now_ms,
                salt=os.urandom(SALT_BYTES),
            )
            self._world.nodes[node.node_id] = node
            self._world.rows.append(node.node_id)
            for name in new.workloads:
                self._give_slot(node, name, now_ms)
            made.append(self._world.node_record(node))
        return made

    def _give_slot(self, node: MemoryNode, name: str, now_ms: int) -> WorkloadRecord:
        workload = WorkloadRecord(
            workload_id=new_id(),
            node_id=node.node_id,
            project_id=node.project_id,
            row=node.row,
            slot=len(node.workload_ids),
            name=name,
            created_ms=now_ms,
            retired_ms=None,
            first_report_ms=None,
        )
        node.workload_ids.append(workload.workload_id)
        self._world.workloads[workload.workload_id] = workload
        return workload

    async def add_workload(self, node_id: str, *, name: str, now_ms: int) -> WorkloadRecord:
        await self._world.enter()
        node = self._world.living_node(node_id)
        if len(node.workload_ids) >= SLOTS_MAX:
            raise RowFullError(
                f"all {SLOTS_MAX} slots of node {node_id} were given out; register a further node key"
            )
        workload = self._give_slot(node, name, now_ms)
        self._world.tell_engines(node)
        return workload

    async def retire_workload(self, workload_id: str, *, now_ms: int) -> bool:
        await self._world.enter()
        workload = self._world.workloads.get(workload_id)
        if workload is None or workload.retired_ms is not None:
            return False
        self._world.update_workload(workload_id, retired_ms=now_ms)
        self._world.tell_engines(self._world.nodes[workload.node_id])
        return True

    async def revoke_node(self, node_id: str, *, now_ms: int) -> int | None:
        await self._world.enter()
        node = self._world.nodes.get(node_id)
        if node is None:
            return None
        node.revoked_ms = now_ms if node.revoked_ms is None else node.revoked_ms
        node.salt = os.urandom(SALT_BYTES)
        node.sessions.clear()
        return self._world.announce(node)

    async def rotate_capability(
        self, node_id: str, *, now_ms: int, act: Act | None = None
    ) -> tuple[NodeRecord, int]:
        await self._world.enter()
        node = self._world.living_node(node_id)
        node.capability_generation = node.capability_generation % CAPABILITY_GENERATION_MAX + 1
        self._world.announce(node)
        return self._world.node_record(node), node.capability_generation

    async def open_window(
        self,
        node_id: str,
        workload_id: str | None,
        *,
        from_ms: int,
        to_ms: int,
        own: bool,
        now_ms: int,
        update: bool = False,
        act: Act | None = None,
    ) -> Window:
        await self._world.enter()
        node = self._world.living_node(node_id)
        if workload_id is not None and workload_id not in node.workload_ids:
            raise NodeRefusedError(f"no workload {workload_id} on node {node_id}")
        window = Window(new_id(), workload_id, from_ms, to_ms, own)
        begin_ms, end_ms = days_of(window)
        retired = {one for one in node.workload_ids if self._world.workloads[one].retired_ms is not None}
        opened = [
            one
            for one in node.windows
            if one.from_ms < end_ms and one.to_ms > begin_ms and one.workload_id not in retired
        ]
        check_window(window, opened=opened, update=update, now_ms=now_ms)
        node.windows.append(window)
        self._world.tell_engines(node)
        return window

    async def list_nodes(self, project_id: str | None, *, after: str | None, limit: int) -> list[NodeRecord]:
        await self._world.enter()
        later = [node for node_id, node in sorted(self._world.nodes.items()) if node_id > (after or "")]
        mine = [node for node in later if project_id in (None, node.project_id)]
        return [self._world.node_record(node) for node in mine[:limit]]

    async def prune(self, *, now_ms: int, limit: int) -> int:
        await self._world.enter()
        nonces = [one for one, expires_ms in self._world.nonces.items() if expires_ms < now_ms][:limit]
        for one in nonces:
            del self._world.nonces[one]
        old = [one for one in self._world.signed_requests if one[1] <= now_ms - RATE_WINDOW_MS][:limit]
        for request in old:
            self._world.signed_requests.remove(request)
        return len(nonces) + len(old)


def requests_of(requests: list[tuple[str, int]], node_id: str, *, after_ms: int) -> int:
    return sum(1 for requester, at_ms in requests if requester == node_id and at_ms > after_ms)
