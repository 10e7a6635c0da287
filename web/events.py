"""`GET /v1/events` and `GET /v1/events/stream`: what happened, oldest first, by cursor; or the newest first.

A cursor is the event's decimal number in history; each item carries its own, which is also the stream's
`id`. The frames of the stream are made in stream.py, the waking in tails.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from quart import Response, request

from engine.core.fleet import EventFilter
from engine.core.people import Principal
from engine.core.records import Event
from web import sight
from web.backend import Backend
from web.event_item import EventAnswer, answer_of
from web.lists import PROJECT, id_parameter, project_parameter
from web.paging import cut, link_headers
from web.problems import RefusedError, bad_parameter, unavailable
from web.routing import Answer, Parameter, Route, boolean_parameter, integer_parameter, reply
from web.stream import CONTENT_TYPE, EventStream
from web.tails import TooManyStreamsError

LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
CURSOR_MAX = (1 << 63) - 1
KINDS_MAX = 50
_KIND = re.compile(r"[a-z][a-z_.]{0,63}")


class EventsAnswer(msgspec.Struct, frozen=True):
    """A page. `next_cursor` follows the last item, so that a reader can go on; null on an empty page. With
    `newest` it is null when there is nothing older."""

    items: list[EventAnswer]
    next_cursor: str | None


async def list_events(backend: Backend, caller: Principal) -> Response:
    which = await _filter(backend, caller)
    after = _cursor(request.args.get("after"), "after")
    limit = integer_parameter("limit", default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX)
    newest = boolean_parameter("newest")
    seen_by, fleet = sight.sight_of(caller), backend.stores.fleet
    page: Sequence[tuple[int, Event]]
    if newest:
        found = await fleet.events(seen_by, which, after=after, limit=limit + 1, newest=True)
        page, next_cursor = cut(found, limit, lambda each: str(each[0]))
    else:
        page = await fleet.events(seen_by, which, after=after, limit=limit)
        next_cursor = str(page[-1][0]) if page else None
    items = [answer_of(cursor, event) for cursor, event in page]
    return reply(EventsAnswer(items=items, next_cursor=next_cursor), headers=link_headers(next_cursor))


async def stream_events(backend: Backend, caller: Principal) -> Response:
    authorization = request.headers.get("authorization")
    return await open_stream(backend, caller, authorization=authorization)


async def open_stream(
    backend: Backend, caller: Principal, *, authorization: str | None, for_page: bool = False
) -> Response:
    """`authorization`: the caller's credential. `for_page`: from now on unless it is resumed, and without
    names, so that a browser hands all kinds of events to one listener. RefusedError 400, 404, 503."""
    which = await _filter(backend, caller)
    resumed = request.headers.get("last-event-id")
    after = (
        _cursor(request.args.get("after"), "after") if resumed is None else _cursor(resumed, "Last-Event-ID")
    )
    if for_page and not after:
        after = await backend.stores.fleet.newest_cursor()
    if request.method == "HEAD":
        return Response(b"", content_type=CONTENT_TYPE)  # its body would never end

    async def still_welcome() -> bool:
        try:
            return await backend.keys.caller(authorization) == caller
        except RefusedError:
            return False

    try:
        stream = EventStream(
            backend.tails,
            sight=sight.sight_of(caller),
            which=which,
            after=after,
            still_welcome=still_welcome,
            named=not for_page,
        )
    except TooManyStreamsError as error:
        raise unavailable("too many streams are open, or this process is ending", retry_after_s=5) from error
    response = Response(stream, content_type=CONTENT_TYPE, headers={"x-accel-buffering": "no"})
    response.timeout = None  # it lasts as long as both sides want
    return response


async def _filter(backend: Backend, caller: Principal) -> EventFilter:
    """What the query asks for. RefusedError 400, 404."""
    asked = request.args.get("kinds")
    kinds = () if asked is None else tuple(asked.split(","))
    if len(kinds) > KINDS_MAX or not all(_KIND.fullmatch(kind) for kind in kinds):
        raise bad_parameter(
            "kinds", f"must be at most {KINDS_MAX} kinds of events, such as node.down,node.up"
        )
    return EventFilter(
        project_id=await project_parameter(backend, caller), node_id=id_parameter("node"), kinds=kinds
    )


def _cursor(text: str | None, name: str) -> int:
    if text is None or text == "":
        return 0
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > CURSOR_MAX:
        raise bad_parameter(name, "is not a cursor: take next_cursor of a page, or an event's cursor")
    return int(text)


_FILTERS = (
    PROJECT,
    Parameter(name="node", description="Id of a node", schema={"type": "string", "format": "uuid"}),
    Parameter(
        name="kinds",
        description="Kinds of events, separated by commas; without it all",
        schema={"type": "string", "pattern": f"^{_KIND.pattern}(,{_KIND.pattern})*$", "example": "node.down"},
    ),
)
_AFTER = Parameter(name="after", description="A cursor; events after it, without it from the beginning")

ROUTES = (
    Route(
        method="GET",
        path="/v1/events",
        handler=list_events,
        summary="Events, oldest first, or the newest first",
        tag="events",
        parameters=(
            *_FILTERS,
            _AFTER,
            Parameter(
                name="newest",
                description="The newest first; after is then the cursor that they come before",
                schema={"type": "boolean"},
            ),
            Parameter(
                name="limit",
                description="Items in a page",
                schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
            ),
        ),
        answers={200: Answer(description="A page of events", type=EventsAnswer)},
        refusals=(400, 401, 404, 503),
    ),
    Route(
        method="GET",
        path="/v1/events/stream",
        handler=stream_events,
        summary="Events as they come (server-sent events); `data` is an item of the list",
        tag="events",
        parameters=(
            *_FILTERS,
            _AFTER,
            Parameter(name="Last-Event-ID", description="Resume after this cursor", where="header"),
        ),
        answers={200: Answer(description="A stream that ends only on shutdown", content_type=CONTENT_TYPE)},
        refusals=(400, 401, 404, 503),
    ),
)
