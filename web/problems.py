"""Refusals: one exception, one document (RFC 9457), one set of handlers for everything that can go wrong.

Handlers raise `RefusedError`; what routing, the stores or a bug raise is mapped here and nowhere else. What a
refusal looks like before Quart is reached (bodies, connections) is made with the same `document`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from quart import Response, has_request_context, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from engine.core.ports import StoreUnavailableError

CONTENT_TYPE = "application/problem+json"
REQUEST_ID = "nodepulse.request_id"  # where the guard leaves the request's id in the ASGI scope
ERRORS_MAX = 1_000  # entries of `errors` in one answer; the rest is counted in the detail
_KEPT = frozenset({"allow", "retry-after"})  # headers of routing's own refusals that are told on
_log = structlog.get_logger("web")


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong in a request. `pointer`: a JSON pointer into the body, empty for the whole."""

    detail: str
    pointer: str = ""


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """`application/problem+json` as it is served. `code` is for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    request_id: str = ""
    server_time: int | None = None  # unix ms; with code clock_skew
    errors: tuple[Fault, ...] = ()


class RefusedError(Exception):
    """A refusal on its way to the client."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        server_time: int | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail = status, code, detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.server_time = server_time


class CutOffError(Exception):
    """An answer broke off in a form that cannot say so: its connection is cut without an end (guard.py)."""


def unavailable(detail: str, *, retry_after_s: int = 1) -> RefusedError:
    """503: a shard or a store is away; nothing is known to have happened."""
    return RefusedError(503, "unavailable", detail, headers={"retry-after": str(retry_after_s)})


def not_found(what: str) -> RefusedError:
    """404, also for what exists but is not the caller's to see: the two must look the same."""
    return RefusedError(404, "not_found", f"no such {what}")


def bad_parameter(name: str, detail: str) -> RefusedError:
    """400 for a query parameter or header."""
    return RefusedError(400, "bad_parameter", f"{name}: {detail}")


def malformed(error: msgspec.MsgspecError | str) -> RefusedError:
    """400 for a body that is not what the route takes, with a pointer where one is known."""
    text = str(error)
    detail, _, path = text.partition(" - at `$")
    if not path:
        return RefusedError(400, "malformed", text)
    pointer = re.sub(r"\.|\[", "/", path.removesuffix("`")).replace("]", "").replace("...", "")
    return RefusedError(400, "malformed", detail, errors=(Fault(detail=detail, pointer=pointer),))


def document(problem: RefusedError, *, request_id: str) -> bytes:
    """The JSON body of a refusal."""
    errors, detail = problem.errors, problem.detail
    if len(errors) > ERRORS_MAX:
        detail = f"{detail} (the first {ERRORS_MAX} of {len(errors)} errors)".strip()
        errors = errors[:ERRORS_MAX]
    return msgspec.json.encode(
        ProblemDocument(
            type=f"urn:nodepulse:problem:{problem.code}",
            title=HTTPStatus(problem.status).phrase,
            status=problem.status,
            code=problem.code,
            detail=detail,
            request_id=request_id,
            server_time=problem.server_time,
            errors=errors,
        )
    )


def respond(problem: RefusedError) -> Response:
    request_id = str(request.scope.get(REQUEST_ID, "")) if has_request_context() else ""
    return Response(
        document(problem, request_id=request_id),
        problem.status,
        problem.headers,
        content_type=CONTENT_TYPE,
    )


def of_http_exception(error: HTTPException) -> RefusedError:
    """Routing's refusals (404, 405) and, as 500, whatever nobody expected (logged by Quart)."""
    status = error.code or 500
    code = {404: "not_found", 405: "method_not_allowed", 500: "internal"}.get(status, "refused")
    kept = {name: value for name, value in error.get_headers(None) if name.lower() in _KEPT}
    detail = "" if status == 500 else (error.description or "")
    return RefusedError(status, code, detail, headers=kept)


def install(app: QuartTrio) -> None:
    """Make every refusal of the app a problem document."""

    async def of_problem(error: RefusedError) -> Response:
        return respond(error)

    async def of_store(error: StoreUnavailableError) -> Response:
        _log.warning("store_unavailable", error=str(error))
        return respond(unavailable("a store is away"))

    async def of_http(error: HTTPException) -> Any:
        return respond(of_http_exception(error))

    app.register_error_handler(RefusedError, of_problem)
    app.register_error_handler(StoreUnavailableError, of_store)
    app.register_error_handler(HTTPException, of_http)
