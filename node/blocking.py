"""The blocking shell: one loop, no threads, round the same state machine as the trio shell.

Sessions and HTTP beats are posted inside the loop, so a slow web API delays datagrams by at most
`http_timeout_s`. Only `stop_soon` may be called from elsewhere (another thread, a signal handler).
"""

from __future__ import annotations

import random
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping

from node.calls import Calls, NodeEvent, SessionRefused, StateName, split_endpoint, states_by_name
from node.identity import NodeIdentity
from np1.client import BeatClient
from np1.effects import Effect, OpenSession, SendHttp, SendUdp, Stopped, Wake
from np1.running import ClientStatistics
from np1.session import BackfillBeat

DATAGRAM_BYTES_MAX = 2_048
DATAGRAMS_READ_MAX = 64  # in one turn of the loop
WAIT_S_MAX = 3_600.0


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class BlockingNodeClient:
    """One node's client for plain code; the arguments are those of `NodeClient`."""

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
    ) -> None:
        identity = NodeIdentity(node_id, private_key)
        self._calls = Calls(
            base_url, identity, manager_version=manager_version, timeout_s=http_timeout_s, tls=tls
        )
        self._machine = BeatClient(rng=rng or random.Random(), quiet=quiet, first_within_ms=first_within_ms)
        self._on_event = on_event
        self._wake_ms: int | None = None
        self._started = False
        self._stopped: Stopped | None = None
        self._stop_wanted = False
        self._socket: socket.socket | None = None
        self._socket_endpoint = ""
        # A byte written here ends the wait for datagrams.
        self._poked, self._poke = socket.socketpair()
        self._poked.setblocking(False)
        self._poke.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._poked, selectors.EVENT_READ)
        self.udp_failures = 0

    def set_states(self, states: Mapping[str, StateName]) -> None:
        """What the next frame says, by workload id; who is left out is absent. ValueError for other words."""
        self._machine.set_states(states_by_name(states))

    def statistics(self) -> ClientStatistics:
        """Counts: ACKs by code, frames, sessions, and what is kept for the backfill."""
        return self._machine.statistics()

    def unacknowledged(self) -> list[BackfillBeat]:
        """The beats that were never acknowledged, oldest first."""
        return self._machine.unacknowledged()

    def run(self) -> None:
        """Beat until `stop_soon`, then tell the server of the planned stop and return."""
        self.run_until(lambda _: self._stop_wanted)
        self.stop()

    def run_until(
        self, condition: Callable[[ClientStatistics], bool], *, timeout_s: float = float("inf")
    ) -> bool:
        """Beat until the statistics satisfy the condition, which is looked at after every turn.

        False: not within `timeout_s`, or the client was stopped. May be called again to go on.
        """
        until_ms = _now_ms() + timeout_s * 1000
        if not self._started:
            self._started = True
            self._do(self._machine.start(_now_ms(), _wall_ms()))
        while not condition(self.statistics()):
            if self._stopped is not None or _now_ms() >= until_ms:
                return False
            self._turn(until_ms)
        return True

    def stop(self, *, timeout_s: float = 5.0) -> bool:
        """Tell the server of a planned stop; True when it was acknowledged. The client is closed then."""
        if self._stopped is None:
            self._do(self._machine.stop(_now_ms()))
            self.run_until(lambda _: self._stopped is not None, timeout_s=timeout_s)
        self.close()
        return self._stopped is not None and self._stopped.credited

    def stop_soon(self) -> None:
        """End `run` from another thread or a signal handler."""
        self._stop_wanted = True
        try:
            self._poke.send(b"\0")
        except OSError:
            return  # full (a poke is waiting already) or closed (the loop has ended)

    def close(self) -> None:
        """Give the sockets back, saying nothing to the server. Nothing can be done with the client after."""
        if self._stopped is None:
            self._stopped = Stopped(credited=False)
        self._close_socket()
        self._selector.close()
        self._poked.close()
        self._poke.close()

    def __enter__(self) -> BlockingNodeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self, until_ms: float) -> None:
        """Wait for a datagram, a poke or the machine's next moment, and deal with it."""
        at_ms = until_ms if self._wake_ms is None else min(until_ms, self._wake_ms)
        wait_s = min(max(0.0, (at_ms - _now_ms()) / 1000), WAIT_S_MAX)
        ready = [key.fileobj for key, _ in self._selector.select(wait_s)]
        if self._poked in ready:
            self._poked.recv(DATAGRAM_BYTES_MAX)
        if self._socket is not None and self._socket in ready:
            self._receive_datagrams(self._socket)
        if self._wake_ms is not None and _now_ms() >= self._wake_ms:
            self._do(self._machine.wake(_now_ms(), _wall_ms()))

    def _do(self, effects: list[Effect]) -> None:
        """Carry out the machine's orders; a blocking call's outcome brings further ones, done in turn."""
        todo = deque(effects)
        self._wake_ms = None
        while todo:
            effect = todo.popleft()
            match effect:
                case SendUdp():
                    self._send_datagram(effect)
                case SendHttp():
                    todo.extend(self._post_beat(effect))
                case OpenSession():
                    todo.extend(self._open_session(effect))
                case Wake(at_ms):
                    self._wake_ms = at_ms
                case Stopped():
                    self._stopped = effect
                    self._tell(effect)
                case _:
                    self._tell(effect)

    def _tell(self, event: NodeEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _open_session(self, order: OpenSession) -> list[Effect]:
        sent_ms = _now_ms()
        outcome = self._calls.open_session(order)
        if isinstance(outcome, SessionRefused):
            self._tell(outcome)
            return self._machine.on_session_refused(outcome.refusal, sent_ms=sent_ms, now_ms=_now_ms())
        return self._machine.on_session(outcome, sent_ms=sent_ms, now_ms=_now_ms())

    def _post_beat(self, order: SendHttp) -> list[Effect]:
        reply = self._calls.post_beat(order)
        if reply is None:
            return []
        return self._machine.on_http_reply(order, reply.status, reply.body, _now_ms())

    def _send_datagram(self, order: SendUdp) -> None:
        try:
            self._socket_to(order.endpoint).send(order.frame)
        except OSError:
            # The machine tries again by its own clock; a new socket then resolves the name anew.
            self.udp_failures += 1
            self._close_socket()

    def _socket_to(self, endpoint: str) -> socket.socket:
        """The socket that is connected to this endpoint."""
        if self._socket is not None and self._socket_endpoint == endpoint:
            return self._socket
        self._close_socket()
        host, port = split_endpoint(endpoint)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        self._selector.register(sock, selectors.EVENT_READ)
        self._socket, self._socket_endpoint = sock, endpoint
        return sock

    def _receive_datagrams(self, sock: socket.socket) -> None:
        for _ in range(DATAGRAMS_READ_MAX):
            try:
                data = sock.recv(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                # "Connection refused" by ICMP, or the network is gone: the next frame opens a new socket.
                self._close_socket()
                return
            self._do(self._machine.on_datagram(data, _now_ms()))
            if self._socket is not sock:
                return

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
