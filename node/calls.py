"""The blocking calls that both shells make for the state machine: open a session, post a beat.

What comes back is what np1 wants to hear; no exception of the network leaves this file.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from node.identity import NodeIdentity
from node.post import PostFailedError, Reply, post
from np1.codec import State
from np1.effects import (
    Credited,
    OpenSession,
    PathChanged,
    Refused,
    SendHttp,
    SessionOpened,
    Stopped,
    Unacknowledged,
)
from np1.session import (
    MalformedAnswerError,
    Refusal,
    SessionAnswer,
    parse_refusal,
    parse_session_answer,
)

StateName = Literal["absent", "healthy", "unhealthy", "updating"]


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """No session was opened; the next try comes by itself. `detail` is for people."""

    refusal: Refusal
    detail: str

    @property
    def unreachable(self) -> bool:
        """Nobody answered, or who did cannot now: it says nothing of an earlier session."""
        return self.refusal.status == 0 or self.refusal.status >= 500


# What a shell tells its owner as it happens.
NodeEvent = Credited | Refused | Unacknowledged | PathChanged | SessionOpened | SessionRefused | Stopped


def states_by_name(states: Mapping[str, StateName]) -> dict[str, State]:
    """What people write, as the codec's states. ValueError for a word that is none."""
    try:
        return {workload_id: State[name.upper()] for workload_id, name in states.items()}
    except KeyError as error:
        raise ValueError(f"no such state: {error.args[0].lower()!r}") from error


class Calls:
    """Calls to one web API in the name of one node."""

    def __init__(
        self,
        base_url: str,
        identity: NodeIdentity,
        *,
        manager_version: str,
        timeout_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"neither http nor https: {base_url!r}")
        self._sessions_url = base_url.rstrip("/") + "/v1/sessions"
        self._identity = identity
        self._manager_version = manager_version
        self._timeout_s = timeout_s
        self._tls = tls

    def open_session(self, order: OpenSession) -> SessionAnswer | SessionRefused:
        """Ask for a session."""
        body = self._identity.session_body(sent_at_ms=order.sent_at_ms, manager_version=self._manager_version)
        try:
            reply = post(
                self._sessions_url,
                body,
                content_type="application/json",
                timeout_s=self._timeout_s,
                tls=self._tls,
            )
        except PostFailedError as error:
            return SessionRefused(Refusal(0), str(error))
        if reply.status != 201:
            refusal = parse_refusal(reply.status, reply.body, reply.retry_after)
            return SessionRefused(refusal, f"{reply.status} {refusal.code}".strip())
        try:
            return parse_session_answer(reply.body)
        except MalformedAnswerError as error:
            return SessionRefused(Refusal(reply.status), str(error))

    def post_beat(self, order: SendHttp) -> Reply | None:
        """Post one frame; None when no reply came, which the machine learns by its own clock."""
        try:
            return post(
                order.endpoint + "/v1/beats",
                order.body,
                content_type="application/octet-stream",
                timeout_s=self._timeout_s,
                tls=self._tls,
            )
        except PostFailedError:
            return None


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """(host, port) of "host:port"; IPv6 hosts lose their brackets. The session answer was checked already."""
    host, _, port = endpoint.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
