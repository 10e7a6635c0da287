"""Cross-origin requests: which pages of other origins may call the API. None, unless configured by name.

No cookies are ever read, so credentials are never allowed: a page must hold a key of its own.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

Headers = list[tuple[bytes, bytes]]

PREFLIGHT_S = 600  # how long a browser may remember the answer
_TAKES = (
    b"authorization, content-type, idempotency-key, if-none-match, last-event-id, traceparent, x-request-id"
)
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_TELLS = b"etag, link, location, ratelimit, ratelimit-policy, retry-after, x-request-id, idempotent-replayed"


class Cors:
    """The origins of the configuration, separated by spaces."""

    def __init__(self, origins: str) -> None:
        self._origins = frozenset(origin.encode() for origin in origins.split())

    def asks_before(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether this is a browser asking, for a page that may call, what it may send (a preflight)."""
        return (
            scope["method"] == "OPTIONS"
            and self._origin(scope) is not None
            and any(name.lower() == b"access-control-request-method" for name, _ in scope["headers"])
        )

    def headers(self, scope: MutableMapping[str, Any]) -> Headers:
        """What every answer to this request carries. Nothing for origins that were not configured."""
        if not self._origins:
            return []
        headers: Headers = [(b"vary", b"origin")]
        origin = self._origin(scope)
        if origin is None:
            return headers
        headers += [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _TELLS),
        ]
        if scope["method"] == "OPTIONS":
            headers += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _TAKES),
                (b"access-control-max-age", str(PREFLIGHT_S).encode()),
            ]
        return headers

    def _origin(self, scope: MutableMapping[str, Any]) -> bytes | None:
        given = [bytes(value) for name, value in scope["headers"] if name.lower() == b"origin"]
        return given[0] if len(given) == 1 and given[0] in self._origins else None
