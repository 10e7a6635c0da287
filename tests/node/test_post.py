"""One POST, and everything that can go wrong on its way."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.post import REPLY_BYTES_MAX, PostFailedError, post
from tests.node.backend import Backend


@contextmanager
def speaking(reply, *, hold=False):
    """A listener that says these bytes to whoever connects; with `hold` it then says nothing for long."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(reply)
                if hold:
                    over.wait(5)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        finally:
            over.set()
            thread.join()


def send(url, **options):
    return post(url, b"body", content_type="text/plain", **{"timeout_s": 2.0} | options)


def test_any_status_is_a_reply():
    with speaking(b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 2\r\n\r\nno") as url:
        assert send(url) == (503, b"no", "9")


def test_a_redirect_is_a_reply_and_not_followed():
    with speaking(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n") as url:
        assert send(url).status == 302


@pytest.mark.parametrize(
    "reply",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"\xff" * 70_000],
)
def test_what_is_no_whole_reply_has_failed(reply):
    with speaking(reply) as url, pytest.raises(PostFailedError):
        send(url)


def test_a_reply_without_end_has_failed():
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (REPLY_BYTES_MAX + 1)
    with speaking(endless) as url, pytest.raises(PostFailedError, match="longer than"):
        send(url)


def test_silence_has_failed_when_the_time_is_over():
    with speaking(b"HTTP/1.1 200 OK\r\n", hold=True) as url, pytest.raises(PostFailedError):
        send(url, timeout_s=0.1)


def test_a_port_where_nobody_listens_has_failed():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PostFailedError):
        send(f"http://127.0.0.1:{port}/x")


def test_another_scheme_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="neither http nor https"):
        send("ftp://127.0.0.1/x")


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nodepulse test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def test_https_is_spoken_to_whom_the_certificate_names_and_to_nobody_else(certificate):
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Backend(tls=server_side) as backend:
        assert send(backend.url + "/nothing", tls=trusting).status == 404
        with pytest.raises(PostFailedError, match="certificate"):
            send(backend.url + "/nothing")
