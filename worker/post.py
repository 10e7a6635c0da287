"""The post: the deliveries of every kind of channel that this process can send to, and how late they are.

Which kinds those are is the settings' to say: without a mail server notices by mail wait. What one kind does
is deliveries.py's, how it sends is its sender's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from prometheus_client import Histogram

from engine.core.apprise_url import schemas_of
from engine.core.outbox import Delivery
from engine.core.sending import Sending
from storage.observe import capture
from worker.apprise_sender import THREADS_MAX, AppriseSender
from worker.deliveries import Deliveries
from worker.mail import MailSender
from worker.outcome import Sender
from worker.settings import WorkerSettings
from worker.smtp import MAIL_CONNECTIONS_MAX, MailServer
from worker.webhooks import WebhookSender

_LAG_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)

log = structlog.get_logger()


class Post:
    """All deliveries of one worker process. `open` first."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        sending: Sending,
        now_ms: Callable[[], int],
        public_url: str = "",
    ) -> None:
        """`public_url`: where people reach the web API; empty: mails carry no link to unsubscribe by."""
        self.mail_server: MailServer | None = None
        self._settings = settings
        self._sending = sending
        self._now_ms = now_ms
        self._public_url = public_url
        self._kinds: dict[str, Deliveries] = {}
        # Both, because a notice may rightly be late: held for the delay that its recipient chose, or in quiet
        # hours. The first says when people hear of things, the second what we are to blame for.
        self._event_lag = _histogram("event", "From an event to the first attempt to tell it")
        self._due_lag = _histogram("due", "From when a notice was due to the first attempt to send it")

    @property
    def kinds(self) -> Mapping[str, Deliveries]:
        """By kind of channel."""
        return self._kinds

    @property
    def histograms(self) -> tuple[Histogram, ...]:
        return self._event_lag, self._due_lag

    def open(self) -> None:
        settings = self._settings
        webhooks = WebhookSender(allow_private=settings.webhook_allow_private)
        self._add("webhook", webhooks, settings.delivery_concurrency_max)
        schemas = schemas_of(settings.apprise_schemas)
        if schemas:
            services = AppriseSender(schemas=schemas, allow_private=settings.webhook_allow_private)
            self._add("apprise", services, min(settings.delivery_concurrency_max, THREADS_MAX))
        if settings.mail.host:
            self.mail_server = MailServer(settings.mail)
            sender = MailSender(
                self.mail_server,
                sending=self._sending,
                per_hour_max=settings.mail.address_per_hour_max,
                public_url=self._public_url,
            )
            self._add("mail", sender, min(settings.delivery_concurrency_max, MAIL_CONNECTIONS_MAX))
        else:
            log.warning("mail.off", advice="worker.mail.host is empty: notices wait, letters are lost")

    def wake(self) -> None:
        """Something may be due for anybody."""
        for deliveries in self._kinds.values():
            deliveries.wake()

    def stop(self) -> None:
        for deliveries in self._kinds.values():
            deliveries.stop()

    def _add(self, kind: str, send: Sender, concurrency_max: int) -> None:
        settings = self._settings
        self._kinds[kind] = Deliveries(
            kind=kind,
            sending=self._sending,
            send=send,
            now_ms=self._now_ms,
            concurrency_max=concurrency_max,
            endpoint_concurrency_max=settings.delivery_endpoint_max,
            timeout_s=settings.delivery_timeout_s,
            lease_margin_s=settings.delivery_lease_margin_s,
            attempts_max=settings.delivery_attempts_max,
            poll_s=settings.poll_ms / 1000,
            crashed=_report,
            attempted=self._observe,
        )

    def _observe(self, delivery: Delivery, now_ms: int) -> None:
        if delivery.attempts == 1:
            self._due_lag.observe(max(0, now_ms - delivery.wanted_ms) / 1000)
            if delivery.notice.events:
                self._event_lag.observe(max(0, now_ms - delivery.notice.at_ms) / 1000)


def _histogram(since: str, what: str) -> Histogram:
    return Histogram(
        f"nodepulse_{since}_to_first_attempt_seconds", what, buckets=_LAG_BUCKETS_S, registry=None
    )


def _report(error: Exception, delivery: Delivery) -> None:
    log.error(
        "sender.crashed",
        exc_info=error,
        channel_kind=delivery.channel.kind,
        delivery_id=delivery.delivery_id,
        channel_id=delivery.channel.channel_id,
    )
    capture(error, task=f"{delivery.channel.kind} deliveries", delivery_id=delivery.delivery_id)
