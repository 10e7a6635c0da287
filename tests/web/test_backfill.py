"""`POST /v1/beats/backfill`: refusals in their order, what is taken, and what a taken beat then counts as."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.records import BASE_UNHEALTHY, BASE_UP, BASE_UPDATING, FirstReport, Gap
from np1.session import (
    BackfillBeat,
    BackfillRequest,
    backfill_signed_bytes,
    parse_backfill_answer,
    rfc3339_of_ms,
)
from tests.contract.given import batch
from tests.web.control import Control
from web.main import system_ms

PATH = "/v1/beats/backfill"
LOCAL = {"client": ("127.0.0.1", 40_000)}
NOTHING = {"future": 0, "duplicate": 0, "generation": 0, "sealed": 0, "order": 0}
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signatures.json").read_text())
_numbers = itertools.count(1)


def asked_of(
    control: Control, *beats: BackfillBeat, sent_ms: int | None = None, **more: str
) -> BackfillRequest:
    fields = {
        "node_id": control.node.node_id,
        "sent_at": rfc3339_of_ms(system_ms() if sent_ms is None else sent_ms),
        "nonce": f"{next(_numbers):032x}",
        **more,
    }
    return BackfillRequest(beats=beats, **fields)


def signed(control: Control, asked: BackfillRequest, *, key: Ed25519PrivateKey | None = None) -> bytes:
    return asked.body((key or control.private_key).sign(asked.signed_bytes()))


async def send(control: Control, body: bytes, *, client: str = "127.0.0.1") -> tuple[int, Any, bytes]:
    response = await control.client.post(PATH, data=body, scope_base={"client": (client, 1)})
    raw = await response.get_data()
    return response.status_code, msgspec.json.decode(raw), raw


async def refused(control: Control, body: bytes, **more: str) -> tuple[int, str]:
    status, answer, _ = await send(control, body, **more)
    return status, answer["code"]


async def take(control: Control, *beats: BackfillBeat) -> tuple[int, dict[str, int]]:
    """(taken, what was ignored for which reason), as the client library reads it."""
    status, answer, raw = await send(control, signed(control, asked_of(control, *beats)))
    assert status == 200, answer
    read = parse_backfill_answer(raw)
    return read.taken, {reason: number for reason, number in read.ignored.items() if number}


def beat(at_ms: int, *, plane0: int = 0b1, plane1: int = 0, generation: int = 1) -> BackfillBeat:
    return BackfillBeat(at_ms=at_ms, plane0=plane0, plane1=plane1, generation=generation)


async def claims_of(control: Control, slot: int) -> list[tuple[int, int, int]]:
    found = await control.stores.history.claims(control.node.workload_ids[slot], 0, 1 << 47)
    return [(claim.at_ms, claim.kind, claim.ttl_ms) for claim in found]


async def test_each_slot_of_the_generations_map_gets_the_claim_that_its_planes_say(control: Control) -> None:
    at_ms = system_ms() - 60_000
    states = {0b00: BASE_UNHEALTHY, 0b01: BASE_UP, 0b10: BASE_UNHEALTHY, 0b11: BASE_UPDATING}
    beats = [
        beat(at_ms + number, plane0=said & 1, plane1=said >> 1 & 1) for number, said in enumerate(states)
    ]
    assert await take(control, *beats) == (4, {})
    ttl_ms = 90_000
    assert await claims_of(control, 0) == [
        (at_ms + n, kind, ttl_ms) for n, kind in enumerate(states.values())
    ]
    assert [kind for _, kind, _ in await claims_of(control, 1)] == [BASE_UNHEALTHY] * 4  # absent
    stored = await control.sql("select distinct generation, received_ms is not null from claim")
    assert [tuple(row) for row in stored] == [(1, True)]


async def test_bits_outside_of_the_map_say_nothing_and_the_highest_bits_are_read(control: Control) -> None:
    made = [f"w{number}" for number in range(2, 64)]
    for name in made:
        await control.stores.directory.add_workload(control.node.node_id, name=name, now_ms=system_ms())
    at_ms = system_ms() - 10_000
    every = (1 << 64) - 1
    assert await take(control, beat(at_ms, plane0=every)) == (1, {})
    assert [tuple(row) for row in await control.sql("select count(*) from claim")] == [(2,)]
    await control.open_session(control.node.node_id)
    assert await take(control, beat(at_ms + 1, plane0=every, plane1=1 << 63, generation=2)) == (1, {})
    kinds = await control.sql(
        "select slot, c.kind from claim c join workload using (workload_id) where at_ms = $1 order by slot",
        at_ms + 1,
    )
    assert [tuple(row) for row in kinds] == [(slot, BASE_UP) for slot in range(63)] + [(63, BASE_UPDATING)]


async def test_what_is_ignored_is_told_by_reason(control: Control) -> None:
    now_ms = system_ms()
    sent = [
        beat(now_ms - 50_000),
        beat(now_ms - 50_000, plane0=0),  # of equal time: the first counts
        beat(now_ms + 600_000),
        beat(now_ms - 60_000),
        beat(now_ms - 40_000, generation=7),
        beat(now_ms - 30_000),
        beat(now_ms - 45_000),
    ]
    assert await take(control, *sent) == (2, {"duplicate": 1, "future": 1, "order": 2, "generation": 1})
    assert [(at_ms, kind) for at_ms, kind, _ in await claims_of(control, 0)] == [
        (now_ms - 50_000, BASE_UP),
        (now_ms - 30_000, BASE_UP),
    ]


async def test_of_claims_of_equal_time_the_first_stored_counts(control: Control) -> None:
    at_ms = system_ms() - 60_000
    assert await take(control, beat(at_ms)) == (1, {})
    assert await take(control, beat(at_ms, plane1=1), beat(at_ms + 5)) == (1, {"duplicate": 1})
    assert [kind for _, kind, _ in await claims_of(control, 0)] == [BASE_UP, BASE_UP]


async def test_an_empty_list_is_taken(control: Control) -> None:
    assert await take(control) == (0, {})


async def test_a_generation_of_a_salt_that_is_gone_is_none_of_the_node(control: Control) -> None:
    at_ms = system_ms() - 60_000
    assert await take(control, beat(at_ms)) == (1, {})
    await control.sql("update node set salt = 'anothers' where node_id = $1", control.node.node_id)
    assert await take(control, beat(at_ms + 1)) == (0, {"generation": 1})


async def test_ten_thousand_beats_are_taken_and_one_more_is_not(control: Control) -> None:
    first_ms = system_ms() - 20_000_000
    beats = [beat(first_ms + 1_000 * number) for number in range(10_000)]
    assert await take(control, *beats) == (10_000, {})
    assert [tuple(row) for row in await control.sql("select count(*) from claim")] == [(20_000,)]
    asked = asked_of(control, *beats)
    one = msgspec.json.encode({"at_ms": 1, "plane0": "0" * 16, "plane1": "0" * 16, "generation": 1})
    body = signed(control, asked).replace(b'"beats": [', b'"beats": [' + one + b",")
    assert await refused(control, body) == (400, "malformed")


async def test_refusals_come_in_the_order_of_the_contract(control: Control) -> None:
    stranger = Ed25519PrivateKey.generate()
    late = asked_of(control, sent_ms=system_ms() - 301_000)
    assert await refused(control, b"{", client="192.0.2.7") == (403, "tls_required")
    assert await refused(control, b"{") == (400, "malformed")
    assert await refused(control, signed(control, late, key=stranger)) == (401, "unauthorized")
    status, answer, _ = await send(control, signed(control, late))
    assert (status, answer["code"]) == (401, "clock_skew")
    assert abs(answer["server_time"] - system_ms()) < 5_000
    body = signed(control, asked_of(control))
    assert (await send(control, body))[0] == 200
    for _ in range(9):
        assert await refused(control, body) == (409, "nonce_seen")
    assert await refused(control, body) == (429, "rate")  # and no longer of the nonce


async def test_sessions_and_backfills_are_counted_apart(control: Control) -> None:
    nonce = "ab" * 16
    for _ in range(10):
        await send(control, signed(control, asked_of(control, nonce=nonce)))
    assert await refused(control, signed(control, asked_of(control))) == (429, "rate")
    now_ms = system_ms()
    await control.stores.directory.open_session(
        control.node.node_id,
        nonce=nonce,
        nonce_expires_ms=now_ms + 1,
        rate_per_min=2,  # the fixture has opened one
        now_ms=now_ms,
        life_ms=1_000,
        secret_id=1,
    )


async def test_unknown_revoked_and_retired_nodes_look_like_a_wrong_signature(control: Control) -> None:
    stranger = Ed25519PrivateKey.generate()
    answers = []
    for body in (
        signed(control, asked_of(control), key=stranger),
        signed(control, asked_of(control, node_id="019aa8e6-1c00-7000-8000-00000000002a")),
        signed(control, asked_of(control, node_id="nobody")),
    ):
        status, answer, _ = await send(control, body)
        answers.append((status, answer["code"], answer["detail"]))
    await control.sql("update node set retired_ms = 1 where node_id = $1", control.node.node_id)
    status, answer, _ = await send(control, signed(control, asked_of(control)))
    answers.append((status, answer["code"], answer["detail"]))
    assert answers == [(401, "unauthorized", "unknown node or wrong signature")] * 4


OTHER_SHAPES = (
    (b'"plane0":"0000000000000001"', b'"plane0":"000000000000001"'),
    (b'"plane0":"0000000000000001"', b'"plane0":"000000000000000A"'),
    (b'"plane0":"0000000000000001"', b'"plane0":1'),
    (b'"generation":1', b'"generation":65536'),
    (b'"generation":1', b'"generation":1,"generation":1'),
    (b'"at_ms":', b'"at_ms":-'),
    (b'"at_ms":', b'"at_ms":99'),
    (b'"beats": [', b'"beats": [], "beats": ['),
    (b'"beats": [', b'"b\\u0065ats": [], "beats": ['),
    (b'"beats": [', b'"x": ' + b"[" * 5_000 + b"]" * 5_000 + b', "beats": ['),
    (b'"beats": [', b'"x": "\xff", "beats": ['),
    (b'"beats": [', b'"beats": null, "x": ['),
)


async def test_a_body_of_another_shape_is_malformed(control: Control) -> None:
    body = signed(control, asked_of(control, beat(system_ms() - 1_000)))
    for old, new in OTHER_SHAPES:
        assert old in body
        assert await refused(control, body.replace(old, new)) == (400, "malformed"), new[:80]


async def test_the_signature_is_over_the_bytes_as_they_stand(control: Control) -> None:
    """Blanks inside count, those around do not; brackets inside strings end nothing; names may be escaped."""
    at_ms = system_ms() - 1_000
    beats = (
        f'[ {{"x": "]\\"}}[", "at_ms": {at_ms},\n "plane0": "{1:016x}", "plane1":"{0:016x}",'
        ' "gener\\u0061tion": 1 } ]'
    )
    asked = asked_of(control)
    text = backfill_signed_bytes(asked.node_id, asked.sent_at, asked.nonce, beats.encode())
    signature = control.private_key.sign(text).hex()
    fields = f'"node_id":"{asked.node_id}","sent_at":"{asked.sent_at}","nonce":"{asked.nonce}"'
    told = f'{{"b\\u0065ats" :\t{beats} \n, {fields},"signature":"{signature}"}}'
    changed = told.replace("[ {", "[{")
    assert await refused(control, changed.encode()) == (401, "unauthorized")
    status, answer, _ = await send(control, told.encode())
    assert (status, answer) == (200, {"taken": 1, "ignored": NOTHING})


async def test_the_published_vector_is_judged_by_its_signature_and_then_by_its_clock(
    control: Control,
) -> None:
    vector = VECTORS["backfill"]
    body = bytes.fromhex(vector["body"])
    assert await refused(control, body) == (401, "unauthorized")
    await control.sql(
        """
        insert into node (node_id, "row", project_id, kind, name, public_key, interval_ms, salt, created_ms)
        values ($1, 1000, $2, 'node', 'vector', $3, 60000, 'saltsalt', 0)
        """,
        vector["node_id"],
        control.alpha.project_id,
        bytes.fromhex(VECTORS["public_key"]),
    )
    assert await refused(control, body) == (401, "clock_skew")
    assert await refused(control, body.replace(b'"generation":1286', b'"generation":1287')) == (
        401,
        "unauthorized",
    )


async def test_a_missed_beat_inside_a_gap_is_claimed_up(control: Control) -> None:
    """Up before and after a crash of the shard: what it did not hear is `unobserved` until it is claimed."""
    workload_id, end_ms = control.node.workload_ids[0], system_ms()
    began_ms, g0, g1 = end_ms - 600_000, end_ms - 500_000, end_ms - 60_000
    await control.sql("update workload set created_ms = $1", began_ms)
    rows = ((workload_id, BASE_UP, began_ms, g0 + 20_000), (workload_id, BASE_UP, g1, end_ms))
    gap = Gap(shard=0, from_ms=g0, to_ms=g1, cause="crash")
    first = FirstReport(workload_id=workload_id, at_ms=began_ms)
    await control.stores.history.flush(
        batch(*rows, position=10_000, watermark_ms=end_ms, first_reports=(first,), gaps=(gap,))
    )

    async def kinds() -> dict[str, int]:
        window = f"from={rfc3339_of_ms(began_ms)}&to={rfc3339_of_ms(end_ms)}"
        answer = await control.ask("GET", f"/v1/workloads/{workload_id}/uptime?{window}", by="olga")
        assert answer.status == 200, answer
        return {kind: ms for kind, ms in answer.json["ms"].items() if ms}

    heard_ms = (g0 + 20_000 - began_ms) + (end_ms - g1)
    missed_ms = g1 - g0 - 20_000
    assert await kinds() == {"up": heard_ms, "unobserved": missed_ms}
    missed = [beat(g0 + 60_000), beat(g0 + 120_000, plane1=1), beat(g0 + 150_000, plane0=0)]
    assert await take(control, *missed) == (3, {})
    assert await kinds() == {
        "up": heard_ms,
        "claimed_up": 60_000,
        "claimed_updating": 30_000,
        "claimed_unhealthy": 90_000,
        "unobserved": missed_ms - 180_000,
    }


async def test_refusals_and_beats_are_counted(control: Control) -> None:
    await send(control, b"{")
    await take(control, beat(system_ms() - 1_000), beat(system_ms() + 500_000))
    metrics = await (await control.client.get("/metrics")).get_data(as_text=True)
    assert 'nodepulse_web_backfills_refused_total{of="malformed"} 1' in metrics
    assert 'nodepulse_web_backfills_beats_total{of="taken"} 1' in metrics
    assert 'nodepulse_web_backfills_beats_total{of="future"} 1' in metrics
