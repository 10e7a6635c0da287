"""A published release of the manager: the manifest that its publisher signed, and reading it.

The release's text is `BASE64URL(manifest) . BASE64URL(signature)`, Ed25519 over DOMAIN and the manifest's
bytes, which are JSON. It fits where the API has its `signature` and into a file of its own. Whether a release
may be taken is decided in rules.py.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from node.update.versions import is_version
from np1.session import MalformedAnswerError, ms_of_rfc3339, rfc3339_of_ms
from np1.shape import Shape, parse_object

DOMAIN = b"nodepulse-release-v1\n"  # so that no signature over anything else is one over a release
TEXT_CHARS_MAX = 1_024  # what the API takes as a signature
ARTEFACT_BYTES_MAX = 32 * 1024 * 1024
NEEDS_MAX = 16
_FILE = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_WORD = re.compile(r"[!-~]{1,128}", re.ASCII)


class UpdateError(Exception):
    """No update; the text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the publisher signs. `minimum_version`: the oldest manager that may become this one directly.

    `needs`: what must be installed beside it, `name>=1.2` or `name<2`, `python` among the names.
    """

    version: str
    file: str
    size: int
    sha256: str
    minimum_version: str
    published_ms: int
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose signature is right. `text`: as it was published; `url`: of its artefact."""

    manifest: Manifest
    text: str
    url: str

    @property
    def version(self) -> str:
        return self.manifest.version


def sign(manifest: Manifest, seed: bytes) -> str:
    """The release's text. seed: the publisher's Ed25519 seed. ValueError when it would not be read."""
    value = asdict(manifest)
    value["published_at"] = rfc3339_of_ms(value.pop("published_ms"))
    data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    key = Ed25519PrivateKey.from_private_bytes(seed)
    text = f"{_base64(data)}.{_base64(key.sign(DOMAIN + data))}"
    try:
        read(text, key.public_key().public_bytes_raw().hex())
    except UpdateError as error:
        raise ValueError(str(error)) from error
    return text


def read(text: str, public_key: str) -> Manifest:
    """The manifest of a release's text. public_key: the publisher's, hex. UpdateError."""
    if len(text) > TEXT_CHARS_MAX:
        raise UpdateError(f"the release's text is longer than {TEXT_CHARS_MAX} characters")
    try:
        parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]
    except (binascii.Error, ValueError) as error:
        raise UpdateError("the release is not signed as releases are") from error
    if len(parts) != 2:
        raise UpdateError("the release is not signed as releases are")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(parts[1], DOMAIN + parts[0])
    except InvalidSignature as error:
        raise UpdateError("the release's signature is not that of update_key") from error
    except ValueError as error:
        raise UpdateError(f"update_key: {error}") from error
    return _manifest(parts[0])


def _manifest(data: bytes) -> Manifest:
    try:
        shape = parse_object(data, bytes_max=TEXT_CHARS_MAX)
        return Manifest(
            version=_version(shape, "version"),
            file=shape.text("file", _FILE),
            size=shape.integer("size", 1, ARTEFACT_BYTES_MAX),
            sha256=shape.text("sha256", _SHA256),
            minimum_version=_version(shape, "minimum_version"),
            published_ms=ms_of_rfc3339(shape.text("published_at", _WORD)),
            needs=_needs(json.loads(data).get("needs")),
        )
    except (MalformedAnswerError, ValueError) as error:
        raise UpdateError(f"the release's manifest: {error}") from error


def _version(shape: Shape, name: str) -> str:
    version = shape.text(name, _WORD)
    if not is_version(version):
        raise ValueError(f"{name}: not a version of SemVer 2.0.0")
    return version


def _needs(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > NEEDS_MAX
        or not all(isinstance(one, str) for one in value)
    ):
        raise ValueError("needs: not a short list of texts")
    return tuple(value)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_key_of(seed: bytes) -> str:
    """What goes into `update_key` of the nodes."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


__all__: Sequence[str] = (
    "ARTEFACT_BYTES_MAX",
    "Manifest",
    "Release",
    "UpdateError",
    "public_key_of",
    "read",
    "sign",
)
