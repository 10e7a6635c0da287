"""What every list has in common: keyset cursors, `limit`, and the link to the next page.

A page is asked for as `?after=<cursor>&limit=<items>`; the cursor is the id (or number) of the last item of
the page before. What is listed, and in which order, is each resource's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from quart import request

from web.ids import canonical_uuid
from web.problems import bad_parameter
from web.routing import Parameter, integer_parameter

LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
PARAMETERS = (
    Parameter(name="after", description="The last page's next_cursor"),
    Parameter(
        name="limit",
        description="Items in a page",
        schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    ),
)
T = TypeVar("T")


def limit_parameter() -> int:
    """How many items a page may have. RefusedError 400."""
    return integer_parameter("limit", default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX)


def id_cursor() -> str | None:
    """The cursor of a list that goes by ids; None at the beginning. RefusedError 400."""
    text = request.args.get("after")
    after = canonical_uuid(text) if text else None
    if text is not None and after is None:
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    return after


def cut(found: Sequence[T], limit: int, cursor_of: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """Of ``limit + 1`` items looked for: (the page, the cursor of the next one, if there is one)."""
    page = found[:limit]
    return page, cursor_of(page[-1]) if len(found) > limit else None


def link_headers(next_cursor: str | None) -> dict[str, str]:
    """The `Link` to the next page, with the filters of this one."""
    if next_cursor is None:
        return {}
    query = {name: value for name, value in request.args.items() if name != "after"}
    return {"link": f'<{request.path}?{urlencode({**query, "after": next_cursor})}>; rel="next"'}
