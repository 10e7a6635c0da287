"""`GET /v1/projects/{slug}/uptime`: the uptime of all of a project's workloads, for a day or another window.

JSON by pages, NDJSON and CSV as streams that hold a chunk at a time: the next one is read while this one is
written, and a client that does not read holds only itself up until server.py cuts it off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime

import msgspec
from quart import Response, request

from engine.core.catalog import PolicyRecord, UptimeSource, policy_at
from engine.core.people import Principal
from engine.core.uptime_source import UptimeSourceError
from storage.bulk_reading import Asked
from web import sight
from web.backend import Backend
from web.bulk_formats import CONTENT_TYPES, CSV, NDJSON, BulkRow, Format
from web.bulk_stream import BulkStream, Source
from web.counted import TooManyError
from web.ids import canonical_uuid
from web.paging import link_headers
from web.problems import RefusedError, bad_parameter, unavailable
from web.routing import Answer, Parameter, Route, integer_parameter, reply
from web.sources import source_away, source_missing
from web.times import DAY_MS, TIME_MS_MAX, parse_day, parse_rfc3339

WINDOW_MS_MAX = 31 * DAY_MS
LIMIT_DEFAULT, LIMIT_MAX = 1_000, 10_000


class BulkPage(msgspec.Struct, frozen=True):
    """A page, by workload id. `next_cursor`: of the next page; null on the last one."""

    items: list[BulkRow]
    next_cursor: str | None


async def get_bulk_uptime(backend: Backend, caller: Principal, *, slug: str) -> Response:
    from_ms, to_ms = _window()
    form = format_of_query()
    limit = integer_parameter("limit", default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX)
    after = request.args.get("after", "")
    if after and canonical_uuid(after) is None:
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    project = await sight.project(backend, caller, slug)
    asked = _by_policy(from_ms, to_ms, await backend.policies.of(project.project_id))
    if asked.source == "datagram" and backend.uptime_source is None:
        raise source_missing()
    source = Source(backend, project.project_id, asked, after=after, limit=limit if form == "json" else None)
    if form == "json":
        return await _page(source)
    if request.method == "HEAD":
        return Response(b"", content_type=CONTENT_TYPES[form])
    try:
        stream = BulkStream(source, NDJSON if form == "ndjson" else CSV, backend.bulk_streams)
    except TooManyError as error:
        raise unavailable("too many bulk streams are open", retry_after_s=5) from error
    with _source_away():
        await stream.begin()
    response = Response(stream, content_type=CONTENT_TYPES[form], headers={"x-accel-buffering": "no"})
    response.timeout = None  # a client that does not read is cut off by the server's own bound
    return response


async def _page(source: Source) -> Response:
    rows: list[BulkRow] = []
    with _source_away():
        while (more := await source.next_rows()) is not None:
            rows += more
    rows.sort(key=lambda row: row.workload_id)
    next_cursor = source.next_cursor
    return reply(BulkPage(items=rows, next_cursor=next_cursor), headers=link_headers(next_cursor))


@contextmanager
def _source_away() -> Iterator[None]:
    """RefusedError 503 when Datagram cannot be asked."""
    try:
        yield
    except UptimeSourceError as error:
        raise source_away(str(error), retry_after_s=error.retry_after_s) from error


def _by_policy(from_ms: int, to_ms: int, policies: Sequence[PolicyRecord]) -> Asked:
    """The window with what holds in it. RefusedError 400 when its days are answered from two sources."""
    sources: dict[UptimeSource, date] = {}
    paying: list[tuple[int, int]] = []
    for start_ms in range(from_ms - from_ms % DAY_MS, to_ms, DAY_MS):
        day = datetime.fromtimestamp(start_ms / 1000, UTC).date()
        policy = policy_at(policies, day)
        sources.setdefault(policy.uptime_source, day)
        if policy.pay_claims:
            paying.append((start_ms, start_ms + DAY_MS))
    if len(sources) > 1:
        day = max(sources.values())
        detail = f"the project's uptime_source changes within the window, on {day}: ask for each part"
        raise RefusedError(400, "window_of_two_sources", detail)
    return Asked(from_ms=from_ms, to_ms=to_ms, source=sources.popitem()[0], paying=tuple(paying))


def _window() -> tuple[int, int]:
    """The window of the query. RefusedError 400."""
    day = request.args.get("day")
    if day is not None:
        if "from" in request.args or "to" in request.args:
            raise bad_parameter("day", "stands for itself: give either day, or from and to")
        try:
            from_ms = parse_day(day)
        except ValueError as error:
            raise bad_parameter("day", str(error)) from error
        to_ms = from_ms + DAY_MS
    else:
        from_ms, to_ms = _time("from"), _time("to")
    if from_ms >= to_ms:
        raise bad_parameter("from", "must be earlier than to")
    if to_ms - from_ms > WINDOW_MS_MAX:
        detail = f"a window may have {WINDOW_MS_MAX // DAY_MS} days: ask in parts"
        raise RefusedError(400, "window_too_long", detail)
    return from_ms, to_ms


def _time(name: str) -> int:
    text = request.args.get(name)
    if text is None:
        raise bad_parameter(name, "is missing: give day, or from and to")
    try:
        return min(max(parse_rfc3339(text), 0), TIME_MS_MAX)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from error


def format_of_query() -> Format:
    """By `format`, else by what the client accepts; JSON where it does not care."""
    given = request.args.get("format")
    if given is not None:
        if given not in CONTENT_TYPES:
            raise bad_parameter("format", f"must be one of {', '.join(CONTENT_TYPES)}")
        return given
    offered = [kind.partition(";")[0] for kind in CONTENT_TYPES.values()]
    best = request.accept_mimetypes.best_match(offered, default=offered[0])
    return next(form for form, kind in CONTENT_TYPES.items() if kind.startswith(best))


_TIME = {"type": "string", "format": "date-time"}
ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/uptime",
        handler=get_bulk_uptime,
        summary="Milliseconds by kind of all workloads that lived within a window",
        tag="projects",
        parameters=(
            Parameter(name="day", description="A UTC day", schema={"type": "string", "format": "date"}),
            Parameter(name="from", description="Instead of a day: the window's beginning", schema=_TIME),
            Parameter(name="to", description="And its end, at most 31 days later", schema=_TIME),
            Parameter(
                name="format",
                description="json: a page. ndjson: all rows, then {end: true, rows}, or {error} when it "
                "broke off. csv: all rows under a header; when it breaks off, the body has no last chunk. "
                "Without this the Accept header decides",
                schema={"type": "string", "enum": list(CONTENT_TYPES), "default": "json"},
            ),
            Parameter(name="after", description="The last page's next_cursor, or a workload's id"),
            Parameter(
                name="limit",
                description="Items in a page; streams have all",
                schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
            ),
        ),
        answers={
            200: Answer(
                description="The rows: JSON by id, streams in any order",
                type=BulkPage,
                other_content_types=(CONTENT_TYPES["ndjson"], CONTENT_TYPES["csv"]),
            )
        },
        refusals=(400, 404, 409, 503),
    ),
)
