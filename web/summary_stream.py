"""`GET /v1/projects/{slug}/summary/stream`: the summary each time it has changed (server-sent events).

While somebody listens the project is counted again once a second (summaries.py); nothing is sent while
everybody is as before, but for a comment now and then so that proxies and dead peers are noticed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

import msgspec
import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody

from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from web import sight
from web.backend import Backend
from web.problems import RefusedError, unavailable
from web.routing import Answer, Route
from web.stream import CONTENT_TYPE, HEARTBEAT_S, RETRY_MS
from web.summary import answer_of
from web.tails import TooManyStreamsError


class SummaryStream(ResponseBody):
    """Frames of one stream. Counted in among all streams (TooManyStreamsError), out when it ends."""

    def __init__(
        self, backend: Backend, project_id: str, slug: str, still_welcome: Callable[[], Awaitable[bool]]
    ) -> None:
        self._left = True
        backend.tails.enter()
        self._left = False
        self._backend = backend
        self._project_id = project_id
        self._slug = slug
        self._still_welcome = still_welcome
        self._change = 0  # the one that was told last
        self._begun = False

    async def __aenter__(self) -> SummaryStream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        self._leave()  # the client was gone before the first byte

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._backend.tails.leave()

    def __aiter__(self) -> SummaryStream:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return f"retry: {RETRY_MS}\n\n".encode()
        told = None
        with trio.move_on_after(HEARTBEAT_S):
            while told is None:
                if self._backend.tails.closing or not await self._still_welcome():
                    raise StopAsyncIteration
                told = await self._next()
        return told or b": still here\n\n"

    async def _next(self) -> bytes | None:
        """The summary, once it is another one; None: it is time to see whether to go on."""
        summaries = self._backend.summaries
        bell = summaries.bell
        try:
            counts = await summaries.of(self._backend, self._project_id)
        except StoreUnavailableError:
            counts = None  # told and counted where stores are watched; the stream outlives it
        if counts is not None and counts.change != self._change:
            self._change = counts.change
            return b"data: %s\n\n" % msgspec.json.encode(answer_of(self._slug, counts))
        with trio.move_on_after(1.0):
            await bell.wait()
        return None


async def stream_summary(backend: Backend, caller: Principal, *, slug: str) -> Response:
    return await open_stream(backend, caller, slug, authorization=request.headers.get("authorization"))


async def open_stream(
    backend: Backend, caller: Principal, slug: str, *, authorization: str | None
) -> Response:
    """`authorization`: the caller's credential, which is looked at again and again. RefusedError 404, 503."""
    project = await sight.project(backend, caller, slug)
    if request.method == "HEAD":
        return Response(b"", content_type=CONTENT_TYPE)  # its body would never end

    async def still_welcome() -> bool:
        try:
            return await backend.keys.caller(authorization) == caller
        except RefusedError:
            return False

    try:
        stream = SummaryStream(backend, project.project_id, project.slug, still_welcome)
    except TooManyStreamsError as error:
        raise unavailable("too many streams are open, or this process is ending", retry_after_s=5) from error
    response = Response(stream, content_type=CONTENT_TYPE, headers={"x-accel-buffering": "no"})
    response.timeout = None  # it lasts as long as both sides want
    return response


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/summary/stream",
        handler=stream_summary,
        summary="The summary each time somebody's state has changed (server-sent events)",
        tag="projects",
        answers={200: Answer(description="A stream that ends only on shutdown", content_type=CONTENT_TYPE)},
        refusals=(404, 503),
    ),
)
