"""`GET /metrics`: OpenMetrics of this process, from its own registry.

Requests are counted here as they end; everything else comes from `statistics()` of the parts at the moment of
the scrape. Labels are routes and statuses, never ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from quart import Response

from engine.core.people import Principal
from storage.metrics_http import Statistics, new_registry, render_metrics
from web.routing import Answer, Handler, Route

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)


class Requests:
    """Counts requests and their time, streams included (they are long)."""

    def __init__(self, parts: Mapping[str, Callable[[], Statistics]]) -> None:
        self.registry: CollectorRegistry = new_registry(parts)
        self._count = Counter(
            "nodepulse_web_requests",
            "Requests answered; status 0: the client went away first",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "nodepulse_web_request_seconds",
            "Time from the header to the end of the answer",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def count(self, *, method: str, route: str, status: int, seconds: float) -> None:
        known = method if method in _METHODS else "other"
        self._count.labels(known, route or "none", str(status)).inc()
        self._seconds.labels(route or "none").observe(seconds)


def routes(requests: Requests) -> tuple[Route, ...]:
    """The one route of this module; the registry is the app's own."""

    async def metrics(_backend: object, _caller: Principal) -> Response:
        content_type, body = render_metrics(requests.registry)
        return Response(body, content_type=content_type)

    handler: Handler = metrics
    return (
        Route(
            method="GET",
            path="/metrics",
            handler=handler,
            summary="Metrics of this process",
            tag="operation",
            limited=False,
            answers={200: Answer(description="OpenMetrics", content_type="application/openmetrics-text")},
        ),
    )
