"""What a browser is answered when there is no page, or none that could answer: a page, with the way on.

Programs get the problem document that they always got (web/problems.py), and so does everything below /v1.
Errors of pages that exist are pages.py's.
"""

from __future__ import annotations

from typing import Any

import structlog
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from engine.core.ports import StoreUnavailableError
from web import problems
from web.pages.asking import Application, Asking
from web.pages.pages import went_wrong
from web.pages.visitor import Visitor, token_of_request

_DETAILS = {
    404: "There is no page of this address. It may be mistyped, or what it showed may be gone.",
    405: "This page only takes a form, and no form was sent. Go to the page that has the form.",
    500: "Something broke on our side, and stands in our log. Try again; see first whether anything changed.",
    503: "A part of the system is away. Try again in some seconds; nothing is known to have been changed.",
}
_log = structlog.get_logger("web")


def install(app: QuartTrio, api: Application) -> None:
    """Put pages before the problem documents of the app, for browsers. `api`: the app inside its guard."""

    async def of_http(error: HTTPException) -> Any:
        problem = problems.of_http_exception(error)
        return await _answer(api, problem) if _wants_page() else problems.respond(problem)

    async def of_store(error: StoreUnavailableError) -> Response:
        _log.warning("store_unavailable", error=str(error))
        problem = problems.unavailable("a store is away")
        return await _answer(api, problem) if _wants_page() else problems.respond(problem)

    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(StoreUnavailableError, of_store)


def _wants_page() -> bool:
    """Whether a browser shows this answer to somebody: it names HTML, which programs do not."""
    if request.path == "/v1" or request.path.startswith("/v1/"):
        return False
    named = request.headers.get("accept", "").split(",")
    return any(each.partition(";")[0].strip().lower() == "text/html" for each in named)


async def _answer(api: Application, problem: problems.RefusedError) -> Response:
    visitor = await _visitor(api)
    response = went_wrong(visitor, problem.status, _DETAILS.get(problem.status, problem.detail))
    for name, value in problem.headers.items():
        response.headers[name] = value
    return response


async def _visitor(api: Application) -> Visitor:
    """Who looks, so that the way on can be shown; nobody, where that cannot be told now."""
    asking = Asking(api, token_of_request())
    if not token_of_request():
        return Visitor(asking, None)
    me = await asking.ask("GET", "/v1/me")
    return Visitor(asking, me.json if me.ok else None)
