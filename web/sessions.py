"""`POST /v1/sessions`: a node proves who it is and gets a key, a token and its slot map (WIRE.md, Session).

The refusals come in the order WIRE.md gives, and an unknown node gets the same work and the same answer as a
wrong signature. The registry change is committed by the store; the reply leaves only when the row's shard has
applied it, so the first beat may follow at once.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from quart import Response, request

from engine.core.keys import Token
from engine.core.people import Principal
from engine.core.ports import (
    NodeRecord,
    NodeRefusedError,
    NonceSeenError,
    RateLimitedError,
    StoreUnavailableError,
)
from engine.core.records import RowSpec, SessionSpec
from web.backend import Backend
from web.ids import canonical_uuid
from web.problems import Fault, RefusedError, malformed, unavailable
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339, parse_rfc3339

SKEW_MS_MAX = 300_000
REGISTRY_WAIT_S = 2.0
BODY_BYTES_MAX = 16 * 1024
SIGNING_KINDS = ("node", "canary")  # a check has no key: it beats by its capability alone
_FIELD = re.compile(r"[!-~]{1,128}", re.ASCII)  # every signed field
_NONCE = re.compile(r"([0-9a-f]{2}){16,64}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{128}", re.ASCII)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", re.ASCII)
_NUMBERS = re.compile(r"(0[xX])?[0-9A-Fa-f]+(\.(0[xX])?[0-9A-Fa-f]+)*", re.ASCII)
# Nobody has its other half: it is checked where there is no key to check, so that both take as long.
_NOBODY = Ed25519PrivateKey.generate().public_key()


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
    _must_be_private(backend)
    asked, _ = await read_body(SessionRequest)
    sent_ms = _must_be_well_formed(asked)
    node = await _proven_node(backend, asked)
    shard = node.row % backend.shards
    now_ms = backend.heads.now_ms(shard)
    if abs(sent_ms - now_ms) > SKEW_MS_MAX:
        raise RefusedError(
            401, "clock_skew", "sent_at is more than 300 s off: go by server_time", server_time=now_ms
        )
    row, session, position = await _commit(backend, asked, sent_ms=sent_ms, now_ms=now_ms)
    if not await backend.heads.wait_registry(shard, position, timeout_s=REGISTRY_WAIT_S):
        raise unavailable("the shard of this node did not take the session in time")
    backend.sessions_opened += 1
    return reply(_answer(backend, row, session, server_ms=backend.heads.now_ms(shard)), 201)


def _must_be_private(backend: Backend) -> None:
    """The reply carries a key and a token: in the clear only if that is wanted, or on the machine itself."""
    if backend.ingest.allow_plaintext or request.scheme == "https":
        return
    client = request.scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        address = None  # a unix socket's path, a test's placeholder: not known to be loopback
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped is None or not mapped.is_loopback:
        raise RefusedError(
            403, "tls_required", "sessions are opened over TLS: use https, or set ingest.allow_plaintext"
        )


def _must_be_well_formed(asked: SessionRequest) -> int:
    """Check the shape of every field; the unix ms of sent_at. All that is wrong is told at once."""
    faults = [
        Fault(detail="must be 1 to 128 visible ASCII characters", pointer=f"/{name}")
        for name in ("node_id", "sent_at", "nonce", "manager_version")
        if not _FIELD.fullmatch(getattr(asked, name))
    ]
    sent_ms = 0
    try:
        sent_ms = parse_rfc3339(asked.sent_at)
    except ValueError as error:
        faults.append(Fault(detail=str(error), pointer="/sent_at"))
    if not _NONCE.fullmatch(asked.nonce):
        faults.append(Fault(detail="must be 16 to 64 bytes in lower-case hex", pointer="/nonce"))
    if not _SIGNATURE.fullmatch(asked.signature):
        faults.append(Fault(detail="must be 64 bytes in lower-case hex", pointer="/signature"))
    if faults:
        problem = malformed("the request has the wrong shape")
        raise RefusedError(problem.status, problem.code, problem.detail, errors=faults)
    return sent_ms


def signed_bytes(asked: SessionRequest) -> bytes:
    """What is under the signature."""
    return "\n".join(
        ("nodepulse-session-v1", asked.node_id, asked.sent_at, asked.nonce, asked.manager_version)
    ).encode("ascii")


async def _proven_node(backend: Backend, asked: SessionRequest) -> NodeRecord:
    """The node whose key made the signature. RefusedError 401, the same for every reason why not."""
    node_id = canonical_uuid(asked.node_id)
    node = await backend.directory.node(node_id or "00000000-0000-0000-0000-000000000000")
    key = _NOBODY
    if node is not None and node.kind in SIGNING_KINDS and node.public_key is not None and not node.revoked:
        key = Ed25519PublicKey.from_public_bytes(node.public_key)
    try:
        key.verify(bytes.fromhex(asked.signature), signed_bytes(asked))
    except InvalidSignature as error:
        raise _unauthorized() from error
    if node is None or key is _NOBODY:
        raise _unauthorized()
    return node


def _unauthorized() -> RefusedError:
    return RefusedError(401, "unauthorized", "unknown node or wrong signature")


async def _commit(
    backend: Backend, asked: SessionRequest, *, sent_ms: int, now_ms: int
) -> tuple[RowSpec, SessionSpec, int]:
    try:
        return await backend.directory.open_session(
            str(canonical_uuid(asked.node_id)),
            nonce=asked.nonce,
            nonce_expires_ms=sent_ms + SKEW_MS_MAX,
            rate_per_min=backend.settings.session_rate_per_min,
            now_ms=now_ms,
            life_ms=int(backend.settings.session_life_s * 1000),
            secret_id=backend.secrets.newest,
            manager_version=asked.manager_version,
        )
    except RateLimitedError as error:
        raise RefusedError(
            429,
            "rate",
            "too many signed requests of this node",
            headers={
                "retry-after": "60",
                "ratelimit-policy": f'"node";q={backend.settings.session_rate_per_min};w=60',
                "ratelimit": '"node";r=0;t=60',
            },
        ) from error
    except NonceSeenError as error:
        raise RefusedError(
            409, "nonce_seen", "this nonce was used before: take a new one for each request"
        ) from error
    except NodeRefusedError as error:
        raise _unauthorized() from error


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
