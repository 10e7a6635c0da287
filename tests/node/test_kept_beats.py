"""Beats that were never acknowledged, in their file: kills, torn tails, bounds, a disk that refuses."""

from __future__ import annotations

import os
import random

import pytest

from node.manager.kept_beats import HEAD, RECORD_BYTES, KeptBeats
from np1.session import BackfillBeat


def beat(at_ms, plane0=1):
    return BackfillBeat(at_ms=at_ms, plane0=plane0, plane1=(1 << 64) - 1, generation=7)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "beats"


@pytest.fixture
def opened(path):
    """Open the file as a new process would; closed at the end."""
    made = []

    def open_it(*, bytes_max=1 << 20, age_s_max=1_000):
        made.append(KeptBeats(path, bytes_max=bytes_max, age_s_max=age_s_max))
        return made[-1]

    yield open_it
    for one in made:
        one.close()


def test_a_beat_in_flight_is_there_after_a_kill_and_gone_after_its_ack(opened):
    kept = opened()
    assert not kept.follow(in_flight=[beat(1)], settled=[])
    assert len(kept) == 0  # nothing to hand in while it may still be acknowledged
    assert opened().settled(9) == [beat(1)]
    kept.follow(in_flight=[beat(2)], settled=[])
    assert opened().settled(9) == [beat(2)]
    kept.follow(in_flight=[], settled=[])
    assert opened().settled(9) == []


def test_what_was_not_acknowledged_stays_until_it_is_handed_in(opened):
    kept = opened()
    for at_ms in range(1, 6):
        kept.follow(in_flight=[beat(at_ms)], settled=[])
        assert kept.follow(in_flight=[], settled=[beat(at_ms)])
    assert kept.settled(3) == [beat(1), beat(2), beat(3)]
    kept.handed_in(kept.settled(3))
    assert (len(kept), kept.oldest_ms) == (2, 4)
    again = opened()
    assert again.settled(9) == [beat(4), beat(5)]
    again.handed_in(again.settled(9))
    assert opened().settled(9) == []


def test_a_healthy_node_writes_in_place(opened, path):
    kept = opened()
    for at_ms in range(500):
        kept.follow(in_flight=[beat(at_ms)], settled=[])
        kept.follow(in_flight=[], settled=[])
    assert path.stat().st_size == len(HEAD)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_cut_or_spoiled_anywhere_gives_back_all_that_is_whole_before(opened, path):
    kept = opened()
    kept.follow(in_flight=[], settled=[beat(at) for at in range(20)])
    whole = path.read_bytes()
    rng = random.Random(1)
    for cut in [0, 3, len(HEAD), len(HEAD) + 1, *rng.sample(range(len(whole)), 20)]:
        path.write_bytes(whole[:cut])
        left = max(0, (cut - len(HEAD)) // RECORD_BYTES)
        again = opened()
        assert again.settled(99) == [beat(at) for at in range(left)]
        again.follow(in_flight=[], settled=[beat(100)])
        assert opened().settled(99)[-1] == beat(100)
    for at in rng.sample(range(len(HEAD), len(whole)), 20):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << rng.randrange(8)
        path.write_bytes(spoiled)
        assert opened().settled(99) == [beat(n) for n in range((at - len(HEAD)) // RECORD_BYTES)]


def test_the_oldest_go_first_and_are_counted(opened, path):
    bytes_max = len(HEAD) + 40 * RECORD_BYTES
    kept = opened(bytes_max=bytes_max)
    for at_ms in range(200):
        kept.follow(in_flight=[], settled=[beat(at_ms)])
        assert path.stat().st_size <= bytes_max
    assert kept.settled(999) == [beat(at_ms) for at_ms in range(170, 200)]
    assert kept.dropped == 170
    assert opened(bytes_max=bytes_max).settled(999) == kept.settled(999)


def test_what_is_too_old_is_dropped(opened):
    kept = opened(age_s_max=10)
    kept.follow(in_flight=[], settled=[beat(0), beat(5_000), beat(10_000)])
    assert len(kept) == 3
    kept.follow(in_flight=[], settled=[beat(15_001)])
    assert kept.settled(9) == [beat(10_000), beat(15_001)]
    assert kept.dropped == 2


def test_a_disk_that_refuses_loses_nothing_and_is_written_anew_when_it_can_be(opened, path, monkeypatch):
    kept = opened()
    kept.follow(in_flight=[], settled=[beat(1)])

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", refuse)
        kept.follow(in_flight=[], settled=[beat(2)])
        kept.follow(in_flight=[], settled=[beat(3)])
    assert kept.write_failures == 2
    assert kept.settled(9) == [beat(1), beat(2), beat(3)]
    kept.follow(in_flight=[], settled=[beat(4)])
    assert opened().settled(9) == [beat(1), beat(2), beat(3), beat(4)]
