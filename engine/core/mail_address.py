"""What is a mail address. Pure.

Not the parser of the standard library's email package: that one fails in many ways on what strangers write.
"""

from __future__ import annotations

import re

ADDRESS_CHARS_MAX = 254  # RFC 5321, 4.5.3.1.3
LOCAL_PART_BYTES_MAX = 64
# RFC 5321's dot-string, with letters beyond ASCII (RFC 6531); the quoted form nobody uses is left out.
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_DOMAIN = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)


def parse_mail_address(text: str) -> tuple[str, str]:
    """(local part, domain in lower case and ASCII) of a bare address. ValueError."""
    local_part, _, domain = text.rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ValueError("not a mail address") from error
    if (
        not _LOCAL_PART.fullmatch(local_part)
        or len(local_part.encode()) > LOCAL_PART_BYTES_MAX
        or not _DOMAIN.fullmatch(domain)
    ):
        raise ValueError("not a mail address")
    return local_part, domain


def account_address(text: str) -> str:
    """An address as an account has it: in lower case, ASCII only. ValueError.

    Somebody is recognised by it, so two ways of writing one address must not look like two people, nor two
    letters that look alike like one.
    """
    local_part, domain = parse_mail_address(text)
    address = f"{local_part.lower()}@{domain}"
    if not address.isascii() or len(address) > ADDRESS_CHARS_MAX:
        raise ValueError("not a mail address that an account can have: only ASCII, at most 254 characters")
    return address
