"""Beats that were not credited are counted per node, day and reason, and a count is never told twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.core.beats import REFUSED_DTYPE
from engine.core.evidence import REASONS
from engine.door import PlainAnswer, PlainBeat
from engine.journal_blocks import Kind
from engine.refusals import MAC, STALE, Refusals
from engine.reshard_outputs import Outputs
from engine.settings import IngestSettings
from tests.engine.rows_world import T0, frame, spec
from tests.engine.shard_world import Bench

DAY_MS = 86_400_000
DAY = "2023-11-14"  # of T0
MIDNIGHT = T0 // DAY_MS * DAY_MS + DAY_MS


class Blocks:
    """A journal that keeps what is appended."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def append(self, kind: Kind, _t_ms: int, payload: bytes) -> None:
        assert kind == Kind.REFUSED
        self.payloads.append(payload)

    def told(self) -> dict[tuple[int, str, str], int]:
        """(row, day, reason) -> count, of all that was journaled since the last call."""
        told = {}
        for payload in self.payloads:
            for _hi, low, run_ms, count, day, reason, _ in np.frombuffer(payload, REFUSED_DTYPE).tolist():
                assert run_ms == T0
                told[low - 1000, str(np.datetime64(day, "D")), REASONS[reason]] = count
        self.payloads.clear()
        return told


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.learn(*(spec(row) for row in range(4)))
    made.commit()
    return made


def counted(bench: Bench, *, after_ms: int = 1_000) -> dict[tuple[int, str, str], int]:
    blocks = Blocks()
    bench.intake.refusals.drain(blocks, bench.now_ms + after_ms, last=True)
    return blocks.told()


def plain(row: int, generation: int = 1, *, capability: bool = False) -> PlainBeat:
    return PlainBeat(row, generation, capability, 0, 1, 0, T0, False)


def test_accepted_beats_are_not_counted(bench: Bench) -> None:
    bench.beats(range(4), T0)
    assert counted(bench) == {}


def test_each_refusal_counts_for_its_node_under_its_reason(bench: Bench) -> None:
    bench.beats(range(4), T0)
    bench.send(
        frame(0, T0),
        frame(0, T0),
        frame(1, T0 - 500_000),
        frame(2, T0 + 1, with_key=bytes(16)),
        frame(3, T0 + 1, generation=2),
        frame(3, T0 + 1),
    )
    bench.commit()
    assert counted(bench) == {
        (0, DAY, "stale"): 2,
        (1, DAY, "clock"): 1,
        (2, DAY, "mac"): 1,
        (3, DAY, "session"): 1,
    }


def test_frames_of_rows_that_nobody_knows_count_for_nobody(bench: Bench) -> None:
    bench.send(frame(99, T0), b"\x11" + bytes(47))
    bench.commit()
    assert set(counted(bench)) <= {(0, DAY, "session")}, "only what names a known row"


def test_what_could_not_be_recorded_counts_as_busy(bench: Bench) -> None:
    bench.files.full = True
    bench.beats([1, 2], T0)
    assert counted(bench) == {(1, DAY, "busy"): 1, (2, DAY, "busy"): 1}


def test_what_does_not_fit_counts_as_busy_frames_and_plain_beats(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ingest=IngestSettings(pending_frames_max=1))
    bench.learn(*(spec(row) for row in range(4)))
    bench.commit()
    answers: list[PlainAnswer] = []
    bench.intake.submit_plain(plain(0), answers.append)
    bench.intake.submit_plain(plain(1), answers.append)
    bench.send(frame(2, T0))
    bench.commit()
    assert counted(bench) == {(1, DAY, "busy"): 1, (2, DAY, "busy"): 1}


def test_tokens_that_were_good_once_count_as_token(bench: Bench) -> None:
    answers: list[PlainAnswer] = []
    bench.intake.submit_plain(plain(1, generation=2), answers.append)
    bench.intake.submit_plain(plain(2, generation=5, capability=True), answers.append)
    bench.intake.submit_plain(plain(77), answers.append)
    bench.intake.refuse_token(3, T0)
    bench.intake.refuse_token(77, T0)
    bench.commit()
    assert counted(bench) == {(row, DAY, "token"): 1 for row in (1, 2, 3)}


