"""What the operator of the installation hears of gaps, as a table. Times are seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.records import Gap
from engine.gap_news import GapNews
from tests.engine.rows_world import T0, spec
from tests.engine.shard_world import Bench, events_in

Told = list[str]


class Tells:
    """Keeps what is told as ``kind cause@since, told at: detail``."""

    def __init__(self) -> None:
        self.told: Told = []

    def gap_event(self, kind: str, cause: str, since_ms: int, at_ms: int, detail: str) -> None:
        assert detail.startswith(f"{cause}: ")
        said = detail.rpartition("; ")[2]
        self.told.append(f"{kind[4:]} {cause}@{since_ms / 1000:g} at {at_ms / 1000:g}: {said}")


def play(text: str) -> Told:
    """``"stall 1-2"`` a gap that ends, ``"disk_full 5"`` one that begins, ``"tick 9"``, ``"stop 9"``."""
    tells = Tells()
    news = GapNews(tells)
    for step in text.split(", "):
        what, times = step.split()
        from_ms, *to_ms = (round(float(time) * 1000) for time in times.split("-"))
        if what in ("tick", "stop"):
            news.tick(from_ms, last=what == "stop")
        elif to_ms:
            news.end(Gap(0, from_ms, to_ms[0], what))
        else:
            news.begin(what, from_ms, from_ms)
    return tells.told


TABLE = {
    "a gap that is over is told with both its ends": (
        "crash 10-75",
        ["opened crash@10 at 75: for 65.0 s", "closed crash@75 at 75: for 65.0 s"],
    ),
    "one that is known before is told when it begins, and when it ends": (
        "disk_full 10, tick 20, disk_full 10-75",
        ["opened disk_full@10 at 10: it lasts", "closed disk_full@75 at 75: for 65.0 s"],
    ),
    "while it lasts it is told once": ("disk_full 10, disk_full 12", ["opened disk_full@10 at 10: it lasts"]),
    "the second of two that were one at its beginning is told by itself": (
        "disk_full 10, disk_full 10-20, disk_full 12-25",
        [
            "opened disk_full@10 at 10: it lasts",
            "closed disk_full@20 at 20: for 10.0 s",
            "opened disk_full@12 at 25: for 13.0 s",
            "closed disk_full@25 at 25: for 13.0 s",
        ],
    ),
    "every crash is told": (
        "crash 10-12, crash 20-22",
        [
            "opened crash@10 at 12: for 2.0 s",
            "closed crash@12 at 12: for 2.0 s",
            "opened crash@20 at 22: for 2.0 s",
            "closed crash@22 at 22: for 2.0 s",
        ],
    ),
    "the first stall of a spell is told at once": (
        "stall 10-11.5, tick 60",
        ["opened stall@10 at 11.5: for 1.5 s", "closed stall@11.5 at 11.5: for 1.5 s"],
    ),
    "those that follow within a minute are told together, when there was none for a minute": (
        "stall 10-11.5, stall 20-22, tick 30, stall 70-71, tick 130.9, tick 131",
        [
            "opened stall@10 at 11.5: for 1.5 s",
            "closed stall@11.5 at 11.5: for 1.5 s",
            "opened stall@20 at 131: 2 more, 3.0 s in all",
            "closed stall@71 at 131: 2 more, 3.0 s in all",
        ],
    ),
    "a minute later a new spell begins": (
        "stall 10-11, tick 71, stall 75-76",
        [
            "opened stall@10 at 11: for 1.0 s",
            "closed stall@11 at 11: for 1.0 s",
            "opened stall@75 at 76: for 1.0 s",
            "closed stall@76 at 76: for 1.0 s",
        ],
    ),
    "a spell without end is told every ten minutes": (
        ", ".join(f"drops {second}-{second + 1}, tick {second + 1}" for second in range(0, 1_230, 30)),
        [
            "opened drops@0 at 1: for 1.0 s",
            "closed drops@1 at 1: for 1.0 s",
            "opened drops@30 at 631: 21 more, 21.0 s in all",
            "closed drops@631 at 631: 21 more, 21.0 s in all",
        ],
    ),
    "drops and stalls are spells of their own": (
        "stall 10-11, drops 12-13",
        [
            "opened stall@10 at 11: for 1.0 s",
            "closed stall@11 at 11: for 1.0 s",
            "opened drops@12 at 13: for 1.0 s",
            "closed drops@13 at 13: for 1.0 s",
        ],
    ),
    "before the shard stops all is told": (
        "stall 10-11, stall 12-13, stop 14",
        [
            "opened stall@10 at 11: for 1.0 s",
            "closed stall@11 at 11: for 1.0 s",
            "opened stall@12 at 14: 1 more, 1.0 s in all",
            "closed stall@13 at 14: 1 more, 1.0 s in all",
        ],
    ),
    "also when nobody looked between two spells": (
        "stall 10-11, stall 12-13, stall 100-101",
        [
            "opened stall@10 at 11: for 1.0 s",
            "closed stall@11 at 11: for 1.0 s",
            "opened stall@12 at 101: 1 more, 1.0 s in all",
            "closed stall@13 at 101: 1 more, 1.0 s in all",
            "opened stall@100 at 101: for 1.0 s",
            "closed stall@101 at 101: for 1.0 s",
        ],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_operator_hears_of_gaps(name: str) -> None:
    text, expected = TABLE[name]
    assert play(text) == expected


def test_a_disk_that_refuses_is_told_with_the_cause_when_it_can_be_written_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gap_news=True)
    bench.learn(spec(0))
    bench.commit()
    bench.beats([0], T0)
    bench.files.full = True
    bench.beats([0], T0 + 5_000)
    bench.files.full = False
    bench.now_ms = T0 + 9_000
    bench.tick()
    bench.decisions.drain(bench.journal, T0 + 9_000)
    bench.commit()
    opened, closed = (event for event in events_in(tmp_path) if event.kind.startswith("gap."))
    assert (opened.kind, opened.since_ms, opened.at_ms) == ("gap.opened", T0, T0 + 5_000)
    assert (closed.kind, closed.since_ms) == ("gap.closed", T0 + 9_000)
    assert closed.detail == "disk_full: the journal could not be written; for 9.0 s"
    assert opened.node_id is opened.project_id is None
