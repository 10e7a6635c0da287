"""The journal: what was committed is read back, what was not is cut (DESIGN.md, decision 6)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.journal import DiskFiles, Journal
from engine.journal_blocks import Kind, end_of, read, segments


class FailingFiles(DiskFiles):
    """The real disk, until told to fail."""

    def __init__(self) -> None:
        self.fail: set[str] = set()

    def create(self, path: Path, size: int) -> int:
        self._check("create")
        return super().create(path, size)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if "write half" in self.fail:
            super().write(fd, data[: len(data) // 2], offset)
        self._check("write half")
        self._check("write")
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._check("sync")
        super().sync(fd)

    def cut(self, fd: int, size: int) -> None:
        self._check("cut")
        super().cut(fd, size)

    def _check(self, call: str) -> None:
        if call in self.fail:
            raise OSError(errno.EIO, call)


def opened(path: Path, *, segment_bytes: int = 4_096, files: DiskFiles | None = None) -> Journal:
    return Journal(
        path, shard=0, shards=1, boot_id="b", segment_bytes=segment_bytes, now_ms=1_000, files=files
    )


def commit(journal: Journal, *payloads: bytes, kind: Kind = Kind.BEATS) -> bool:
    for payload in payloads:
        journal.append(kind, 7, payload)
    taken = journal.take()
    try:
        journal.commit(taken)
    except OSError:
        journal.settle(taken, written=False)
        return False
    journal.settle(taken, written=True)
    return True


def payloads(path: Path, start: int = 0) -> list[bytes]:
    return [block.payload for block in read(path, start) if block.kind != Kind.OPENING]


def test_what_was_committed_is_read_back_in_order_over_segments(tmp_path: Path):
    journal = opened(tmp_path)
    written = [bytes([number]) * 500 for number in range(40)]
    for payload in written:
        assert commit(journal, payload)
    assert len(segments(tmp_path)) > 3
    assert payloads(tmp_path) == written
    journal.close()
    assert payloads(tmp_path) == written


def test_a_reader_may_begin_at_any_block(tmp_path: Path):
    journal = opened(tmp_path)
    for number in range(20):
        commit(journal, bytes([number]) * 400)
    blocks = list(read(tmp_path, 0))
    for at, block in enumerate(blocks):
        assert list(read(tmp_path, block.position)) == blocks[at:]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 900), damage=st.booleans())
def test_a_torn_tail_is_cut_at_the_last_whole_block(
    tmp_path_factory: pytest.TempPathFactory, cut: int, damage: bool
):
    path = tmp_path_factory.mktemp("journal")
    journal = opened(path, segment_bytes=1 << 16)
    written = [bytes([number]) * 90 for number in range(8)]
    for payload in written:
        commit(journal, payload)
    journal.close()
    file = segments(path)[-1].path
    size = file.stat().st_size
    if damage:
        data = bytearray(file.read_bytes())
        data[size - cut] ^= 0xFF
        file.write_bytes(data)
    else:
        os.truncate(file, size - cut)
    left = payloads(path)
    assert left == written[: len(left)]
    assert len(left) >= len(written) - 1 - cut // 114
    again = opened(path)
    assert commit(again, b"after")
    assert payloads(path) == [*left, b"after"]


@pytest.mark.parametrize("call", ["write", "write half", "sync", "create", "cut"])
def test_a_failed_commit_gives_beats_back_and_keeps_the_rest(tmp_path: Path, call: str):
    files = FailingFiles()
    journal = opened(tmp_path, files=files)
    assert commit(journal, b"first")
    files.fail = {call, "sync"} if call in ("create", "cut") else {call}
    journal.append(Kind.EVENTS, 7, b"an event")
    assert not commit(journal, b"lost beat")
    files.fail = set()
    assert commit(journal, b"second")
    kept = [(block.kind, block.payload) for block in read(tmp_path, 0) if block.kind != Kind.OPENING]
    assert kept == [(Kind.BEATS, b"first"), (Kind.EVENTS, b"an event"), (Kind.BEATS, b"second")]


def test_it_fails_as_long_as_the_disk_does_and_goes_on_by_itself(tmp_path: Path):
    files = FailingFiles()
    journal = opened(tmp_path, files=files)
    for round_number in range(4):
        assert commit(journal, b"good %d" % round_number)
        files.fail = {"write", "create"}
        assert not commit(journal, b"bad")
        assert not commit(journal, b"bad")
        files.fail = set()
    assert payloads(tmp_path) == [b"good %d" % number for number in range(4)]


def test_positions_never_run_back_even_when_the_folder_was_lost(tmp_path: Path):
    old = opened(tmp_path / "a")
    commit(old, b"x" * 1_000)
    fresh = Journal(tmp_path / "b", shard=0, shards=1, boot_id="b", segment_bytes=4_096, now_ms=1_001)
    assert fresh.committed > old.committed


def test_trimming_leaves_what_is_still_needed(tmp_path: Path):
    journal = opened(tmp_path)
    for number in range(30):
        commit(journal, bytes([number]) * 400)
    blocks = list(read(tmp_path, 0))
    needed = blocks[len(blocks) // 2].position
    journal.trim(needed)
    assert list(read(tmp_path, needed)) == [block for block in blocks if block.position >= needed]
    assert journal.first > blocks[0].position
    with pytest.raises(FileNotFoundError):
        list(read(tmp_path, blocks[0].position))


def test_outputs_are_found_without_reading_beats(tmp_path: Path):
    journal = opened(tmp_path)
    commit(journal, b"b" * 100)
    start = journal.committed
    commit(journal, b"e", kind=Kind.EVENTS)
    commit(journal, b"b" * 100)
    commit(journal, b"i", kind=Kind.INTERVALS)
    assert [block.payload for block in journal.outputs(start, journal.committed)] == [b"e", b"i"]
    assert end_of(tmp_path) == journal.committed
