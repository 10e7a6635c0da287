"""Where the root of a sealed day has been published, and the transaction that is prepared for its signer.

Publishing is the worker's (worker/publisher.py); nothing here sends anything.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from Crypto.Hash import keccak
from quart import Response, request

from engine.core.evm import Transaction, unsigned_payload
from engine.core.people import Principal
from engine.core.publication import Publication
from engine.core.sealed import Seal
from web import sight
from web.backend import Backend
from web.problems import RefusedError
from web.routing import Answer, Parameter, Route, integer_parameter, reply, reply_polled
from web.sealed_day import REVISION, revision_parameter, seal_of_day
from web.times import format_rfc3339

QUANTITY_MAX = 2**63 - 1
_SIGNER = ("nonce", "max_fee_per_gas", "max_priority_fee_per_gas")


class PublicationAnswer(msgspec.Struct, frozen=True):
    """One place where the root is published. `note`: what came of the last attempt; `next_attempt_at`: null
    once it is done."""

    target: str
    state: Literal["due", "done"]
    attempts: int
    note: str
    changed_at: str
    next_attempt_at: str | None


class PublicationsAnswer(msgspec.Struct, frozen=True):
    """By target; empty where none is configured. `next_cursor` is always null."""

    items: list[PublicationAnswer]
    next_cursor: str | None


class EvmTransaction(msgspec.Struct, frozen=True, rename={"chain_id": "chainId"}):
    """As wallets and nodes take it (JSON-RPC, quantities as 0x and hex); without nonce and fees, which are
    its signer's."""

    type: str
    chain_id: str
    to: str
    value: str
    data: str
    gas: str


class TransactionAnswer(msgspec.Struct, frozen=True):
    """`unsigned`: with nonce and fees in the query, the bytes that EIP-1559 has signed, and `signing_hash`
    their Keccak-256; null without. 0x and hex."""

    transaction: EvmTransaction
    unsigned: str | None
    signing_hash: str | None


async def publications_of(backend: Backend, seal: Seal) -> list[PublicationAnswer]:
    """How far the publication of a seal is, by target."""
    return [_answer(found) for found in await backend.stores.publications.of_seal(seal.seal_no)]


async def list_publications(backend: Backend, caller: Principal, *, slug: str, day: str) -> Response:
    project = await sight.project(backend, caller, slug)
    seal = await seal_of_day(backend, project.project_id, day, revision_parameter())
    return reply_polled(PublicationsAnswer(items=await publications_of(backend, seal), next_cursor=None))


async def get_transaction(backend: Backend, caller: Principal, *, slug: str, day: str) -> Response:
    project, signer = await sight.project(backend, caller, slug), _signer_parameters()
    seal = await seal_of_day(backend, project.project_id, day, revision_parameter())
    found = await backend.stores.publications.of_seal(seal.seal_no)
    prepared = next((each.prepared for each in found if each.prepared is not None), None)
    if prepared is None:
        raise RefusedError(404, "not_prepared", "no transaction is prepared (worker.publish.evm)")
    transaction = msgspec.json.decode(prepared, type=Transaction)
    unsigned = None if signer is None else unsigned_payload(transaction, **signer)
    return reply(
        TransactionAnswer(
            transaction=EvmTransaction(
                type="0x2",
                chain_id=hex(transaction.chain_id),
                to=transaction.to,
                value="0x0",
                data=transaction.data,
                gas=hex(transaction.gas),
            ),
            unsigned=None if unsigned is None else "0x" + unsigned.hex(),
            signing_hash=None if unsigned is None else "0x" + _keccak256(unsigned).hex(),
        )
    )


def _signer_parameters() -> dict[str, int] | None:
    """None when the query says neither nonce nor fees. RefusedError 400 when it says only some."""
    if not any(name in request.args for name in _SIGNER):
        return None
    numbers = {name: integer_parameter(name, default=-1, least=0, most=QUANTITY_MAX) for name in _SIGNER}
    missing = [name for name, number in numbers.items() if number < 0]
    if missing:
        raise RefusedError(400, "bad_parameter", f"{missing[0]}: is missing; give all three or none")
    return numbers


def _keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def _answer(found: Publication) -> PublicationAnswer:
    return PublicationAnswer(
        target=found.target,
        state="done" if found.state == "done" else "due",
        attempts=found.attempts,
        note=found.note,
        changed_at=format_rfc3339(found.changed_ms),
        next_attempt_at=None if found.state == "done" else format_rfc3339(found.due_ms),
    )


def _quantity(name: str, description: str) -> Parameter:
    return Parameter(name=name, description=description, schema={"type": "integer", "minimum": 0})


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/seals/{day}/publications",
        handler=list_publications,
        summary="Where the day's root has been published, and what came of it",
        tag="proofs",
        parameters=(REVISION,),
        answers={200: Answer(description="The publications", type=PublicationsAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/projects/{slug}/seals/{day}/transaction",
        handler=get_transaction,
        summary="A transaction with the day's root, to be signed and sent by somebody else (EIP-1559)",
        tag="proofs",
        parameters=(
            REVISION,
            _quantity("nonce", "Of the signer's account; with both fees, for the bytes to be signed"),
            _quantity("max_fee_per_gas", "Wei"),
            _quantity("max_priority_fee_per_gas", "Wei"),
        ),
        answers={200: Answer(description="The transaction", type=TransactionAnswer)},
        refusals=(400, 404),
    ),
)
