"""Webhooks after the Standard Webhooks specification: the message, its signature, and one guarded POST.

`webhook-id` is the notice's id (of a single event the event's), so a repetition is recognisable. The receiver
is not trusted: its address is checked and pinned (guarded.py), redirects are refused, time is bounded as a
whole, and what it answers is read to a bound and thrown away: the status alone counts, nothing of the body
can reach anybody.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

import orjson
import trio
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from engine.core.news import Notice
from engine.core.outbox import Delivery
from engine.core.records import Event
from worker.addresses import AddressRefusedError
from worker.bare_post import PostError, post
from worker.guarded import BadUrlError
from worker.outcome import Outcome, Result
from worker.wording import rfc3339

USER_AGENT = "NodePulse-Webhooks/1"


class _BadChannelError(Exception):
    """The channel can never be sent to as it is."""


def payload(notice: Notice) -> bytes:
    """The message: the same bytes at each attempt. Times are RFC 3339 in UTC.

    Of a single event `data` is the event; of all else it is the notice with its events.
    """
    if notice.form == "event":
        data = _event_data(notice.events[0])
    else:
        data = {
            "notice_id": notice.notice_id,
            "form": notice.form,
            "kind": notice.kind,
            "project_id": notice.project_id,
            "since": rfc3339(notice.since_ms),
            "at": rfc3339(notice.at_ms),
            "count": notice.count,
            "title": notice.title,
            "text": notice.text,
            "events": [_event_data(event) for event in notice.events],
        }
    kind = notice.kind if notice.form in ("event", notice.kind) else f"{notice.form}.{notice.kind}"
    return orjson.dumps({"type": kind, "timestamp": rfc3339(notice.at_ms), "data": data})


def _event_data(event: Event) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "kind": event.kind,
        "project_id": event.project_id,
        "node_id": event.node_id,
        "workload_id": event.workload_id,
        "since": rfc3339(event.since_ms),
        "at": rfc3339(event.at_ms),
        "workloads": list(event.workloads),
        "detail": event.detail,
    }


def signed_headers(notice: Notice, body: bytes, *, secret: str, now_ms: int) -> dict[str, str]:
    """Standard Webhooks' three headers. ValueError for a secret that is not of its form (`whsec_...`)."""
    at = datetime.fromtimestamp(now_ms // 1000, tz=UTC)
    try:
        signature = Webhook(secret).sign(msg_id=notice.notice_id, timestamp=at, data=body.decode())
    except EmptyWebhookSecretError as error:
        raise ValueError("empty webhook secret") from error
    return {
        "webhook-id": notice.notice_id,
        "webhook-timestamp": str(now_ms // 1000),
        "webhook-signature": signature,
    }


class WebhookSender:
    """Sends to channels of kind `webhook` (a Sender)."""

    def __init__(self, *, allow_private: bool, tls: ssl.SSLContext | None = None) -> None:
        """`tls` replaces the system's trust store (tests, private authorities)."""
        self._allow_private = allow_private
        self._tls = tls or ssl.create_default_context()

    async def __call__(self, delivery: Delivery, *, now_ms: int, timeout_s: float) -> Outcome:
        try:
            with trio.fail_after(timeout_s):
                return await self._post(delivery, now_ms)
        except trio.TooSlowError:
            return Outcome(Result.FAILED, f"no answer within {timeout_s:g} s", endpoint_failed=True)
        except (AddressRefusedError, PostError) as error:
            return Outcome(Result.FAILED, str(error), endpoint_failed=True)
        except BadUrlError as error:
            return Outcome(Result.REFUSED, f"the channel's target: {error}")
        except _BadChannelError as error:
            return Outcome(Result.REFUSED, str(error))

    async def _post(self, delivery: Delivery, now_ms: int) -> Outcome:
        body = payload(delivery.notice)
        try:
            headers = signed_headers(delivery.notice, body, secret=delivery.channel.secret, now_ms=now_ms)
        except ValueError as error:
            raise _BadChannelError("the channel's secret is not a Standard Webhooks secret") from error
        status = await post(
            delivery.channel.target,
            content=body,
            headers={"user-agent": USER_AGENT, "content-type": "application/json"} | headers,
            allow_private=self._allow_private,
            tls=self._tls,
        )
        return _read_status(status)


def _read_status(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(Result.ACCEPTED, f"HTTP {status}")
    if status == 410:
        return Outcome(Result.GONE, "HTTP 410: the receiver wants no more; the channel is disabled")
    if 300 <= status < 400:
        return Outcome(Result.FAILED, f"HTTP {status}: redirects are not followed")
    return Outcome(Result.FAILED, f"HTTP {status}", endpoint_failed=status == 429 or status >= 500)
