"""The signed backfill, written out from the wire contract: what a node says of beats nobody acknowledged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.stranger.party import Door, Node, Reply, now_ms, rfc3339

PATH = "/v1/beats/backfill"
REASONS = {"future", "duplicate", "generation", "sealed", "order"}
ORDER = ("node_id", "sent_at", "nonce", "beats", "signature")


def claim(at_ms: int, states: Mapping[int, int], generation: int) -> dict[str, Any]:
    """One element of "beats"; `states` by slot number."""
    plane0 = sum((state & 1) << slot for slot, state in states.items())
    plane1 = sum((state >> 1) << slot for slot, state in states.items())
    planes = {"plane0": f"{plane0:016x}", "plane1": f"{plane1:016x}"}
    return {"at_ms": at_ms, **planes, "generation": generation}


def claims_of(node: Node, said: Iterable[tuple[int, int | Mapping[int, int]]]) -> list[dict[str, Any]]:
    """Of the node's session: (time, the state of all its slots or of each)."""
    slots = node.slots.values()
    return [
        claim(at, dict.fromkeys(slots, states) if isinstance(states, int) else states, node.generation)
        for at, states in said
    ]


def backfill_body(
    made: Mapping[str, Any], beats: Any, *, order: Iterable[str] = ORDER, **changed: Any
) -> bytes:
    """The signed body, byte for byte; `beats` is a list, or the very text of it from [ to ].

    `changed` fields are signed as changed, but not `signature`; `order` is how the keys shall stand.
    """
    text = beats if isinstance(beats, str) else json.dumps(beats)
    asked = {"node_id": made["node_id"], "sent_at": rfc3339(now_ms()), "nonce": os.urandom(16).hex()}
    asked |= {key: value for key, value in changed.items() if key in asked}
    digest = hashlib.sha256(text.encode()).hexdigest()
    signed = "\n".join(["nodepulse-backfill-v1", *map(str, asked.values()), digest])
    signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(made["private_key"]))
    asked["signature"] = changed.get("signature", signer.sign(signed.encode()).hex())
    parts = {**{key: json.dumps(value) for key, value in asked.items()}, "beats": text}
    return ("{" + ", ".join(f'"{key}": {parts[key]}' for key in order) + "}").encode()


def post(web: Door, body: bytes) -> Reply:
    """Without an API key: the signature is all there is."""
    return Door(web.address).ask("POST", PATH, body, headers={"content-type": "application/json"})


def counts(reply: Reply) -> dict[str, int]:
    """Of an answer of the published shape: `taken`, and every reason that is not 0."""
    assert reply.status == 200, reply
    assert set(reply.json) == {"taken", "ignored"}
    assert set(reply.json["ignored"]) == REASONS
    return {"taken": reply.json["taken"], **{key: n for key, n in reply.json["ignored"].items() if n}}


def hand_in(node: Node, *said: tuple[int, int | Mapping[int, int]]) -> dict[str, int]:
    """A body of claims of the node's session; what the server counted."""
    return counts(post(node.web, backfill_body(node.made, claims_of(node, said))))
