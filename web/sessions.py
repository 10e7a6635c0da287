"""`POST /v1/sessions`: a node proves who it is and gets a key, a token and its slot map (WIRE.md, Session).

The refusals come in the order WIRE.md gives, and an unknown node gets the same work and the same answer as a
wrong signature. The registry change is committed by the store; the reply leaves only when the row's shard has
applied it, so the first beat may follow at once.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec
from quart import Response, request

from engine.core.keys import Token
from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from engine.core.records import RowSpec, SessionSpec
from web.backend import Backend
from web.problems import RefusedError, unavailable
from web.routing import Answer, Route, client_address, read_body, reply
from web.signed import SKEW_MS_MAX, must_be_private, must_be_well_formed, proven, refusals_of_store
from web.times import format_rfc3339

REGISTRY_WAIT_S = 2.0
BODY_BYTES_MAX = 16 * 1024
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", re.ASCII)
_NUMBERS = re.compile(r"(0[xX])?[0-9A-Fa-f]+(\.(0[xX])?[0-9A-Fa-f]+)*", re.ASCII)


class SessionRequest(msgspec.Struct, frozen=True):
    """What a node signs. `sent_at` RFC 3339; `nonce` and `signature` lower-case hex."""

    node_id: str
    sent_at: str
    nonce: str
    manager_version: str
    signature: str


class Endpoints(msgspec.Struct, frozen=True):
    udp: str
    http: str


class SlotAnswer(msgspec.Struct, frozen=True):
    slot: int
    workload_id: str


class SessionAnswer(msgspec.Struct, frozen=True):
    row: int
    generation: int
    key: str
    token: str
    expires_at: str
    interval_ms: int
    ttl_ms: int
    endpoints: Endpoints
    slots: list[SlotAnswer]


class SessionsAnswer(msgspec.Struct, frozen=True):
    sessions: list[SessionAnswer]
    server_ms: int


async def open_session(backend: Backend, _caller: Principal) -> Response:
    """Open one session; every refusal is counted by its code."""
    try:
        return await _open(backend)
    except RefusedError as problem:
        _count(backend, problem.code)
        raise
    except StoreUnavailableError:
        _count(backend, "unavailable")
        raise


def _count(backend: Backend, code: str) -> None:
    backend.sessions_refused[code] = backend.sessions_refused.get(code, 0) + 1


async def _open(backend: Backend) -> Response:
    must_be_private(backend)
    asked, _ = await read_body(SessionRequest)
    sent_ms = must_be_well_formed(asked, "manager_version")
    fields = ("nodepulse-session-v1", asked.node_id, asked.sent_at, asked.nonce, asked.manager_version)
    node, now_ms = await proven(backend, asked, fields, sent_ms=sent_ms)
    shard = node.row % backend.shards
    with refusals_of_store(backend):
        row, session, position = await backend.directory.open_session(
            node.node_id,
            nonce=asked.nonce,
            nonce_expires_ms=sent_ms + SKEW_MS_MAX,
            rate_per_min=backend.settings.session_rate_per_min,
            now_ms=now_ms,
            life_ms=int(backend.settings.session_life_s * 1000),
            secret_id=backend.secrets.newest,
            manager_version=asked.manager_version,
            client_address=client_address(),
        )
    if not await backend.heads.wait_registry(shard, position, timeout_s=REGISTRY_WAIT_S):
        raise unavailable("the shard of this node did not take the session in time")
    backend.sessions_opened += 1
    return reply(_answer(backend, row, session, server_ms=backend.heads.now_ms(shard)), 201)


def _answer(backend: Backend, row: RowSpec, session: SessionSpec, *, server_ms: int) -> SessionsAnswer:
    key = backend.secrets.session_key(
        secret_id=session.secret_id, row=row.row, generation=session.generation, salt=session.salt
    )
    token = Token(row=row.row, generation=session.generation, expires_ms=session.expires_ms)
    slots = [SlotAnswer(slot.slot, slot.workload_id) for slot in row.slots if session.slots >> slot.slot & 1]
    return SessionsAnswer(
        sessions=[
            SessionAnswer(
                row=row.row,
                generation=session.generation,
                key=key.hex(),
                token=backend.secrets.make_token(token),
                expires_at=format_rfc3339(session.expires_ms),
                interval_ms=session.interval_ms,
                ttl_ms=session.ttl_ms,
                endpoints=_endpoints(backend),
                slots=slots,
            )
        ],
        server_ms=server_ms,
    )


def _endpoints(backend: Backend) -> Endpoints:
    """Where to beat: as configured, else the host this request came to, with the beats port."""
    here = f"{_request_host()}:{backend.ingest.port}"
    return Endpoints(
        udp=backend.ingest.public_udp or here,
        http=backend.ingest.public_http or f"http://{here}",
    )


def _request_host() -> str:
    """The host name the client used; without a usable one, the address its connection came to.

    Never the unspecified address: a client that was told 0.0.0.0 would beat at itself.
    """
    match = _HOST.fullmatch(request.headers.get("host", ""))
    if match is not None and _is_usable(match[1]):
        return match[1]
    server = request.scope.get("server")
    host = str(server[0]) if server else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _is_usable(host: str) -> bool:
    """Whether a host from the request may be told on: a name, or an address that is one."""
    if not host.startswith("[") and not _NUMBERS.fullmatch(host):
        return True
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False  # `0`, `0x0`: resolvers take them for addresses, too


ROUTES = (
    Route(
        method="POST",
        path="/v1/sessions",
        handler=open_session,
        summary="Open a session with a node's key",
        tag="sessions",
        limited=False,
        body=SessionRequest,
        body_bytes_max=BODY_BYTES_MAX,
        answers={201: Answer(description="The session", type=SessionsAnswer)},
        refusals=(400, 401, 403, 409, 429, 503),
    ),
)
