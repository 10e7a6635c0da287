"""Everything that is derived from a master secret: session keys, tokens, ping capabilities (WIRE.md).

Nothing derived is ever stored. `MasterSecrets` holds several secrets by id, so that they can be rotated:
new sessions use the newest, old ones name theirs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec

SECRET_BYTES = 32
SALT_BYTES = 8
_TOKEN_VERSION = 1
_TOKEN_BODY_BYTES = 1 + 1 + 4 + 2 + 8
_TOKEN_BYTES = _TOKEN_BODY_BYTES + 16


class BadTokenError(Exception):
    """The bytes are not a token or capability made with one of our secrets."""


class Token(NamedTuple):
    row: int
    generation: int
    expires_ms: int


class Capability(NamedTuple):
    row: int
    generation: int


class MasterSecrets(msgspec.Struct, frozen=True):
    """Secrets by id (1..255); `newest` is used for what is made now."""

    secrets: dict[int, bytes]

    def __post_init__(self) -> None:
        if not self.secrets:
            raise ValueError("at least one master secret is needed")
        for number, secret in self.secrets.items():
            if not 1 <= number <= 255 or len(secret) != SECRET_BYTES:
                raise ValueError("master secrets are 32 bytes each under ids 1 to 255")

    @property
    def newest(self) -> int:
        return max(self.secrets)

    def session_key(self, *, secret_id: int, row: int, generation: int, salt: bytes) -> bytes:
        """The 16-byte key of one generation of one row (WIRE.md, Session). KeyError on an unknown id."""
        data = b"np1" + row.to_bytes(4, "big") + generation.to_bytes(2, "big") + salt
        return hashlib.blake2b(data, key=self.secrets[secret_id], digest_size=16).digest()

    def receipt_seed(self, secret_id: int) -> bytes:
        """32 bytes: the Ed25519 private key that receipts are signed with. KeyError on an unknown id."""
        return self._subkey(secret_id, b"receipt")

    def _subkey(self, secret_id: int, purpose: bytes) -> bytes:
        return hashlib.blake2b(b"np1-" + purpose, key=self.secrets[secret_id], digest_size=32).digest()

    def _mac(self, secret_id: int, purpose: bytes, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._subkey(secret_id, purpose), digest_size=16).digest()

    def make_token(self, token: Token) -> str:
        """The bearer of the JSON path: row, generation, expiry and a keyed MAC, base64url."""
        secret_id = self.newest
        body = (
            bytes((_TOKEN_VERSION, secret_id))
            + token.row.to_bytes(4, "big")
            + token.generation.to_bytes(2, "big")
            + token.expires_ms.to_bytes(8, "big")
        )
        return base64.urlsafe_b64encode(body + self._mac(secret_id, b"token", body)).rstrip(b"=").decode()

    def read_token(self, text: str) -> Token:
        """Check a token's MAC. Expiry and generation are the caller's to judge. BadTokenError otherwise."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError as error:
            raise BadTokenError("not a token") from error
        body, mac = raw[:_TOKEN_BODY_BYTES], raw[_TOKEN_BODY_BYTES:]
        if len(raw) != _TOKEN_BYTES or raw[0] != _TOKEN_VERSION or raw[1] not in self.secrets:
            raise BadTokenError("not a token")
        if not hmac.compare_digest(mac, self._mac(raw[1], b"token", body)):
            raise BadTokenError("wrong MAC")
        return Token(
            row=int.from_bytes(body[2:6], "big"),
            generation=int.from_bytes(body[6:8], "big"),
            expires_ms=int.from_bytes(body[8:16], "big"),
        )

    def make_capability(self, capability: Capability) -> uuid.UUID:
        """A ping or push capability as a UUID (version 8): row, its own generation, a 74-bit MAC."""
        return self._capability(self.newest, capability)

    def _capability(self, secret_id: int, capability: Capability) -> uuid.UUID:
        head = capability.row.to_bytes(4, "big") + capability.generation.to_bytes(2, "big")
        mac = int.from_bytes(self._mac(secret_id, b"ping", head), "big") >> (128 - 80)
        value = (int.from_bytes(head, "big") << 80) | mac
        value = value & ~(0xF << 76) | (8 << 76)
        value = value & ~(0x3 << 62) | (2 << 62)
        return uuid.UUID(int=value)

    def read_capability(self, text: str) -> Capability:
        """Check a capability (hyphens optional). Its generation is the caller's to judge."""
        try:
            found = uuid.UUID(text)
        except ValueError as error:
            raise BadTokenError("not a UUID") from error
        capability = Capability(row=found.int >> 96, generation=(found.int >> 80) & 0xFFFF)
        for secret_id in self.secrets:
            if hmac.compare_digest(self._capability(secret_id, capability).bytes, found.bytes):
                return capability
        raise BadTokenError("wrong MAC")


def load_secrets(path: Path) -> MasterSecrets:
    """Read the secrets file: JSON ``{"1": "<64 hex digits>", ...}``. OSError, ValueError."""
    text = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    return MasterSecrets(secrets={int(number): bytes.fromhex(value) for number, value in text.items()})
