"""A change of the shard count: a shard has what the old ones knew of its rows; nothing is lost on the way."""

from __future__ import annotations

import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.core.records import Window
from engine.damaged import DamagedError
from engine.folders import place_of
from engine.journal import POSITION_PER_MS, Journal
from engine.journal_blocks import Kind
from np1.codec import CREDITING, Code
from tests.engine.reshard_world import (
    Fleet,
    Killed,
    Script,
    gaps_of,
    killed_at,
    known,
    one_shard,
    settle,
    written,
)
from tests.engine.rows_world import T0, frame, spec

MINUTE_MS = 60_000


def counts(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def compare(fleet: Fleet, like: Fleet) -> None:
    """Both know the same of each row, and have written the same for Postgres."""
    assert known(fleet) == known(like)
    mine, theirs = written(fleet.root, shards=fleet.shards), written(like.root, shards=like.shards)
    for found, wanted in zip(mine, theirs, strict=True):
        assert found == wanted


@pytest.mark.parametrize("seed", range(5))
def test_a_change_of_count_is_as_a_restart(tmp_path, seed):
    """1 -> 2 -> 3 -> 1 -> 4, beside one that is only restarted: seqs, verdicts, open rows, outputs."""
    script = Script(seed)
    like, fleet = Fleet(tmp_path / "like", shards=1), Fleet(tmp_path / "changed", shards=1)
    script.begin(like, fleet)
    for shards in (2, 3, 1, 4):
        script.live(like, fleet, steps=10)
        script.now_ms += script.chance.randrange(1, 5 * MINUTE_MS)
        orderly = script.chance.random() < 0.5
        for each in (like, fleet):
            each.tick(script.now_ms, last=orderly)
        script.now_ms += script.chance.randrange(1, 3 * MINUTE_MS)
        like = like.restarted(shards=1, now_ms=script.now_ms)
        fleet = fleet.restarted(shards=shards, now_ms=script.now_ms)
        compare(fleet, like)
        assert [made.complete for made in fleet.made if made] == [True] * shards
        assert counts(fleet.root) == [str(shards)]
    script.live(like, fleet, steps=6)
    compare(fleet, like)
    for row in script.specs:
        assert gaps_of(fleet.root, row, shards=4) == gaps_of(like.root, row, shards=1)


@pytest.fixture
def lived(tmp_path) -> Fleet:
    """One shard with a past; its process is gone."""
    script = Script(1)
    fleet = Fleet(tmp_path / "one", shards=1)
    script.begin(fleet)
    script.live(fleet, steps=20)
    fleet.die()
    return fleet


def test_each_output_goes_to_the_one_shard_that_has_the_row_now(lived):
    fleet = lived.restarted(shards=3, now_ms=lived.now_ms + 1)
    alone = [written(fleet.root, shards=3, only=[number]) for number in range(3)]
    together = written(fleet.root, shards=3)
    for kind in range(3):
        sizes = [len(each[kind]) for each in alone]
        assert min(sizes) > 0
        assert sum(sizes) == len(together[kind])


def test_a_replayed_old_frame_is_stale_and_a_new_one_of_the_same_session_is_taken(tmp_path):
    fleet = Fleet(tmp_path, shards=1)
    rows = range(4)
    for row in rows:
        fleet.learn(spec(row))
        fleet.beat(row, T0 + row)
    fleet.tick(T0 + 10)
    fleet = fleet.restarted(shards=2, now_ms=T0 + 1_000)
    for row in rows:
        fleet.of(row).send(frame(row, T0 + row), at_ms=T0 + 2_000)
        fleet.of(row).commit()
        fleet.beat(row, T0 + 2_000)
    assert [bench.codes() for bench in fleet.shard] == [[Code.STALE, Code.EARLY] * 2] * 2


def test_the_gap_of_the_restart_begins_when_the_first_of_the_old_shards_fell_silent(tmp_path):
    fleet = Fleet(tmp_path, shards=3)
    for row in range(6):
        fleet.learn(spec(row))
    fleet.tick(T0 + 1_000)
    fleet.of(1).now_ms = T0 + 7_000
    fleet.of(1).tick(last=True)
    fleet.beat(2, T0 + 9_000)
    fleet = fleet.restarted(shards=2, now_ms=T0 + 20_000)
    for bench in fleet.shard:
        assert bench.recovered.last_ms == T0 + 1_000
        assert not bench.recovered.orderly
    assert gaps_of(fleet.root, 4, shards=2) == {(T0 + 1_000, T0 + 20_000, "crash")}


def test_after_all_old_shards_stopped_in_order_the_gap_is_called_a_restart(tmp_path):
    fleet = Fleet(tmp_path, shards=2)
    fleet.learn(spec(0))
    fleet.learn(spec(1))
    fleet.tick(T0 + 1_000, last=True)
    fleet = fleet.restarted(shards=1, now_ms=T0 + 5_000)
    assert gaps_of(fleet.root, 0, shards=1) == {(T0 + 1_000, T0 + 5_000, "restart")}


def test_the_registry_is_followed_from_the_oldest_position_of_the_old_shards(tmp_path):
    fleet = Fleet(tmp_path, shards=2)
    fleet.of(1).position = 40
    for row in range(4):
        fleet.learn(spec(row))
    fleet.tick(T0 + 1_000)
    fleet = fleet.restarted(shards=3, now_ms=T0 + 2_000)
    assert [bench.recovered.registry_position for bench in fleet.shard] == [2, 2, 2]


def test_maintenance_windows_come_along(tmp_path):
    window = Window("w", None, T0 + MINUTE_MS, T0 + 2 * MINUTE_MS, False)
    fleet = Fleet(tmp_path, shards=1)
    fleet.learn(spec(0))
    fleet.learn(spec(3, windows=(window,)))
    fleet.tick(T0 + 1_000)
    for shards in (2, 4):
        fleet = fleet.restarted(shards=shards, now_ms=fleet.now_ms + 1_000)
    assert fleet.of(3).windows.held() == {0: [window]}
    assert fleet.of(0).windows.held() == {}


def test_outputs_that_a_kill_kept_from_the_journal_are_brought_about_again(tmp_path):
    fleet = Fleet(tmp_path, shards=1)
    for row in (0, 1):
        fleet.learn(spec(row))
        fleet.beat(row, T0)
    lone = fleet.shard[0]
    lone.beat(1, T0 + MINUTE_MS, plane0=0b01)
    assert lone.end(lone.begin())  # the beat is on disk, and what follows from it is not
    fleet.die()
    assert written(tmp_path, shards=1)[0] == set()
    fleet = Fleet(tmp_path, shards=2)
    [closed] = written(tmp_path, shards=2)[0]
    assert closed[3:5] == (T0, T0 + MINUTE_MS)


def test_events_of_the_installation_go_to_one_shard(tmp_path):
    fleet = Fleet(tmp_path, shards=2)
    for number, lone in enumerate(fleet.shard):
        fleet.learn(spec(number))
        lone.decisions.installation_event("clock.stepped", T0 + number, "")
    fleet.tick(T0 + 1_000)
    assert len(written(tmp_path, shards=2)[1]) == 2
    fleet = fleet.restarted(shards=3, now_ms=T0 + 2_000)
    assert [len(written(tmp_path, shards=3, only=[number])[1]) for number in range(3)] == [1, 1, 0]


def test_rows_keep_their_projects_though_shards_number_them_otherwise(tmp_path):
    fleet = Fleet(tmp_path, shards=2)
    projects = {row: str(uuid.UUID(int=row + 1)) for row in range(4)}
    for row in (0, 3, 1, 2):
        fleet.learn(spec(row, project_id=projects[row]))
    fleet.tick(T0 + 1_000)
    fleet = fleet.restarted(shards=1, now_ms=T0 + 2_000)
    assert {row: each["row"]["project"] for row, each in known(fleet).items()} == projects


def test_a_new_journal_begins_above_the_old_ones_whatever_the_clock_says(tmp_path):
    """Else Postgres, which remembers how far it has a shard's journal, would take none of it."""
    far_ms = 4_000_000_000_000
    place = place_of(tmp_path, shards=1, shard=0)
    ahead = Journal(place, shard=0, shards=1, boot_id="", segment_bytes=4_096, now_ms=far_ms)
    ahead.append(Kind.FIRST_REPORTS, T0, b"")
    ahead.commit(ahead.take())
    ahead.close()
    fleet = Fleet(tmp_path, shards=1)
    fleet.learn(spec(0))
    fleet.tick(T0)
    end = fleet.shard[0].journal.committed
    fleet = fleet.restarted(shards=2, now_ms=T0 + 1)
    assert fleet.shard[0].journal.first > end > far_ms * POSITION_PER_MS


def test_a_first_start_and_a_start_with_the_same_count_take_nothing_over(tmp_path):
    fleet = Fleet(tmp_path, shards=2)
    assert fleet.made == [None, None]
    fleet.learn(spec(0))
    fleet.learn(spec(1))
    fleet.tick(T0 + 1_000)
    assert fleet.restarted(shards=2, now_ms=T0 + 2_000).made == [None, None]


def test_an_old_shard_that_left_nothing_makes_its_rows_come_from_the_registry(lived):
    two = lived.restarted(shards=2, now_ms=lived.now_ms + 1)
    two.die()
    shutil.rmtree(two.root / "2" / "1")
    fleet = Fleet(two.root, shards=3)
    assert [made is not None and not made.complete for made in fleet.made] == [True] * 3
    assert [bench.recovered.registry_position for bench in fleet.shard] == [0, 0, 0]
    assert set(known(fleet)) == {row for row in known(two) if row % 2 == 0}


def test_an_heir_whose_only_snapshot_is_damaged_refuses(lived):
    """Its journal begins at its start, but what it took over is in the snapshot alone."""
    two = lived.restarted(shards=2, now_ms=lived.now_ms + 1)
    two.die()
    (kept,) = (two.root / "2" / "1").glob("*.snapshot")
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="none of the 1 snapshots can be read"):
        Fleet(two.root, shards=2)
    with pytest.raises(DamagedError, match="none of the 1 snapshots can be read"):
        Fleet(two.root, shards=3)


