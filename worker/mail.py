"""Notices by mail: one delivery, one message. The conversation with the server is smtp.py's, the words are
wording.py's.
"""

from __future__ import annotations

from email.message import EmailMessage

from engine.core.outbox import Delivery
from worker.outcome import Outcome, Result
from worker.smtp import MailServer, compose
from worker.wording import subject, text


def compose_mail(delivery: Delivery, *, sender: str, now_ms: int) -> EmailMessage:
    """The message of a delivery. Its Message-ID is the same at each attempt. ValueError: not an address."""
    message = compose(
        sender=sender,
        to=delivery.channel.target,
        subject=subject(delivery.notice),
        text=text(delivery.notice),
        message_id=delivery.delivery_id,
        now_ms=now_ms,
    )
    message["X-NodePulse-Event-Id"] = delivery.notice.notice_id
    return message


class MailSender:
    """Sends to channels of kind `mail` (a Sender)."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def __call__(self, delivery: Delivery, *, now_ms: int, timeout_s: float) -> Outcome:
        try:
            message = compose_mail(delivery, sender=self._server.sender, now_ms=now_ms)
        except ValueError as error:
            return Outcome(Result.REFUSED, str(error))
        return await self._server.send(message, timeout_s=timeout_s)
