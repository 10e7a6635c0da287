"""One SMTP conversation in a worker thread: what notices (mail.py) and letters (letters.py) are sent with.

The conversation is bounded as a whole: at its deadline the socket is shut down under it, so the thread ends
and no thread is ever left behind that could still send what was given up. What a message says is not known
here.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

import trio

from engine.core.mail_address import parse_mail_address
from worker.inline_images import add_html
from worker.outcome import Outcome, Result
from worker.settings import MailSettings

MAIL_CONNECTIONS_MAX = 4  # conversations (threads) at a time; more would only queue at the server
# The recipient is refused for good: no such mailbox, not a local one, bad syntax (RFC 5321, 4.2.2).
_NO_SUCH_MAILBOX = frozenset({550, 551, 553})


def compose(
    *, sender: str, to: str, subject: str, text: str, html: str = "", message_id: str, now_ms: int
) -> EmailMessage:
    """A message of our own. `message_id`: of the thing that is told, so that each attempt has the same.

    `html`: the same once more, for those who read HTML. ValueError: `to` is not an address.
    """
    username, domain = parse_mail_address(to)
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = sender
    message["To"] = Address(username=username, domain=domain)
    message["Date"] = format_datetime(datetime.fromtimestamp(now_ms // 1000, tz=UTC))
    message["Message-ID"] = f"<{message_id}@{_domain(sender)}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    if html:
        add_html(message, html, content_id=f"{message_id}@{_domain(sender)}")
    return message


class MailServer:
    """The mail server of the settings. At most MAIL_CONNECTIONS_MAX conversations at a time."""

    def __init__(self, settings: MailSettings, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls` replaces the system's trust store (tests, private authorities)."""
        assert settings.host, "without a mail server no mail is claimed"
        self._settings = settings
        self._tls = ssl.create_default_context() if tls is None else tls
        self._limiter = trio.CapacityLimiter(MAIL_CONNECTIONS_MAX)

    @property
    def sender(self) -> str:
        """Who our mail is from."""
        return self._settings.sender

    async def send(self, message: EmailMessage, *, timeout_s: float) -> Outcome:
        """What came of it: accepted only when the server said so after the last dot."""
        limit_s = min(timeout_s, self._settings.timeout_s)
        until = time.monotonic() + limit_s
        try:
            # Resolved here, where it can be cancelled: in the thread nothing could cut it short.
            with trio.fail_after(limit_s):
                found = await trio.socket.getaddrinfo(
                    self._settings.host, self._settings.port, type=socket.SOCK_STREAM
                )
        except (trio.TooSlowError, OSError):
            return Outcome(Result.FAILED, f"the mail server's name {self._settings.host} does not resolve")
        conversation = _Conversation(
            self._settings, self._tls, addresses=[(family, sockaddr) for family, *_, sockaddr in found]
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cut_at, conversation, until)
            try:
                return await trio.to_thread.run_sync(conversation.hold, message, until, limiter=self._limiter)
            finally:
                nursery.cancel_scope.cancel()


async def _cut_at(conversation: _Conversation, until: float) -> None:
    """Shut the conversation down at its deadline, or as soon as we are cancelled."""
    try:
        await trio.sleep(max(0.0, until - time.monotonic()))
    finally:
        conversation.cut()


class _Conversation:
    """One SMTP conversation. `hold` runs in a thread; `cut` ends it from outside at any moment."""

    def __init__(
        self, settings: MailSettings, tls: ssl.SSLContext, *, addresses: list[tuple[int, tuple[object, ...]]]
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._addresses = addresses
        self._lock = threading.Lock()
        self._is_cut = False
        self._handle: socket.socket | None = None  # a duplicate: STARTTLS takes the socket itself over

    def hold(self, message: EmailMessage, until: float) -> Outcome:
        """Connect, send, take leave. Accepted only when the server said so after the last dot."""
        try:
            smtp = _PinnedSmtp(self, self._settings, until)
            try:
                if self._settings.starttls:
                    smtp.starttls(context=self._tls)  # refused by the server: an error, never plain text
                if self._settings.user:
                    smtp.login(self._settings.user, self._settings.password)
                smtp.send_message(message)
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    smtp.quit()  # a courtesy: the message is theirs since the reply before
            finally:
                smtp.close()
        except (OSError, smtplib.SMTPException) as error:
            return self._judge(error, late=time.monotonic() >= until)
        finally:
            self._forget()
        return Outcome(Result.ACCEPTED, "accepted by the mail server")

    def cut(self) -> None:
        """End it now. Harmless when it has ended."""
        with self._lock:
            self._is_cut = True
            if self._handle is not None:
                with contextlib.suppress(OSError):  # not connected yet: its connect timeout ends it
                    self._handle.shutdown(socket.SHUT_RDWR)

    def connect(self, until: float) -> socket.socket:
        """The first of the addresses that answers. OSError."""
        failed: OSError = TimeoutError("no time left to connect")
        for family, sockaddr in self._addresses:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(left_s)
            try:
                connection.connect(sockaddr)
                self._keep(connection)
            except OSError as error:
                connection.close()
                failed = error
            else:
                return connection
        raise failed

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if self._is_cut:
                raise TimeoutError("cut while connecting")
            self._handle = connection.dup()

    def _forget(self) -> None:
        with self._lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _judge(self, error: OSError | smtplib.SMTPException, *, late: bool) -> Outcome:
        # smtplib tells a timeout as a lost connection, so the clock is asked and not the error alone.
        if self._is_cut or late or isinstance(error, TimeoutError):
            return Outcome(Result.FAILED, "the mail server did not finish in time")
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            code, said = next(iter(error.recipients.values()))
            result = Result.REFUSED if code in _NO_SUCH_MAILBOX else Result.FAILED
            return Outcome(result, f"recipient refused: SMTP {code} {_plain(said)}")
        if isinstance(error, smtplib.SMTPResponseException):
            return Outcome(Result.FAILED, f"SMTP {error.smtp_code} {_plain(error.smtp_error)}")
        return Outcome(Result.FAILED, f"{type(error).__name__}: {_plain(str(error))}")


class _PinnedSmtp(smtplib.SMTP):
    """smtplib over a connection of ours, knowing the server's name for TLS."""

    def __init__(self, conversation: _Conversation, settings: MailSettings, until: float) -> None:
        self._conversation = conversation
        self._until = until
        # The greeting name is given, or smtplib would look our own up in the DNS.
        super().__init__(settings.host, settings.port, local_hostname=_domain(settings.sender))

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._conversation.connect(self._until)


def _domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2] or "localhost"


def _plain(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return " ".join(text.split())
