"""Who is calling: API keys and logins, found by their SHA-256, and session tokens of managers.

A key is 256 random bits, so a fast hash is enough (argon2 is for what people choose). What the directory said
is believed for less than a second: that is how soon a revoked key stops working. Nodes that open sessions
prove themselves by signature (sessions.py), not here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import trio

from engine.core.keys import BadTokenError, MasterSecrets
from engine.core.people import Principal
from engine.core.ports import Directory
from web.problems import RefusedError

BELIEF_S = 0.9  # from before the question was asked; with the lookup itself below one second
CACHE_MAX = 4_096  # credentials remembered, known or not; all are forgotten when it is full
KEY_CHARS_MAX = 256
ANYONE = Principal(key_id="", scope="none", project_id=None)  # the caller of a route that asks for no key


class Keys:
    """Looks credentials up, with a short memory."""

    def __init__(self, directory: Directory, secrets: MasterSecrets, *, clock: Callable[[], int]) -> None:
        """clock: unix ms, for what expires."""
        self._directory = directory
        self._secrets = secrets
        self._clock = clock
        self._believed: dict[bytes, tuple[float, Principal | None]] = {}
        self._lookups = self._refused = 0

    async def caller(self, authorization: str | None) -> Principal:
        """Whom the Authorization header speaks for. RefusedError 401 when it does not."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        principal = None
        if scheme.lower() == "bearer" and 0 < len(key) <= KEY_CHARS_MAX:
            principal = await self._principal(key)
        if principal is None:
            self._refused += 1
            raise RefusedError(
                401,
                "unauthorized",
                "a valid API key is needed: Authorization: Bearer <key>",
                headers={"www-authenticate": "Bearer"},
            )
        return principal

    async def _principal(self, key: str) -> Principal | None:
        now = trio.current_time()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        believed = self._believed.get(digest)
        if believed is not None and now < believed[0]:
            return believed[1]
        principal = await self._look_up(key, digest)
        self._lookups += 1
        if len(self._believed) >= CACHE_MAX:
            self._believed.clear()
        self._believed[digest] = (now + BELIEF_S, principal)
        return principal

    async def _look_up(self, key: str, digest: bytes) -> Principal | None:
        now_ms = self._clock()
        try:
            token = self._secrets.read_token(key)
        except BadTokenError:
            return await self._directory.principal(digest, now_ms=now_ms)
        if token.expires_ms <= now_ms:
            return None
        return await self._directory.manager(token.row, token.generation, now_ms=now_ms)

    def statistics(self) -> dict[str, float]:
        return {
            "remembered": len(self._believed),
            "lookups_total": self._lookups,
            "refused_total": self._refused,
        }
