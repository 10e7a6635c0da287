"""Streams for a page that is open, so that it asks again for what changed: events, a project's counts."""

from __future__ import annotations

from quart import Response

from web import events, summary_stream
from web.backend import Backend
from web.pages.as_visitor import as_visitor
from web.pages.pages import Page
from web.pages.visitor import Visitor


def pages(backend: Backend) -> tuple[Page, ...]:
    async def of_events(visitor: Visitor) -> Response:
        caller, authorization = await as_visitor(backend, "GET", "/v1/events/stream")
        return await events.open_stream(backend, caller, authorization=authorization, for_page=True)

    async def of_network(visitor: Visitor, *, slug: str) -> Response:
        caller, authorization = await as_visitor(backend, "GET", "/v1/projects/{slug}/summary/stream")
        return await summary_stream.open_stream(backend, caller, slug, authorization=authorization)

    return (
        Page(path="/live/events", handler=of_events),
        Page(path="/live/network/{slug}", handler=of_network),
    )
