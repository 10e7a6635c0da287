"""Rows of points as streams: those of a commit, and (points_suggested.py) those that a project's rule gives.

All three forms can be posted back as they are. A page of rows is all that is ever held. When a stream breaks
off, NDJSON says so; the others have no last chunk.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import msgspec
import structlog
from quart import Response, request
from quart.wrappers.response import ResponseBody

from engine.core.amounts import points_of_micro
from engine.core.ledger import BeneficiaryKind, Commit, Ledger, LedgerRow
from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from web.backend import Backend
from web.bulk import format_of_query
from web.bulk_formats import CONTENT_TYPES, Format
from web.counted import Counted, TooManyError
from web.points_reads import commit_seen
from web.problems import CutOffError, unavailable
from web.routing import Answer, Parameter, Route

PAGE = 2_000  # rows read at once
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger("web")


class ShareItem(msgspec.Struct, frozen=True, gc=False):
    """A part of a row's points: whose, and through which licence; null: by the machine."""

    kind: BeneficiaryKind
    beneficiary: str
    licence_id: str | None
    points: str


class RowItem(msgspec.Struct, frozen=True, gc=False):
    workload_id: str
    points: str


class SharedRowItem(RowItem, frozen=True, gc=False):
    """`shares`: whom the points belong to; none of zero points."""

    shares: list[ShareItem]


class PointsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A whole day's points, as they can be posted. `revision`, `root`: of the seal."""

    day: str
    revision: int
    root: str
    total: str
    rows: list[SharedRowItem]


class Head(msgspec.Struct, frozen=True):
    """What stands before the rows: for a JSON object, for NDJSON's first line, for CSV in the Link."""

    day: str
    revision: int
    root: str
    total: str


class PointsStream(ResponseBody):
    """The body, counted in on construction (TooManyError) and out when it ends."""

    def __init__(self, pieces: AsyncIterator[bytes], counted: Counted) -> None:
        self._left = True
        counted.enter()
        self._left = False
        self._counted = counted
        self._pieces = pieces
        self._first: bytes | None = None

    async def begin(self) -> None:
        """Read the first rows before anything is answered. StoreUnavailableError."""
        try:
            self._first = await anext(self._pieces)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._counted.leave()

    async def __aenter__(self) -> PointsStream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        self._leave()  # the client was gone before the first byte

    def __aiter__(self) -> PointsStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._pieces)


async def stream_rows(
    backend: Backend, form: Format, head: Head, pages: AsyncIterator[Sequence[RowItem]]
) -> Response:
    """The answer. RefusedError 503 when too many are open."""
    headers = {"x-accel-buffering": "no"}
    if form == "csv":  # which has no place for what stands before the rows
        path = request.path.split("/points")[0] + "/points"
        headers["link"] = f'<{path}?{urlencode(msgspec.structs.asdict(head))}>; rel="edit"'
    if request.method == "HEAD":
        return Response(b"", headers=headers, content_type=CONTENT_TYPES[form])
    try:
        stream = PointsStream(_pieces(form, head, pages), backend.bulk_streams)
    except TooManyError as error:
        raise unavailable("too many bulk streams are open", retry_after_s=5) from error
    await stream.begin()
    response = Response(stream, headers=headers, content_type=CONTENT_TYPES[form])
    response.timeout = None  # a client that does not read is cut off by the server's own bound
    return response


async def _pieces(form: Format, head: Head, pages: AsyncIterator[Sequence[RowItem]]) -> AsyncIterator[bytes]:
    before = _encode(head)
    count = 0
    started = False
    try:
        async for page in pages:
            if not started:
                columns = _csv([type(page[0]).__struct_fields__])
                yield {"json": before[:-1] + b',"rows":[', "ndjson": before + b"\n", "csv": columns}[form]
                started = True
            yield _rows(form, page, first=count == 0)
            count += len(page)
    except StoreUnavailableError as error:
        if not started:
            raise
        _log.warning("points_stream_broken", error=str(error))
        if form != "ndjson":
            raise CutOffError from error
        yield b'{"error":{"code":"unavailable","detail":"what is read from went away: ask again"}}\n'
        return
    if not started:
        yield {
            "json": before[:-1] + b',"rows":[',
            "ndjson": before + b"\n",
            "csv": b"workload_id,points\r\n",
        }[form]
    yield {"json": b"]}", "ndjson": b'{"end":true,"rows":%d}\n' % count, "csv": b""}[form]


def _rows(form: Format, page: Sequence[RowItem], *, first: bool) -> bytes:
    if form == "ndjson":
        return msgspec.json.Encoder().encode_lines(page)
    if form == "json":
        return (b"" if first else b",") + _encode(page)[1:-1]
    return _csv([_flat(row) for row in page])


def _flat(row: RowItem) -> list[Any]:
    told: list[Any] = [row.workload_id, row.points]
    return [*told, _encode(row.shares).decode()] if isinstance(row, SharedRowItem) else told


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


async def export_points(backend: Backend, caller: Principal, *, slug: str, commit_id: str) -> Response:
    _, commit = await commit_seen(backend, caller, slug, commit_id)
    head = Head(
        commit.day, commit.seal_revision, commit.seal_root.hex(), points_of_micro(commit.total_micro_points)
    )
    return await stream_rows(backend, format_of_query(), head, _exported(backend.stores.ledger, commit))


async def _exported(ledger: Ledger, commit: Commit) -> AsyncIterator[list[RowItem]]:
    after: str | None = None
    while page := await ledger.rows(commit.commit_id, after=after, limit=PAGE):
        yield [_item(row) for row in page]
        after = page[-1].workload_id


def _item(row: LedgerRow) -> RowItem:
    shares = [
        ShareItem(each.kind, each.beneficiary, each.licence_id, points_of_micro(each.micro_points))
        for each in row.shares
    ]
    return SharedRowItem(row.workload_id, points_of_micro(row.micro_points), shares)


FORMAT = Parameter(
    name="format",
    description="json: one object. ndjson: what the object has beside its rows, then a row a line, then "
    "{end: true, rows}, or {error} when it broke off. csv: rows alone; the Link with rel=edit says where to "
    "post them, with everything else in its query. Without this the Accept header decides",
    schema={"type": "string", "enum": list(CONTENT_TYPES), "default": "json"},
)
OTHER_TYPES = (CONTENT_TYPES["ndjson"], CONTENT_TYPES["csv"])
ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/points/commits/{commit_id}/rows",
        handler=export_points,
        summary="All rows of a commit, with whom they belong to, as they can be posted",
        tag="points",
        parameters=(FORMAT,),
        answers={200: Answer(description="The rows", type=PointsDocument, other_content_types=OTHER_TYPES)},
        refusals=(400, 404, 503),
    ),
)
