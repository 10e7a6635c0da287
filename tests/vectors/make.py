"""Makes the NP1 test vectors beside this file; README.md there says what each member means.

``python -m tests.vectors.make`` writes them all but siphash.json, which comes from OpenSSL by
``python -m tests.vectors.make --siphash``. Run it only when the protocol changes: the committed files are
what other clients are tested with, and tests/np1/test_vectors.py fails when they differ from this output.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from np1.codec import (
    ACK_BYTE,
    BEAT_BYTE,
    CREDITING,
    Ack,
    Beat,
    Code,
    State,
    encode_ack,
    encode_beat,
    planes,
    sign,
)
from np1.session import BackfillBeat, BackfillRequest, SessionRequest

HERE = Path(__file__).parent
KEY = bytes(range(16))
OTHER_KEY = bytes.fromhex("f0e1d2c3b4a5968778695a4b3c2d1e0f")
ROW, GENERATION = 0x01020304, 0x0506
UNIX_MS = 1_795_305_600_123  # 2026-11-22T00:00:00.123Z
SEQ = UNIX_MS << 16 | 7
U64 = (1 << 64) - 1
MIXED = planes({0: State.HEALTHY, 1: State.UNHEALTHY, 2: State.UPDATING, 3: State.ABSENT, 63: State.HEALTHY})


def u64(value: int) -> str:
    return f"{value:016x}"


def beat_vectors() -> list[dict[str, Any]]:
    named = {
        "one healthy workload in slot 0": Beat(0, GENERATION, ROW, SEQ, 1, 0),
        "every state, slots 0 to 3 and 63": Beat(0, GENERATION, ROW, SEQ + 1, *MIXED),
        "nothing reported": Beat(0, GENERATION, ROW, SEQ + 2, 0, 0),
        "all 64 slots updating": Beat(0, GENERATION, ROW, SEQ + 3, U64, U64),
        "NO_ACK": Beat(1, GENERATION, ROW, SEQ + 4, 1, 0),
        "STOPPING": Beat(2, GENERATION, ROW, SEQ + 5, 1, 0),
        "NO_ACK and STOPPING": Beat(3, GENERATION, ROW, SEQ + 6, 1, 0),
        "all fields zero": Beat(0, 0, 0, 0, 0, 0),
        "all fields at their greatest": Beat(3, 0xFFFF, 0xFFFFFFFF, U64, U64, U64),
    }
    return [
        {
            "name": name,
            "key": key.hex(),
            "frame": encode_beat(beat, key).hex(),
            "flags": beat.flags,
            "generation": beat.generation,
            "row": beat.row,
            "seq": u64(beat.seq),
            "plane0": u64(beat.plane0),
            "plane1": u64(beat.plane1),
        }
        for key in (KEY, OTHER_KEY)
        for name, beat in named.items()
    ]


def ack_vectors() -> list[dict[str, Any]]:
    acks = [
        (
            code.name,
            Ack(code, GENERATION, ROW, SEQ, UNIX_MS + 42, 54_321, 90_000 if code in CREDITING else 0),
        )
        for code in Code
    ]
    acks.append(("OK to a STOPPING beat", Ack(Code.OK, GENERATION, ROW, SEQ, UNIX_MS, 60_000, 0)))
    greatest = Ack(Code.STANDBY, 0xFFFF, 0xFFFFFFFF, U64, U64, 0xFFFFFFFF, 0xFFFFFFFF)
    acks.append(("all fields at their greatest", greatest))
    return [
        {
            "name": name,
            "key": KEY.hex(),
            "frame": encode_ack(ack, KEY).hex(),
            "code": int(ack.code),
            "code_name": ack.code.name,
            "credited": ack.code in CREDITING,
            "generation": ack.generation,
            "row": ack.row,
            "seq": u64(ack.seq),
            "server_ms": u64(ack.server_ms),
            "next_ms": ack.next_ms,
            "ttl_ms": ack.ttl_ms,
        }
        for name, ack in acks
    ]


def _flipped(frame: bytes, at: int, bit: int) -> bytes:
    return frame[:at] + bytes((frame[at] ^ 1 << bit,)) + frame[at + 1 :]


def _beat_rejects() -> list[tuple[str, bytes, str]]:
    good = encode_beat(Beat(0, GENERATION, ROW, SEQ, 1, 0), KEY)

    def signed(first: int = BEAT_BYTE, flags: int = 0, generation: int = GENERATION, row: int = ROW) -> bytes:
        head = bytes((first, flags)) + generation.to_bytes(2, "big") + row.to_bytes(4, "big") + good[8:32]
        return sign(head, KEY)

    return [
        ("empty", b"", "length"),
        ("one byte short", good[:-1], "length"),
        ("one byte long", good + b"\0", "length"),
        ("wrong length before wrong version", b"\xff" * 47, "length"),
        ("version 0", signed(first=0x01), "version"),
        ("version 2", signed(first=0x21), "version"),
        ("48 zero bytes", bytes(48), "version"),
        ("wrong version before wrong type", signed(first=0xFF), "version"),
        ("an ACK where a BEAT is due", signed(first=ACK_BYTE), "type"),
        ("type 0", signed(first=0x10), "type"),
        ("wrong type before wrong flags", signed(first=0x13, flags=0xFF), "type"),
        ("flag bit 2", signed(flags=4), "flags"),
        ("flag bit 7 beside a known one", signed(flags=0x81), "flags"),
        ("wrong flags before an unknown row", signed(flags=8, row=ROW + 1), "flags"),
        ("another row, its tag right", signed(row=ROW + 1), "row"),
        ("an unknown row before a wrong generation", signed(row=ROW + 1, generation=1), "row"),
        ("the generation before", signed(generation=GENERATION - 1), "generation"),
        ("the generation after", signed(generation=GENERATION + 1), "generation"),
        ("a wrong generation before a wrong tag", _flipped(signed(generation=1), 47, 0), "generation"),
        ("another key", encode_beat(Beat(0, GENERATION, ROW, SEQ, 1, 0), OTHER_KEY), "tag"),
        ("the tag's first bit", _flipped(good, 32, 0), "tag"),
        ("the tag's last bit", _flipped(good, 47, 7), "tag"),
        ("the tag's halves swapped", good[:32] + good[40:] + good[32:40], "tag"),
        ("NO_ACK set behind the signature", _flipped(good, 1, 0), "tag"),
        ("a bit of seq", _flipped(good, 15, 0), "tag"),
        ("a bit of plane0", _flipped(good, 16, 7), "tag"),
        ("a bit of plane1", _flipped(good, 31, 0), "tag"),
    ]


def _ack_rejects() -> list[tuple[str, bytes, str]]:
    good = encode_ack(Ack(Code.OK, GENERATION, ROW, SEQ, UNIX_MS, 60_000, 90_000), KEY)
    return [
        ("half an ACK", good[:24], "length"),
        ("48 zero bytes, the refusal over HTTP", bytes(48), "version"),
        ("a BEAT where an ACK is due", encode_beat(Beat(0, GENERATION, ROW, SEQ, 1, 0), KEY), "type"),
        ("code 9", sign(good[:1] + b"\x09" + good[2:32], KEY), "code"),
        ("code 255", sign(good[:1] + b"\xff" + good[2:32], KEY), "code"),
        ("another row", sign(good[:4] + b"\xff" + good[5:32], KEY), "row"),
        ("another generation", sign(good[:2] + b"\xff" + good[3:32], KEY), "generation"),
        ("another code behind the signature", _flipped(good, 1, 1), "tag"),
        ("another key", encode_ack(Ack(Code.OK, GENERATION, ROW, SEQ, UNIX_MS, 1, 1), OTHER_KEY), "tag"),
    ]


def reject_vectors() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "kind": kind,
            "key": KEY.hex(),
            "row": ROW,
            "generation": GENERATION,
            "frame": frame.hex(),
            "reason": reason,
        }
        for kind, rejects in (("beat", _beat_rejects()), ("ack", _ack_rejects()))
        for name, frame, reason in rejects
    ]


def key_vectors() -> list[dict[str, Any]]:
    vectors = []
    for row, generation in ((0, 1), (ROW, GENERATION), (0xFFFFFFFF, 0xFFFF)):
        secret, salt = bytes(range(32)), bytes(range(0xA0, 0xA8))
        data = b"np1" + row.to_bytes(4, "big") + generation.to_bytes(2, "big") + salt
        vectors.append(
            {
                "secret": secret.hex(),
                "row": row,
                "generation": generation,
                "salt": salt.hex(),
                "key": hashlib.blake2b(data, key=secret, digest_size=16).hexdigest(),
            }
        )
    return vectors


def signature_vectors() -> dict[str, Any]:
    seed = bytes(range(0x20, 0x40))
    private = Ed25519PrivateKey.from_private_bytes(seed)
    node_id, sent_at = "019aa8e6-1c00-7000-8000-00000000002a", "2026-11-22T00:00:00.123Z"
    session = SessionRequest(
        node_id=node_id,
        sent_at=sent_at,
        nonce="00112233445566778899aabbccddeeff",
        manager_version="1.2.3+demo",
    )
    beats = [
        BackfillBeat(at_ms=UNIX_MS - 60_000, plane0=1, plane1=0, generation=GENERATION),
        BackfillBeat(at_ms=UNIX_MS, plane0=MIXED[0], plane1=MIXED[1], generation=GENERATION),
    ]
    backfill = BackfillRequest(node_id=node_id, sent_at=sent_at, nonce="ff" * 64, beats=beats)
    session_signature, backfill_signature = (
        private.sign(request.signed_bytes()) for request in (session, backfill)
    )
    return {
        "private_key": seed.hex(),
        "public_key": private.public_key().public_bytes_raw().hex(),
        "session": {
            "node_id": session.node_id,
            "sent_at": session.sent_at,
            "nonce": session.nonce,
            "manager_version": session.manager_version,
            "signed": session.signed_bytes().hex(),
            "signature": session_signature.hex(),
            "body": session.body(session_signature).hex(),
        },
        "backfill": {
            "node_id": backfill.node_id,
            "sent_at": backfill.sent_at,
            "nonce": backfill.nonce,
            "beats": backfill.beats_json().hex(),
            "beats_sha256": hashlib.sha256(backfill.beats_json()).hexdigest(),
            "signed": backfill.signed_bytes().hex(),
            "signature": backfill_signature.hex(),
            "body": backfill.body(backfill_signature).hex(),
        },
    }


def files() -> dict[str, str]:
    """The text of each file but siphash.json, by name."""
    vectors = {
        "beats.json": beat_vectors(),
        "acks.json": ack_vectors(),
        "rejects.json": reject_vectors(),
        "keys.json": key_vectors(),
        "signatures.json": signature_vectors(),
    }
    return {name: json.dumps(value, indent=1) + "\n" for name, value in vectors.items()}


def openssl_tag(key: bytes, data: bytes) -> bytes:
    """SipHash-2-4-128 by OpenSSL's command. FileNotFoundError without it."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        options = ["-macopt", f"hexkey:{key.hex()}", "-macopt", "size:16", "-in", file.name]
        command = ["openssl", "mac", *options, "SIPHASH"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return bytes.fromhex(done.stdout.strip())


def siphash_file() -> str:
    tags = [openssl_tag(KEY, bytes(range(length))).hex() for length in range(64)]
    return json.dumps({"key": KEY.hex(), "tags": tags}, indent=1) + "\n"


def main() -> None:
    made = {"siphash.json": siphash_file()} if "--siphash" in sys.argv[1:] else files()
    for name, text in made.items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
