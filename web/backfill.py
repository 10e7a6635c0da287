"""`POST /v1/beats/backfill`: beats that were never acknowledged, handed in later under the node's signature.

The signature is over the bytes of "beats" as they stand in the body (WIRE.md, Backfill), so these are cut out
of it and never written anew; a name that stands twice in an object is refused, for two readers could take two
meanings from it. What is taken is stored; what it counts for is composed (engine/core/compose.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import trio
from quart import Response

from engine.core.backfill import BEATS_MAX, MissedBeat
from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from web.backend import Backend
from web.problems import RefusedError, malformed
from web.routing import Answer, Route, read_body, reply
from web.signed import SKEW_MS_MAX, must_be_private, must_be_well_formed, proven, refusals_of_store

BODY_BYTES_MAX = 2 * 1024 * 1024  # 10,000 beats are about 1 MiB
AT_MS_MAX = (1 << 47) - 1  # what fits a frame's seq with room to spare
Plane = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$", min_length=16, max_length=16)]


class BackfillBeat(msgspec.Struct, frozen=True):
    """`at_ms`: when it was sent, unix ms of the server as the node estimated it.

    `plane0`, `plane1`: 16 hex digits, most significant first, as in a frame. `generation`: of the session.
    """

    at_ms: Annotated[int, msgspec.Meta(ge=0, le=AT_MS_MAX)]
    plane0: Plane
    plane1: Plane
    generation: Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class BackfillRequest(msgspec.Struct, frozen=True):
    """What a node signs: `beats` oldest first. `sent_at` RFC 3339; `nonce`, `signature` lower-case hex."""

    node_id: str
    sent_at: str
    nonce: str
    beats: Annotated[list[BackfillBeat], msgspec.Meta(max_length=BEATS_MAX)]
    signature: str


class _Bytes(msgspec.Struct, frozen=True):
    """The same body, with the bytes of "beats" from [ to its matching ]."""

    beats: msgspec.Raw


class Ignored(msgspec.Struct, frozen=True):
    """Beats that were not taken, by reason."""

    future: int
    duplicate: int
    generation: int
    sealed: int
    order: int


class BackfillAnswer(msgspec.Struct, frozen=True):
    """How many beats became claims."""

    taken: int
    ignored: Ignored


async def take_backfill(backend: Backend, _caller: Principal) -> Response:
    """Take one list of beats; every refusal is counted by its code."""
    try:
        return await _take(backend)
    except RefusedError as problem:
        _count(backend.backfills_refused, problem.code)
        raise
    except StoreUnavailableError:
        _count(backend.backfills_refused, "unavailable")
        raise


def _count(counts: dict[str, float], name: str, number: int = 1) -> None:
    counts[name] = counts.get(name, 0) + number


async def _take(backend: Backend) -> Response:
    must_be_private(backend)
    asked, raw = await read_body(BackfillRequest)
    digest = await trio.to_thread.run_sync(partial(_digest_of_beats, raw))
    sent_ms = must_be_well_formed(asked)
    fields = ("nodepulse-backfill-v1", asked.node_id, asked.sent_at, asked.nonce, digest)
    node, now_ms = await proven(backend, asked, fields, sent_ms=sent_ms)
    with refusals_of_store(backend):
        stored = await backend.stores.backfill.take(
            node.node_id,
            [
                MissedBeat(one.at_ms, int(one.plane0, 16), int(one.plane1, 16), one.generation)
                for one in asked.beats
            ],
            nonce=asked.nonce,
            nonce_expires_ms=sent_ms + SKEW_MS_MAX,
            rate_per_min=backend.settings.session_rate_per_min,
            now_ms=now_ms,
        )
    _count(backend.beats_backfilled, "taken", stored.taken)
    for reason, number in stored.ignored.items():
        _count(backend.beats_backfilled, reason, number)
    return reply(BackfillAnswer(stored.taken, Ignored(**stored.ignored)))


def _digest_of_beats(body: bytes) -> str:
    """SHA-256 of the bytes of "beats", hex. RefusedError 400 where a name stands twice in an object."""
    try:
        json.loads(body, object_pairs_hook=_must_differ)
    except (ValueError, RecursionError) as error:
        raise malformed(str(error)) from error
    return hashlib.sha256(msgspec.json.decode(body, type=_Bytes).beats).hexdigest()


def _must_differ(pairs: Sequence[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _value in pairs:
        if name in seen:
            raise ValueError(f"{name[:64]!r} stands twice in an object")
        seen.add(name)


ROUTES = (
    Route(
        method="POST",
        path="/v1/beats/backfill",
        handler=take_backfill,
        summary="Hand in beats that were never acknowledged, with a node's key",
        tag="sessions",
        limited=False,
        body=BackfillRequest,
        body_bytes_max=BODY_BYTES_MAX,
        answers={200: Answer(description="How many were taken", type=BackfillAnswer)},
        refusals=(400, 401, 403, 409, 429, 503),
    ),
)
