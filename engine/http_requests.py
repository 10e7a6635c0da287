"""Plain beats over HTTP: JSON with a bearer token, pings and pushes with a capability (WIRE.md).

What was asked is translated to one call of the door, and the door's answer to an HTTP answer. Paths, methods
and connections are not known here, and nothing is forwarded from here: every row that reaches `handle` is
one that this shard owns, whether the request came in here or through a peer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Literal

import msgspec

from engine.core.keys import MasterSecrets
from engine.door import GONE, Door, PlainAnswer, PlainBeat
from engine.http_credentials import (
    CREDENTIALS_CACHED_MAX,
    Bearer,
    HalvesCache,
    read_bearer,
    read_capability,
)
from engine.http_reply import (
    JSON,
    MOVED,
    TEXT,
    UNAUTHORIZED,
    Reply,
    busy,
    malformed,
    problem,
    push_error,
    retry_after,
)
from np1.codec import CREDITING, FLAG_STOPPING, Code, State

Answer = Callable[[Reply], None]


class Kind(IntEnum):
    """The three ways of beating without a frame."""

    JSON = 0
    PING = 1
    PUSH = 2


class PlainRequest(msgspec.Struct, frozen=True, array_like=True):
    """A plain beat as it was asked for: what a forwarder carries, for the owner of its row to judge."""

    kind: int  # Kind
    credential: bytes  # value of the Authorization header, or the text of the capability
    state: int  # ping, push: what is said of slot 0 (State); ABSENT: nothing is said (log)
    body: bytes  # JSON
    t_ms: int  # when the last byte of the body was read
    source: int = 0  # whom it came from (clones.source_of); 0: not known


class _JsonBeat(msgspec.Struct):
    workloads: dict[str, Literal["healthy", "unhealthy", "updating"]] | msgspec.UnsetType = msgspec.UNSET
    stopping: bool = False


_REASON_CHARS_MAX = 200  # of what a refusal repeats of a body
_decode = msgspec.json.Decoder(_JsonBeat).decode
_WORKLOADS_MISSING = malformed('"workloads" may be missing only with "stopping": true.')
_CODE_NAMES = {int(code): code.name.lower().encode() for code in CREDITING}
_SAID = b'{"code":"%b","next_ms":%d,"ttl_ms":%d,"server_ms":%d}'
_PING_OK = Reply(200, TEXT, b"OK")
_PUSH_OK = Reply(200, JSON, b'{"ok":true}')
_PING_UNKNOWN = problem(404, "not_found", "Unknown, rotated or wrong capability.")
_PUSH_UNKNOWN = push_error(404, "not_found", "Unknown, rotated or wrong token.")
_PUSH_BUSY = "Not recorded; try again later."


class PlainRequests:
    """Plain beats for rows of this shard."""

    def __init__(self, *, door: Door, secrets: MasterSecrets) -> None:
        self._door = door
        self._secrets = secrets
        self._bearers: HalvesCache[Bearer] = HalvesCache(CREDENTIALS_CACHED_MAX)
        self._capabilities: HalvesCache[tuple[int, int]] = HalvesCache(CREDENTIALS_CACHED_MAX)

    def bearer(self, value: bytes) -> Bearer | None:
        """The token of an Authorization header's value; None when its MAC is not ours."""
        found = self._bearers.get(value)
        if found is None:
            token = read_bearer(self._secrets, value)
            if token is None:
                return None
            row, generation, expires_ms = token
            found = Bearer(
                value,
                row=row,
                generation=generation,
                expires_ms=expires_ms,
                owned=self._door.owns(row),
            )
            self._bearers.put(value, found)
        return found

    def capability(self, text: bytes) -> tuple[int, int] | None:
        """(row, generation) of a capability; None when its MAC is not ours."""
        found = self._capabilities.get(text)
        if found is None:
            found = read_capability(self._secrets, text)
            if found is not None:
                self._capabilities.put(text, found)
        return found

    def handle(self, request: PlainRequest, answer: Answer) -> None:
        """Judge a request that a peer forwarded, from its credential on."""
        if request.kind == Kind.JSON:
            bearer = self.bearer(request.credential)
            if bearer is None:
                answer(UNAUTHORIZED)
            else:
                self.json_beat(bearer, request.body, request.t_ms, answer, source=request.source)
            return
        capability = self.capability(request.credential)
        if capability is None:
            answer(unknown_capability(request.kind))
        else:
            self.capability_beat(request.kind, capability, request.state, request.t_ms, answer)

    def json_beat(self, bearer: Bearer, body: bytes, t_ms: int, answer: Answer, *, source: int = 0) -> None:
        """A JSON beat under a token with a good MAC: 400 and 401 at once, the rest when the door says."""
        if bearer.expires_ms <= t_ms:
            self._door.refuse_token(bearer.row, t_ms)
            answer(UNAUTHORIZED)
            return
        slots = bearer.slots
        if slots is None:
            slots = bearer.slots = self._door.session_slots(bearer.row, bearer.generation)
            if slots is None:
                self._door.refuse_token(bearer.row, t_ms)
                answer(UNAUTHORIZED)
                return
        beat = read_json_beat(bearer, slots, body, t_ms)
        if isinstance(beat, Reply):
            answer(beat)
            return

        def decided(said: PlainAnswer) -> None:
            if said.code == GONE:
                self._bearers.forget(bearer.value)
            answer(json_reply(said))

        self._door.submit_plain(beat._replace(source=source) if source else beat, decided)

    def capability_beat(
        self, kind: int, capability: tuple[int, int], state: int, t_ms: int, answer: Answer
    ) -> None:
        """A ping or push under a capability with a good MAC; a state of ABSENT is no beat (log)."""
        row, generation = capability
        if state == State.ABSENT:
            live = self._door.capability_live(row, generation)
            answer(_PING_OK if live else unknown_capability(kind))
            return
        reply_of = push_reply if kind == Kind.PUSH else ping_reply
        self._door.submit_plain(
            PlainBeat(row, generation, True, 0, state & 1, state >> 1, t_ms, False),
            lambda said: answer(reply_of(said)),
        )

    def statistics(self) -> dict[str, int]:
        """How many credentials are remembered."""
        return {"bearers_cached": len(self._bearers), "capabilities_cached": len(self._capabilities)}


