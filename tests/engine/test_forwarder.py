"""Beats at the wrong shard: they reach their owner, its answer comes back, trouble with a peer is BUSY."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import asynccontextmanager

import pytest

import engine.forwarder
from engine.forwarder import open_forwarder, socket_path
from engine.http_reply import UNAUTHORIZED
from engine.http_requests import Kind, PlainRequest, PlainRequests
from np1.codec import FRAME_BYTES, Code
from tests.engine.http_world import (
    NOW_MS,
    SECRETS,
    FakeDoor,
    ack_of,
    capability,
    frame,
    frames_request,
    json_request,
    on_loop,
    request,
    serving,
    token,
    until,
)

BODY = b'{"workloads": {"w-one": "healthy", "w-last": "updating"}}'


class Shard:
    """A door, its plain requests and its forwarder."""

    def __init__(self, door, plain, forwarder):
        self.door = door
        self.plain = plain
        self.forwarder = forwarder

    async def sees(self, *peers):
        await until(lambda: self.forwarder.statistics().peers_up == peers)


async def start(directory, shard, shards=2):
    door = FakeDoor(shard=shard, shards=shards)
    plain = PlainRequests(door=door, secrets=SECRETS)
    return Shard(door, plain, await open_forwarder(directory, shard=shard, door=door, handle=plain.handle))


@asynccontextmanager
async def two_shards(directory):
    """Shards 0 and 1 of 2; 0 sees 1."""
    zero, one = await start(directory, 0), await start(directory, 1)
    await zero.sees(1)
    try:
        yield zero, one
    finally:
        await zero.forwarder.close()
        await one.forwarder.close()


class Asked:
    """What came back for one message."""

    def __init__(self):
        self.answers = []

    def __call__(self, answer):
        self.answers.append(answer)

    async def answer(self):
        await until(lambda: self.answers)
        (answer,) = self.answers
        return answer


def send_frames(shard, frames, to=1):
    asked = Asked()
    shard.forwarder.forward_frames(to, frames, NOW_MS, asked)
    return asked


def send_json(shard, row=1, bearer=None):
    asked = Asked()
    credential = b"Bearer " + (bearer or token(row=row)).encode()
    shard.forwarder.forward_request(row % 2, PlainRequest(Kind.JSON, credential, 0, BODY, NOW_MS), asked)
    return asked


@on_loop
async def test_frames_reach_their_owner_with_their_receive_time_and_its_acks_come_back(tmp_path):
    frames = frame(1, seq=5) + frame(3, seq=6)
    async with two_shards(tmp_path) as (zero, one):
        one.door.clock_ms += 9_000
        acks = await send_frames(zero, frames).answer()
    assert one.door.frames == [(frames, NOW_MS)]
    assert acks == ack_of(frame(1, seq=5), 1) + ack_of(frame(3, seq=6), 1)


@on_loop
async def test_a_plain_request_is_judged_by_the_owner_as_one_of_its_own(tmp_path):
    async with two_shards(tmp_path) as (zero, one):
        reply = await send_json(zero).answer()
        bad = await send_json(zero, bearer="x").answer()
        one.door.slots = None
        dead = await send_json(zero, row=3).answer()
    assert (reply.status, json.loads(reply.body)["code"]) == (200, "ok")
    (beat,) = one.door.plain
    assert (beat.row, beat.plane0, beat.plane1, beat.t_ms) == (1, 2 | 1 << 63, 1 << 63, NOW_MS)
    assert bad == dead == UNAUTHORIZED


@on_loop
async def test_answers_find_who_asked_in_whatever_order_they_come(tmp_path):
    async with two_shards(tmp_path) as (zero, one):
        one.door.hold = True
        asked = [send_frames(zero, frame(1, seq=seq)) for seq in range(100)]
        plain = send_json(zero)
        await until(lambda: one.forwarder.statistics().taken == 101)
        one.door.release(backwards=True)
        for seq, one_asked in enumerate(asked):
            assert await one_asked.answer() == ack_of(frame(1, seq=seq), 1)
        assert (await plain.answer()).status == 200
    assert zero.forwarder.statistics()._replace(peers_up=()) == (101, 101, 0, 0, 0, 0, ())


@on_loop
async def test_a_peer_that_is_not_there_is_busy_at_once(tmp_path):
    zero = await start(tmp_path, 0)
    asked = [send_frames(zero, frame(1)), send_json(zero), send_frames(zero, frame(7), to=7)]
    assert [one.answers for one in asked] == [[None]] * 3
    assert zero.forwarder.statistics().busy == 3
    await zero.forwarder.close()


@on_loop
async def test_a_peer_that_dies_is_busy_for_all_it_held_and_found_again_when_it_returns(tmp_path):
    zero, one = await start(tmp_path, 0), await start(tmp_path, 1)
    await zero.sees(1)
    one.door.hold = True
    held = [send_frames(zero, frame(1)), send_json(zero)]
    await until(lambda: one.forwarder.statistics().taken == 2)
    await one.forwarder.close()
    assert [await asked.answer() for asked in held] == [None, None]
    one.door.release()  # answers to a link that is gone
    await zero.sees()
    assert send_frames(zero, frame(1)).answers == [None]
    one = await start(tmp_path, 1)
    await zero.sees(1)
    assert await send_frames(zero, frame(1)).answer() == ack_of(frame(1), 1)
    await zero.forwarder.close()
    await one.forwarder.close()


@on_loop
async def test_a_full_forwarder_is_busy_and_has_room_again_once_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.forwarder, "FORWARD_WAITING_MAX", 2)
    async with two_shards(tmp_path) as (zero, one):
        one.door.hold = True
        asked = [send_frames(zero, frame(1)) for _ in range(3)]
        assert [one_asked.answers for one_asked in asked] == [[], [], [None]]
        await until(lambda: one.forwarder.statistics().taken == 2)
        one.door.release()
        await asked[1].answer()
        assert send_frames(zero, frame(1)).answers == []


@on_loop
async def test_more_bytes_than_a_peer_takes_are_busy(tmp_path, monkeypatch):
    async with two_shards(tmp_path) as (zero, _):
        monkeypatch.setattr(engine.forwarder, "FORWARD_BYTES_MAX", 1_000)
        assert send_frames(zero, frame(1) * 100).answers == [None]
        monkeypatch.setattr(engine.forwarder, "FORWARD_BYTES_MAX", 1_000_000)
        monkeypatch.setattr(engine.forwarder, "MESSAGE_BYTES_MAX", 1_000)
        assert send_frames(zero, frame(1) * 100).answers == [None]


@on_loop
async def test_a_large_batch_comes_through_in_one_piece(tmp_path):
    frames = b"".join(frame(2 * seq + 1, seq=seq) for seq in range(4_096))
    async with two_shards(tmp_path) as (zero, one):
        acks = await send_frames(zero, frames).answer()
    assert len(acks) == len(frames)
    assert one.door.frames == [(frames, NOW_MS)]


@on_loop
async def test_a_peer_that_takes_too_long_is_busy_and_its_late_answer_ignored(tmp_path):
    async with two_shards(tmp_path) as (zero, one):
        one.door.hold = True
        asked = send_frames(zero, frame(1))
        await until(lambda: one.forwarder.statistics().taken == 1)
        (peer,) = zero.forwarder._peers.values()
        now_s = asyncio.get_running_loop().time()
        peer.sweep(now_s + engine.forwarder.FORWARD_S_MAX - 1)
        assert asked.answers == []
        peer.sweep(now_s + engine.forwarder.FORWARD_S_MAX + 1)
        assert asked.answers == [None]
        one.door.release()
        await until(lambda: zero.forwarder.statistics().late == 1)
        assert asked.answers == [None]


@on_loop
async def test_a_shard_that_counts_otherwise_is_refused_for_rows_would_go_astray(tmp_path):
    zero, one = await start(tmp_path, 0, shards=2), await start(tmp_path, 1, shards=3)
    await until(lambda: one.forwarder.statistics().links_refused)
    assert one.forwarder.statistics().taken == 0
    assert one.door.frames == []
    await zero.forwarder.close()
    await one.forwarder.close()


HELLO = struct.pack("!IBQ", 9, 0, 0) + struct.pack("!BII", 1, 2, 1)


def message(kind, body):
    return struct.pack("!IBQ", len(body), kind, 1) + body


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense that is long enough",
        message(1, bytes(8) + frame(1)),
        HELLO + message(1, bytes(8)),
        HELLO + message(1, bytes(8) + frame(1)[:-1]),
        HELLO + message(2, b"\xc1"),
        HELLO + message(2, b"\x90"),
        HELLO + message(9, b""),
        HELLO + struct.pack("!IBQ", 2**32 - 1, 1, 1),
    ],
)
@on_loop
async def test_what_is_no_message_ends_the_link_and_says_nothing_to_the_door(tmp_path, sent):
    async with two_shards(tmp_path) as (zero, one):
        reader, writer = await asyncio.open_unix_connection(str(socket_path(tmp_path, 1)))
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        assert one.door.frames == one.door.plain == []
        assert one.forwarder.statistics().links_refused == 1
        assert await send_frames(zero, frame(1)).answer() == ack_of(frame(1), 1)


@on_loop
async def test_the_sockets_are_the_owners_alone_and_one_left_behind_is_replaced(tmp_path):
    run = tmp_path / "run"
    one = await start(run, 1)
    assert run.stat().st_mode & 0o777 == 0o700
    assert socket_path(run, 1).stat().st_mode & 0o777 == 0o600
    await one.forwarder.close()
    socket_path(run, 1).touch()
    zero, one = await start(run, 0), await start(run, 1)
    await zero.sees(1)
    await zero.forwarder.close()
    await one.forwarder.close()


# -- through the listener -----------------------------------------------------------------------------------


@on_loop
async def test_http_requests_are_answered_by_whoever_owns_the_row(tmp_path):
    async with (
        two_shards(tmp_path) as (zero, one),
        serving(door=zero.door, plain=zero.plain, forwarder=zero.forwarder) as world,
    ):
        for row, owner in ((2, zero), (3, one)):
            uuid = capability(row=row)
            response = await world.ask(json_request(BODY, bearer=token(row=row)))
            assert (response.status, json.loads(response.body)["code"]) == (200, "ok")
            assert (await world.ask(request("GET", f"/ping/{uuid}/start"))).body == b"OK"
            assert (await world.ask(request("GET", f"/ping/{uuid}/log"))).body == b"OK"
            assert (await world.ask(request("HEAD", f"/api/push/{uuid}?status=down"))).body == b""
            said = [(beat.row, beat.plane0, beat.plane1) for beat in owner.door.plain]
            assert said == [(row, 2 | 1 << 63, 1 << 63), (row, 1, 1), (row, 0, 1)]
        one.door.code = Code.BUSY
        response = await world.ask(json_request(BODY, bearer=token(row=3)))
        assert (response.status, response.headers["retry-after"]) == (503, "60")
        assert (await world.ask(json_request(b"[]", bearer=token(row=3)))).status == 400


@on_loop
async def test_frames_of_several_shards_get_their_acks_in_the_order_of_the_frames(tmp_path):
    frames = [frame(row=seq % 3, seq=seq) for seq in range(50)]
    async with (
        two_shards(tmp_path) as (zero, one),
        serving(door=zero.door, plain=zero.plain, forwarder=zero.forwarder) as world,
    ):
        response = await world.ask(frames_request(b"".join(frames)))
        alone = await world.ask(frames_request(frame(1)))
    assert response.body == b"".join(ack_of(beat, (seq % 3) % 2) for seq, beat in enumerate(frames))
    assert alone.body == ack_of(frame(1), 1)
    assert [t_ms for _, t_ms in one.door.frames] == [NOW_MS] * 2


@on_loop
async def test_without_their_owner_requests_are_busy_and_frames_get_code_7_that_nobody_can_sign(tmp_path):
    zero = await start(tmp_path, 0)
    async with serving(door=zero.door, plain=zero.plain, forwarder=zero.forwarder) as world:
        frames = [frame(1, seq=1), frame(2, seq=2), frame(3, seq=3)]
        response = await world.ask(frames_request(b"".join(frames)))
        acks = [response.body[at : at + FRAME_BYTES] for at in range(0, len(response.body), FRAME_BYTES)]
        busy = [
            b"\x12\x07" + beat[2:16] + NOW_MS.to_bytes(8, "big") + (1_000).to_bytes(4, "big") + bytes(20)
            for beat in frames
        ]
        assert acks == [busy[0], ack_of(frames[1], 0), busy[2]]
        for sent in (
            json_request(BODY, bearer=token(row=1)),
            request("GET", f"/ping/{capability(row=1)}"),
            request("GET", f"/api/push/{capability(row=1)}"),
        ):
            response = await world.ask(sent)
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert json.loads(response.body)["ok"] is False
        assert (await world.ask(json_request(BODY, bearer=token(row=2)))).status == 200
    await zero.forwarder.close()


@on_loop
async def test_without_a_forwarder_rows_of_other_shards_are_busy():
    async with serving(door=FakeDoor(shard=0, shards=2)) as world:
        assert (await world.ask(json_request(BODY, bearer=token(row=1)))).status == 503
        assert (await world.ask(frames_request(frame(1)))).body[:2] == b"\x12\x07"
