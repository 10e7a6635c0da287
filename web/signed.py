"""Requests that a node signs with its own key: what sessions and backfills check alike, in WIRE.md's order.

Over TLS; of the right shape; of a node that exists, with its signature (an unknown node gets the same work
and the same answer as a wrong signature); on time; not too often; with a nonce that is new. The last two are
the store's to judge, in one transaction with what it then does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from quart import request

from engine.core.ports import NodeRecord, NodeRefusedError, NonceSeenError, RateLimitedError
from web.backend import Backend
from web.ids import canonical_uuid
from web.problems import Fault, RefusedError, malformed
from web.times import parse_rfc3339

SKEW_MS_MAX = 300_000
SIGNING_KINDS = ("node", "canary")  # a check has no key: it beats by its capability alone
_FIELD = re.compile(r"[!-~]{1,128}", re.ASCII)  # every signed field
_NONCE = re.compile(r"([0-9a-f]{2}){16,64}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{128}", re.ASCII)
# Nobody has its other half: it is checked where there is no key to check, so that both take as long.
_NOBODY = Ed25519PrivateKey.generate().public_key()


class Signed(Protocol):
    """What all such requests have. `sent_at` RFC 3339; `nonce` and `signature` lower-case hex."""

    @property
    def node_id(self) -> str: ...
    @property
    def sent_at(self) -> str: ...
    @property
    def nonce(self) -> str: ...
    @property
    def signature(self) -> str: ...


def must_be_private(backend: Backend) -> None:
    """What is answered may be secret: in the clear only if that is wanted, or on the machine itself."""
    if backend.ingest.allow_plaintext or request.scheme == "https":
        return
    client = request.scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        address = None  # a unix socket's path, say: not known to be loopback
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped is None or not mapped.is_loopback:
        raise RefusedError(
            403, "tls_required", "signed requests come over TLS: use https, or set ingest.allow_plaintext"
        )


def must_be_well_formed(asked: Signed, *more: str) -> int:
    """Check the shape of every field, and of `more` signed ones; the unix ms of sent_at.

    All that is wrong is told at once.
    """
    faults = [
        Fault(detail="must be 1 to 128 visible ASCII characters", pointer=f"/{name}")
        for name in ("node_id", "sent_at", "nonce", *more)
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


async def proven(
    backend: Backend, asked: Signed, fields: Sequence[str], *, sent_ms: int
) -> tuple[NodeRecord, int]:
    """The node whose key signed these fields, and the unix ms by its shard's clock.

    RefusedError 401, the same for every reason why it is not proven; or `clock_skew`.
    """
    node = await _proven_node(backend, asked, "\n".join(fields).encode("ascii"))
    now_ms = backend.heads.now_ms(node.row % backend.shards)
    if abs(sent_ms - now_ms) > SKEW_MS_MAX:
        raise RefusedError(
            401, "clock_skew", "sent_at is more than 300 s off: go by server_time", server_time=now_ms
        )
    return node, now_ms


async def _proven_node(backend: Backend, asked: Signed, signed: bytes) -> NodeRecord:
    node_id = canonical_uuid(asked.node_id)
    node = await backend.directory.node(node_id or "00000000-0000-0000-0000-000000000000")
    key = _NOBODY
    if node is not None and node.public_key is not None and _may_sign(node):
        key = Ed25519PublicKey.from_public_bytes(node.public_key)
    try:
        key.verify(bytes.fromhex(asked.signature), signed)
    except InvalidSignature as error:
        raise _unauthorized() from error
    if node is None or key is _NOBODY:
        raise _unauthorized()
    return node


def _may_sign(node: NodeRecord) -> bool:
    return node.kind in SIGNING_KINDS and not node.revoked and node.retired_ms is None


def _unauthorized() -> RefusedError:
    return RefusedError(401, "unauthorized", "unknown node or wrong signature")


@contextmanager
def refusals_of_store(backend: Backend) -> Iterator[None]:
    """What the store refuses a signed request for, as it is told."""
    try:
        yield
    except RateLimitedError as error:
        per_min = backend.settings.session_rate_per_min
        raise RefusedError(
            429,
            "rate",
            "too many signed requests of this node",
            headers={
                "retry-after": "60",
                "ratelimit-policy": f'"node";q={per_min};w=60',
                "ratelimit": '"node";r=0;t=60',
            },
        ) from error
    except NonceSeenError as error:
        raise RefusedError(
            409, "nonce_seen", "this nonce was used before: take a new one for each request"
        ) from error
    except NodeRefusedError as error:
        raise _unauthorized() from error
