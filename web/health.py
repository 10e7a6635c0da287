"""`GET /livez` and `GET /readyz`: is this process alive, and should it be sent requests.

Ready means: not ending, Postgres answers, every shard's watermark is under two seconds old by that shard's
own clock, and every shard takes beats (one whose disk is full does not). The plain text and `?verbose`,
`?exclude=` are the same as in the other processes.
"""

from __future__ import annotations

import trio
from quart import Response, request

from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from storage.metrics_http import judge
from web.backend import Backend
from web.routing import Answer, Parameter, Route

WATERMARK_AGE_MS_MAX = 2_000
POSTGRES_S_MAX = 1.0


async def livez(_backend: Backend, _caller: Principal) -> Response:
    return _text(*judge({}, request.query_string.decode("latin-1")))


async def readyz(backend: Backend, _caller: Principal) -> Response:
    checks = {"serving": "ending" if backend.draining else ""}
    if "postgres" not in request.args.getlist("exclude"):
        checks["postgres"] = await _postgres(backend)
    for shard in range(backend.shards):
        checks[f"shard_{shard}"] = _shard(backend, shard)
    return _text(*judge(checks, request.query_string.decode("latin-1")))


async def _postgres(backend: Backend) -> str:
    try:
        with trio.fail_after(POSTGRES_S_MAX):
            await backend.history.watermark(0)
    except (StoreUnavailableError, trio.TooSlowError):
        return "does not answer"
    return ""


def _shard(backend: Backend, shard: int) -> str:
    head, age_ms = backend.heads.head(shard), backend.heads.watermark_age_ms(shard)
    if head is None or age_ms is None:
        return "was never heard of"
    if head.provisional_from_ms is not None:
        return "takes no beats: its journal cannot be written"
    return "" if age_ms < WATERMARK_AGE_MS_MAX else f"its watermark is {age_ms} ms old"


def _text(status: int, text: str) -> Response:
    return Response(text, status, content_type="text/plain; charset=utf-8")


_PARAMETERS = (
    Parameter(name="verbose", description="List the checks"),
    Parameter(name="exclude", description="Leave a check out; may be repeated"),
)
_TEXT = "text/plain"

ROUTES = (
    Route(
        method="GET",
        path="/livez",
        handler=livez,
        summary="Is the process alive",
        tag="operation",
        limited=False,
        parameters=_PARAMETERS,
        answers={200: Answer(description="It is", content_type=_TEXT)},
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=readyz,
        summary="Should this process be sent requests",
        tag="operation",
        limited=False,
        parameters=_PARAMETERS,
        answers={
            200: Answer(description="Ready", content_type=_TEXT),
            503: Answer(description="Not ready", content_type=_TEXT),
        },
    ),
)
