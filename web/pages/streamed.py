"""Answers of the API too long to be held, handed on as a file while the API makes them.

Whether there is anything to hand on is asked first (HEAD), because a page can still say so then. What breaks
off later cuts the download off: it must not look whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import trio
from quart import Response
from quart.wrappers.response import ResponseBody

from web.pages.asking import ApiError, Asking
from web.pages.downloads import attachment
from web.pages.visitor import Visitor
from web.problems import CutOffError


async def download_stream(visitor: Visitor, path: str, *, name: str, **query: object) -> Response:
    """What the API answers there, piece by piece, to be kept under this name. ApiError."""
    asked = await visitor.api.ask("HEAD", path, query=query)
    if not asked.ok:
        await visitor.api.get(path, **query)  # HEAD has no body: this one says why
        raise ApiError(asked.status, {})
    response = Response(_Streamed(visitor.api, path, query), 200, attachment(name))
    response.content_type = asked.headers.get("content-type", "application/octet-stream")
    response.timeout = None  # a client that does not read is cut off by the server's own bound
    return response


class _Streamed(ResponseBody):
    """The body of a GET that runs beside it, one piece ahead at most."""

    def __init__(self, api: Asking, path: str, query: Mapping[str, object]) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](0)
        self._call = api.call("GET", path, query=query)  # made while there is a request to make it from
        self._nursery: Any = None

    async def __aenter__(self) -> _Streamed:
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._run)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._receive.close()
        await self._nursery.__aexit__(exc_type, exc, trace)

    async def _run(self) -> None:
        async with self._send:
            try:
                await self._call(self._take)
            except trio.BrokenResourceError:
                return  # whoever read it is gone

    async def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if message["status"] != 200:
                raise CutOffError
        elif message.get("body"):
            await self._send.send(message["body"])

    def __aiter__(self) -> _Streamed:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
