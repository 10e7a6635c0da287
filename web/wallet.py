"""Signing in with a wallet (EIP-4361): the text that a wallet signs, who signed it, and addresses (EIP-55).

Pure: text in, values out. Whether what the text says holds here and now (domain, nonce, times) is decided in
sign_in.py. Signatures of contracts (ERC-1271) are not taken: they ask for a node of the chain.
"""

from __future__ import annotations

import re

import coincurve
import msgspec
from Crypto.Hash import keccak

from web.times import parse_rfc3339

SIGNATURE_BYTES = 65
CHAIN_ID_MAX = 2**53
# RFC 3986, character by character; EIP-4361 builds on its names.
_UNRESERVED, _SUB_DELIMS = r"A-Za-z0-9\-._~", r"!$&'()*+,;="
_PCHAR = rf"(?:[{_UNRESERVED}{_SUB_DELIMS}:@]|%[0-9A-Fa-f]{{2}})"
_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|(?:[{_UNRESERVED}{_SUB_DELIMS}]|%[0-9A-Fa-f]{{2}})+)"
_AUTHORITY = rf"(?:(?:[{_UNRESERVED}{_SUB_DELIMS}:]|%[0-9A-Fa-f]{{2}})*@)?{_HOST}(?::[0-9]{{0,5}})?"
_SCHEME = r"[A-Za-z][A-Za-z0-9+\-.]*"
_HIERARCHY = rf"(?://(?:{_AUTHORITY})?(?:/{_PCHAR}*)*|(?!//)(?:{_PCHAR}|/)*)"
_URI = rf"{_SCHEME}:{_HIERARCHY}(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
_TIME = r"[0-9T:Z+\-.tz]{20,35}"
_MESSAGE = re.compile(
    rf"(?:(?P<scheme>{_SCHEME})://)?(?P<domain>{_AUTHORITY})"
    r" wants you to sign in with your Ethereum account:\n"
    r"(?P<address>0x[0-9A-Fa-f]{40})\n"
    r"\n"
    rf"(?:(?P<statement>[{_UNRESERVED}{_SUB_DELIMS}:/?#\[\]@ ]+)\n)?"
    r"\n"
    rf"URI: (?P<uri>{_URI})\n"
    r"Version: (?P<version>1)\n"
    r"Chain ID: (?P<chain_id>[0-9]{1,16})\n"
    r"Nonce: (?P<nonce>[A-Za-z0-9]{8,128})\n"
    rf"Issued At: (?P<issued_at>{_TIME})"
    rf"(?:\nExpiration Time: (?P<expiration_time>{_TIME}))?"
    rf"(?:\nNot Before: (?P<not_before>{_TIME}))?"
    rf"(?:\nRequest ID: (?P<request_id>{_PCHAR}*))?"
    rf"(?:\nResources:(?P<resources>(?:\n- {_URI})*))?",
    re.ASCII,
)
_ADDRESS = re.compile(r"0x[0-9A-Fa-f]{40}", re.ASCII)


class WalletMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the text says. `address` in lower case; times in unix ms."""

    scheme: str | None
    domain: str
    address: str
    statement: str | None
    uri: str
    chain_id: int
    nonce: str
    issued_ms: int
    expires_ms: int | None
    not_before_ms: int | None
    request_id: str | None
    resources: tuple[str, ...]


def parse_message(text: str) -> WalletMessage:
    """The text of EIP-4361, by its grammar and nothing else. ValueError."""
    match = _MESSAGE.fullmatch(text)
    if match is None:
        raise ValueError("not a message to sign in with, as EIP-4361 has it")
    found = match.groupdict()
    chain_id = int(found["chain_id"])
    if chain_id > CHAIN_ID_MAX:
        raise ValueError("not a chain id")
    return WalletMessage(
        scheme=found["scheme"],
        domain=found["domain"],
        address=checked_address(found["address"]),
        statement=found["statement"],
        uri=found["uri"],
        chain_id=chain_id,
        nonce=found["nonce"],
        issued_ms=parse_rfc3339(found["issued_at"]),
        expires_ms=_time(found["expiration_time"]),
        not_before_ms=_time(found["not_before"]),
        request_id=found["request_id"],
        resources=tuple((found["resources"] or "").split("\n- ")[1:]),
    )


def _time(text: str | None) -> int | None:
    return None if text is None else parse_rfc3339(text)


def signer_of(text: str, signature: bytes) -> str | None:
    """The address, in lower case, whose wallet signed the text (EIP-191); None when nobody can have.

    `signature`: r, s and the recovery byte, which is 27 or 28, or 0 or 1 by some wallets.
    """
    if len(signature) != SIGNATURE_BYTES:
        return None
    recovery = signature[64] - 27 if signature[64] >= 27 else signature[64]
    if recovery not in (0, 1):
        return None
    raw = text.encode()
    digest = _keccak(b"\x19Ethereum Signed Message:\n%d" % len(raw) + raw)
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([recovery]), digest, hasher=None
        )
    except ValueError:  # no point of the curve answers to it
        return None
    return "0x" + _keccak(key.format(compressed=False)[1:])[-20:].hex()


def checked_address(text: str) -> str:
    """An address in lower case. ValueError: not one, or of mixed case with a wrong checksum (EIP-55)."""
    if not _ADDRESS.fullmatch(text):
        raise ValueError("not an address: 0x and 40 hexadecimal digits")
    lower, digits = text.lower(), text[2:]
    if digits not in (digits.lower(), digits.upper()) and text != with_checksum(lower):
        raise ValueError("the checksum of the address is wrong (EIP-55): was it copied whole?")
    return lower


def with_checksum(address: str) -> str:
    """An address of lower case as people see it (EIP-55)."""
    digits = address[2:]
    nibbles = _keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit
        for digit, nibble in zip(digits, nibbles, strict=False)
    )


def _keccak(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()
