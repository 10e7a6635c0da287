"""The forms of what is typed at `admin`: names, ids, addresses, times, versions, keys.

What has another form is a wrong usage (exit code 2) and reaches no store. Whether the thing is there is found
out by the command.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit

import click

from engine.core.ed25519 import is_public_key
from engine.core.mail_address import account_address
from engine.core.versions import is_version
from web.ids import SLUG as SLUG_PATTERN
from web.ids import canonical_uuid
from web.times import TIME_MS_MAX, parse_day

NAME_CHARS_MAX = 200
REGION_CHARS_MAX = 64
URL_CHARS_MAX = 1_000
SIGNATURE_CHARS_MAX = 1_024
PARTNER_CHARS_MAX = 128


class Form(click.ParamType[Any]):
    """Text that is read by a function; its ValueError is told to who typed it."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value  # a default
        try:
            return self._read(value)
        except ValueError as error:
            return self.fail(f"{value!r}: {error}", param, ctx)


def _bounded(text: str, chars_max: int) -> str:
    if len(text) > chars_max:
        raise ValueError(f"has {len(text)} characters, {chars_max} at most")
    if not text.isprintable():  # nor bytes that were no UTF-8
        raise ValueError("has characters that cannot be printed")
    return text


def _id(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise ValueError("is no id: the lists show them")
    return found


def _slug(text: str) -> str:
    if not SLUG_PATTERN.fullmatch(text):
        raise ValueError("is no slug: a-z, 0-9 and -, at most 63 characters")
    return text


def _region(text: str) -> str:
    if not text.isascii() or " " in text:
        raise ValueError("a region has visible ASCII characters only")
    return _bounded(text, REGION_CHARS_MAX)


def _wallet(text: str) -> str:
    from web.wallet import checked_address  # its libraries take a while to load

    return checked_address(text)


def _time(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("is no RFC 3339 time, such as 2026-01-31T12:00:00Z") from error
    if time.tzinfo is None:
        raise ValueError("has no time zone; add Z for UTC")
    unix_ms = round(time.timestamp() * 1000)
    if not 0 <= unix_ms <= TIME_MS_MAX:
        raise ValueError("is before 1970 or after 9999")
    return unix_ms


def _day(text: str) -> date:
    return datetime.fromtimestamp(parse_day(text) / 1000, UTC).date()


def _version(text: str) -> str:
    if not is_version(text):
        raise ValueError("is no version of SemVer 2.0.0, such as 1.4.2")
    return text


def _public_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise ValueError("is not hex") from error
    if len(key) != 32:
        raise ValueError(f"has {len(key)} bytes, not 32")
    if not is_public_key(key):
        raise ValueError("is no Ed25519 public key")
    return key


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise ValueError("is not the SHA-256 of anything: 64 hex digits, lower case")
    return text


def _signature(text: str) -> str:
    if not text or len(text) > SIGNATURE_CHARS_MAX or not all("!" <= one <= "~" for one in text):
        raise ValueError(f"is no signature: 1 to {SIGNATURE_CHARS_MAX} visible ASCII characters")
    return text


def _who(text: str) -> str:
    """Somebody, as Desk.person finds them."""
    if text.startswith("0x"):
        return _wallet(text)
    if "@" in text:
        return account_address(text)
    found = canonical_uuid(text)
    if found is None:
        raise ValueError("is neither an id nor a wallet nor a mail address")
    return found


def _visible(text: str) -> str:
    if not 1 <= len(text) <= PARTNER_CHARS_MAX or not all("!" <= one <= "~" for one in text):
        raise ValueError(f"must have 1 to {PARTNER_CHARS_MAX} visible ASCII characters")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is no http or https URL")
    if "@" in parts.netloc:
        raise ValueError("has a user name in it")
    return _bounded(text, URL_CHARS_MAX)


NAME = Form("name", lambda text: _bounded(text, NAME_CHARS_MAX))
ID = Form("id", _id)
SLUG = Form("slug", _slug)
REGION = Form("region", _region)
WALLET = Form("address", _wallet)
EMAIL = Form("e-mail", account_address)
TIME = Form("time", _time)
DAY = Form("day", _day)
VERSION = Form("version", _version)
PUBLIC_KEY = Form("hex", _public_key)
SHA256 = Form("hex", _sha256)
SIGNATURE = Form("signature", _signature)
URL = Form("url", _url)
SUBGRAPH = Form("url", lambda text: _url(text) if text else "")
WHO = Form("user", _who)  # id, wallet or mail address
PARTNER = Form("name", _visible)
PERCENT = click.IntRange(0, 100)
