"""How a call is made: one connection pool, one key, retries where a repetition does no harm.

Written by hand; the methods themselves are generated (generated/api.py) and say only what is asked and what
comes back. Synchronous; one object may be shared by threads.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
import stamina

from nodepulse.client.errors import (
    CutOffError,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
    problem_of,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Self = TypeVar("Self", bound="Calls")
Value = str | int | float | bool | date | datetime
Query = Mapping[str, Value | Sequence[Value] | None]

IDEMPOTENCY_KEY = "Idempotency-Key"
HARMLESS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # to repeat, by what HTTP says of them
AWAY = frozenset({429, 503})  # statuses after which the same request may succeed
RETRY_AFTER_S_MAX = 60.0  # whoever asks for a longer pause gets no retry but the error


@dataclass(frozen=True, slots=True)
class Polled(Generic[T]):
    """An answer that can be asked for again cheaply: hand it back as `known`.

    When nothing has changed, the very same object is returned, so ``now is known`` tells.
    """

    value: T
    etag: str


class Page(Protocol[T_co]):
    """What every list answers."""

    @property
    def items(self) -> Sequence[T_co]: ...
    @property
    def next_cursor(self) -> str | None: ...


def pages(method: Callable[..., Page[T]], *path: str, **query: Any) -> Iterator[T]:
    """All items of a list, page by page: ``for node in pages(client.list_nodes, limit=1000)``."""
    after: str | None = query.pop("after", None)
    while True:
        page = method(*path, **query) if after is None else method(*path, after=after, **query)
        yield from page.items
        if page.next_cursor is None:
            return
        after = page.next_cursor


class Stream:
    """An answer that is read as it comes."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        """The bytes in pieces of no particular size. CutOffError when the connection breaks."""
        try:
            yield from self._response.iter_bytes()
        except httpx2.TransportError as error:
            raise CutOffError(f"the connection broke: {error}") from error

    def lines(self) -> Iterator[bytes]:
        """The lines, without their ends; only LF (or CRLF) ends one. A last line without an end is one."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.removesuffix(b"\r")
        if rest:
            yield rest


class Calls:
    """The transport that the generated `Client` stands on."""

    def __init__(
        self,
        base_url: str,
        key: str = "",
        *,
        timeout_s: float = 30.0,
        attempts: int = 5,
        retry_s: float = 60.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """base_url: ``https://host[:port]``; key: an API key, a sign-in's or a session's token, "" for none.

        timeout_s: for connecting, and for each piece of an answer. A call is tried `attempts` times and no
        longer than `retry_s`, where a repetition does no harm: idempotent methods, and POSTs with an
        Idempotency-Key. `transport`: of httpx2, for proxies, certificates and tests.
        """
        self.base_url = base_url.rstrip("/")
        headers = {"accept": "application/json, application/problem+json", "user-agent": "nodepulse-client"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx2.Client(
            base_url=self.base_url, headers=headers, timeout=timeout_s, transport=transport
        )
        self._attempts, self._retry_s = attempts, retry_s

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- what the generated methods use --------------------------------------------------------------

    def _call(self, method: str, path: str, returns: type[T], **asked: Any) -> T:
        """The JSON of an answer as the type `returns`."""
        answer: T = _decoded(self._exchange(self._request(method, path, **asked)).content, returns)
        return answer

    def _call_any(self, method: str, path: str, returns: Any, **asked: Any) -> Any:
        """The JSON of an answer as something that is no single class; None for an answer without a body."""
        content = self._exchange(self._request(method, path, **asked)).content
        return _decoded(content, returns) if content else None

    def _send(self, method: str, path: str, **asked: Any) -> None:
        """A call whose answer says nothing more than that it was done."""
        self._exchange(self._request(method, path, **asked))

    def _text(self, method: str, path: str, **asked: Any) -> str:
        """The text of an answer."""
        return self._exchange(self._request(method, path, **asked)).text

    def _poll(
        self, method: str, path: str, returns: type[T], *, known: Polled[T] | None, **asked: Any
    ) -> Polled[T]:
        """An answer with its ETag; `known` itself when it is still true."""
        answer: Polled[T] = self._poll_any(method, path, returns, known=known, **asked)
        return answer

    def _poll_any(
        self, method: str, path: str, returns: Any, *, known: Polled[Any] | None, **asked: Any
    ) -> Polled[Any]:
        """The same for what is no single class."""
        request = self._request(method, path, **asked)
        if known is not None:
            request.headers["if-none-match"] = known.etag
        answer = self._exchange(request)
        if known is not None and answer.status_code == 304:
            return known
        return Polled(_decoded(answer.content, returns), answer.headers.get("etag", ""))

    @contextmanager
    def _stream(self, method: str, path: str, *, accept: str, **asked: Any) -> Iterator[Stream]:
        """An answer to read as it comes; the connection is closed at the end of the ``with``."""
        request = self._request(method, path, **asked)
        request.headers["accept"] = f"{accept}, application/problem+json"
        answer = self._exchange(request, stream=True)
        try:
            yield Stream(answer)
        finally:
            answer.close()

    # -- details -------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str | None] | None = None,
        body: Any = None,
    ) -> httpx2.Request:
        given = {name: value for name, value in (headers or {}).items() if value is not None}
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            given["content-type"] = "application/json"
        return self._client.build_request(
            method, path, params=_written(query or {}), headers=given, content=content
        )

    def _exchange(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        """The answer, when it is no refusal. ProblemError, UnreachableError after the last attempt."""
        harmless = request.method in HARMLESS or IDEMPOTENCY_KEY in request.headers

        def wait(error: Exception) -> bool | float:
            return harmless and _worth_another(error)

        for attempt in stamina.retry_context(wait, attempts=self._attempts, timeout=self._retry_s):
            with attempt:
                return self._once(request, stream=stream)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, request: httpx2.Request, *, stream: bool) -> httpx2.Response:
        try:
            answer = self._client.send(request, stream=stream)
            if answer.is_success or answer.status_code == 304:
                return answer
            raise problem_of(answer.status_code, answer.headers, answer.read())
        except httpx2.TransportError as error:
            raise UnreachableError(f"{request.method} {request.url.path}: {error}") from error


def new_key() -> str:
    """An Idempotency-Key that nobody has used."""
    return str(uuid.uuid4())


def part(value: str) -> str:
    """A path parameter as it stands in a path."""
    return quote(value, safe="")


def _worth_another(error: Exception) -> bool | float:
    """Whether the same request may succeed, and in how many seconds if somebody said so."""
    if isinstance(error, UnreachableError):
        return True
    if not isinstance(error, ProblemError):
        return False
    if error.status not in AWAY and error.code != "still_running":
        return False
    if error.retry_after_s is None:
        return True
    return error.retry_after_s <= RETRY_AFTER_S_MAX and error.retry_after_s


def _written(query: Query) -> list[tuple[str, str | int | float | bool | None]]:
    """Query parameters as text; what is None is left out."""
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in query.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        pairs += [(name, _text_of(one)) for one in several if one is not None]
    return pairs


def _text_of(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time without a zone could be any: give it one")
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return value.isoformat() if isinstance(value, date) else str(value)


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnexpectedAnswerError(f"not what this client was generated for: {error}") from error
