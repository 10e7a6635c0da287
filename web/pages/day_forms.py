"""What an owner does on a day: commit what the rule gives or rows of their own, have it sealed once more.

A form carries its Idempotency-Key, so a double click commits once: the second request waits for the answer of
the first. What is shown before, and what becomes of it, is days.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import trio
from quart import Response

from web.pages.asking import Answered, ApiError
from web.pages.days import show_day
from web.pages.forms import Attempt, Given, fault, refused, submit
from web.pages.links import segment
from web.pages.pages import Page, see_other
from web.pages.uploads import Upload, read_upload
from web.pages.visitor import Visitor
from web.spool import Spool

AGAIN_S, AGAIN_S_MAX = 0.25, 120.0  # how often, and how long, a commit that is being made is waited for
COPY_BYTES = 1024 * 1024
HEADER_BYTES_MAX = 64 * 1024
HEADER = ("day", "revision", "root", "total", "reason")
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2})?|24:00", re.ASCII)


async def commit_suggestion(visitor: Visitor, *, slug: str, day: str) -> Response:
    async def send(given: Given) -> str:
        body: dict[str, Any] = {name: given[name] for name in ("root", "total", "reason") if given.get(name)}
        body |= {"day": day, "revision": _revision(given)}
        path = f"/v1/projects/{segment(slug)}/points/suggested"
        await _made(partial(visitor.api.ask, "POST", path, body=body, key=given.get("once", "")))
        return f"{_here(slug, day)}?told=committed#history"

    return await submit("suggested", send, again=_again(visitor, slug, day))


async def send_points(visitor: Visitor, *, slug: str, day: str) -> Response:
    """Rows in a file: what they would come to, or committed, by the button that was pressed."""
    upload: Upload | None = None
    try:
        upload = await read_upload()
        return await _sent(visitor, slug, day, upload)
    except ApiError as error:
        if error.status in (401, 404):
            raise
        attempt = refused("own", {} if upload is None else upload.given, error)
        return await show_day(visitor, slug=slug, day=day, attempt=attempt)
    finally:
        if upload is not None and upload.file is not None:
            upload.file.close()


async def _sent(visitor: Visitor, slug: str, day: str, upload: Upload) -> Response:
    given, checking = upload.given, upload.given.get("do") == "check"
    if upload.file is None:
        raise fault("choose a file", "file")
    header: dict[str, Any] = {name: given[name] for name in ("total", "reason") if given.get(name)}
    header |= {"day": day, "revision": _revision(given)}
    query, rows, content_type = await trio.to_thread.run_sync(_body_of, upload.file, header)
    path = f"/v1/projects/{segment(slug)}/points"
    try:
        ask = partial(visitor.api.ask, "POST", spool=rows, content_type=content_type, query=query)
        if checking:
            answered = await ask(f"{path}/preview")
            return await show_day(visitor, slug=slug, day=day, checked=_checked(answered).json)
        await _made(partial(ask, path, key=given.get("once", "")), rows)
    finally:
        rows.close()
    return see_other(f"{_here(slug, day)}?told=committed#history")


def _body_of(file: Spool, header: Mapping[str, Any]) -> tuple[dict[str, Any], Spool, str]:
    """(query, body, content type) of what was sent, with what the form says of it. ApiError 422."""
    first = file.file.readline(HEADER_BYTES_MAX)
    rows = Spool()
    try:
        if not first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            file.file.seek(0)
            _copy(file, rows)
            return dict(header), rows, "text/csv"
        rows.put(msgspec.json.encode(_merged(first, header)) + b"\n")
        _copy(file, rows)
        return {}, rows, "application/x-ndjson"
    except BaseException:
        rows.close()
        raise


def _merged(first: bytes, header: Mapping[str, Any]) -> dict[str, Any]:
    """The header of NDJSON: its first line, with what only the form says. ApiError 422."""
    try:
        told = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise fault(f"its first line is no JSON: {error}", "file") from error
    if not isinstance(told, dict) or "day" not in told:
        raise fault("its first line must be the header, which says the day", "file")
    if told["day"] != header["day"]:
        raise fault(f"the file is of {told['day']}, and this is {header['day']}", "file")
    # From which seal its rows were reckoned the file knows better; what somebody typed they meant.
    own = {name: told[name] for name in HEADER if name in told}
    typed = {name: header[name] for name in ("total", "reason") if name in header}
    return {**header, **own, **typed}


def _copy(source: Spool, target: Spool) -> None:
    while piece := source.file.read(COPY_BYTES):
        target.put(piece)
    target.file.seek(0)


async def _made(ask: Any, rows: Spool | None = None) -> Answered:
    """The answer of a commit; while the very same is being made, by another click, that one's. ApiError."""
    deadline = trio.current_time() + AGAIN_S_MAX
    while True:
        answered: Answered = await ask()
        running = answered.status == 409 and answered.json["code"] == "still_running"
        if not running or trio.current_time() > deadline:
            return _checked(answered)
        await trio.sleep(AGAIN_S)
        if rows is not None:
            rows.file.seek(0)


