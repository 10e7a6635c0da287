"""A wallet as people have one: it signs texts (EIP-191), among them that to sign in with (EIP-4361)."""

from __future__ import annotations

import hashlib

import coincurve
from Crypto.Hash import keccak

from web.times import format_rfc3339


class Wallet:
    """The wallet of a key made from a word, so that it is always the same one."""

    def __init__(self, word: str) -> None:
        self._key = coincurve.PrivateKey(hashlib.sha256(word.encode()).digest())
        raw = self._key.public_key.format(compressed=False)[1:]
        self.address = "0x" + keccak.new(digest_bits=256, data=raw).digest()[-20:].hex()

    def sign(self, text: str) -> str:
        """The signature as wallets give it: 0x, r, s, and 27 or 28."""
        raw = b"\x19Ethereum Signed Message:\n%d" % len(text.encode()) + text.encode()
        digest = keccak.new(digest_bits=256, data=raw).digest()
        signature = self._key.sign_recoverable(digest, hasher=None)
        return "0x" + (signature[:64] + bytes([signature[64] + 27])).hex()


def message_of(
    address: str,
    *,
    nonce: str,
    issued_ms: int,
    domain: str = "localhost",
    uri: str = "http://localhost/",
    chain_id: int = 1,
    expires_ms: int | None = None,
    not_before_ms: int | None = None,
    statement: str | None = "I accept the terms: https://example.org/tos",
) -> str:
    lines = [f"{domain} wants you to sign in with your Ethereum account:", address, ""]
    lines += [""] if statement is None else [statement, ""]
    lines += [f"URI: {uri}", "Version: 1", f"Chain ID: {chain_id}", f"Nonce: {nonce}"]
    lines.append(f"Issued At: {format_rfc3339(issued_ms)}")
    if expires_ms is not None:
        lines.append(f"Expiration Time: {format_rfc3339(expires_ms)}")
    if not_before_ms is not None:
        lines.append(f"Not Before: {format_rfc3339(not_before_ms)}")
    return "\n".join(lines)
