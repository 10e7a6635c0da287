"""A commit's body, as JSON, NDJSON or CSV, read into packed rows without ever holding it whole.

What is told of a row that cannot be read names it: `/rows/3/points` in JSON, `/lines/4/points` elsewhere
(lines from 1; NDJSON's first is the header, CSV's the names of its columns). Whether the workloads exist, and
what the seal says of them, is judged by the ledger. Synchronous: a million rows take seconds of a thread.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from typing import IO, Annotated, Any, ClassVar, Literal

import msgspec

from web.points_json import json_parts
from web.points_packed import Packed
from web.problems import Fault, RefusedError, malformed

Form = Literal["json", "ndjson", "csv"]
LINE_BYTES_MAX = 64 * 1024
REASON_CHARS_MAX = 1_000
_TRUE_END = b'{"end":true'


class PointsHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit is about. `revision`, `root` (hex): of the seal it was reckoned from; either will do, and
    a day that was sealed once needs neither. `total`: of all rows, checked exactly. `reason`: makes it a
    correction, which replaces the whole day."""

    EXAMPLES: ClassVar = {"revision": 1, "root": "3f" * 32, "total": "12.5", "reason": ""}

    day: str
    revision: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    root: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    total: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARS_MAX)] = ""


class _Line(msgspec.Struct, frozen=True):
    workload_id: str
    points: str


class _End(msgspec.Struct, frozen=True):
    """The last line of our own streams."""

    end: Literal[True]
    rows: int


class Given(msgspec.Struct, frozen=True):
    """A body as it was read. `packed` is to be closed."""

    header: PointsHeader
    packed: Packed
    form: Form

    def pointer(self, place: int, field: str) -> str:
        return f"/{'rows' if self.form == 'json' else 'lines'}/{place}/{field}"


def read_given(file: IO[bytes], form: Form, query: Mapping[str, str]) -> Given:
    """The body, read from where the file stands. RefusedError 400, 422."""
    packed = Packed("rows" if form == "json" else "lines")
    try:
        read = {"json": _read_json, "ndjson": _read_ndjson, "csv": _read_csv}[form]
        header = read(file, packed, query)
        packed.end()
        if form != "json" and header.total is None:
            raise malformed(
                "total is missing: only it can tell that nothing was cut off - at `$.total`"
                if form == "ndjson"
                else "total is missing in the query: only it can tell that nothing was cut off"
            )
        return Given(header, packed, form)
    except BaseException:
        packed.close()
        raise


def header_of(value: Any) -> PointsHeader:
    """A header of plain values. RefusedError 400."""
    if isinstance(value, dict):  # what nobody asked for is passed over, whatever its name is
        value = {name: value[name] for name in PointsHeader.__struct_fields__ if name in value}
    try:
        header = msgspec.convert(value, PointsHeader)
    except msgspec.ValidationError as error:
        raise malformed(error) from error
    if "\0" in header.reason or not _is_text(header.reason):
        raise malformed("is not a text - at `$.reason`")
    return header


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_json(file: IO[bytes], packed: Packed, _query: Mapping[str, str]) -> PointsHeader:
    header: dict[str, Any] = {}
    place = 0
    for name, value in json_parts(file, "rows"):
        if name is not None:
            header[name] = value
            continue
        if not isinstance(value, dict):
            raise malformed(f"Expected `object` - at `$.rows[{place}]`")
        for field in ("workload_id", "points"):
            if not isinstance(value.get(field), str):
                what = "Expected `str`" if field in value else "Object missing required field"
                raise malformed(f"{what} - at `$.rows[{place}].{field}`")
        packed.add(place, value["workload_id"], value["points"])
        place += 1
    if "rows" not in header:
        raise malformed("Object missing required field `rows`")
    return header_of(header)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines by their number from 1, without those that are blank. RefusedError 400."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise _bad_line(number, f"a line may have {LINE_BYTES_MAX} bytes")
        if line.strip():
            yield number, line


def _bad_line(number: int, detail: str) -> RefusedError:
    return RefusedError(400, "malformed", detail, errors=[Fault(detail, f"/lines/{number}")])


def _read_ndjson(file: IO[bytes], packed: Packed, _query: Mapping[str, str]) -> PointsHeader:
    lines = _lines(file)
    _, first = next(lines, (0, b""))
    try:
        header = header_of(msgspec.json.decode(first))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_line(1, f"the first line must be the header: {error}") from error
    decode = msgspec.json.Decoder(_Line).decode
    ended = False
    for number, line in lines:
        if ended:
            raise _bad_line(number, "follows the end")
        try:
            row = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            ended = _is_end(number, line, packed.seen, error)
        else:
            packed.add(number, row.workload_id, row.points)
    return header


def _is_end(number: int, line: bytes, seen: int, error: Exception) -> bool:
    """Whether the line says that these rows are all. RefusedError 400 for any other."""
    if line.replace(b" ", b"").startswith(_TRUE_END):
        try:
            end = msgspec.json.decode(line, type=_End)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as broken:
            raise _bad_line(number, str(broken)) from broken
        if end.rows == seen:
            return True
        raise _bad_line(number, f"says that there are {end.rows} rows, and {seen} came")
    raise _bad_line(number, str(error))


def _read_csv(file: IO[bytes], packed: Packed, query: Mapping[str, str]) -> PointsHeader:
    header = header_of(_of_query(query))
    reader = csv.reader(_texts(file), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if "workload_id" not in names or "points" not in names:
            raise _bad_line(1, "the first line must name the columns, workload_id and points among them")
        workload_at, points_at = names.index("workload_id"), names.index("points")
        needed = max(workload_at, points_at) + 1
        for row in reader:
            if len(row) >= needed:
                packed.add(reader.line_num, row[workload_at], row[points_at])
            elif row:
                raise _bad_line(reader.line_num, "has too few columns")
    except csv.Error as error:
        raise _bad_line(reader.line_num, f"not CSV: {error}") from error
    return header


def _texts(file: IO[bytes]) -> Iterator[str]:
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise _bad_line(number, f"a line may have {LINE_BYTES_MAX} bytes")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _bad_line(number, "not UTF-8") from error


def _of_query(query: Mapping[str, str]) -> dict[str, Any]:
    """A header as plain values; what is no number stays a text, and is refused as one."""
    names = PointsHeader.__struct_fields__
    given: dict[str, Any] = {name: query[name] for name in names if name in query}
    if "revision" in given and given["revision"].isascii() and given["revision"].isdigit():
        given["revision"] = int(given["revision"][:12])
    return given
