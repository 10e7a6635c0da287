"""The trio shell: carries out what the client's state machine decides (np1/client.py).

Tasks: one that waits for the machine's next moment, one that sends datagrams in order, one that receives
them per socket, and one per HTTP call (in a worker thread). The machine is only ever touched from the
trio thread, and never across an await.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import trio

from node.calls import Calls, NodeEvent, SessionRefused, StateName, split_endpoint, states_by_name
from node.identity import NodeIdentity
from np1.client import BeatClient
from np1.codec import CREDITING
from np1.effects import Effect, OpenSession, SendHttp, SendUdp, SessionOpened, Stopped, Wake
from np1.running import ClientStatistics
from np1.session import BackfillBeat, SessionAnswer, SessionGrant

DATAGRAMS_QUEUED_MAX = 16  # frames that wait for a name to be resolved; what does not fit is not sent
DATAGRAM_BYTES_MAX = 2_048
RESUMED_ASK_S = 10.0  # between two requests for a session while a resumed one is not heard
POSTS_MAX = 3  # beats on their way over HTTP at once; a slow server is not helped by more


def _now_ms() -> int:
    # Rounded: a float a hair under the moment waited for must not count as before it.
    return round(trio.current_time() * 1000)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class SavedSession:
    """A session of an earlier process on this machine, and how far the server's clock was ahead of ours."""

    grant: SessionGrant
    ahead_ms: int

    def server_ms(self) -> int:
        return _wall_ms() + self.ahead_ms