def test_a_count_tells_how_many_there_were_so_far_and_only_when_it_grew(bench: Bench) -> None:
    refusals, blocks = Refusals(bench.table, run_ms=T0, rows_max=10), Blocks()
    refusals.add(np.array([1, 1, 2]), STALE, T0)
    refusals.drain(blocks, T0 + 1_000)
    assert blocks.told() == {(1, DAY, "stale"): 2, (2, DAY, "stale"): 1}
    refusals.add(np.array([1]), STALE, T0 + 1_500)
    refusals.drain(blocks, T0 + 2_000)
    assert blocks.told() == {(1, DAY, "stale"): 3}
    refusals.drain(blocks, T0 + 3_000)
    assert blocks.payloads == []


def test_what_anybody_can_send_is_journaled_once_a_minute(bench: Bench) -> None:
    refusals, blocks = Refusals(bench.table, run_ms=T0, rows_max=10), Blocks()
    for second in range(1, 121):
        refusals.add(np.array([1]), MAC, T0 + second * 1_000)
        refusals.drain(blocks, T0 + second * 1_000)
    assert len(blocks.payloads) == 2
    assert blocks.told() == {(1, DAY, "mac"): 120}


def test_a_day_counts_by_itself_and_is_forgotten_an_hour_after_its_end(bench: Bench) -> None:
    refusals, blocks = Refusals(bench.table, run_ms=T0, rows_max=10), Blocks()
    refusals.add(np.array([1, 1]), STALE, np.array([MIDNIGHT - 1, MIDNIGHT]))
    refusals.drain(blocks, MIDNIGHT + 1_000)
    assert blocks.told() == {(1, DAY, "stale"): 1, (1, "2023-11-15", "stale"): 1}
    assert refusals.statistics().entries == 2
    refusals.drain(blocks, MIDNIGHT + 3_600_000)
    assert refusals.statistics().entries == 1
    refusals.add(np.array([1]), STALE, MIDNIGHT + 5)
    refusals.drain(blocks, MIDNIGHT + 3_601_000)
    assert blocks.told() == {(1, "2023-11-15", "stale"): 2}


def test_above_the_bound_further_rows_are_not_told_apart_and_known_ones_go_on(bench: Bench) -> None:
    refusals, blocks = Refusals(bench.table, run_ms=T0, rows_max=2), Blocks()
    refusals.add(np.array([0, 1]), STALE, T0)
    refusals.drain(blocks, T0)
    refusals.add(np.array([0, 2, 3, 3]), STALE, T0)
    refusals.add(np.array([2]), MAC, T0)
    refusals.drain(blocks, T0 + 1, last=True)
    assert blocks.told() == {
        (0, DAY, "stale"): 2,
        (1, DAY, "stale"): 1,
        (2, DAY, "mac"): 1,
    }, "what anybody can send takes no room from what authenticated"
    statistics = refusals.statistics()
    assert (statistics.uncounted, statistics.counted["stale"]) == (3, 6)


def test_very_many_refusals_between_two_readings_are_put_together(bench: Bench) -> None:
    refusals, blocks = Refusals(bench.table, run_ms=T0, rows_max=10), Blocks()
    for _ in range(40):
        refusals.add(np.repeat(np.arange(4), 1_000), STALE, T0)
    refusals.drain(blocks, T0)
    assert blocks.told() == {(row, DAY, "stale"): 40_000 for row in range(4)}


def test_counts_go_with_their_rows_to_another_shard_count(bench: Bench) -> None:
    refusals, blocks = Refusals(bench.table, run_ms=T0, rows_max=10), Blocks()
    refusals.add(np.arange(4), STALE, T0)
    refusals.drain(blocks, T0)
    outputs = Outputs(bench.table, np.array([1, 3]), installation=True)
    blocks.payloads = [outputs.of(Kind.REFUSED, blocks.payloads[0])]
    assert blocks.told() == {(1, DAY, "stale"): 1, (3, DAY, "stale"): 1}


def test_a_revoked_node_is_told_that_its_session_is_not_honoured(bench: Bench) -> None:
    bench.learn(spec(2, revoked=True))
    bench.send(frame(2, T0 + 1), at_ms=T0 + 1)
    bench.commit()
    assert counted(bench) == {(2, DAY, "session"): 1}


def test_of_two_shards_each_counts_its_own_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, shard=1, shards=2)
    bench.learn(spec(1), spec(3))
    bench.commit()
    bench.beats([1, 3], T0)
    bench.send(frame(3, T0), at_ms=T0)
    bench.commit()
    assert counted(bench) == {(3, DAY, "stale"): 1}
