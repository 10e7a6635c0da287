"""The vectors in tests/vectors: the files are what their maker says, and our codec agrees with each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from engine.core.keys import MasterSecrets
from np1.codec import (
    CREDITING,
    Ack,
    Beat,
    Code,
    FrameRejectedError,
    Reject,
    decode_ack,
    decode_beat,
    encode_ack,
    encode_beat,
)
from np1.session import SessionRequest, backfill_signed_bytes
from tests.vectors import make

FOLDER = Path(make.__file__).parent


def load(name):
    return json.loads((FOLDER / name).read_text())


def named(vectors):
    return [pytest.param(vector, id=f"{vector.get('kind', '')} {vector['name']}") for vector in vectors]


@pytest.mark.parametrize("name", sorted(make.files()))
def test_the_committed_file_is_what_its_maker_makes(name):
    assert (FOLDER / name).read_text() == make.files()[name]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command on this machine")
def test_the_committed_siphash_vectors_are_what_openssl_computes():
    assert (FOLDER / "siphash.json").read_text() == make.siphash_file()


@pytest.mark.parametrize("vector", named(load("beats.json")))
def test_a_beat_vector_encodes_and_decodes_as_it_says(vector):
    key, frame = bytes.fromhex(vector["key"]), bytes.fromhex(vector["frame"])
    beat = Beat(
        flags=vector["flags"],
        generation=vector["generation"],
        row=vector["row"],
        seq=int(vector["seq"], 16),
        plane0=int(vector["plane0"], 16),
        plane1=int(vector["plane1"], 16),
    )
    assert encode_beat(beat, key) == frame
    assert decode_beat(frame, key, row=beat.row, generation=beat.generation) == beat


@pytest.mark.parametrize("vector", named(load("acks.json")))
def test_an_ack_vector_encodes_and_decodes_as_it_says(vector):
    key, frame = bytes.fromhex(vector["key"]), bytes.fromhex(vector["frame"])
    ack = Ack(
        code=Code(vector["code"]),
        generation=vector["generation"],
        row=vector["row"],
        seq=int(vector["seq"], 16),
        server_ms=int(vector["server_ms"], 16),
        next_ms=vector["next_ms"],
        ttl_ms=vector["ttl_ms"],
    )
    assert encode_ack(ack, key) == frame
    assert decode_ack(frame, key, row=ack.row, generation=ack.generation) == ack
    assert ack.code.name == vector["code_name"]
    assert (ack.code in CREDITING) is vector["credited"]


def test_the_ack_vectors_hold_every_code():
    assert {vector["code"] for vector in load("acks.json")} == set(Code)


@pytest.mark.parametrize("vector", named(load("rejects.json")))
def test_a_reject_vector_is_refused_for_the_reason_it_says(vector):
    decode = {"beat": decode_beat, "ack": decode_ack}[vector["kind"]]
    with pytest.raises(FrameRejectedError) as caught:
        decode(
            bytes.fromhex(vector["frame"]),
            bytes.fromhex(vector["key"]),
            row=vector["row"],
            generation=vector["generation"],
        )
    assert caught.value.reason == vector["reason"]


def test_the_reject_vectors_hold_every_reason_of_each_kind():
    reasons = {
        kind: {vector["reason"] for vector in load("rejects.json") if vector["kind"] == kind}
        for kind in ("beat", "ack")
    }
    assert reasons == {"beat": set(Reject) - {Reject.CODE}, "ack": set(Reject) - {Reject.FLAGS}}


@pytest.mark.parametrize("vector", load("keys.json"))
def test_a_key_vector_is_what_the_engine_derives(vector):
    secrets = MasterSecrets(secrets={1: bytes.fromhex(vector["secret"])})
    key = secrets.session_key(
        secret_id=1, row=vector["row"], generation=vector["generation"], salt=bytes.fromhex(vector["salt"])
    )
    assert key.hex() == vector["key"]


def test_the_session_vector_is_signed_over_the_lines_of_the_wire_document():
    vectors = load("signatures.json")
    session = vectors["session"]
    signed = "\n".join(
        (
            "nodepulse-session-v1",
            session["node_id"],
            session["sent_at"],
            session["nonce"],
            session["manager_version"],
        )
    ).encode()
    fields = {name: session[name] for name in ("node_id", "sent_at", "nonce", "manager_version")}
    assert bytes.fromhex(session["signed"]) == signed
    assert SessionRequest(**fields).signed_bytes() == signed
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["public_key"]))
    public.verify(bytes.fromhex(session["signature"]), signed)
    assert json.loads(bytes.fromhex(session["body"])) == fields | {"signature": session["signature"]}


def test_the_backfill_vector_is_signed_over_the_bytes_of_its_beats():
    vectors = load("signatures.json")
    backfill = vectors["backfill"]
    body, beats = bytes.fromhex(backfill["body"]), bytes.fromhex(backfill["beats"])
    # Found as a server finds them: the raw text behind "beats", not a re-encoding.
    start = body.index(b"[")
    assert body[start : body.rindex(b"]") + 1] == beats
    signed = backfill_signed_bytes(backfill["node_id"], backfill["sent_at"], backfill["nonce"], beats)
    assert signed == bytes.fromhex(backfill["signed"])
    assert signed.endswith(b"\n" + backfill["beats_sha256"].encode())
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["public_key"]))
    public.verify(bytes.fromhex(backfill["signature"]), signed)
    assert json.loads(body)["beats"][0]["plane0"] == "0000000000000001"
