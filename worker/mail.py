"""Notices by mail: one delivery, one message in text and HTML, and not too many to one address.

Whoever gets it ends it with one click (RFC 8058): the link is the channel's own and nobody's to guess. The
conversation with the server is smtp.py's, the words are wording.py's, the HTML is mail_html.py's.
"""

from __future__ import annotations

from email.message import EmailMessage

from engine.core.outbox import Delivery
from engine.core.sending import Sending
from worker.mail_html import html
from worker.outcome import Outcome, Result
from worker.smtp import MailServer, compose
from worker.wording import subject, text

OWNERS_FACTOR = 3  # an address gets so many times an owner's mails of all owners together


def unsubscribe_url(delivery: Delivery, public_url: str) -> str:
    """Of a delivery's channel; an announcement's ends announcements only. Empty without a public URL."""
    if not public_url or not delivery.unsubscribe_token:
        return ""
    only = "?only=announcements" if delivery.notice.form == "announcement" else ""
    return f"{public_url.rstrip('/')}/v1/unsubscribe/{delivery.unsubscribe_token}{only}"


def compose_mail(delivery: Delivery, *, sender: str, now_ms: int, public_url: str = "") -> EmailMessage:
    """The message of a delivery. Its Message-ID is the same at each attempt. ValueError: not an address."""
    url = unsubscribe_url(delivery, public_url)
    words = text(delivery.notice)
    message = compose(
        sender=sender,
        to=delivery.channel.target,
        subject=subject(delivery.notice),
        text=f"{words}\nNo more of these mails: {url}\n" if url else words,
        html=html(delivery.notice, unsubscribe_url=url),
        message_id=delivery.delivery_id,
        now_ms=now_ms,
    )
    message["X-NodePulse-Event-Id"] = delivery.notice.notice_id
    if url:
        message["List-Unsubscribe"] = f"<{url}>"
        if url.startswith("https://"):  # RFC 8058 wants no other
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return message


class MailSender:
    """Sends to channels of kind `mail` (a Sender)."""

    def __init__(
        self, server: MailServer, *, sending: Sending, per_hour_max: int, public_url: str = ""
    ) -> None:
        """`per_hour_max`: mails to one address within an hour, of all channels of one owner together, and
        OWNERS_FACTOR times that of all owners; others wait."""
        self._server = server
        self._sending = sending
        self._per_hour_max = per_hour_max
        self._public_url = public_url

    async def __call__(self, delivery: Delivery, *, now_ms: int, timeout_s: float) -> Outcome:
        """StoreUnavailableError: the budget could not be asked, and nothing was sent."""
        try:
            message = compose_mail(
                delivery, sender=self._server.sender, now_ms=now_ms, public_url=self._public_url
            )
        except ValueError as error:
            return Outcome(Result.REFUSED, str(error))
        address = delivery.channel.target
        # Taken before and given back after, so that a crash in between errs on the side of fewer mails.
        taken: dict[str, int] = {}
        for owner, per_hour_max in self._budgets(delivery):
            may, at_ms = await self._sending.take_budget(
                address, owner=owner, per_hour_max=per_hour_max, now_ms=now_ms
            )
            if not may:
                await self._give_back(address, taken)
                note = f"waiting: {per_hour_max} mails went to this address within the hour"
                return Outcome(Result.LATER, note, not_before_ms=at_ms)
            taken[owner] = at_ms
        outcome = await self._server.send(message, timeout_s=timeout_s)
        if outcome.result is not Result.ACCEPTED:
            await self._give_back(address, taken)
        return outcome

    def _budgets(self, delivery: Delivery) -> list[tuple[str, int]]:
        """What the mail counts for. What people have sent to their own address hangs on nobody else."""
        own = (delivery.owner, self._per_hour_max)
        everybody = ("", self._per_hour_max * OWNERS_FACTOR)
        return [own] if delivery.own_address else [own, everybody]

    async def _give_back(self, address: str, taken: dict[str, int]) -> None:
        for owner, at_ms in taken.items():
            await self._sending.give_back_budget(address, owner=owner, taken_ms=at_ms)
