"""Makes secrets: API keys, log-in tokens, nonces, secrets of mailed links and of webhooks.

Each is at least 128 random bits; what is stored of those that we check ourselves is the SHA-256 of the text
(argon2 is for what people choose). Who they speak for is in postgres_principals.py.
"""

from __future__ import annotations

import base64
import hashlib
import secrets

API_KEY_PREFIX = "np_"
LOGIN_PREFIX = "npl_"
MAILED_PREFIX = "npm_"
WEBHOOK_PREFIX = "whsec_"  # Standard Webhooks
SECRET_BYTES = 32
NONCE_BYTES = 16
SHOWN_CHARS = 6  # of a key, by which people tell theirs apart; 220 of its 256 random bits stay unknown


def sha256_of(secret: str) -> bytes:
    """What is stored of a secret, and what it is found by."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def new_api_key() -> tuple[str, bytes]:
    """An API key, 256 random bits, and what is stored of it."""
    return _new(API_KEY_PREFIX)


def shown_of(secret: str) -> str:
    """As much of a key as may be shown."""
    return secret[: len(API_KEY_PREFIX) + SHOWN_CHARS]


def new_login_token() -> tuple[str, bytes]:
    """The token of somebody who signed in, and what is stored of it."""
    return _new(LOGIN_PREFIX)


def new_mailed_token() -> tuple[str, bytes]:
    """What a mail to sign in with carries, and what is stored of it."""
    return _new(MAILED_PREFIX)


def new_nonce() -> tuple[str, bytes]:
    """A nonce for a wallet to sign, 32 letters and digits (EIP-4361 asks for eight), and what is stored."""
    nonce = secrets.token_hex(NONCE_BYTES)
    return nonce, sha256_of(nonce)


def new_webhook_secret() -> str:
    """A secret after Standard Webhooks. It signs, so it is stored as it is."""
    return WEBHOOK_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _new(prefix: str) -> tuple[str, bytes]:
    secret = prefix + secrets.token_urlsafe(SECRET_BYTES)
    return secret, sha256_of(secret)
