"""The paths of the beat listener (WIRE.md, "The same over HTTP"): which request is what, and who judges it.

A request is judged here when this shard owns its row, else by the owner through the forwarder. How requests
are cut out of a connection stands in ingest_http.py, what a beat means in http_requests.py.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Request(NamedTuple):
    """One whole HTTP request, not yet looked at."""

    method: bytes
    target: bytes
    content_type: bytes  # as sent; empty: none
    encoded: bool  # with a Content-Encoding other than identity
    authorization: bytes
    body: bytes
    keep_alive: bool


class Asker(Protocol):
    """Who asked: told once which route it took, and once the answer."""

    route: str

    def answer(self, reply: Reply) -> None: ...


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

    def route(self, request: Request, asker: Asker, *, t_ms: int, safe: bool) -> None:
        """Answer a request: at once when it is refused, else when its beat is decided.

        `t_ms`: when the last byte of the body was read. `safe`: it came from loopback, or plain HTTP is
        allowed; where a credential travels, nothing else will do.
        """
        target = request.target
        if target == _BEATS_PATH:
            self._beats(request, asker, t_ms, safe=safe)
            return
        if target[:1] != b"/":
            target = _origin_form(target)
        path, _, query = target.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        if path == _BEATS_PATH:
            self._beats(request, asker, t_ms, safe=safe)
        elif path.startswith(_PING_PREFIX):
            asker.route = "ping"
            self._ping(request, path[len(_PING_PREFIX) :], asker.answer, t_ms, safe=safe)
        elif path.startswith(_PUSH_PREFIX):
            asker.route = "push"
            self._push(request, path[len(_PUSH_PREFIX) :], query, asker.answer, t_ms, safe=safe)
        elif path == _LIVE_PATH:
            asker.route = "livez"
            asker.answer(LIVE if request.method in _READING else method_not_allowed(b"GET, HEAD"))
        else:
            asker.answer(NOT_FOUND)

    def _beats(self, request: Request, asker: Asker, t_ms: int, *, safe: bool) -> None:
        asker.route = "beats"
        media_type = request.content_type
        if media_type not in _MEDIA_TYPES:
            media_type = media_type.partition(b";")[0].strip().lower()
        if request.method != b"POST":
            asker.answer(method_not_allowed(b"POST"))
        elif request.encoded or media_type not in _MEDIA_TYPES:
            asker.answer(UNSUPPORTED_TYPE)
        elif media_type == _JSON_TYPE:
            asker.route = "json"
            self._json(request, asker.answer, t_ms, safe=safe)
        else:
            asker.route = "frames"
            self._frames(request.body, asker.answer, t_ms)

    def _frames(self, frames: bytes, answer: Answer, t_ms: int) -> None:
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
            )

    def _json(self, request: Request, answer: Answer, t_ms: int, *, safe: bool) -> None:
        if not safe:
            answer(TLS_REQUIRED)
            return
        bearer = self._plain.bearer(request.authorization)
        if bearer is None:
            answer(UNAUTHORIZED)
        elif bearer.owned:
            self._plain.json_beat(bearer, request.body, t_ms, answer)
        else:
            asked = PlainRequest(Kind.JSON, request.authorization, 0, request.body, t_ms)
            self._forward(bearer.row, asked, answer)

    def _ping(self, request: Request, rest: bytes, answer: Answer, t_ms: int, *, safe: bool) -> None:
        if request.method not in _PINGING:
            answer(method_not_allowed(b"GET, HEAD, POST"))
            return
        if not safe:
            answer(TLS_REQUIRED)
            return
        text, _, action = rest.partition(b"/")
        state = _ACTIONS.get(action)
        if state is None:
            said = _exit_state(action)
            if isinstance(said, Reply):
                answer(said)
                return
            state = said
        self._capability(Kind.PING, text, state, t_ms, answer)

    def _push(
        self, request: Request, text: bytes, query: bytes, answer: Answer, t_ms: int, *, safe: bool
    ) -> None:
        if request.method not in _PINGING:
            answer(
                push_error(405, "method_not_allowed", "GET or POST.", headers=b"Allow: GET, HEAD, POST\r\n")
            )
            return
        if not safe:
            answer(push_error(403, "tls_required", "Plain HTTP is accepted from loopback only."))
            return
        try:
            fields = parse_qs(
                query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
            )
        except ValueError:
            answer(push_error(400, "malformed", "Too many fields."))
            return
        up = all(value == "up" for value in fields.get("status", ()))
        text = text.removesuffix(b"/")
        self._capability(Kind.PUSH, text, State.HEALTHY if up else State.UNHEALTHY, t_ms, answer)

    def _capability(self, kind: Kind, text: bytes, state: State, t_ms: int, answer: Answer) -> None:
        capability = self._plain.capability(text)
        if capability is None:
            answer(unknown_capability(kind))
        elif self._door.owns(capability[0]):
            self._plain.capability_beat(kind, capability, state, t_ms, answer)
        else:
            self._forward(capability[0], PlainRequest(kind, text, state, b"", t_ms), answer)

    def _forward(self, row: int, asked: PlainRequest, answer: Answer) -> None:
        def answered(reply: Reply | None) -> None:
            answer(busy_reply(asked.kind, self._busy_retry_ms) if reply is None else reply)

        if self._forwarder is None:
            answered(None)
        else:
            self._forwarder.forward_request(row % self._door.shards(), asked, answered)


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
