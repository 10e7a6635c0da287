"""A real S3-speaking server in a process of its own (moto), which checks signatures by botocore's code."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

START_S_MAX = 60.0
BUCKET = "our-roots"
_MAY_PUT = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}]}'


class S3(NamedTuple):
    """`url`: of the bucket. The key may put objects and nothing else."""

    base: str
    url: str
    access_key: str
    secret_key: str

    def stored(self, name: str) -> bytes:
        """An object, read past all checks."""
        _reset_auth(self.base, "inf")
        try:
            return _ask("GET", f"{self.url}/{name}", headers=_claimed("s3"))
        finally:
            _reset_auth(self.base, "0")


@contextmanager
def s3_server() -> Iterator[S3]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(base, server)
        _ask("PUT", f"{base}/{BUCKET}")
        _iam(base, "Action=CreateUser&UserName=worker")
        _iam(base, f"Action=PutUserPolicy&UserName=worker&PolicyName=put&PolicyDocument={_MAY_PUT}")
        made = _iam(base, "Action=CreateAccessKey&UserName=worker").decode()
        access, secret = (
            re.search(f"<{name}>(.*?)</{name}>", made)[1] for name in ("AccessKeyId", "SecretAccessKey")
        )
        _reset_auth(base, "0")
        yield S3(base, f"{base}/{BUCKET}", access, secret)
    finally:
        server.terminate()
        server.wait(10)


def _wait(base: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            _ask("GET", f"{base}/moto-api/data.json")
            return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)


def _iam(base: str, form: str) -> bytes:
    headers = _claimed("iam") | {"content-type": "application/x-www-form-urlencoded"}
    return _ask("POST", f"{base}/", f"{form}&Version=2010-05-08".encode(), headers)


def _claimed(service: str) -> dict[str, str]:
    """Which service is meant is read off the credential, also while none is checked."""
    scope = f"x/20260101/us-east-1/{service}/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


def _reset_auth(base: str, count: str) -> None:
    """How many more requests are taken without a check."""
    _ask("POST", f"{base}/moto-api/reset-auth", count.encode(), {"content-type": "text/plain"})


def _ask(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        found: bytes = response.read()
        return found
