"""A damaged folder: the shard refuses and says what to do, unless nothing is lost; what it advises works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine import snapshot
from engine.damaged import DamagedError
from engine.journal_blocks import segments
from tests.engine.rows_world import T0, spec
from tests.engine.shard_world import Bench, snapshot_of

LAST = T0 + 39_000


def lived(directory: Path, *, snapshots: bool = True) -> Bench:
    """Four rows, forty beats each over several segments; a snapshot after 10 s and one after 30 s."""
    bench = Bench(directory, segment_bytes=2_048)
    bench.learn(*(spec(row) for row in range(4)))
    for second in range(40):
        bench.beats(range(4), T0 + second * 1_000, plane0=second % 4)
        if snapshots and second in (10, 30):
            captured = snapshot_of(bench)
            bench.commit()
            snapshot.write(directory, captured)
    bench.journal.close()
    assert len(segments(directory)) > 4
    return bench


def spoil(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 8
    path.write_bytes(data)


def trim(bench: Bench) -> None:
    bench.journal.trim(snapshot.oldest_position(bench.directory))


def kept(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.snapshot"))


def heard(bench: Bench) -> list[int]:
    return bench.table.row.last_t_ms[:4].tolist()


def move_away(paths: list[Path]) -> None:
    for path in paths:
        path.rename(path.with_suffix(".away"))


def test_both_snapshots_damaged_and_the_journal_trimmed_is_refused_with_advice(tmp_path: Path):
    bench = lived(tmp_path)
    trim(bench)
    for path in kept(tmp_path):
        spoil(path)
    with pytest.raises(DamagedError, match="none of the 2 snapshots can be read") as refused:
        Bench(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "move the folder away" in str(refused.value)


def test_both_snapshots_damaged_and_the_journal_whole_loses_nothing(tmp_path: Path):
    bench = lived(tmp_path)
    for path in kept(tmp_path):
        spoil(path)
    again = Bench(tmp_path)
    assert heard(again) == heard(bench) == [LAST] * 4
    assert again.recovered.beats == 160


def test_one_snapshot_damaged_and_the_journal_trimmed_to_the_other_loses_nothing(tmp_path: Path):
    trim(lived(tmp_path))
    spoil(kept(tmp_path)[1])
    again = Bench(tmp_path)
    assert heard(again) == [LAST] * 4
    assert again.recovered.beats < 160


def test_no_snapshot_and_a_journal_from_its_start_is_enough(tmp_path: Path):
    lived(tmp_path, snapshots=False)
    assert heard(Bench(tmp_path)) == [LAST] * 4


def test_no_snapshot_and_a_journal_without_its_start_is_refused(tmp_path: Path):
    lived(tmp_path, snapshots=False)
    segments(tmp_path)[0].path.unlink()
    with pytest.raises(DamagedError, match="there is no snapshot, and the journal does not begin"):
        Bench(tmp_path)


def test_snapshots_that_cannot_be_read_and_no_journal_are_refused(tmp_path: Path):
    lived(tmp_path)
    for path in kept(tmp_path):
        spoil(path)
    move_away([segment.path for segment in segments(tmp_path)])
    with pytest.raises(DamagedError, match="the journal is not there"):
        Bench(tmp_path)


def check_given_up(folder: Path) -> None:
    """Without its journal the shard goes on from the snapshot, and what it takes then is found again."""
    move_away([segment.path for segment in segments(folder)])
    again = Bench(folder, now_ms=T0 + 50_000)
    assert heard(again) == [T0 + 30_000] * 4
    again.beats(range(4), T0 + 50_000)
    assert heard(Bench(folder)) == [T0 + 50_000] * 4


def test_a_journal_that_begins_behind_the_snapshot_is_refused_and_may_be_given_up(tmp_path: Path):
    lived(tmp_path)
    newer = int(kept(tmp_path)[1].stem)
    for segment in segments(tmp_path):
        if segment.position <= newer:
            segment.path.unlink()
    with pytest.raises(DamagedError, match="in between is not there"):
        Bench(tmp_path)
    check_given_up(tmp_path)


def test_a_journal_that_ends_before_the_snapshot_is_refused_and_may_be_given_up(tmp_path: Path):
    """Going on there would put beats where no replay looks for them."""
    lived(tmp_path)
    newer = int(kept(tmp_path)[1].stem)
    found = segments(tmp_path)
    last = max((segment for segment in found if segment.position <= newer), key=lambda each: each.position)
    for segment in found:
        if segment.position > last.position:
            segment.path.unlink()
    spoil(last.path, 60)
    with pytest.raises(DamagedError, match=re.escape(str(last.path))):
        Bench(tmp_path)
    check_given_up(tmp_path)


def test_a_segment_torn_in_the_midst_is_refused_and_may_be_cut(tmp_path: Path):
    """No crash does that: only the last segment has a torn end."""
    lived(tmp_path, snapshots=False)
    damaged, *later = segments(tmp_path)[2:]
    spoil(damaged.path)
    with pytest.raises(DamagedError, match="later segments follow it") as refused:
        Bench(tmp_path)
    command = re.search(r"truncate -s (\d+) (\S+)\)", str(refused.value))
    assert command is not None
    assert command[2] == str(damaged.path)
    with damaged.path.open("r+b") as file:
        file.truncate(int(command[1]))
    move_away([segment.path for segment in later])
    again = Bench(tmp_path)
    assert T0 < heard(again)[0] < LAST
    again.beats(range(4), T0 + 50_000)
    assert heard(Bench(tmp_path)) == [T0 + 50_000] * 4
