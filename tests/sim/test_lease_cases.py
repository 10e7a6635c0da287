"""Histories of licences written by hand, each the smallest of its kind: engine, settling and oracle agree.

Each shard is a `Story` of one node (interval 60 s, DOWN after 180 s, LOST after 600 s, grace 300 s); a
licence is shared by the `w0` of all of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.sim.hand import Story, ms, seconds
from tests.sim.history import History
from tests.sim.lease_world import Installation, LeaseWorld
from tests.sim.oracle.leases import Binding
from tests.sim.registry_world import uuid_of

LICENCE = uuid_of("the licence")


def history_of(story: Story, shard: int, shards: int) -> History:
    """A story with ids and a row of its own."""
    history = story.history()
    number = 7 * shards + shard
    [row] = history.rows

    def name(what: str) -> str:
        return uuid_of(f"{shard}/{what}")

    row = replace(
        row,
        row=number,
        node_id=name("node"),
        project_id=name("project"),
        slots=tuple(replace(slot, workload_id=name(slot.workload_id)) for slot in row.slots),
    )
    records = tuple(replace(r, row=number) if hasattr(r, "row") else r for r in history.records)
    return replace(history, shard=shard, rows=(row,), records=records)


def played(*stories: Story, directory: Path, sold_s: tuple[float, ...] = (), seed: int = 1) -> LeaseWorld:
    histories = tuple(history_of(story, n, len(stories)) for n, story in enumerate(stories))
    bindings = tuple(
        Binding(licence_id=LICENCE, workload_id=uuid_of(f"{n}/w0"), from_ms=ms(-1000))
        for n in range(len(stories))
    )
    sold = tuple((LICENCE, ms(at_s)) for at_s in sold_s)
    world = LeaseWorld(
        Installation(seed=seed, shards=histories, bindings=bindings, sold=sold),
        directory,
        flush_every_ms=(1_000,),
    )
    world.play()
    assert world.disagreements() == []
    return world


def told(world: LeaseWorld) -> str:
    """Who held the licence: `0 5-600 1 660-`, the shard's number and seconds."""
    names = {uuid_of(f"{n}/w0"): str(n) for n in range(len(world.worlds))}
    parts = []
    for one in world.licensing.leases.values():
        end = "" if one.to_ms is None else seconds(one.to_ms)
        parts.append(f"{names[one.holder_id]} {seconds(one.from_ms)}-{end}")
    return " ".join(parts)


def test_a_second_run_waits_until_the_first_is_lost(tmp_path: Path):
    holder, other = Story(slots=1, end_s=4_000), Story(slots=1, end_s=4_000)
    holder.beats(5, 5)
    other.beats(10, 3_970)
    assert told(played(holder, other, directory=tmp_path)) == "0 5-605 1 610-"


def test_a_sale_goes_to_the_next_run_that_beats(tmp_path: Path):
    holder, other = Story(slots=1, end_s=4_000), Story(slots=1, end_s=4_000)
    holder.beats(5, 3_970)
    other.beats(30, 3_970)
    world = played(holder, other, directory=tmp_path, sold_s=(1_210,))
    assert told(world) == "0 5-1210 1 1230-"


def test_a_run_that_was_stopped_gives_it_up_and_its_shard_is_gone_meanwhile(tmp_path: Path):
    """The other shard's claims wait with their time until the first has told."""
    holder, other = Story(slots=1, end_s=4_000), Story(slots=1, end_s=4_000)
    holder.beats(5, 305)
    holder.stop(365)
    holder.crash(366, 900)
    other.beats(10, 3_970)
    assert told(played(holder, other, directory=tmp_path)) == "0 5-365 1 370-"


def test_one_absent_for_ten_intervals_lets_go_when_its_node_is_heard_again(tmp_path: Path):
    """Absent since 65 s, silent from 305 to 785 s: at 665 s nobody could say so, the next claim counts."""
    holder, other = Story(slots=2), Story(slots=1, end_s=4_000)
    holder.beat(5)
    holder.beats(65, 305, "-h")
    holder.beats(785, 1000, "-h")
    other.beats(10, 3_970)
    assert told(played(holder, other, directory=tmp_path)) == "0 5-785 1 790-"


def test_a_node_with_new_workloads_and_an_absent_one_is_judged_on(tmp_path: Path):
    holder = Story(slots=5, lives=dict.fromkeys(range(1, 5), (200, None)))
    holder.session(1, -1000, mask=1)
    holder.beats(5, 125, "-")
    holder.beats(185, 2000, "-")
    other = Story(slots=1, end_s=4_000)
    other.beats(10, 3_970)
    assert told(played(holder, other, directory=tmp_path)) == "1 10-"


def test_who_is_lost_in_the_grace_after_a_stall_let_go_at_its_deadline(tmp_path: Path):
    """LOST at 605 s may not be said before 701 s: until then what others claim waits with its time."""
    holder, other = Story(slots=1, end_s=4_000), Story(slots=1, end_s=4_000)
    holder.beats(5, 5)
    holder.gap(400, 401.5)
    other.beats(10, 3_970)
    assert told(played(holder, other, directory=tmp_path)) == "0 5-605 1 610-"