def _checked(answered: Answered) -> Answered:
    if not answered.ok:
        raise ApiError(answered.status, answered.json or {})
    return answered


def _revision(given: Given) -> int:
    text = given.get("revision", "")
    if _DIGITS.fullmatch(text) is None:
        raise fault("is missing: open the page of the day again", "revision")
    return int(text)


async def correct_seal(visitor: Visitor, *, slug: str, day: str) -> Response:
    async def send(given: Given) -> str:
        body: dict[str, Any] = {
            "reason": given.get("reason", ""),
            "maintenances": _grants(given.get("maintenances", ""), day),
        }
        if any(given.get(name) for name in ("shard", "gap_from", "gap_to")):
            body["gap"] = _gap(given, day)
        path = f"/v1/projects/{segment(slug)}/seals/{segment(day)}/corrections"
        await visitor.api.send("POST", path, body, key=given.get("once", ""))
        return f"{_here(slug, day)}?told=correction-asked#seals"

    return await submit("seal", send, again=_again(visitor, slug, day))


def _grants(text: str, day: str) -> list[dict[str, str]]:
    """A line for each: workload, from, to. ApiError 422."""
    grants: list[dict[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        if len(words) != 3:
            raise fault(f"line {number}: write the workload's id, from and to", "maintenances")
        workload_id, begin, end = words
        grants.append({"workload_id": workload_id, "from": _time(begin, day), "to": _time(end, day)})
    return grants


def _gap(given: Given, day: str) -> dict[str, Any]:
    shard = given.get("shard", "")
    if _DIGITS.fullmatch(shard) is None or not given.get("gap_from") or not given.get("gap_to"):
        raise fault("say which shard, from when, and to when", "gap")
    return {"shard": int(shard), "from": _time(given["gap_from"], day), "to": _time(given["gap_to"], day)}


def _time(text: str, day: str) -> str:
    """A time of that day, or a whole one, which the API judges."""
    if _TIME.fullmatch(text) is None:
        return text
    if text == "24:00":
        return f"{day}T24:00:00Z"
    return f"{day}T{text}{':00' if len(text) == 5 else ''}Z"


def _here(slug: str, day: str) -> str:
    return f"/projects/{segment(slug)}/days/{segment(day)}"


def _again(visitor: Visitor, slug: str, day: str) -> Any:
    async def again(attempt: Attempt) -> Response:
        return await show_day(visitor, slug=slug, day=day, attempt=attempt)

    return again


_DAY = "/projects/{slug}/days/{day}"
PAGES = (
    Page(path=f"{_DAY}/suggested", handler=commit_suggestion, method="POST"),
    Page(path=f"{_DAY}/points", handler=send_points, method="POST"),
    Page(path=f"{_DAY}/correction", handler=correct_seal, method="POST"),
)
