"""Notices by chat and SMS services, through apprise: one delivery, one call in a confined worker thread.

apprise is imported with the first such delivery (it takes a second). It is given one URL that
was checked, no files and no ways out but public addresses (confined.py), and it is cut at its deadline.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any

import trio

from engine.core.apprise_url import fault_of_service
from engine.core.outbox import Delivery
from storage.apprise_library import LOG, library, service_of
from worker.confined import Confinement
from worker.outcome import Outcome, Result
from worker.wording import subject, text

THREADS_MAX = 8  # calls at a time; each is a thread
CUT_GRACE_S = 2.0  # for a call to notice that it was cut
_SAID_MAX = 16  # lines of apprise's log that are kept of one call
_SECRET_CHARS_MIN = 4  # a shorter piece of a URL is no secret and may be a word
_said = threading.local()
_listening = threading.Lock()


class _Listener(logging.Handler):
    """Keeps what apprise logs in the thread that it logs in: the only place where it says why."""

    def emit(self, record: logging.LogRecord) -> None:
        lines: list[str] = getattr(_said, "lines", [])
        if len(lines) < _SAID_MAX:
            lines.append(record.getMessage())


class AppriseSender:
    """Sends to channels of kind `apprise` (a Sender)."""

    def __init__(self, *, schemas: frozenset[str], allow_private: bool) -> None:
        """`schemas`: the services of this installation."""
        self._schemas = schemas
        self._allow_private = allow_private
        self._limiter = trio.CapacityLimiter(THREADS_MAX)

    async def __call__(self, delivery: Delivery, *, now_ms: int, timeout_s: float) -> Outcome:
        target = delivery.channel.target
        if fault := fault_of_service(target, self._schemas):
            return Outcome(Result.REFUSED, f"the channel's target: {fault}")
        until = time.monotonic() + timeout_s
        confinement = Confinement(allow_private=self._allow_private)
        with trio.move_on_after(timeout_s + CUT_GRACE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cut_at, confinement, until)
                outcome = await trio.to_thread.run_sync(
                    _notify,
                    target,
                    subject(delivery.notice),
                    text(delivery.notice),
                    confinement,
                    timeout_s,
                    # One that sleeps (it waits for rate limits) is left behind: cut, it can send no more.
                    abandon_on_cancel=True,
                    limiter=self._limiter,
                )
                nursery.cancel_scope.cancel()
            if outcome.result is Result.ACCEPTED or time.monotonic() < until:
                return outcome
        note = f"the service did not finish within {timeout_s:g} s"
        return Outcome(Result.FAILED, note, endpoint_failed=True)


async def _cut_at(confinement: Confinement, until: float) -> None:
    """Cut it at its deadline, or as soon as we are cancelled."""
    try:
        await trio.sleep(max(0.0, until - time.monotonic()))
    finally:
        confinement.cut()


def _notify(target: str, title: str, body: str, confinement: Confinement, timeout_s: float) -> Outcome:
    apprise = _listened_to()  # loaded before the thread is confined: loading opens files and tries sockets
    _said.lines = []
    with confinement.here():
        service = service_of(target)
        if service is None:
            return Outcome(Result.REFUSED, "the channel's target: not a URL that this service understands")
        service.redirects = False
        service.verify_certificate = True
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
        service.socket_connect_timeout = min(5.0, timeout_s)
        service.socket_read_timeout = timeout_s
        taken = bool(service.notify(title=title, body=body, notify_type=apprise.NotifyType.INFO))
    if taken:
        return Outcome(Result.ACCEPTED, "accepted by the service")
    why = confinement.refused[-1] if confinement.refused else without_secrets(" / ".join(_said.lines), target)
    return Outcome(Result.FAILED, why or "the service did not take it", endpoint_failed=True)


def _listened_to() -> Any:
    apprise = library()
    with _listening:
        if not any(isinstance(handler, _Listener) for handler in LOG.handlers):
            LOG.addHandler(_Listener())
    return apprise


def without_secrets(said: str, target: str) -> str:
    """What a service was told to say, without the target's own pieces and without any URL."""
    _, _, rest = target.partition("://")
    pieces = {piece for piece in re.split(r"[/?&=:@#,]+", rest) if len(piece) >= _SECRET_CHARS_MIN}
    for piece in sorted(pieces, key=len, reverse=True):
        said = said.replace(piece, "***")
    return " ".join(re.sub(r"\S+://\S+", "***", said).split())