def test_old_folders_stay_until_the_last_shard_has_its_own(lived):
    assert settle(lived.root, 1, 3) is not None
    assert counts(lived.root) == ["1", "3"]
    assert settle(lived.root, 0, 3) is not None
    assert counts(lived.root) == ["1", "3"]
    assert settle(lived.root, 2, 3) is not None
    assert counts(lived.root) == ["3"]


@pytest.mark.parametrize("then", [2, 3, 1])
def test_killed_at_any_moment_a_start_with_any_count_finds_everything(lived, tmp_path, monkeypatch, then):
    """Every call that changes the disk is the last one once."""
    like = Fleet(shutil.copytree(lived.root, tmp_path / "like"), shards=1, now_ms=lived.now_ms)
    for bench in like.shard:  # what a replay brings about anew is in the journal
        bench.decisions.drain(bench.journal, lived.now_ms)
        bench.commit()
    for number in range(1, 1_000):
        root = shutil.copytree(lived.root, tmp_path / f"killed{number}")
        try:
            with killed_at(number, monkeypatch):
                for shard in (1, 0):
                    settle(root, shard, 2)
        except Killed:
            compare(Fleet(root, shards=then, now_ms=lived.now_ms), like)
            assert counts(root) == [str(then)]
            shutil.rmtree(root)
        else:
            break
    assert 20 < number < 999


