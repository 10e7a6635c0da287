"""Real servers for the worker's senders to meet: an HTTP receiver on trio, a mail server (aiosmtpd), and
certificates for both."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
from aiosmtpd.controller import Controller
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def self_signed(folder: Path, *, names: list[str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server context, client context that trusts just this certificate)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(text)) if text[0].isdigit() else x509.DNSName(text)
        for text in names
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, secret)
    return server, ssl.create_default_context(cafile=chain)


class HttpReceiver:
    """Takes requests and answers each with the next of `answers` (bytes; None: never), the last for ever."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers) or [OK]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self.sent_bytes = 0
        self.endless = b""  # repeated after the answer until the client goes

    async def handle(self, stream: trio.abc.Stream) -> None:
        try:
            await self._handle(stream)
        except trio.BrokenResourceError:
            return  # the client went away: it may

    async def _handle(self, stream: trio.abc.Stream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some()
            if not chunk:
                return
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        line, *rows = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        while len(body) < int(headers.get("content-length", "0")):
            body += await stream.receive_some()
        self.requests.append((line, headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await trio.sleep_forever()
        await stream.send_all(answer)
        while self.endless:
            await stream.send_all(self.endless)
            self.sent_bytes += len(self.endless)


@asynccontextmanager
async def serving(
    receiver: HttpReceiver, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpReceiver]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    receiver.port = listeners[0].socket.getsockname()[1]
    if tls is not None:
        listeners = [trio.SSLListener(listener, tls, https_compatible=True) for listener in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, receiver.handle, listeners)
        yield receiver
        nursery.cancel_scope.cancel()


class Mailbox:
    """An aiosmtpd handler that keeps what it accepts. `refuse` is said to each recipient when set."""

    def __init__(self, *, refuse: str = "", after_data: str = "") -> None:
        self.refuse, self.after_data = refuse, after_data
        self.envelopes = []
        self.tls: list[bool] = []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.envelopes.append(envelope)
        self.tls.append(session.ssl is not None)
        return self.after_data or "250 taken"


class _Controller(Controller):
    """aiosmtpd's controller on a port that the system chooses."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server(mailbox: Mailbox, **options) -> Iterator[int]:
    """Its port. `options` are aiosmtpd's (tls_context, require_starttls, authenticator, ...)."""
    controller = _Controller(mailbox, hostname="127.0.0.1", port=0, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()
