"""Answers that are read as they come, as typed rows: bulk uptime (NDJSON) and events (server-sent events).

Neither ever holds more than a line. A stream that was cut off is told from one that is whole: a row that was
never sent must not look like a workload that was never up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime
from typing import Final, TypeVar

import msgspec

from nodepulse.client.calls import Stream
from nodepulse.client.errors import CutOffError, UnexpectedAnswerError
from nodepulse.client.generated import types
from nodepulse.client.generated.api import Client

T = TypeVar("T")


class _Said(msgspec.Struct, frozen=True):
    code: str
    detail: str = ""


class _Marker(msgspec.Struct, frozen=True):
    """The last line: the end with the number of rows, or why there is no more."""

    end: bool = False
    rows: int = -1
    error: _Said | None = None


def ndjson(stream: Stream, kind: type[T]) -> Iterator[T]:
    """The lines of a stream as `kind`. CutOffError when it did not come to its end marker."""
    decoder = msgspec.json.Decoder(kind)
    count = 0
    for line in stream.lines():
        try:
            row = decoder.decode(line)
        except msgspec.MsgspecError as error:
            _check_end(line, count, error)
            return
        count += 1
        yield row
    raise CutOffError(f"the stream ended after {count} rows, without saying that this is all")


def uptime_rows(
    client: Client,
    slug: str,
    *,
    day: date | str | None = None,
    from_: datetime | str | None = None,
    to: datetime | str | None = None,
) -> Iterator[types.BulkRow]:
    """The uptime of all of a project's workloads on a UTC day, or between two times.

    CutOffError when not all of them came: ask again.
    """
    accept: Final = "application/x-ndjson"
    with client.get_bulk_uptime_stream(slug, day=day, from_=from_, to=to, accept=accept) as stream:
        yield from ndjson(stream, types.BulkRow)


def follow_events(
    client: Client, *, project: str | None = None, after: str | None = None
) -> Iterator[types.EventAnswer]:
    """Events as they come, for ever, none twice and none left out, whatever happens to the connection.

    after: the cursor of the last event that was seen, None for the beginning of history. Raises what opening
    the stream raises when its retries are used up.
    """
    while True:
        with client.stream_events(project=project, after=after) as stream, suppress(CutOffError):
            for event in _events(stream):
                after = event.cursor
                yield event


def _events(stream: Stream) -> Iterator[types.EventAnswer]:
    """The `data` of server-sent events; comments keep the connection and say nothing."""
    data: list[bytes] = []
    for line in stream.lines():
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line and data:
            yield msgspec.json.decode(b"\n".join(data), type=types.EventAnswer)
            data = []


def _check_end(line: bytes, count: int, error: msgspec.MsgspecError) -> None:
    """Return when the line says that these rows are all."""
    try:
        marker = msgspec.json.decode(line, type=_Marker)
    except msgspec.MsgspecError:
        raise UnexpectedAnswerError(f"line {count + 1} is no row: {error}") from error
    if marker.error is not None:
        raise CutOffError(f"the stream broke off after {count} rows: {marker.error.detail}")
    if not marker.end:
        raise UnexpectedAnswerError(f"line {count + 1} is no row: {error}") from error
    if marker.rows != count:
        raise CutOffError(f"{count} rows came, {marker.rows} were sent")
