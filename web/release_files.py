"""`GET /v1/manager/releases/{file}`: archives of the manager, from a folder of this machine.

So that an installation can publish by itself: `nodepulse release manager build` fills the folder. Nothing in
it is secret, and nothing of it is believed by a manager unless its publisher signed it. Which release a
manager gets is told in manager.py, by releases.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

import trio
from quart import Response, request

from engine.core.people import Principal
from web.backend import Backend
from web.problems import not_found
from web.routing import Answer, Route

FILE_BYTES_MAX = 32 * 1024 * 1024  # what a manager takes at most (node/update/release.py)
_FILE = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}\.(?:zip|release)", re.ASCII)


async def get_release_file(backend: Backend, _caller: Principal, *, file: str) -> Response:
    folder = backend.settings.releases_dir
    if not folder or not _FILE.fullmatch(file):
        raise not_found("file")
    data = await trio.to_thread.run_sync(_read, Path(folder) / file)
    if data is None:
        raise not_found("file")
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "public, max-age=60", "x-content-type-options": "nosniff"}
    if etag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(b"", 304, headers, content_type="application/octet-stream")
    return Response(data, 200, headers, content_type="application/octet-stream")


def _read(path: Path) -> bytes | None:
    """What lies there, if it is a plain file that is not too long. Not waited for, should it be a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_BYTES_MAX:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


ROUTES = (
    Route(
        method="GET",
        path="/v1/manager/releases/{file}",
        handler=get_release_file,
        summary="An archive of the manager, or the text that was signed for it",
        tag="manager",
        answers={
            200: Answer(description="The file", content_type="application/octet-stream"),
            304: Answer(description="As you have it (If-None-Match)"),
        },
        refusals=(404,),
    ),
)
