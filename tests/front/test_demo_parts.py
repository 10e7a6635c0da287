"""Parts of `demo`: when its day ends, what its receiver of notices takes, how its machines are."""

from __future__ import annotations

import random

import pytest
import trio

from nodepulse.demo_installation import DAY_ENDS_S, DAY_S, seconds_ahead
from nodepulse.demo_receiver import REQUEST_BYTES_MAX, NoticeReceiver
from nodepulse.fleet import CALM, RESTLESS, Fleet


@pytest.mark.parametrize("of_day_s", [0.0, 1.5, 43_200.0, DAY_S - DAY_ENDS_S - 0.5, DAY_S - 1.0])
def test_the_day_ends_soon_whatever_the_clock_says_and_the_clock_never_runs_back(of_day_s: float):
    now_s = 20_000 * DAY_S + of_day_s
    ahead_s = seconds_ahead(now_s)
    assert 0 <= ahead_s < DAY_S
    left_s = DAY_S - (now_s + ahead_s) % DAY_S
    assert DAY_ENDS_S <= left_s <= DAY_ENDS_S + 1


def posted(body: bytes, *, length: int | None = None) -> bytes:
    return b"POST /olga HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (length or len(body)) + body


async def sent(receiver: NoticeReceiver, *pieces: bytes) -> bytes:
    """What is answered to these bytes."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(receiver.serve)
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        async with stream:
            for piece in pieces:
                await stream.send_all(piece)
            if not pieces[-1].endswith(b"}"):
                await stream.send_eof()
            answer = await stream.receive_some()
        nursery.cancel_scope.cancel()
    return answer


async def test_a_notice_that_comes_in_pieces_is_counted_and_answered():
    receiver = NoticeReceiver()
    whole = posted(b'{"type": "node.down", "data": {}}')
    assert (await sent(receiver, whole[:20], whole[20:50], whole[50:])).startswith(b"HTTP/1.1 200")
    assert receiver.kinds == {"node.down": 1}
    assert list(receiver.last) == [("/olga", "node.down")]


@pytest.mark.parametrize(
    "raw",
    [
        posted(b"no notice"),
        b"GET / HTTP/1.1\r\n\r\n ",
        posted(b"short", length=50),
        b"POST / HTTP/1.1\r\nx: " + b"y" * REQUEST_BYTES_MAX,
    ],
)
async def test_what_is_no_notice_gets_no_answer_and_is_not_counted(raw: bytes):
    receiver = NoticeReceiver()
    try:
        assert await sent(receiver, raw) == b""
    except* trio.BrokenResourceError:
        pass  # it hung up while we were still sending
    assert receiver.statistics() == {"notices": 0}


def test_the_first_machines_are_restless_and_the_same_seed_makes_the_same_fleet():
    described = [{"node_id": str(number), "workloads": [], "private_key": ""} for number in range(4)]
    fleet = Fleet(described, url="", interval_ms=1_000, seed=7, restless=2)
    assert [machine._temper for machine in fleet.machines] == [RESTLESS, RESTLESS, CALM, CALM]
    again = Fleet(described, url="", interval_ms=1_000, seed=7)
    assert [one._rng.random() for one in fleet.machines] == [one._rng.random() for one in again.machines]
    assert random.Random(7).random() != fleet.machines[0]._rng.random()
