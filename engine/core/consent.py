"""Consent: whether an address takes mail of a project's or a person's channels. Records and the port.

Nobody has mail sent to a stranger: but for the address of the maker's own account, one letter asks, and until
whoever reads it confirms nothing else goes there. Who unsubscribes is asked again, and not switched on again.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.core.notices import ChannelRecord
from engine.core.people import Act

LINK_LIFE_MS = 7 * 86_400_000  # of the link in a letter that asks
LETTER_EVERY_MS = 86_400_000  # one letter to an address, whoever asks
OWNERS_LETTERS_MAX = 20  # in that time, of one owner to all addresses


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A letter that asks, and who has it written. `maker_id`: the account of who acts, if it is a person."""

    token_sha256: bytes
    subject: str
    body: str
    maker_id: str | None


class Asked(msgspec.Struct, frozen=True):
    """What a link asks. `project`: its slug, None of a person's channel."""

    address: str
    project: str | None
    announcements_only: bool


class NothingToConfirmError(Exception):
    """The channel waits for nobody."""


class TooManyLettersError(Exception):
    """One was sent to this address, or OWNERS_LETTERS_MAX of this owner, within LETTER_EVERY_MS."""


class Consent(Protocol):
    """StoreUnavailableError of each."""

    async def asked(self, token_sha256: bytes, *, now_ms: int) -> Asked | None:
        """What this link asks; None: no such link, or it is over."""
        ...

    async def confirm(self, token_sha256: bytes, *, act: Act) -> Asked | None:
        """All channels of this owner to this address that wait are on; or take announcements again, if that
        was asked. A link works once."""
        ...

    async def ask_again(self, channel: ChannelRecord, question: Question, *, act: Act) -> ChannelRecord:
        """One more letter. NothingToConfirmError, TooManyLettersError."""
        ...

    async def prune(self, *, now_ms: int, limit: int) -> int:
        """Forget who was asked long ago and never answered; how many."""
        ...
