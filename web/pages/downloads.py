"""Documents of the API as files: receipts and proofs, which are checked offline (docs/proofs.md).

What is too long to be held is streamed.py's.
"""

from __future__ import annotations

import re

from quart import Response

from web.pages.asking import ApiError
from web.pages.rendering import HEADERS
from web.pages.visitor import Visitor

_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")


async def download(visitor: Visitor, path: str, *, name: str, **query: object) -> Response:
    """What the API answers there, byte for byte, to be kept under this name. ApiError."""
    answered = await visitor.api.ask("GET", path, query=query)
    if not answered.ok:
        raise ApiError(answered.status, answered.json or {})
    content_type = answered.headers.get("content-type", "application/json")
    return Response(answered.body, 200, attachment(name), content_type=content_type)


def attachment(name: str) -> dict[str, str]:
    """The headers of a page, and that it is a file to be kept under this name."""
    return {**HEADERS, "content-disposition": f'attachment; filename="{_UNSAFE.sub("_", name)}"'}


def file_name(text: str) -> str:
    """As a name of a file, whatever is in it."""
    return _UNSAFE.sub("_", text)
