"""Signing receipts: private keys derived from the master secrets when they are needed, and kept nowhere.

Which key signs a seal's receipts is settled once, by the port ReceiptKeys; what is signed is receipts.py's in
engine/core.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.keys import MasterSecrets
from engine.core.receipts import ReceiptKey, ReceiptKeys


async def registered_key(keys: ReceiptKeys, secrets: MasterSecrets, *, now_ms: int) -> ReceiptKey:
    """The key of the newest secret, which signs now; entered where it is not known yet."""
    public = _derived(secrets, secrets.newest).public_key().public_bytes_raw()
    return await keys.register(secrets.newest, public, now_ms=now_ms)


async def signing_key(
    keys: ReceiptKeys, secrets: MasterSecrets, seal_no: int, *, now_ms: int
) -> tuple[ReceiptKey, Ed25519PrivateKey]:
    """The key that the seal's receipts were always signed with; the newest, once its secret is gone."""
    newest = await registered_key(keys, secrets, now_ms=now_ms)
    settled = await keys.key_of_seal(seal_no, newest.key_id)
    private = _private_key(secrets, settled.public_key)
    return (newest, _derived(secrets, secrets.newest)) if private is None else (settled, private)


def _private_key(secrets: MasterSecrets, public_key: bytes) -> Ed25519PrivateKey | None:
    found = [_derived(secrets, secret_id) for secret_id in secrets.secrets]
    return next((key for key in found if key.public_key().public_bytes_raw() == public_key), None)


def _derived(secrets: MasterSecrets, secret_id: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secrets.receipt_seed(secret_id))
