"""Reading the credentials of plain beats: bearer tokens, and ping or push capabilities.

A MAC costs more than everything else about a JSON beat, so what was read is remembered: under the very bytes
that the client sends, in a bounded two-generation cache. Only the MAC is remembered. Whether a generation
still lives is the door's to say at each beat, and a token's expiry is looked at each time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from engine.core.keys import BadTokenError, MasterSecrets

CREDENTIALS_CACHED_MAX = 131_072  # entries per kind; above it the half used longest ago is forgotten
CREDENTIAL_BYTES_MAX = 256  # longer than any credential of ours

_Entry = TypeVar("_Entry")


class Bearer:
    """A token with a good MAC. `slots` is the frozen map of its generation, once it was asked for."""

    __slots__ = ("expires_ms", "generation", "owned", "row", "slots", "value")

    def __init__(self, value: bytes, *, row: int, generation: int, expires_ms: int, owned: bool) -> None:
        self.value = value
        self.row = row
        self.generation = generation
        self.expires_ms = expires_ms
        self.owned = owned
        self.slots: dict[str, int] | None = None


class HalvesCache(Generic[_Entry]):
    """Remembers at least the last `entries_max / 2` entries used, never more than `entries_max`.

    Two dicts instead of an ordered one: forgetting is one assignment, and a hit among the younger half
    moves nothing.
    """

    def __init__(self, entries_max: int) -> None:
        self._half = max(1, entries_max // 2)
        self._young: dict[bytes, _Entry] = {}
        self._old: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> _Entry | None:
        """The entry, made young again; None when it is not remembered."""
        found = self._young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: bytes, entry: _Entry) -> None:
        """Remember; when the younger half is full it becomes the older one, and that is forgotten."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = entry

    def forget(self, key: bytes) -> None:
        """Nothing is remembered under the key."""
        self._young.pop(key, None)
        self._old.pop(key, None)


def read_bearer(secrets: MasterSecrets, value: bytes) -> tuple[int, int, int] | None:
    """(row, generation, expires_ms) of an Authorization header's value; None when it is no token of ours."""
    if len(value) > CREDENTIAL_BYTES_MAX:
        return None
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    try:
        return secrets.read_token(token.strip().decode("ascii"))
    except (BadTokenError, UnicodeDecodeError):
        return None


def read_capability(secrets: MasterSecrets, value: bytes) -> tuple[int, int] | None:
    """(row, generation) of a ping or push capability; None when it is none of ours."""
    if len(value) > CREDENTIAL_BYTES_MAX:
        return None
    try:
        return secrets.read_capability(value.decode("ascii"))
    except (BadTokenError, UnicodeDecodeError):
        return None
