"""Idempotency-Key as records and as a port: a POST that creates happens once, however often it is sent.

What the header means over HTTP (400, 409, 422) is web/idempotency.py's.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

KEPT_MS = 86_400_000  # how long a request can be sent again


class Begun(msgspec.Struct, frozen=True):
    """Nobody answered it yet: run it now. What it creates gets `made_id`, also when it is run again.

    `lease_ms`: until then (unix ms) nobody else takes it on; it also tells this run from a later one.
    """

    made_id: str
    lease_ms: int


class Answered(msgspec.Struct, frozen=True):
    """It was answered before: the stored answer, sealed as it was handed in."""

    status: int
    answer: bytes


class BusyError(Exception):
    """The same request is still being worked on."""


class OtherRequestError(Exception):
    """The key was used with another request."""


class Idempotency(Protocol):
    """Requests by credential and key."""

    async def begin(
        self, credential: str, key: str, *, request_sha256: bytes, now_ms: int, lease_ms: int
    ) -> Begun | Answered:
        """Take the request on for `lease_ms`. BusyError, OtherRequestError.

        One whose lease ended without an answer (its process died) is taken on again under the same id.
        """
        ...

    async def finish(self, credential: str, key: str, *, lease_ms: int, status: int, answer: bytes) -> bool:
        """Keep the answer. False: the lease had ended and another took the request on; theirs counts."""
        ...

    async def forget(self, credential: str, key: str, *, lease_ms: int) -> None:
        """It was refused, nothing happened: the key may be used again. Nothing if another has taken it on."""
        ...

    async def release(self, credential: str, key: str, *, lease_ms: int) -> None:
        """It ended without an answer, nobody knows how far it came: it may be run again, under its id.

        Nothing if another has taken it on: theirs is still running.
        """
        ...

    async def prune(self, *, now_ms: int, limit: int, kept_ms: int = KEPT_MS) -> int:
        """Delete requests that began more than `kept_ms` ago, at least KEPT_MS; how many."""
        ...
