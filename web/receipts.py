"""Receipts of nodes' sealed days, signed with a key of the installation, and the public keys of all of them.

What is signed stands in engine/core/receipts.py, byte by byte in docs/proofs.md. The private key is derived
from the newest master secret when a receipt is asked for and is kept nowhere.
"""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from quart import Response

from engine.core.keys import MasterSecrets
from engine.core.people import Principal
from engine.core.receipts import RECEIPT_DOMAIN, RECEIPT_VERSION, ReceiptDocument, ReceiptKey, receipt_text
from engine.core.sealed import Seal
from web import sight
from web.backend import Backend
from web.problems import RefusedError
from web.routing import Answer, Route, reply_polled
from web.sealed_day import DAY, REVISION, asked_seal
from web.times import format_rfc3339


class ReceiptKeyAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A public key (Ed25519, hex). It signs the receipts of seals that are first asked for between `from` and
    `until`; null: it signs now."""

    key_id: str
    public_key: str
    from_: str
    until: str | None


class ReceiptKeysAnswer(msgspec.Struct, frozen=True):
    """All keys that ever signed, the oldest first; `next_cursor` is always null."""

    items: list[ReceiptKeyAnswer]
    next_cursor: str | None


async def get_receipt(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    node = await sight.node(backend, caller, node_id)
    seal = await asked_seal(backend, node.project_id)
    rows = [row for _, row in await backend.stores.seals.rows_of_node(seal, node.node_id)]
    if not rows:
        raise RefusedError(404, "not_in_seal", f"no workload of the node lived on {seal.day}")
    key, private = await _signing_key(backend, seal)
    text = receipt_text(seal, node.node_id, rows, key_id=key.key_id)
    return reply_polled(
        ReceiptDocument(
            version=RECEIPT_VERSION,
            statement=text.decode(),
            signature=private.sign(RECEIPT_DOMAIN + text).hex(),
            key_id=key.key_id,
            public_key=key.public_key.hex(),
        )
    )


async def list_receipt_keys(backend: Backend, caller: Principal) -> Response:
    await _newest(backend)
    found = await backend.stores.receipt_keys.keys()
    return reply_polled(ReceiptKeysAnswer(items=[_answer(key) for key in found], next_cursor=None))


def _answer(key: ReceiptKey) -> ReceiptKeyAnswer:
    return ReceiptKeyAnswer(
        key_id=key.key_id,
        public_key=key.public_key.hex(),
        from_=format_rfc3339(key.from_ms),
        until=None if key.until_ms is None else format_rfc3339(key.until_ms),
    )


async def _signing_key(backend: Backend, seal: Seal) -> tuple[ReceiptKey, Ed25519PrivateKey]:
    """The key that the seal's receipts were always signed with; the newest, once its secret is gone."""
    newest = await _newest(backend)
    keys = backend.stores.receipt_keys
    settled = await keys.key_of_seal(seal.seal_no, newest.key_id)
    for key in (settled, newest):
        private = _private_key(backend.secrets, key.public_key)
        if private is not None:
            return key, private
    raise AssertionError("the newest key is ours")


async def _newest(backend: Backend) -> ReceiptKey:
    """The key that signs now; entered where it is not known yet."""
    newest = backend.secrets.newest
    public = _derived(backend.secrets, newest).public_key().public_bytes_raw()
    return await backend.stores.receipt_keys.register(newest, public, now_ms=backend.clock())


def _private_key(secrets: MasterSecrets, public_key: bytes) -> Ed25519PrivateKey | None:
    found = [_derived(secrets, secret_id) for secret_id in secrets.secrets]
    matching = [key for key in found if key.public_key().public_bytes_raw() == public_key]
    return matching[0] if matching else None


def _derived(secrets: MasterSecrets, secret_id: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secrets.receipt_seed(secret_id))


ROUTES = (
    Route(
        method="GET",
        path="/v1/nodes/{node_id}/receipt",
        handler=get_receipt,
        summary="What the installation signs of a node's sealed day (docs/proofs.md)",
        tag="proofs",
        parameters=(DAY, REVISION),
        answers={200: Answer(description="The receipt", type=ReceiptDocument)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/receipt-keys",
        handler=list_receipt_keys,
        summary="The public keys that receipts were ever signed with",
        tag="proofs",
        answers={200: Answer(description="The keys", type=ReceiptKeysAnswer)},
    ),
)
