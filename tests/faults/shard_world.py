"""A shard in the test's own process: real table, journal and socket, stores in memory, faults on order.

For what cannot be done to a whole system: single system calls of the journal that fail, at the n-th call or
by chance, and lives that end between any two steps. It beats over a real socket and keeps every ACK.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from engine.core.keys import MasterSecrets
from engine.core.ports import NewNode
from engine.core.records import BASE_NONE, BASE_UP
from engine.journal import DiskFiles
from engine.parts import Surroundings
from engine.settings import EngineSettings, JournalSettings
from engine.shard import Shard
from np1.codec import CREDITING, FRAME_BYTES, Ack, Beat, decode_ack, encode_beat
from storage.memory import MemoryWorld, memory_stores_of
from tests.e2e.api import now_ms
from tests.engine.shard_world import TrioHost

INTERVAL_MS = 1_000
TTL_MS = 1_500
ACK_S = 2.0
SECRETS = MasterSecrets(secrets={1: bytes(range(32))})
RETRY_S = 0.05


class FaultyFiles(DiskFiles):
    """The journal's system calls, some of which fail: those in `fails`, and by `chance` any of them."""

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}  # call -> errno
        self.chance = 0.0
        self.torn = True  # a write that fails has written half
        self._random = random.Random(0)

    def seed(self, number: int) -> None:
        self._random.seed(number)

    def create(self, path: Path, size: int) -> int:
        self._may_fail("create")
        return super().create(path, size)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        try:
            self._may_fail("write")
        except OSError:
            if self.torn:
                super().write(fd, data[: len(data) // 2], offset)
            raise
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._may_fail("sync")
        super().sync(fd)

    def cut(self, fd: int, size: int) -> None:
        self._may_fail("cut")
        super().cut(fd, size)

    def _may_fail(self, call: str) -> None:
        if call in self.fails:
            raise OSError(self.fails[call], f"{call} fails")
        if self._random.random() < self.chance:
            raise OSError(self._random.choice((errno.EIO, errno.ENOSPC)), f"{call} failed by chance")


class ShardWorld:
    """Stores, nodes with sessions, the shard's socket, and the log of what was acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory = MemoryWorld()
        self.stores = memory_stores_of(self.memory)
        self.files = FaultyFiles()
        self.acks: list[tuple[int, Ack]] = []
        self.settings = EngineSettings(
            journal=JournalSettings(retry_s=RETRY_S, reserve_bytes=0, segment_bytes_max=1 << 20)
        )
        self._seq = 0

    async def open(self, *, nodes: int = 3, workloads: int = 2) -> None:
        """Make nodes and open their sessions; open the sockets."""
        directory = self.stores.directory
        project = await directory.create_project("faults", now_ms=now_ms())
        names = tuple(f"w{slot}" for slot in range(workloads))
        new = [
            NewNode(project.project_id, "node", "node", bytes(32), INTERVAL_MS, names) for _ in range(nodes)
        ]
        self.nodes = await directory.create_nodes(new, now_ms=now_ms())
        self.keys: list[bytes] = []
        for node in self.nodes:
            at = now_ms()
            _, session, _ = await directory.open_session(
                node.node_id,
                nonce="00" * 16,
                nonce_expires_ms=at + 300_000,
                rate_per_min=10,
                now_ms=at,
                life_ms=86_400_000,
                secret_id=1,
            )
            self.keys.append(
                SECRETS.session_key(
                    secret_id=1, row=node.row, generation=session.generation, salt=session.salt
                )
            )
        self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._client = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await self._client.connect(self._server.getsockname())

    def close(self) -> None:
        self._server.close()
        self._client.close()

    @asynccontextmanager
    async def living(self, *, orderly: bool) -> AsyncIterator[Shard]:
        """A life of the shard: it ends in order, or as by kill -9 between any two of its steps."""
        shard = Shard(
            settings=self.settings,
            shard=0,
            directory=self.folder,
            around=Surroundings(
                registry=self.stores.registry,
                history=self.stores.history,
                live=self.stores.live,
                secrets=SECRETS,
                log=structlog.get_logger(),
                report=lambda error, **_: None,
                host=TrioHost(),
                udp=(self._server,),
                files=self.files,
            ),
        )
        listening, stop = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(shard.serve, open_doors=_no_doors, listening=listening.set, stop=stop))
            with trio.fail_after(5):
                await listening.wait()
            yield shard
            if orderly:
                stop.set()
            else:
                nursery.cancel_scope.cancel()

    async def beat(self, node: int, *, within_s: float = ACK_S) -> Ack | None:
        """One healthy beat; its ACK, kept, or None."""
        self._seq = max(self._seq + 1, now_ms() << 16)
        healthy = (1 << len(self.nodes[node].workload_ids)) - 1
        beat = Beat(0, 1, self.nodes[node].row, self._seq, healthy, 0)
        await self._client.send(encode_beat(beat, self.keys[node]))
        with trio.move_on_after(within_s):
            while True:
                ack = decode_ack(await self._client.recv(2 * FRAME_BYTES), self.keys[node])
                if ack.seq == self._seq:
                    self.acks.append((node, ack))
                    return ack
        return None

    async def found_up(self, node: int, slot: int) -> list[tuple[int, int]]:
        """What live view and history together have as `up` of a workload, ascending."""
        # In this order, as every reader: what the view no longer shows as open is in history already.
        read = await self.stores.live.read(self.nodes[node].row, shards=1)
        assert read is not None
        _, live = read
        spans = []
        if live is not None and slot in live.slots and live.slots[slot].kind != BASE_NONE:
            row = live.slots[slot]
            assert row.kind == BASE_UP
            spans.append((row.started_ms, row.last_t_ms + row.ttl_ms))
        closed = self.memory.intervals.get(self.nodes[node].workload_ids[slot], {}).values()
        return merged([*spans, *((row.started_ms, row.ended_ms) for row in closed if row.kind == BASE_UP)])

    def live_watermark_ms(self) -> int:
        """Everything received up to here can be read."""
        views = self.stores.live.shards
        return views[0].head.watermark_ms if 0 in views else 0

    def credited(self, node: int) -> list[int]:
        """Receive times of the acknowledged beats of a node."""
        return [ack.server_ms for of, ack in self.acks if of == node and ack.code in CREDITING]

    def gaps(self, cause: str) -> list[tuple[int, int]]:
        """The shard's gap records in history."""
        found = [gap for gap in self.memory.gaps.values() if gap.cause == cause]
        return sorted((gap.from_ms, gap.to_ms) for gap in found)


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union, ascending and disjoint."""
    union: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


async def _no_doors(_shard: Shard):
    async def close() -> None:
        await trio.lowlevel.checkpoint()

    return close


def with_settings(world: ShardWorld, **journal: object) -> None:
    """Change settings of the journal for the lives to come."""
    changed = msgspec.structs.replace(world.settings.journal, **journal)
    world.settings = msgspec.structs.replace(world.settings, journal=changed)
