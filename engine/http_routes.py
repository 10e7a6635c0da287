"""The paths of the beat listener (WIRE.md, "The same over HTTP"): which request is what, and who judges it.

A request is judged here when this shard owns its row, else by the owner through the forwarder. How requests
are cut out of a connection stands in ingest_http.py, what a beat means in http_requests.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, unquote_to_bytes

from engine.door import Door
from engine.http_frames import FRAMES_MAX, ForwardFrames, submit_frames
from engine.http_reply import (
    FRAMES,
    LIVE,
    NOT_FOUND,
    TLS_REQUIRED,
    TOO_MANY_FRAMES,
    UNAUTHORIZED,
    UNSUPPORTED_TYPE,
    Reply,
    malformed,
    method_not_allowed,
    push_error,
)
from engine.http_requests import Answer, Kind, PlainRequest, PlainRequests, busy_reply, unknown_capability
from np1.codec import FRAME_BYTES, State

IGNORED_BODY_BYTES_MAX = 1024 * 1024  # read and thrown away behind a ping or push; above it 413
QUERY_FIELDS_MAX = 16  # of a push; more: 400
_EXIT_DIGITS_MAX = 12

_BEATS_PATH = b"/v1/beats"
_PING_PREFIX = b"/ping/"
_PUSH_PREFIX = b"/api/push/"
_LIVE_PATH = b"/livez"
_JSON_TYPE = b"application/json"
_MEDIA_TYPES = (_JSON_TYPE, b"application/octet-stream")
_READING = (b"GET", b"HEAD")
_PINGING = (b"GET", b"HEAD", b"POST")

_EMPTY_FRAMES = malformed("The body must be 1 to 1024 frames of 48 bytes; nothing was taken.")
_BAD_EXIT = malformed("An exit status is a number from 0 to 255.")
_ACTIONS = {b"": State.HEALTHY, b"fail": State.UNHEALTHY, b"start": State.UPDATING, b"log": State.ABSENT}


Ask = Callable[[bytes, int, Answer], None]  # the body, when its last byte was read (unix ms), the answer


class Head(NamedTuple):
    """Request line and headers of a request, not yet looked at."""

    method: bytes
    target: bytes
    content_type: bytes  # as sent; empty: none
    encoded: bool  # with a Content-Encoding other than identity
    authorization: bytes
    keep_alive: bool


class Route(NamedTuple):
    """Where a head leads, whatever body comes behind it and however often: resolved once, asked each time."""

    name: str
    ask: Ask


class Forward(ForwardFrames, Protocol):
    """How requests reach the shard that owns their row; None instead of an answer: not taken, BUSY."""

    def forward_request(
        self, shard: int, request: PlainRequest, reply: Callable[[Reply | None], None]
    ) -> None: ...


class Routes:
    """All routes of one shard's listener. `forwarder` None: rows of other shards are answered BUSY."""

    def __init__(
        self,
        *,
        door: Door,
        plain: PlainRequests,
        forwarder: Forward | None,
        busy_retry_ms: int,
    ) -> None:
        self._door = door
        self._plain = plain
        self._forwarder = forwarder
        self._busy_retry_ms = busy_retry_ms

    def resolve(self, head: Head, *, safe: bool, source: int = 0) -> Route:
        """Where a request with this head is judged; the answer comes at once when it is refused.

        `safe`: it came from loopback, or plain HTTP is allowed; where a credential travels, nothing else
        will do. `source`: whom it came from (clones.source_of); 0: not known.
        """
        target = head.target if head.target[:1] == b"/" else _origin_form(head.target)
        path, _, query = target.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        if path == _BEATS_PATH:
            return self._beats(head, safe=safe, source=source)
        if path.startswith(_PING_PREFIX):
            return Route("ping", self._ping(head, path[len(_PING_PREFIX) :], safe=safe))
        if path.startswith(_PUSH_PREFIX):
            return Route("push", self._push(head, path[len(_PUSH_PREFIX) :], query, safe=safe))
        if path == _LIVE_PATH:
            return Route(
                "livez", _always(LIVE if head.method in _READING else method_not_allowed(b"GET, HEAD"))
            )
        return Route("none", _always(NOT_FOUND))

    def _beats(self, head: Head, *, safe: bool, source: int) -> Route:
        media_type = head.content_type.partition(b";")[0].strip().lower()
        if head.method != b"POST":
            return Route("beats", _always(method_not_allowed(b"POST")))
        if head.encoded or media_type not in _MEDIA_TYPES:
            return Route("beats", _always(UNSUPPORTED_TYPE))
        if media_type == _JSON_TYPE:
            return Route("json", self._json(head, safe=safe, source=source))
        return Route("frames", partial(self._frames, source=source))

    def _frames(self, frames: bytes, t_ms: int, answer: Answer, *, source: int) -> None:
        if not frames or len(frames) % FRAME_BYTES:
            answer(_EMPTY_FRAMES)
        elif len(frames) > FRAMES_MAX * FRAME_BYTES:
            answer(TOO_MANY_FRAMES)
        else:
            submit_frames(
                frames,
                t_ms,
                door=self._door,
                forwarder=self._forwarder,
                busy_retry_ms=self._busy_retry_ms,
                reply=lambda acks: answer(Reply(200, FRAMES, acks)),
                source=source,
            )

    def _json(self, head: Head, *, safe: bool, source: int) -> Ask:
        if not safe:
            return _always(TLS_REQUIRED)
        bearer = self._plain.bearer(head.authorization)
        if bearer is None:
            return _always(UNAUTHORIZED)
        if bearer.owned:
            return partial(self._plain.json_beat, bearer, source=source)
        row = bearer.row

        def forward(body: bytes, t_ms: int, answer: Answer) -> None:
            self._forward(row, PlainRequest(Kind.JSON, head.authorization, 0, body, t_ms, source), answer)

        return forward

    def _ping(self, head: Head, rest: bytes, *, safe: bool) -> Ask:
        if head.method not in _PINGING:
            return _always(method_not_allowed(b"GET, HEAD, POST"))
        if not safe:
            return _always(TLS_REQUIRED)
        text, _, action = rest.partition(b"/")
        state = _ACTIONS.get(action)
        if state is None:
            said = _exit_state(action)
            if isinstance(said, Reply):
                return _always(said)
            state = said
        return self._capability(Kind.PING, text, state)

    def _push(self, head: Head, text: bytes, query: bytes, *, safe: bool) -> Ask:
        if head.method not in _PINGING:
            return _always(
                push_error(405, "method_not_allowed", "GET or POST.", headers=b"Allow: GET, HEAD, POST\r\n")
            )
        if not safe:
            return _always(push_error(403, "tls_required", "Plain HTTP is accepted from loopback only."))
        try:
            fields = parse_qs(
                query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
            )
        except ValueError:
            return _always(push_error(400, "malformed", "Too many fields."))
        up = all(value == "up" for value in fields.get("status", ()))
        text = text.removesuffix(b"/")
        return self._capability(Kind.PUSH, text, State.HEALTHY if up else State.UNHEALTHY)

    def _capability(self, kind: Kind, text: bytes, state: State) -> Ask:
        capability = self._plain.capability(text)
        if capability is None:
            return _always(unknown_capability(kind))
        row = capability[0]
        if self._door.owns(row):
            beat = self._plain.capability_beat
            return lambda _body, t_ms, answer: beat(kind, capability, state, t_ms, answer)
        return lambda _body, t_ms, answer: self._forward(
            row, PlainRequest(kind, text, state, b"", t_ms), answer
        )

    def _forward(self, row: int, asked: PlainRequest, answer: Answer) -> None:
        def answered(reply: Reply | None) -> None:
            answer(busy_reply(asked.kind, self._busy_retry_ms) if reply is None else reply)

        if self._forwarder is None:
            answered(None)
        else:
            self._forwarder.forward_request(row % self._door.shards(), asked, answered)


def _always(reply: Reply) -> Ask:
    """Answers this whatever the body says."""
    return lambda _body, _t_ms, answer: answer(reply)


def body_bytes_max(target: bytes, *, kept_max: int) -> tuple[int, bool]:
    """How long a body the path takes, and whether it is kept.

    Pings and pushes throw theirs away: stock clients send the output of a job along.
    """
    path = target if target[:1] == b"/" else _origin_form(target)
    if path.startswith((_PING_PREFIX, _PUSH_PREFIX)):
        return IGNORED_BODY_BYTES_MAX, False
    return kept_max, True


def _origin_form(target: bytes) -> bytes:
    """``/path?query`` of an absolute target (RFC 9112, 3.2.2); what is neither stays as it is."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target
    return b"/" + rest.partition(b"/")[2]


def _exit_state(action: bytes) -> State | Reply:
    """The state an exit status stands for; 400 outside 0 to 255, 404 when it is no number."""
    if not action.removeprefix(b"-").isdigit():
        return NOT_FOUND
    if len(action) > _EXIT_DIGITS_MAX or not 0 <= int(action) <= 255:
        return _BAD_EXIT
    return State.HEALTHY if int(action) == 0 else State.UNHEALTHY
