"""Who looks at a page: the login in their cookie, what they may do, and whether a form is really theirs.

The cookie holds a login's token, or an API key that its owner pasted, and nothing else; it is sent to this
site alone, not read by scripts. A form counts only if the browser says that a page of ours sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from quart import Response, request

from web.pages.asking import Asking
from web.problems import RefusedError

COOKIE = "nodepulse_login"


class Visitor(msgspec.Struct, frozen=True):
    """`me`: the answer of `/v1/me`; None for who is not signed in."""

    api: Asking
    me: Mapping[str, Any] | None

    @property
    def is_admin(self) -> bool:
        return self.me is not None and self.me["scope"] == "admin"

    @property
    def is_person(self) -> bool:
        return self.me is not None and self.me["user"] is not None

    @property
    def name(self) -> str:
        if self.me is None:
            return ""
        user = self.me["user"]
        if user is None:
            return {"admin": "Admin key", "project": "Project key"}.get(self.me["scope"], "Key")
        return user["name"] or user["email"] or user["wallet"] or "You"

    @property
    def projects(self) -> list[Mapping[str, Any]]:
        """Those that this visitor runs."""
        return [] if self.me is None else list(self.me["projects"])


def must_be_admin(visitor: Visitor) -> None:
    """RefusedError 403 where the API tells others something as well, but the page is not theirs."""
    if not visitor.is_admin:
        raise RefusedError(403, "forbidden", "this page is for whoever runs the installation")


def token_of_request() -> str:
    return request.cookies.get(COOKIE, "")


def must_be_ours() -> None:
    """RefusedError 403 for a form that another site sent in the visitor's name."""
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        well = fetch_site == "same-origin"
    else:
        origin = request.headers.get("origin") or request.headers.get("referer", "")
        well = bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")
    if not well:
        raise RefusedError(403, "forbidden", "this form was not sent from a page of this site: open it again")


def keep(response: Response, token: str, *, life_s: float) -> Response:
    """Have the browser remember the login."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(life_s),
        httponly=True,
        samesite="Lax",
        secure=request.scheme == "https",
        path="/",
    )
    return response


def forget(response: Response) -> Response:
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="Lax", secure=request.scheme == "https")
    return response
