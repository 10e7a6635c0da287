"""Files in forms: a form with one file that may be long, read without ever holding it whole.

The guard spools such a form to disk for visitors who may do what it does, as it does for the API (spool.py);
here it is taken apart. What is in the file is the API's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie

import msgspec
import trio
from quart import request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from web.backend import Backend
from web.pages.forms import fault
from web.pages.visitor import COOKIE
from web.policy import must_be_allowed, policy_of
from web.problems import RefusedError
from web.spool import SPOOL, Scope, Spool

POINTS = re.compile("/projects/[^/]+/days/[^/]+/points")  # the form whose file is a day's points
SPOOLED = [("POST", POINTS)]
PARTS_MAX = 20
FIELD_BYTES_MAX = 16 * 1024
READ_BYTES = 256 * 1024
Admit = Callable[[Scope], Awaitable[None]]


class Upload(msgspec.Struct, frozen=True):
    """A form as it was sent. `file`: at its beginning, to be closed; None: none was chosen."""

    given: dict[str, str]
    file: Spool | None


def admission(backend: Backend, otherwise: Admit) -> Admit:
    """``admit(scope)`` for the guard: whether this visitor's file is worth reading. RefusedError 401, 403."""

    async def admit(scope: Scope) -> None:
        if not POINTS.fullmatch(scope["path"]):
            return await otherwise(scope)
        caller = await backend.keys.caller(f"Bearer {_login_of(scope)}")
        return must_be_allowed(caller, policy_of("POST", "/v1/projects/{slug}/points"))

    return admit


def _login_of(scope: Scope) -> str:
    """The login in the visitor's cookie; empty without one."""
    for name, value in scope["headers"]:
        if name.lower() == b"cookie":
            try:
                cookie = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                return ""
            return "" if cookie is None else cookie.value
    return ""


async def read_upload() -> Upload:
    """The form of the present request. ApiError 422, RefusedError 403."""
    spool = request.scope.get(SPOOL)
    if not isinstance(spool, Spool):  # the guard did not find the visitor worth reading
        raise RefusedError(403, "forbidden", "your key may not commit points: use one that may")
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        raise fault("the form was not sent as a form with a file", "file")
    return await trio.to_thread.run_sync(_taken_apart, spool, boundary.encode("latin-1", "replace"))


def _taken_apart(spool: Spool, boundary: bytes) -> Upload:
    decoder = MultipartDecoder(boundary, max_form_memory_size=READ_BYTES * 2, max_parts=PARTS_MAX)
    fields: dict[str, bytearray] = {}
    into: bytearray | Spool | None = None
    file: Spool | None = None
    try:
        while True:
            event = decoder.next_event()
            if isinstance(event, Epilogue):
                break
            if isinstance(event, NeedData):
                decoder.receive_data(spool.file.read(READ_BYTES) or None)
            elif isinstance(event, Field):
                into = fields.setdefault(event.name or "", bytearray())
            elif isinstance(event, File):
                into = None  # of several files the first counts; one without a name is none
                if event.filename and file is None:
                    into = file = Spool()
            elif isinstance(event, Data) and into is not None:
                _put(into, event.data)
    except (ValueError, RequestEntityTooLarge) as error:
        if file is not None:
            file.close()
        raise fault("the form cannot be read: send it again", "file") from error
    if file is not None:
        file.file.seek(0)
    return Upload({name: each.decode("utf-8", "replace").strip() for name, each in fields.items()}, file)


def _put(into: bytearray | Spool, data: bytes) -> None:
    if isinstance(into, Spool):
        into.put(data)
    elif len(into) + len(data) > FIELD_BYTES_MAX:
        raise ValueError("a field is too long")
    else:
        into += data
