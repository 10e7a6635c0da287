"""Idempotency-Key: a POST that creates is done once, however often it is sent.

The same key and body get the stored answer; another body 422; while it is being worked on 409; no key 400.
The stored answer is sealed with a key made of the caller's credential and the Idempotency-Key, neither of
which is stored: some answers hold secrets that are shown only once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from quart import Response, request

from engine.core.idempotency import Answered, BusyError, Idempotency, OtherRequestError
from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from web.acts import MADE_ID
from web.backend import Backend
from web.problems import RefusedError, bad_parameter

HEADER = "Idempotency-Key"
KEY = re.compile(r"[!-~]{1,255}", re.ASCII)
LEASE_MS = 60_000  # longer than any such request takes; after a crash it may be run again
_log = structlog.get_logger("web")
_NONCE = bytes(12)  # each key seals one answer


class _Kept(msgspec.Struct, frozen=True):
    """What is sealed."""

    body: bytes
    content_type: str
    location: str


def key_of_request() -> str:
    """The request's Idempotency-Key. RefusedError 400."""
    key = request.headers.get(HEADER, "")
    if not KEY.fullmatch(key):
        raise bad_parameter(HEADER, "is required: 1 to 255 visible ASCII characters, new for each thing made")
    return key


async def once(backend: Backend, caller: Principal, run: Callable[[], Awaitable[Response]]) -> Response:
    """The answer of `run`, or the stored one if this very request was answered before."""
    key = key_of_request()
    body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    asked = hashlib.sha256(f"{request.method} {request.full_path}\n".encode() + body).digest()
    cipher = ChaCha20Poly1305(_sealing_key(key))
    port = backend.idempotency
    try:
        begun = await port.begin(
            caller.key_id, key, request_sha256=asked, now_ms=backend.clock(), lease_ms=LEASE_MS
        )
    except OtherRequestError as error:
        raise RefusedError(422, "idempotency_key_reused", "this key was used with another request") from error
    except BusyError as error:
        raise _still_running() from error
    if isinstance(begun, Answered):
        return _opened(cipher, begun)
    request.scope[MADE_ID] = begun.made_id  # type: ignore[literal-required]
    try:
        response = await run()
    except RefusedError as refusal:
        if refusal.status < 500:
            await port.forget(caller.key_id, key, lease_ms=begun.lease_ms)
        else:
            await _release(port, caller, key, begun.lease_ms)
        raise
    except Exception:  # raised on, whatever it is: only the lease must not outlive it
        await _release(port, caller, key, begun.lease_ms)
        raise
    kept = _Kept(
        await response.get_data(as_text=False), response.content_type, response.headers.get("location", "")
    )
    with trio.CancelScope(shield=True):
        sealed = cipher.encrypt(_NONCE, msgspec.msgpack.encode(kept), None)
        kept_it = await port.finish(
            caller.key_id, key, lease_ms=begun.lease_ms, status=response.status_code, answer=sealed
        )
    if not kept_it:  # we took longer than the lease, and somebody else's run of it counts
        raise _still_running()
    return response


def _still_running() -> RefusedError:
    return RefusedError(
        409, "still_running", "this very request is being worked on", headers={"retry-after": "1"}
    )


async def _release(port: Idempotency, caller: Principal, key: str, lease_ms: int) -> None:
    """Nobody knows how far it came, and nobody works on it any more: the next try may run it again."""
    with trio.CancelScope(shield=True):
        try:
            await port.release(caller.key_id, key, lease_ms=lease_ms)
        except StoreUnavailableError as error:  # then its lease has to end first
            _log.warning("idempotency.not_released", error=str(error))


def _sealing_key(key: str) -> bytes:
    # The credential alone, as auth.py reads it: `bearer` and `Bearer` are one caller, who gets one answer.
    secret = request.headers.get("authorization", "").partition(" ")[2].strip()
    sealing = f"{key}\0{secret}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(sealing, digest_size=32, person=b"np-idempotency").digest()


def _opened(cipher: ChaCha20Poly1305, answered: Answered) -> Response:
    kept = msgspec.msgpack.decode(cipher.decrypt(_NONCE, answered.answer, None), type=_Kept)
    response = Response(kept.body, answered.status, content_type=kept.content_type)
    if kept.location:
        response.headers["location"] = kept.location
    response.headers["idempotent-replayed"] = "true"
    return response
