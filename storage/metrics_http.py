"""A tiny HTTP server for `/metrics`, `/livez` and `/readyz` of processes without a web framework.

GET only, one request per connection, on trio; everything is bounded. What it answers comes from plain
functions that look at state in memory: a scrape never waits for a store. Logs are observe.py's; web serves
the same paths through Quart and may use `render_metrics` and `judge` from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs

import structlog
import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

REQUEST_BYTES_MAX = 8_192  # request line and headers; more is answered 431
REQUEST_TIMEOUT_S = 5.0  # for the whole exchange; a client that is slower is dropped
CONNECTIONS_MAX = 16  # further ones are closed at once

# name -> "" when well, else what is wrong
Checks = Mapping[str, str]
# name -> a number, or numbers by one label (``{"reason": {"stale": 3}}`` is one labelled series)
Statistics = Mapping[str, float | Mapping[str, float]]

log = structlog.get_logger()


class StatisticsCollector(Collector):
    """Turns `statistics()` of the parts of a process into metrics ``nodepulse_<part>_<name>``.

    Names that end in `_total` are counters, all others gauges. A mapping becomes one series per key, under
    the label `of` (never a workload or node: series are kept for ever). A mapping with the key `+Inf` is a
    histogram: numbers up to each upper bound, and under `sum` the sum.
    """

    def __init__(self, parts: Mapping[str, Callable[[], Statistics]]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        for part, statistics in self._parts.items():
            for name, value in statistics().items():
                yield _family(f"nodepulse_{part}_{name}", value)


def new_registry(parts: Mapping[str, Callable[[], Statistics]]) -> CollectorRegistry:
    """A registry with the process's own figures (CPU, memory) and the statistics of its parts."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(StatisticsCollector(parts))
    return registry


def render_metrics(registry: CollectorRegistry) -> tuple[str, bytes]:
    """(content type, body) in OpenMetrics."""
    return CONTENT_TYPE_LATEST, generate_latest(registry)  # type: ignore[no-untyped-call]


def judge(checks: Checks, query: str) -> tuple[int, str]:
    """(status, text) of a health endpoint: 200 when all checks are well, else 503.

    `query` is the raw query string: `verbose` lists the checks, each `exclude=NAME` leaves one out.
    """
    asked = parse_qs(query, keep_blank_values=True)
    excluded = set(asked.get("exclude", []))
    judged = {name: wrong for name, wrong in checks.items() if name not in excluded}
    well = not any(judged.values())
    lines = [f"[{'-' if wrong else '+'}]{name} {wrong or 'ok'}" for name, wrong in judged.items()]
    if well and "verbose" not in asked:
        return HTTPStatus.OK, "ok\n"
    return (
        HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE,
        "\n".join([*lines, "ok" if well else "not ok"]) + "\n",
    )


async def serve_metrics(
    *,
    host: str,
    port: int,
    registry: CollectorRegistry,
    live: Callable[[], Checks],
    ready: Callable[[], Checks],
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started` with (host, port). OSError when the port cannot be had."""
    routes: dict[str, Callable[[str], tuple[int, str, bytes]]] = {
        "/metrics": lambda _query: (HTTPStatus.OK, *render_metrics(registry)),
        "/livez": lambda query: _text(*judge(live(), query)),
        "/readyz": lambda query: _text(*judge(ready(), query)),
    }
    free = trio.Semaphore(CONNECTIONS_MAX)

    async def handle(stream: trio.SocketStream) -> None:
        try:
            free.acquire_nowait()
        except trio.WouldBlock:
            return  # trio.serve_listeners closes the connection
        try:
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                await _answer(stream, routes)
        except trio.BrokenResourceError:
            return  # the client went away: nobody is left to be told
        except Exception:  # a bug of one request, logged with its trace: never the process's end
            log.exception("metrics_http.failed")
        finally:
            free.release()

    listeners = await trio.open_tcp_listeners(port, host=host)
    bound = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        task_status.started((bound[0], bound[1]))


async def _answer(
    stream: trio.SocketStream, routes: Mapping[str, Callable[[str], tuple[int, str, bytes]]]
) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some(REQUEST_BYTES_MAX)
        if not chunk:
            return
        head += chunk
        if len(head) > REQUEST_BYTES_MAX:
            await _send(stream, *_text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too large\n"))
            return
    await _send(stream, *_route(head, routes))


def _route(
    head: bytes, routes: Mapping[str, Callable[[str], tuple[int, str, bytes]]]
) -> tuple[int, str, bytes]:
    parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not parts[1].startswith("/"):
        return _text(HTTPStatus.BAD_REQUEST, "bad request\n")
    method, target, _ = parts
    path, _, query = target.partition("?")
    if path not in routes:
        return _text(HTTPStatus.NOT_FOUND, "not found\n")
    if method != "GET":
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET\n")
    try:
        return routes[path](query)
    except Exception:  # a bug in one part's statistics, logged with its trace and answered as 500
        log.exception("metrics_http.failed", path=path)
        return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error\n")


async def _send(stream: trio.SocketStream, status: int, content_type: str, body: bytes) -> None:
    allow = "allow: GET\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\n{allow}cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    await stream.send_all(head.encode("latin-1") + body)
    await stream.send_eof()
    # Closing with unread bytes would reset the connection and could take the answer with it.
    with trio.move_on_after(0.5):
        while await stream.receive_some(REQUEST_BYTES_MAX):
            pass


def _text(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "text/plain; charset=utf-8", text.encode()


def _family(name: str, value: float | Mapping[str, float]) -> Metric:
    help_text = name.replace("_", " ")
    if not isinstance(value, (int, float)) and "+Inf" in value:
        upto = [(bound, number) for bound, number in value.items() if bound != "sum"]
        return HistogramMetricFamily(name, help_text, buckets=upto, sum_value=value["sum"])
    labels = [] if isinstance(value, (int, float)) else ["of"]
    family: CounterMetricFamily | GaugeMetricFamily
    if name.endswith("_total"):
        family = CounterMetricFamily(name.removesuffix("_total"), help_text, labels=labels)
    else:
        family = GaugeMetricFamily(name, help_text, labels=labels)
    if isinstance(value, (int, float)):
        family.add_metric([], value)
    else:
        for label, number in value.items():
            family.add_metric([label], number)
    return family
