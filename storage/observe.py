"""Logs and crash reports of every process: set up once by the front door, used by all.

structlog writes JSON lines to stderr, one per change of state, and what libraries say through `logging` goes
the same way. Sentry is imported only when a DSN is set (the import takes a second). Metrics are served by
metrics_http.py. The engine may not import this folder: it is handed `capture` by whoever starts it.
"""

from __future__ import annotations

import logging
import os
import sys
from types import ModuleType
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SENTRY_FLUSH_S = 2.0  # how long a process that ends waits for its last reports to leave
# Libraries that tell each request at INFO: that is no change of state, and URLs of webhooks are secrets.
_QUIET = ("httpx2", "httpcore2", "hypercorn.access")

_sentry: ModuleType | None = None


def configure_logging(process: str, *, level: str = "INFO", stream: BinaryIO | None = None) -> None:
    """JSON lines ``{"at", "level", "process", "pid", "event", ...}`` to stderr, from here on.

    `level` is a name of the logging module (ValueError for another). `stream` is for tests. Calling it again
    replaces what was set up before.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"not a log level: {level}")
    # Unbuffered: lines that could not be written would be tried again, and fail, at every later one.
    target: Any = _Lines(getattr(sys.stderr.buffer, "raw", sys.stderr.buffer) if stream is None else stream)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _process_adder(process),
        structlog.processors.format_exc_info,  # without the frames' variables: they may hold secrets
        structlog.processors.UnicodeDecoder(),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_to_json)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=target),
        # Not cached: loggers made at import time must follow when a test sets logging up again.
        cache_logger_on_first_use=False,
    )
    handler = _JsonHandler(target, shared)
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def init_sentry(
    dsn: str, process: str, *, release: str | None = None, environment: str | None = None
) -> bool:
    """Send crashes to Sentry from here on; False (and nothing imported) for an empty DSN.

    Neither the variables of frames nor the bodies of requests are sent: they hold keys and secrets.
    """
    global _sentry
    if not dsn:
        return False
    import sentry_sdk  # here, because it takes a second

    sentry_sdk.init(
        dsn=dsn,
        release=release,
        environment=environment,
        include_local_variables=False,
        max_request_body_size="never",
        traces_sample_rate=None,
        shutdown_timeout=SENTRY_FLUSH_S,
    )
    sentry_sdk.set_tag("process", process)
    _sentry = sentry_sdk
    return True


def capture(error: BaseException, **tags: str) -> None:
    """Report an error with tags. Without a DSN nothing happens: whoever caught it has logged it."""
    if _sentry is None:
        return
    with _sentry.new_scope() as scope:
        for name, value in tags.items():
            scope.set_tag(name, value)
        scope.capture_exception(error)


def close_sentry() -> None:
    """Wait at most SENTRY_FLUSH_S for what is still to be sent, and stop. Blocks; for a process's end."""
    global _sentry
    if _sentry is not None:
        _sentry.get_client().close(timeout=SENTRY_FLUSH_S)
        _sentry = None


def _to_json(event: EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)


def _process_adder(process: str) -> Processor:
    pid = os.getpid()

    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        event["pid"] = pid
        return event

    return add


class _Lines:
    """Where log lines go. One that cannot be written is lost, and how many is told with the next that can.

    A log on a full disk, or a pipe that nobody reads any more, must not end the process that tells of it:
    its beats are worth more.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._lost = 0

    def write(self, line: bytes) -> int:
        try:
            if self._lost:
                lost = {"event": "log.lost", "level": "warning", "lines": self._lost, "pid": os.getpid()}
                self._write_all(_to_json(lost) + b"\n")
                self._lost = 0
            self._write_all(line)
        except OSError:
            self._lost += 1
        return len(line)

    def _write_all(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            written = self._target.write(view)
            if not written:
                raise BlockingIOError("the log takes nothing")
            view = view[written:]

    def flush(self) -> None:
        """Nothing is held back."""


class _JsonHandler(logging.Handler):
    """What libraries log, as the same JSON lines."""

    def __init__(self, target: Any, shared: list[Processor]) -> None:
        super().__init__()
        self._logger = structlog.BytesLogger(target)
        self._shared = shared

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Any = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            for process in self._shared:
                event = process(None, record.levelname.lower(), event)
            self._logger.msg(_to_json(event))
        except Exception:  # noqa: BLE001 - logging's own convention: a log line must not break its caller
            self.handleError(record)
