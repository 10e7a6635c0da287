"""Where roots were published, and the transaction for a signer, over HTTP."""

from __future__ import annotations

import coincurve
from Crypto.Hash import keccak

from engine.core.sealed import Seal
from tests.sealing import make_day, seal_days
from tests.web.control import Control
from worker.publish_settings import PublishEvmSettings, PublishSettings
from worker.publish_targets import Published, UnpublishedError, evm_target
from worker.publisher import RootPublisher

TO = "0x" + "ab" * 20


async def sealed(control: Control) -> tuple[Seal, str]:
    await make_day(control.stores, control.alpha.project_id)
    (seal,) = await seal_days(control.stores)
    return seal, f"/v1/projects/alpha/seals/{seal.day}"


def publisher(control: Control) -> RootPublisher:
    clock = control.app.backend.clock
    return RootPublisher(control.stores.publications, PublishSettings(), now_ms=clock, wall_ms=clock)


async def away(_seal: Seal) -> Published:
    raise UnpublishedError("HTTP 503")


async def test_whoever_runs_the_project_sees_how_far_the_publication_is(control: Control) -> None:
    _, path = await sealed(control)
    assert (await control.ask("GET", f"{path}/publications", by="owner")).json["items"] == []
    worker = publisher(control)
    await worker.publish_due("evm", evm_target(PublishEvmSettings(to=TO)))
    await worker.publish_due("webhook", away)
    evm, webhook = (await control.ask("GET", f"{path}/publications", by="owner")).json["items"]
    assert (evm["target"], evm["state"], evm["attempts"]) == ("evm", "done", 1)
    assert evm["next_attempt_at"] is None
    assert (webhook["state"], webhook["note"]) == ("due", "HTTP 503")
    assert webhook["next_attempt_at"] > webhook["changed_at"]


async def test_a_prepared_transaction_can_be_signed_elsewhere(control: Control) -> None:
    seal, path = await sealed(control)
    early = await control.ask("GET", f"{path}/transaction", by="owner")
    assert (early.status, early.json["code"]) == (404, "not_prepared")
    await publisher(control).publish_due("evm", evm_target(PublishEvmSettings(to=TO, chain_id=10)))
    plain = (await control.ask("GET", f"{path}/transaction", by="owner")).json
    assert plain["transaction"] | {"data": ""} == {
        "type": "0x2",
        "chainId": "0xa",
        "to": TO,
        "value": "0x0",
        "gas": "0x186a0",
        "data": "",
    }
    assert plain["transaction"]["data"].startswith("0x" + seal.root.hex())
    assert plain["unsigned"] is plain["signing_hash"] is None
    query = "?nonce=7&max_fee_per_gas=30000000000&max_priority_fee_per_gas=0"
    signable = (await control.ask("GET", f"{path}/transaction{query}", by="owner")).json
    payload = bytes.fromhex(signable["unsigned"][2:])
    assert payload[0] == 2
    assert seal.root in payload
    digest = keccak.new(digest_bits=256, data=payload).digest()
    assert signable["signing_hash"] == "0x" + digest.hex()
    key = coincurve.PrivateKey(b"\x01" * 32)
    signature = key.sign_recoverable(digest, hasher=None)
    signer = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    assert signer == key.public_key


async def test_a_signer_says_all_three_numbers_or_none(control: Control) -> None:
    _, path = await sealed(control)
    for query in ("?nonce=1", "?nonce=x", "?max_fee_per_gas=1&max_priority_fee_per_gas=1", "?nonce=-1"):
        answer = await control.ask("GET", f"{path}/transaction{query}", by="owner")
        assert (query, answer.status, answer.json["code"]) == (query, 400, "bad_parameter")


async def test_a_day_that_is_not_sealed_has_neither(control: Control) -> None:
    for name in ("publications", "transaction"):
        path = f"/v1/projects/alpha/seals/2999-01-01/{name}"
        answer = await control.ask("GET", path, by="owner")
        assert (answer.status, answer.json["code"]) == (404, "not_sealed")
        assert (await control.ask("GET", f"/v1/projects/alpha/seals/x/{name}", by="owner")).status == 400
