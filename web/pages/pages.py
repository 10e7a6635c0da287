"""How a page is stated and served: its path, who may look, and what becomes of what goes wrong.

A page is an async function ``(visitor, **path parameters) -> Response``. What needs a visitor who is signed
in sends others to sign in first, and back afterwards. Errors are pages, too, and say what to do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec
from quart import Response, redirect, request
from quart_trio import QuartTrio

from web.pages.asking import ApiError, Application, Asking
from web.pages.rendering import HEADERS, render
from web.pages.visitor import Visitor, must_be_ours, token_of_request
from web.problems import RefusedError
from web.routing import ROUTE

Handler = Callable[..., Awaitable[Response]]
_PARAMETER = re.compile(r"\{(\w+)\}")
_TITLES = {
    403: "Not yours to do",
    404: "Nothing here",
    405: "Not that way",
    409: "Not now",
    422: "That does not work",
    429: "Too many requests",
    500: "That broke",
    503: "Out of reach for a moment",
}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page. `method` POST: a form, from our own pages only. `public`: for who is not signed in, too."""

    path: str
    handler: Handler
    method: str = "GET"
    public: bool = False


def install(app: QuartTrio, api: Application, pages: tuple[Page, ...]) -> None:
    """Add the pages to the app. `api`: the app itself, inside its guard."""
    for page in pages:
        app.add_url_rule(
            _PARAMETER.sub(r"<\1>", page.path),
            endpoint=f"page {page.method} {page.path}",
            view_func=_view(api, page),
            methods=[page.method],
        )


def _view(api: Application, page: Page) -> Handler:
    async def view(**parameters: str) -> Any:
        request.scope[ROUTE] = page.path  # type: ignore[literal-required]
        asking = Asking(api, token_of_request())
        visitor = Visitor(asking, None)
        try:
            if page.method == "POST":
                must_be_ours()
            if token_of_request():
                me = await asking.ask("GET", "/v1/me")
                if not me.ok and me.status != 401:
                    raise ApiError(me.status, me.json or {})  # who this is cannot be told now
                visitor = Visitor(asking, me.json if me.ok else None)
            if visitor.me is None and not page.public:
                back = request.full_path if page.method == "GET" else "/"
                return redirect(f"/sign-in?next={quote(back.rstrip('?'))}", 303)
            return await page.handler(visitor, **parameters)
        except ApiError as error:
            return went_wrong(visitor, error.status, error.detail, errors=error.problem.get("errors", ()))
        except RefusedError as error:
            return went_wrong(visitor, error.status, error.detail)

    return view


def went_wrong(visitor: Visitor, status: int, detail: str, *, errors: Any = ()) -> Response:
    """The page of an error: what it is, and what to do."""
    title = _TITLES.get(status, "That did not work")
    return render("error.html", status, visitor=visitor, title=title, detail=detail, errors=errors)


def see_other(path: str) -> Response:
    """After a form: the page that shows what it did, so that a reload does not send it again."""
    return Response(b"", 303, {**HEADERS, "location": path})


async def form_field(name: str, default: str = "") -> str:
    """One field of the form that was sent, without blanks around it."""
    return str((await request.form).get(name, default)).strip()


async def form_fields(name: str) -> list[str]:
    """All values of a field, such as those of check boxes."""
    return [str(value) for value in (await request.form).getlist(name)]
