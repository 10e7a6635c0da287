"""Who is calling: API keys, found by their SHA-256, and what each may see.

A key is 256 random bits, so a fast hash is enough (argon2 is for what people choose). What the directory said
is believed for less than a second: that is how soon a revoked key stops working. Machines prove themselves by
signature (sessions.py), not here.
"""

from __future__ import annotations

import hashlib

import trio

from engine.core.ports import Directory, Principal
from web.problems import RefusedError, not_found

BELIEF_S = 0.9  # from before the question was asked; with the lookup itself below one second
CACHE_MAX = 4_096  # keys remembered, known or not; all are forgotten when it is full
KEY_CHARS_MAX = 256
ANYONE = Principal(key_id="", scope="none", project_id=None)  # the caller of a route that asks for no key


class Keys:
    """Looks keys up, with a short memory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._believed: dict[bytes, tuple[float, Principal | None]] = {}
        self._lookups = self._refused = 0

    async def caller(self, authorization: str | None) -> Principal:
        """Whom the Authorization header speaks for. RefusedError 401 when it does not."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        principal = None
        if scheme.lower() == "bearer" and 0 < len(key) <= KEY_CHARS_MAX:
            principal = await self.principal(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
        if principal is None:
            self._refused += 1
            raise RefusedError(
                401,
                "unauthorized",
                "a valid API key is needed: Authorization: Bearer <key>",
                headers={"www-authenticate": "Bearer"},
            )
        return principal

    async def principal(self, key_sha256: bytes) -> Principal | None:
        now = trio.current_time()
        believed = self._believed.get(key_sha256)
        if believed is not None and now < believed[0]:
            return believed[1]
        principal = await self._directory.principal(key_sha256)
        self._lookups += 1
        if len(self._believed) >= CACHE_MAX:
            self._believed.clear()
        self._believed[key_sha256] = (now + BELIEF_S, principal)
        return principal

    def statistics(self) -> dict[str, float]:
        return {
            "remembered": len(self._believed),
            "lookups_total": self._lookups,
            "refused_total": self._refused,
        }


def sees(caller: Principal, project_id: str) -> bool:
    return caller.scope == "admin" or caller.project_id == project_id


def must_see(caller: Principal, project_id: str, what: str) -> None:
    """404 for what is another project's: it looks like what does not exist."""
    if not sees(caller, project_id):
        raise not_found(what)
