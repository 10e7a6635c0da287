"""Who a node is: its id and its Ed25519 key, which signs sessions and backfills."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from np1.session import BackfillBeat, BackfillRequest, SessionRequest, rfc3339_of_ms

SEED_BYTES = 32


class NodeIdentity:
    """A node id with its private key: the Ed25519 seed, 32 bytes in hex. ValueError for anything else."""

    def __init__(self, node_id: str, private_key: str) -> None:
        seed = bytes.fromhex(private_key)
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a private key is an Ed25519 seed of {SEED_BYTES} bytes in hex")
        self.node_id = node_id
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def __repr__(self) -> str:
        return f"<NodeIdentity {self.node_id}>"

    @property
    def public_key(self) -> str:
        """The other half, which is registered: 32 bytes in hex."""
        return self._key.public_key().public_bytes_raw().hex()

    def session_body(self, *, sent_at_ms: int, manager_version: str) -> bytes:
        """The signed body of ``POST /v1/sessions``, with a fresh nonce."""
        request = SessionRequest(
            node_id=self.node_id,
            sent_at=rfc3339_of_ms(sent_at_ms),
            nonce=secrets.token_hex(16),
            manager_version=manager_version,
        )
        return request.body(self._key.sign(request.signed_bytes()))

    def backfill_body(self, beats: Sequence[BackfillBeat], *, sent_at_ms: int) -> bytes:
        """The signed body of ``POST /v1/beats/backfill``, with a fresh nonce; beats oldest first."""
        request = BackfillRequest(
            node_id=self.node_id,
            sent_at=rfc3339_of_ms(sent_at_ms),
            nonce=secrets.token_hex(16),
            beats=beats,
        )
        return request.body(self._key.sign(request.signed_bytes()))