class NodeClient:
    """One node's client under trio.

    base_url: of the web API. private_key: the Ed25519 seed in hex. on_event: called in the trio thread with
    every `NodeEvent`; it must not block. quiet: ask for no ACK where the rules allow it. first_within_ms:
    the first beat comes at a random moment of this span (None = one interval, the rule for a fleet).
    resume: an earlier session, used while the web API cannot be reached at the start.
    """

    def __init__(
        self,
        base_url: str,
        *,
        node_id: str,
        private_key: str,
        manager_version: str = "nodepulse/0.1",
        on_event: Callable[[NodeEvent], None] | None = None,
        quiet: bool = False,
        first_within_ms: int | None = None,
        http_timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
        resume: SavedSession | None = None,
    ) -> None:
        identity = NodeIdentity(node_id, private_key)
        self._calls = Calls(
            base_url, identity, manager_version=manager_version, timeout_s=http_timeout_s, tls=tls
        )
        self._machine = BeatClient(rng=rng or random.Random(), quiet=quiet, first_within_ms=first_within_ms)
        self._on_event = on_event
        self._resume = resume
        self._wake_ms: float = float("inf")
        self._replanned = trio.Event()
        self._changed = trio.Event()
        self._ended = trio.Event()
        self._stop_credited = False
        self._has_run = False
        self._nursery: trio.Nursery | None = None
        self._send_frames, self._frames = trio.open_memory_channel[SendUdp](DATAGRAMS_QUEUED_MAX)
        self._socket: trio.socket.SocketType | None = None
        self._socket_endpoint = ""
        self._posts = 0
        self.udp_failures = 0  # frames that could not be handed to the network
        self.posts_left_out = 0  # frames that found POSTS_MAX others still on their way

    def set_states(self, states: Mapping[str, StateName]) -> None:
        """What the next frame says, by workload id; who is left out is absent. ValueError for other words."""
        self._machine.set_states(states_by_name(states))

    def statistics(self) -> ClientStatistics:
        """Counts: ACKs by code, frames, sessions, and what is kept for the backfill."""
        return self._machine.statistics()

    def unacknowledged(self) -> list[BackfillBeat]:
        """The beats that were never acknowledged, oldest first."""
        return self._machine.unacknowledged()

    def in_flight(self) -> list[BackfillBeat]:
        """What the running beat has said so far, if it may still be acknowledged."""
        return self._machine.in_flight()

    def handed_in(self, beats: Iterable[BackfillBeat]) -> None:
        """These are in the server's hands, or in other ones: they are kept here no longer."""
        self._machine.handed_in(beats)

    @property
    def grant(self) -> SessionGrant | None:
        """The present session."""
        return self._machine.grant

    def server_ms(self) -> int | None:
        """The server's unix time as estimated; None before its first reply."""
        return self._machine.server_ms(_now_ms())

    async def changed(self) -> None:
        """Return after the next thing that happens."""
        await self._changed.wait()

    async def wait_until(self, condition: Callable[[ClientStatistics], bool]) -> None:
        """Return once the statistics satisfy the condition; looked at after every change."""
        while not condition(self.statistics()):
            await self._changed.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat until `stop` (or cancellation, which says nothing to the server). Runs once.

        Under ``nursery.start`` it counts as started when the first session is open.
        """
        if self._has_run:
            raise RuntimeError("a client runs once")
        self._has_run = True
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._send_datagrams)
                nursery.start_soon(self._report_started, task_status)
                self._do(self._machine.start(_now_ms(), _wall_ms()))
                await self._keep_time()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._close_socket()

    async def stop(self, *, timeout_s: float = 5.0) -> bool:
        """Tell the server of a planned stop and end `run`. False: it was not acknowledged in time."""
        if self._ended.is_set():
            return self._stop_credited
        if self._nursery is None:
            raise RuntimeError("this client is not running")
        self._do(self._machine.stop(_now_ms()))
        with trio.move_on_after(timeout_s):
            await self._ended.wait()
        self._end(credited=self._stop_credited)
        return self._stop_credited

    def _end(self, *, credited: bool) -> None:
        self._stop_credited = credited
        self._ended.set()
        self._replanned.set()

    async def _keep_time(self) -> None:
        while not self._ended.is_set():
            self._replanned = trio.Event()
            with trio.move_on_at(self._wake_ms / 1000):
                await self._replanned.wait()
            if not self._ended.is_set() and _now_ms() >= self._wake_ms:
                self._do(self._machine.wake(_now_ms(), _wall_ms()))

    async def _report_started(self, task_status: trio.TaskStatus[None]) -> None:
        await self.wait_until(lambda statistics: statistics.sessions > 0)
        task_status.started()

    def _do(self, effects: list[Effect]) -> None:
        """Carry out the machine's orders and tell of what happened."""
        assert self._nursery is not None
        self._wake_ms = float("inf")
        for effect in effects:
            match effect:
                case SendUdp():
                    self._enqueue(effect)
                case SendHttp():
                    self._start_post(self._nursery, effect)
                case OpenSession():
                    self._nursery.start_soon(self._open_session, effect)
                case Wake(at_ms):
                    self._wake_ms = at_ms
                case Stopped():
                    self._end(credited=effect.credited)
                    self._tell(effect)
                case _:
                    self._tell(effect)
        self._replanned.set()
        self._changed.set()
        self._changed = trio.Event()

    def _tell(self, event: NodeEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _enqueue(self, order: SendUdp) -> None:
        try:
            self._send_frames.send_nowait(order)
        except trio.WouldBlock:
            self.udp_failures += 1  # a frame that waits longer is worth less than the next one

    async def _open_session(self, order: OpenSession) -> None:
        sent_ms = _now_ms()
        outcome = await trio.to_thread.run_sync(self._calls.open_session, order, abandon_on_cancel=True)
        if not isinstance(outcome, SessionRefused):
            self._resume = None
            self._do(self._machine.on_session(outcome, sent_ms=sent_ms, now_ms=_now_ms()))
            return
        self._tell(outcome)
        resumed, self._resume = self._resume, None
        if resumed is None or not outcome.unreachable or resumed.grant.expires_ms <= resumed.server_ms():
            self._do(self._machine.on_session_refused(outcome.refusal, sent_ms=sent_ms, now_ms=_now_ms()))
            return
        answer = SessionAnswer(grant=resumed.grant, server_ms=resumed.server_ms())
        self._do(self._machine.on_session(answer, sent_ms=_now_ms(), now_ms=_now_ms()))
        assert self._nursery is not None
        self._nursery.start_soon(self._ask_until_heard)

    async def _ask_until_heard(self) -> None:
        """A resumed session may be dead, and nobody there to say so: ask for a new one until one is."""
        sessions = self.statistics().sessions
        while self.statistics().sessions == sessions and not self._is_credited():
            await trio.sleep(RESUMED_ASK_S * (0.5 + random.random()))
            sent_ms = _now_ms()
            order = OpenSession(self.server_ms() or _wall_ms())
            outcome = await trio.to_thread.run_sync(self._calls.open_session, order, abandon_on_cancel=True)
            if isinstance(outcome, SessionRefused):
                self._tell(outcome)
            else:
                self._do(self._machine.on_session(outcome, sent_ms=sent_ms, now_ms=_now_ms()))

    def _is_credited(self) -> bool:
        return any(code in CREDITING for code in self.statistics().codes)

    def _start_post(self, nursery: trio.Nursery, order: SendHttp) -> None:
        if self._posts >= POSTS_MAX:
            self.posts_left_out += 1
            return
        self._posts += 1
        nursery.start_soon(self._post_beat, order)

    async def _post_beat(self, order: SendHttp) -> None:
        try:
            reply = await trio.to_thread.run_sync(self._calls.post_beat, order, abandon_on_cancel=True)
        finally:
            self._posts -= 1
        if reply is not None:
            self._do(self._machine.on_http_reply(order, reply.status, reply.body, _now_ms()))

    async def _send_datagrams(self) -> None:
        async for order in self._frames:
            try:
                sock = await self._socket_to(order.endpoint)
                await sock.send(order.frame)
            except (OSError, trio.ClosedResourceError):  # closed: by the receiver, which saw an error first
                # The machine tries again by its own clock; a new socket then resolves the name anew.
                self.udp_failures += 1
                self._close_socket()

    async def _socket_to(self, endpoint: str) -> trio.socket.SocketType:
        """The socket that is connected to this endpoint."""
        if self._socket is not None and self._socket_endpoint == endpoint:
            return self._socket
        self._close_socket()
        host, port = split_endpoint(endpoint)
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        sock = trio.socket.socket(family, kind, protocol)
        try:
            await sock.connect(address)
        except OSError:
            sock.close()
            raise
        self._socket, self._socket_endpoint = sock, endpoint
        assert self._nursery is not None
        self._nursery.start_soon(self._receive_datagrams, sock)
        return sock

    async def _receive_datagrams(self, sock: trio.socket.SocketType) -> None:
        try:
            while True:
                data = await sock.recv(DATAGRAM_BYTES_MAX)
                self._do(self._machine.on_datagram(data, _now_ms()))
        except trio.ClosedResourceError:
            return  # another socket has taken its place
        except OSError:
            # "Connection refused" by ICMP, or the network is gone: the next frame opens a new socket.
            if self._socket is sock:
                self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


__all__ = ["NodeClient", "NodeEvent", "SavedSession", "SessionOpened", "SessionRefused"]