def read_json_beat(bearer: Bearer, slots: dict[str, int], body: bytes, t_ms: int) -> PlainBeat | Reply:
    """The beat that a body stands for; a 400 when it has the wrong shape (nothing of it is taken then)."""
    try:
        said = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return malformed(f"Not a beat: {str(error)[:_REASON_CHARS_MAX]}")
    workloads = said.workloads
    if workloads is msgspec.UNSET:
        if not said.stopping:
            return _WORKLOADS_MISSING
        workloads = {}
    plane0 = plane1 = 0
    unknown_ids = False
    for workload_id, name in workloads.items():
        slot = slots.get(workload_id)
        if slot is None:
            unknown_ids = True
        elif name == "healthy":
            plane0 |= 1 << slot
        elif name == "unhealthy":
            plane1 |= 1 << slot
        else:
            plane0 |= 1 << slot
            plane1 |= 1 << slot
    flags = FLAG_STOPPING if said.stopping else 0
    return PlainBeat(bearer.row, bearer.generation, False, flags, plane0, plane1, t_ms, unknown_ids)


def json_reply(said: PlainAnswer) -> Reply:
    """What a JSON client is told (WIRE.md: 200, 401, 404 for MOVED, 503 for BUSY)."""
    code, next_ms, ttl_ms, server_ms = said
    name = _CODE_NAMES.get(code)
    if name is not None:
        return Reply(200, JSON, _SAID % (name, next_ms, ttl_ms, server_ms))
    return {GONE: UNAUTHORIZED, int(Code.MOVED): MOVED, int(Code.BUSY): busy(next_ms)}[code]


def ping_reply(said: PlainAnswer) -> Reply:
    """What a ping is told: OK, 404, or 503 for BUSY."""
    if said.code in _CODE_NAMES:
        return _PING_OK
    return {GONE: _PING_UNKNOWN, int(Code.MOVED): _PING_UNKNOWN, int(Code.BUSY): busy(said.next_ms)}[
        said.code
    ]


def push_reply(said: PlainAnswer) -> Reply:
    """What a push is told, in its own form."""
    if said.code in _CODE_NAMES:
        return _PUSH_OK
    if said.code == Code.BUSY:
        return busy_reply(Kind.PUSH, said.next_ms)
    return {GONE: _PUSH_UNKNOWN, int(Code.MOVED): _PUSH_UNKNOWN}[said.code]


def unknown_capability(kind: int) -> Reply:
    """404 for a capability whose MAC or generation is wrong, in the form of the path."""
    return _PUSH_UNKNOWN if kind == Kind.PUSH else _PING_UNKNOWN


def busy_reply(kind: int, wait_ms: int) -> Reply:
    """503 in the form of the path: what a full forwarder answers too."""
    if kind == Kind.PUSH:
        return push_error(503, "busy", _PUSH_BUSY, headers=retry_after(wait_ms))
    return busy(wait_ms)
