"""Receipts of nodes' sealed days, signed with a key of the installation, and the public keys of all of them.

What is signed stands in engine/core/receipts.py, byte by byte in docs/proofs.md; with which key, in
storage/receipt_signing.py.
"""

from __future__ import annotations

import msgspec
from quart import Response

from engine.core.people import Principal
from engine.core.receipts import RECEIPT_DOMAIN, RECEIPT_VERSION, ReceiptDocument, ReceiptKey, receipt_text
from storage.receipt_signing import registered_key, signing_key
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
    keys, secrets, now_ms = backend.stores.receipt_keys, backend.secrets, backend.clock()
    key, private = await signing_key(keys, secrets, seal.seal_no, now_ms=now_ms)
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
    keys = backend.stores.receipt_keys
    await registered_key(keys, backend.secrets, now_ms=backend.clock())
    found = await keys.keys()
    return reply_polled(ReceiptKeysAnswer(items=[_answer(key) for key in found], next_cursor=None))


def _answer(key: ReceiptKey) -> ReceiptKeyAnswer:
    return ReceiptKeyAnswer(
        key_id=key.key_id,
        public_key=key.public_key.hex(),
        from_=format_rfc3339(key.from_ms),
        until=None if key.until_ms is None else format_rfc3339(key.until_ms),
    )


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