def test_shards_that_start_at_the_same_time_do_not_disturb_each_other(lived, tmp_path):
    like = known(lived.restarted(shards=1, now_ms=lived.now_ms))
    for attempt in range(5):
        root = shutil.copytree(lived.root, tmp_path / f"together{attempt}")
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda shard, root=root: settle(root, shard, 4), range(4)))
        assert None not in made
        assert counts(root) == ["4"]
        assert known(Fleet(root, shards=4)).keys() == like.keys()


@pytest.mark.parametrize("then", [3, 1])
def test_what_one_new_shard_took_counts_though_the_other_never_started(lived, then):
    """1 -> 2, of which shard 0 alone came up and took a beat; then another count, or back again."""
    before, at_ms = known(lived), lived.now_ms + 5_000
    generation = before[2]["row"]["generation"]
    settle(lived.root, 0, 2)
    alone = one_shard(lived.root, 0, 2, now_ms=at_ms)
    alone.beats([2], at_ms, generation=generation)
    assert alone.codes()[0] in CREDITING
    alone.journal.close()
    after = known(Fleet(lived.root, shards=then, now_ms=at_ms))
    assert counts(lived.root) == [str(then)]
    assert after.keys() == before.keys()
    assert after[2]["row"]["last_t_ms"] == at_ms
    assert after[3]["row"] == before[3]["row"]
