"""All receivers of a project's points as a stream: what points_reads.py tells by pages, for a back office."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import msgspec
from quart import Response, request

from engine.core.amounts import points_of_micro
from engine.core.ledger import Ledger, Total
from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from web import sight
from web.backend import Backend
from web.bulk_formats import CONTENT_TYPES
from web.counted import TooManyError
from web.days import DAYS, Days, days_of_query
from web.lists import choice_parameter
from web.points_streams import PointsStream
from web.problems import CutOffError, unavailable
from web.routing import Answer, Parameter, Route

PAGE = 10_000  # receivers read at once


class ReceiverItem(msgspec.Struct, frozen=True):
    """Somebody's points in a window. `kind`: what `user` is, as in the list of totals."""

    rank: int
    kind: str
    user: str
    name: str
    wallet: str | None
    points: str
    licence_points: str


async def export_receivers(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    days, form = days_of_query(), choice_parameter("format", ("csv", "ndjson")) or "csv"
    kind, headers = CONTENT_TYPES["csv" if form == "csv" else "ndjson"], {"x-accel-buffering": "no"}
    if request.method == "HEAD":
        return Response(b"", headers=headers, content_type=kind)
    pieces = _pieces(backend.stores.ledger, project.project_id, days, as_csv=form == "csv")
    try:
        stream = PointsStream(pieces, backend.bulk_streams)
    except TooManyError as error:
        raise unavailable("too many bulk streams are open", retry_after_s=5) from error
    await stream.begin()
    response = Response(stream, headers=headers, content_type=kind)
    response.timeout = None  # a client that does not read is cut off by the server's own bound
    return response


async def _pieces(ledger: Ledger, project_id: str, days: Days, *, as_csv: bool) -> AsyncIterator[bytes]:
    after, count, begun = None, 0, False
    try:
        while True:
            page = await ledger.by_beneficiary(project_id, *days, after=after, limit=PAGE)
            if not begun and as_csv:
                yield _csv([ReceiverItem.__struct_fields__])
            begun = True
            if page:
                yield _rows(page, as_csv=as_csv)
            count += len(page)
            if len(page) < PAGE:
                break
            after = (page[-1].micro_points, page[-1].kind, page[-1].beneficiary)
    except StoreUnavailableError as error:
        if not begun:
            raise
        raise CutOffError from error
    if not as_csv:
        yield b'{"end":true,"rows":%d}\n' % count


def _rows(page: list[Total], *, as_csv: bool) -> bytes:
    items = [
        ReceiverItem(
            rank=each.rank,
            kind=each.kind,
            user=each.beneficiary,
            name=each.name,
            wallet=each.wallet,
            points=points_of_micro(each.micro_points),
            licence_points=points_of_micro(each.through_licences),
        )
        for each in page
    ]
    if as_csv:
        return _csv([[_plain(value) for value in msgspec.structs.astuple(item)] for item in items])
    return msgspec.json.Encoder().encode_lines(items)


def _plain(value: object) -> object:
    """A name that a table program would take for a formula is told as text: people choose their names."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _csv(rows: list[list[object]] | list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/points/export",
        handler=export_receivers,
        summary="All receivers of points that count, most first, as a stream",
        tag="points",
        parameters=(
            *DAYS,
            Parameter(
                name="format",
                description="csv, with the names of the columns; ndjson, ended by {end: true, rows}",
                schema={"type": "string", "enum": ["csv", "ndjson"], "default": "csv"},
            ),
        ),
        answers={
            200: Answer(
                description="A row for each receiver",
                content_type=CONTENT_TYPES["csv"],
                other_content_types=(CONTENT_TYPES["ndjson"],),
            )
        },
        refusals=(400, 404, 503),
    ),
)
