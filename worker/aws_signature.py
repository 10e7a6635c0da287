"""AWS Signature Version 4 for a request to S3, in one chunk. Pure.

After "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk" of the
Amazon S3 API reference, whose examples a test reckons.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import msgspec

_ALGORITHM = "AWS4-HMAC-SHA256"


class S3Key(msgspec.Struct, frozen=True):
    """Whose request it is, and of which region the bucket."""

    access_key: str
    secret_key: str
    region: str


def signed_headers(
    method: str, url: str, body: bytes, headers: Mapping[str, str], *, key: S3Key, at: datetime
) -> dict[str, str]:
    """`headers` (names in lower case) and those that sign them all. `url`: its path not quoted, no query."""
    parts, time = urlsplit(url), at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    all_headers = {**headers, "host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": time}
    names = ";".join(sorted(all_headers))
    canonical = "\n".join(
        (
            method,
            quoted_path(parts.path),
            "",
            *(f"{name}:{all_headers[name].strip()}" for name in sorted(all_headers)),
            "",
            names,
            digest,
        )
    )
    scope = f"{time[:8]}/{key.region}/s3/aws4_request"
    to_sign = "\n".join((_ALGORITHM, time, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signature = hmac.digest(_signing_key(key, time[:8]), to_sign.encode(), "sha256").hex()
    authorization = (
        f"{_ALGORITHM} Credential={key.access_key}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return all_headers | {"authorization": authorization}


def quoted_path(path: str) -> str:
    """Each byte but letters, digits and ``-._~/`` as %XX, once: S3 asks for no more."""
    return quote(path or "/", safe="/-._~")


def _signing_key(key: S3Key, day: str) -> bytes:
    secret = f"AWS4{key.secret_key}".encode()
    for part in (day, key.region, "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    return secret
