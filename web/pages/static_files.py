"""`/static/...`: style sheets and scripts of our own tree, which browsers may keep for ever."""

from __future__ import annotations

from quart import Response

from web.pages.pages import Page
from web.pages.rendering import FINGERPRINT, HERE
from web.pages.visitor import Visitor
from web.problems import not_found

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FILES = {
    path.relative_to(HERE / "static").as_posix(): (path.read_bytes(), _TYPES[path.suffix])
    for path in sorted((HERE / "static").rglob("*"))
    if path.suffix in _TYPES
}


async def get_static(visitor: Visitor, *, fingerprint: str, name: str) -> Response:
    return _file(name)


async def get_vendored(visitor: Visitor, *, fingerprint: str, name: str) -> Response:
    return _file(f"vendor/{name}")


def _file(name: str) -> Response:
    if name not in _FILES:
        raise not_found("file")
    content, content_type = _FILES[name]
    headers = {"cache-control": "public, max-age=31536000, immutable", "etag": f'"{FINGERPRINT}"'}
    return Response(content, 200, headers, content_type=content_type)


PAGES = (
    Page(path="/static/{fingerprint}/{name}", handler=get_static, public=True),
    Page(path="/static/{fingerprint}/vendor/{name}", handler=get_vendored, public=True),
)
