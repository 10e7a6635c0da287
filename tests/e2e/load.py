"""Many nodes that beat at a steady rate from one thread, and a log of every ACK that came back.

A slot says always the same (`SAYS`), so what ACKs vouched for can be compared with an answer exactly, also
where an ACK was lost on its way. Frames are signed and ACKs checked many at a time; each ACK must carry its
row's tag.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import trio

from engine.core.keys import load_secrets
from engine.core.records import SessionSpec
from engine.core.siphash import Siphasher
from np1.codec import ACK_BYTE, BEAT_BYTE, CREDITING, FRAME_BYTES, Code, State, planes
from storage.open import Stores
from tests.e2e.api import now_ms
from tests.e2e.node import open_session
from tests.e2e.system import System

Array = np.ndarray[Any, Any]

# What each slot says in every beat, by slot number modulo three.
SAYS = (State.HEALTHY, State.UNHEALTHY, State.UPDATING)
KIND_OF = {State.HEALTHY: "up", State.UNHEALTHY: "unhealthy", State.UPDATING: "updating"}

_HEAD = [("kind", "u1"), ("flags_or_code", "u1"), ("generation", ">u2"), ("row", ">u4"), ("seq", ">u8")]
_TAG = [("tag_low", "<u8"), ("tag_high", "<u8")]
_BEAT = np.dtype([*_HEAD, ("plane0", ">u8"), ("plane1", ">u8"), *_TAG])
_ACK = np.dtype([*_HEAD, ("t_ms", ">u8"), ("next_ms", ">u4"), ("ttl_ms", ">u4"), *_TAG])
ACK_LOG = np.dtype([("node", "i4"), ("code", "u1"), ("seq", "u8"), ("t_ms", "i8"), ("ttl_ms", "i8")])
_TURN_S = 0.01
_BUFFER_BYTES = 16 * 1024 * 1024
_SO_RCVBUFFORCE = 33
_SIGNED_MAX = 4_096
_AT_ONCE = 8  # sessions opened side by side


_beating: list[Load] = []


def stop_all() -> None:
    """Stop every load that still beats: the test that started it has failed."""
    for load in list(_beating):
        load.stop()


class Figures(NamedTuple):
    sent: int
    answered: dict[Code, int]
    refused_by_socket: int


class Load:
    """The nodes of one `provision`. `nodes` is what it printed; ACKs name nodes by their place in it."""

    def __init__(self, system: System, nodes: Sequence[dict[str, Any]], *, per_s: float) -> None:
        self.nodes = list(nodes)
        self._system = system
        self._per_s = per_s
        self._signer, self._checker = Siphasher(_SIGNED_MAX), Siphasher(_SIGNED_MAX)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failed: BaseException | None = None
        self._sent = self._next = self._refused = 0
        self._raw: list[bytes] = []
        self._logs: list[Array] = []
        self._lock = threading.RLock()

    def open_sessions(self) -> None:
        """One session for each node by the API, as nodes do."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            opened = list(pool.map(lambda made: open_session(self._system.api, made), self.nodes))
        grants = [grant for grant, _ in opened]
        self._use(
            rows=[grant.row for grant in grants],
            generations=[grant.generation for grant in grants],
            keys=[grant.key for grant in grants],
        )
        self._ahead_ms = opened[0][1]

    def take_sessions(self) -> None:
        """The same, thousands quickly: from the registry, without signatures and their limits."""
        secrets = load_secrets(self._system.folder / "secrets.json")

        taken: dict[int, tuple[SessionSpec, int]] = {}

        async def take(stores: Stores) -> None:
            left = iter(range(len(self.nodes)))

            async def take_some() -> None:
                for node in left:
                    at_ms = now_ms()
                    spec, session, _ = await stores.directory.open_session(
                        self.nodes[node]["node_id"],
                        nonce=os.urandom(16).hex(),
                        nonce_expires_ms=at_ms + 300_000,
                        rate_per_min=100,
                        now_ms=at_ms,
                        life_ms=86_400_000,
                        secret_id=secrets.newest,
                    )
                    taken[node] = session, spec.row

            async with trio.open_nursery() as nursery:
                for _ in range(_AT_ONCE):
                    nursery.start_soon(take_some)

        self._system.on_stores(take)
        sessions = [taken[node][0] for node in range(len(self.nodes))]
        rows = [taken[node][1] for node in range(len(self.nodes))]
        keys = [
            secrets.session_key(secret_id=one.secret_id, row=row, generation=one.generation, salt=one.salt)
            for one, row in zip(sessions, rows, strict=True)
        ]
        self._use(rows=rows, generations=[one.generation for one in sessions], keys=keys)
        self._ahead_ms = 0

    def _use(self, *, rows: list[int], generations: list[int], keys: list[bytes]) -> None:
        self.rows = np.array(rows, np.int64)
        self._generation = np.array(generations, np.int64)
        words = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)
        self._key0, self._key1 = words[:, 0].copy(), words[:, 1].copy()
        self._node_of = {row: node for node, row in enumerate(rows)}
        said = [
            planes({slot: SAYS[slot % 3] for slot in range(len(made["workloads"]))}) for made in self.nodes
        ]
        self._planes = np.array(said, np.uint64)
        self._seq = np.zeros(len(rows), np.uint64)
        self._silent = np.zeros(len(rows), bool)

    # -- beating ------------------------------------------------------------------------------------

    def start(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.connect(self._system.beats)
        _beating.append(self)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating; ACKs under way are still taken."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        _beating.remove(self)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            self._receive()
            time.sleep(_TURN_S)
        self._socket.close()

    def silence(self, nodes: Sequence[int]) -> None:
        """These beat no more, and no other instead of them."""
        self._silent[list(nodes)] = True

    def resume(self, nodes: Sequence[int]) -> None:
        """These beat again."""
        self._silent[list(nodes)] = False

    def _run(self) -> None:
        try:
            began = time.monotonic()
            due_before = 0
            while not self._stop.is_set():
                due = int((time.monotonic() - began) * self._per_s)
                # Never more than a turn's worth too late: a stalled sender does not make up for it.
                self._send(min(due - due_before, max(1, int(20 * self._per_s * _TURN_S))))
                due_before = due
                self._receive()
                time.sleep(_TURN_S)
        except Exception as error:  # noqa: BLE001 - raised again by whoever looks at this load
            self._failed = error

    def _send(self, count: int) -> None:
        if count <= 0:
            return
        at = (self._next + np.arange(count)) % len(self.nodes)
        self._next += count
        at = at[~self._silent[at]]
        part = min(_SIGNED_MAX, len(self.nodes))
        for start in range(0, len(at), part):
            for frame in self._frames(at[start : start + part]):
                self._send_one(frame)

    def _send_one(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
            self._sent += 1
        except (BlockingIOError, ConnectionRefusedError):
            self._refused += 1  # nobody listens, or our own buffer is full: lost, as on any network

    def _frames(self, at: Array) -> list[bytes]:
        """One BEAT of each of these nodes, none of which stands there twice."""
        seq = np.uint64((now_ms() + self._ahead_ms) << 16)
        frames = np.zeros(len(at), _BEAT)
        self._seq[at] = np.maximum(self._seq[at] + np.uint64(1), seq)
        frames["seq"] = self._seq[at]
        frames["kind"], frames["generation"], frames["row"] = BEAT_BYTE, self._generation[at], self.rows[at]
        frames["plane0"], frames["plane1"] = self._planes[at, 0], self._planes[at, 1]
        frames["tag_low"], frames["tag_high"] = self._tags(self._signer, frames, at)
        whole = frames.tobytes()
        return [whole[start : start + FRAME_BYTES] for start in range(0, len(whole), FRAME_BYTES)]

    def _tags(self, hasher: Siphasher, frames: Array, at: Array) -> tuple[Array, Array]:
        words = frames.view("<u8").reshape(-1, FRAME_BYTES // 8)[:, :4].T.astype(np.uint64)
        return hasher.tags(self._key0[at], self._key1[at], np.ascontiguousarray(words))

    # -- hearing ------------------------------------------------------------------------------------

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(2 * FRAME_BYTES)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                continue  # an earlier frame met a closed port
            with self._lock:
                self._raw.append(data)
        if len(self._raw) >= _SIGNED_MAX:
            self._read()

    def _read(self) -> None:
        """What was received, checked and logged."""
        with self._lock:
            raw, self._raw = self._raw, []
            assert {len(one) for one in raw} <= {FRAME_BYTES}
            for start in range(0, len(raw), _SIGNED_MAX):
                self._log(np.frombuffer(b"".join(raw[start : start + _SIGNED_MAX]), _ACK))

    def _log(self, acks: Array) -> None:
        nodes = np.array([self._node_of[row] for row in acks["row"].tolist()], np.int64)
        assert (acks["kind"] == ACK_BYTE).all()
        low, high = self._tags(self._checker, acks, nodes)
        right = (low == acks["tag_low"]) & (high == acks["tag_high"])
        assert right.all(), f"ACKs that the server did not sign: {acks[~right][:5]}"
        log = np.zeros(len(acks), ACK_LOG)
        log["node"] = nodes
        log["code"] = acks["flags_or_code"]
        for name in ("seq", "t_ms", "ttl_ms"):
            log[name] = acks[name]
        self._logs.append(log)
        off = log[log["code"] == Code.CLOCK]
        if len(off):  # WIRE.md, code 3: set the estimate by `server time`
            self._ahead_ms += int(off["t_ms"][-1]) - int(off["seq"][-1] >> np.uint64(16))

    def acks(self) -> Array:
        """Every ACK so far (ACK_LOG), in order of arrival. Raises what went wrong in the thread."""
        if self._failed is not None:
            raise self._failed
        self._read()
        return np.concatenate([np.zeros(0, ACK_LOG), *self._logs])

    def credited(self) -> Array:
        """The ACKs whose code means durable."""
        acks = self.acks()
        return acks[np.isin(acks["code"], [int(code) for code in CREDITING])]

    def figures(self) -> Figures:
        codes, counts = np.unique(self.acks()["code"], return_counts=True)
        answered = {Code(code): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}
        return Figures(self._sent, answered, self._refused)
