"""`/live/events`: the stream of events for a page that is open, so that it asks again for what changed."""

from __future__ import annotations

from quart import Response

from web import events
from web.backend import Backend
from web.pages.pages import Page
from web.pages.visitor import Visitor, token_of_request


def pages(backend: Backend) -> tuple[Page, ...]:
    async def stream(visitor: Visitor) -> Response:
        # A browser's EventSource cannot send a key: the cookie speaks for its owner, as on every page.
        authorization = f"Bearer {token_of_request()}"
        caller = await backend.keys.caller(authorization)
        return await events.open_stream(backend, caller, authorization=authorization, for_page=True)

    return (Page(path="/live/events", handler=stream),)
