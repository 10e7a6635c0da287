"""A whole shard on memory stores: from a beat to its ACK, its verdict and what the stores hold."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.core.records import event_id
from engine.journal_blocks import Kind, read
from engine.rows import node_id
from engine.settings import (
    EngineSettings,
    FlushSettings,
    JournalSettings,
    LivenessSettings,
)
from np1.codec import Code
from storage.metrics_http import new_registry, render_metrics
from tests.engine.rows_world import T0
from tests.engine.shard_world import Life, codes_of

SLOW = FlushSettings(live_interval_ms=1_000, registry_poll_ms=1_000)
FAST = EngineSettings(
    liveness=LivenessSettings(judge_interval_ms=500), flush=SLOW, journal=JournalSettings(reserve_bytes=0)
)


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path / "0", monkeypatch)


async def states(life: Life, count: int) -> list[str]:
    found = []
    for row in range(count):
        read_ = await life.stores.live.read(row, shards=1)
        assert read_ is not None
        assert read_[1] is not None
        found.append(read_[1].state)
    return found


async def test_a_beat_is_acknowledged_once_it_is_in_the_journal(life: Life, autojump_clock: MockClock):
    await life.add_nodes(2)
    async with life.serving(FAST) as shard:
        assert await life.tell(shard, 0, 1) == [Code.OK, Code.OK]
        kinds = [block.kind for block in read(life.directory, 0)]
        assert Kind.BEATS in kinds


async def test_a_silent_node_is_told_down_and_told_up_again_with_its_workloads(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(2)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0, 1)
        for _ in range(5):
            await trio.sleep(45)
            await life.tell(shard, 0)
        await trio.sleep(2)
        assert await states(life, 2) == ["up", "down"]
        (down,) = life.events()
        assert down.kind == "node.down"
        assert down.node_id == life.world.rows[1]
        assert len(down.workloads) == 2
        assert down.since_ms == T0 + 90_000
        assert 0 <= down.at_ms - (T0 + 180_000) <= 1_000
        await life.tell(shard, 1)
        await trio.sleep(2)
        assert [event.kind for event in life.events()] == ["node.down", "node.up"]
        assert await states(life, 2) == ["up", "up"]


async def test_what_an_ack_was_given_for_can_be_read_after_the_next_flush(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
        told_ms = shard.clock.now_ms()
        await trio.sleep(3)
        found = await life.stores.live.read(0, shards=1)
        assert found is not None
        head, node = found
        assert head.watermark_ms > told_ms
        assert node is not None
        assert node.last_t_ms == told_ms


async def test_after_an_orderly_stop_the_stores_have_everything_and_the_gap_is_called_a_restart(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
        await life.tell(shard, 0, plane0=0b01, plane1=0b10)
    await trio.sleep(20)
    async with life.serving(FAST) as shard:
        assert shard.recovered.orderly
        assert await life.tell(shard, 0) == [Code.OK]
        await trio.sleep(3)
    (gap,) = [gap for gap in life.world.gaps.values() if gap.to_ms - gap.from_ms > 10_000]
    assert gap.cause == "restart"
    assert gap.from_ms == T0
    assert gap.to_ms - gap.from_ms == 20_000


async def test_after_a_kill_the_gap_begins_at_the_last_committed_tick_and_is_called_a_crash(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with trio.open_nursery() as nursery:
        shard = life.shard(FAST)
        listening = trio.Event()
        nursery.start_soon(_serve_for_ever, shard, listening)
        await listening.wait()
        await life.tell(shard, 0)
        await trio.sleep(10.5)
        killed = trio.current_time()
        nursery.cancel_scope.cancel()
    await trio.sleep(30)
    async with life.serving(FAST) as shard:
        assert not shard.recovered.orderly
        await trio.sleep(3)
    (gap,) = [gap for gap in life.world.gaps.values() if gap.cause == "crash"]
    assert T0 + killed * 1_000 - 1_500 < gap.from_ms <= T0 + killed * 1_000
    assert gap.to_ms >= T0 + (killed + 30) * 1_000 - 1


async def _serve_for_ever(shard: Any, listening: trio.Event) -> None:
    await shard.serve(open_doors=_no_doors, listening=listening.set, stop=trio.Event())


async def _no_doors(_shard: Any) -> Any:
    return trio.lowlevel.checkpoint


async def test_a_node_that_beats_again_soon_after_a_restart_is_never_told_down(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
    await trio.sleep(1_000)
    async with life.serving(FAST) as shard:
        await trio.sleep(250)
        assert await life.tell(shard, 0) == [Code.OK]
        await trio.sleep(2)
    assert life.events() == []


async def test_a_node_that_stays_away_after_a_restart_is_told_down_after_the_grace(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
    await trio.sleep(1_000)
    async with life.serving(FAST) as shard:
        back_ms = shard.clock.now_ms()
        await trio.sleep(298)
        assert life.events() == []
        await trio.sleep(5)
    (down,) = life.events()
    assert down.kind == "node.down"
    assert 0 <= down.at_ms - (back_ms + 300_000) <= 1_000
    opened, closed = life.events("gap.opened", "gap.closed")
    assert (opened.kind, closed.kind, closed.since_ms) == ("gap.opened", "gap.closed", back_ms)
    assert opened.detail.startswith("restart: the engine was restarted; for 1000")


@pytest.mark.parametrize("passivate", [True, False])
async def test_what_was_heard_at_the_very_end_is_decided_before_an_orderly_stop(
    life: Life, autojump_clock: MockClock, passivate: bool
):
    settings = msgspec.structs.replace(
        FAST, liveness=LivenessSettings(judge_interval_ms=500, passivate=passivate)
    )
    await life.add_nodes(3)
    async with life.serving(settings) as shard:
        await life.tell(shard, 0, 1, 2)
        await trio.sleep(1)
        now_ms = shard.clock.now_ms()
        frames = b"".join(life.frame(row, now_ms, flags=2) for row in range(3))
        replies: list[bytes] = []
        shard.intake.submit_frames(frames, now_ms, replies.append)
    assert codes_of(replies) == [Code.EARLY] * 3
    assert await states(life, 3) == ["stopped"] * 3
    assert [event.kind for event in life.events()] == ["node.stopped"] * 3


async def test_without_postgres_a_restart_still_knows_every_session(life: Life, autojump_clock: MockClock):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
    life.world.postgres_away = True
    await trio.sleep(5)
    async with life.serving(FAST) as shard:
        assert await life.tell(shard, 0) == [Code.EARLY]
        assert shard.ready()["registry"] == ""
        life.world.postgres_away = False
        await trio.sleep(20)
        assert shard.flusher.away == {"history": False, "live": False}
    assert [gap.cause for gap in life.world.gaps.values()] == ["restart"]


async def test_a_fresh_shard_waits_for_the_registry_before_it_listens(life: Life, autojump_clock: MockClock):
    await life.add_nodes(1)
    life.world.postgres_away = True
    async with trio.open_nursery() as nursery:
        shard = life.shard(FAST)
        listening = trio.Event()
        nursery.start_soon(_serve_for_ever, shard, listening)
        await trio.sleep(30)
        assert not listening.is_set()
        assert shard.ready()["registry"] == "rows are not loaded yet"
        life.world.postgres_away = False
        await listening.wait()
        assert await life.tell(shard, 0) == [Code.OK]
        nursery.cancel_scope.cancel()


async def test_a_session_opened_while_the_shard_runs_is_known_within_a_poll(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
        old = life.frame(0, shard.clock.now_ms(), counter=9)
        generation = await life.open_session(0, now_ms=shard.clock.now_ms())
        await trio.sleep(1.1)
        assert await life.tell(shard, 0) == [Code.EARLY]
        assert shard.table.row.generation[0] == generation
        replies: list[bytes] = []
        await trio.sleep(61)
        shard.intake.submit_frames(old, shard.clock.now_ms(), replies.append)
        shard.intake.verify_queued()
        assert codes_of(replies) == [-1], "the generation before is honoured for a minute only"


async def test_a_shard_whose_disk_is_full_still_stops_in_order(life: Life, autojump_clock: MockClock):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
        life.files.full = True
        assert await life.tell(shard, 0) == [Code.BUSY]
        assert shard.ready()["journal"] != ""
        stopping = trio.current_time()
    assert trio.current_time() - stopping < 12


async def test_datagrams_are_answered_to_whoever_sent_them(life: Life):
    await life.add_nodes(3)
    door, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with door, client:
        for sock in (door, client):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        async with life.serving(FAST, udp=(door,)) as shard:
            now_ms = shard.clock.now_ms()
            for row in range(3):
                client.sendto(life.frame(row, now_ms), door.getsockname())
            client.sendto(b"noise", door.getsockname())
            acks = []
            with trio.fail_after(5):
                while len(acks) < 3:
                    await trio.lowlevel.wait_readable(client)
                    acks.append(client.recv(100))
            assert sorted(ack[7] for ack in acks) == [0, 1, 2]
            assert codes_of(acks) == [0, 0, 0]
            assert shard.intake.rejected["length"] == 1
            assert shard.complete_ms() <= shard.clock.now_ms()


async def test_nobody_is_judged_and_nothing_told_past_a_beat_that_is_being_committed(
    life: Life, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    """The disk takes its time, and the beat that saves a node is on its way to it."""
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
        await trio.sleep(179.25)
        slow = trio.Event()
        at_once = trio.to_thread.run_sync

        async def slowly(function: Any, *args: Any) -> Any:
            if getattr(function, "func", None) == shard.journal.commit:
                with trio.move_on_after(60):
                    await slow.wait()
            return await at_once(function, *args)

        monkeypatch.setattr(trio.to_thread, "run_sync", slowly)
        answered: list[bytes] = []
        received_ms = shard.clock.now_ms()
        shard.intake.submit_frames(life.frame(0, received_ms), received_ms, answered.append)
        await trio.sleep(30)
        assert answered == []
        assert shard.complete_ms() == received_ms - 1
        assert shard.judge.judged_ms < received_ms
        found = await life.stores.live.read(0, shards=1)
        assert found is not None
        assert found[0].watermark_ms < received_ms
        slow.set()
        await trio.sleep(5)
        assert codes_of(answered) == [Code.OK]
        assert await states(life, 1) == ["up"]
    assert life.events() == []


async def test_an_actor_that_keeps_crashing_is_reported_once_and_let_out_after_its_time(
    life: Life, autojump_clock: MockClock
):
    settings = msgspec.structs.replace(
        FAST,
        liveness=LivenessSettings(judge_interval_ms=500, restart_intensity=2, quarantine_s=240.0),
    )
    await life.add_nodes(3)
    async with life.serving(settings) as shard:
        inner = shard.decisions.node
        poisoned = [1]

        def node(index: int, change: Any) -> int:
            if index in poisoned:
                raise ValueError("poisoned")
            return inner(index, change)

        shard.decisions.node = node
        for _ in range(5):
            assert Code.BUSY not in await life.tell(shard, 0, 1, 2)
            await trio.sleep(10)
        assert [error.args for error in life.reported] == [("poisoned",)] * 3
        assert [event.kind for event in life.events()] == ["actor.quarantined"]
        assert [line["quarantined"] for line in life.log.of("actor.crashed")] == [False, False, True]
        assert await states(life, 3) == ["up", "new", "up"]
        assert shard.table.row.last_t_ms[1] == shard.table.row.last_t_ms[0], "its beats are credited"
        poisoned.clear()
        await trio.sleep(250)
        await life.tell(shard, 0, 1, 2)
        await trio.sleep(2)
        assert (await states(life, 3))[1] == "up"
        assert shard.actors.statistics().quarantined == 0
        assert not shard.actors._nodes


async def test_two_actors_set_aside_in_one_millisecond_are_two_events(life: Life, autojump_clock: MockClock):
    def node(_index: int, _change: Any) -> int:
        raise ValueError("poisoned")

    await life.add_nodes(3)
    settings = msgspec.structs.replace(FAST, liveness=LivenessSettings(restart_intensity=0))
    async with life.serving(settings) as shard:
        shard.decisions.node = node
        await life.tell(shard, 0, 1, 2)
        await trio.sleep(5)
        nodes = {node_id(shard.table, index) for index in range(3)}
    told = life.events("actor.quarantined")
    assert len(told) == 3
    (at_ms,) = {event.since_ms for event in told}
    assert {event.event_id for event in told} == {
        event_id("actor.quarantined", node, at_ms) for node in nodes
    }
    assert {event.detail.split(", ")[1] for event in told} == nodes


async def test_kernel_drops_become_a_gap_that_holds_back_no_verdict(life: Life, autojump_clock: MockClock):
    class Drops:
        count = 0

        def read(self) -> int:
            return self.count

    drops = Drops()
    await life.add_nodes(1)
    async with life.serving(FAST, drops=drops) as shard:
        await life.tell(shard, 0)
        await trio.sleep(170.1)
        drops.count = 7
        await trio.sleep(13)
        assert [event.kind for event in life.events()] == ["node.down"]
        assert shard.gaps.holding_end_ms == 0
    (gap,) = life.world.gaps.values()
    assert gap.cause == "drops"
    assert gap.to_ms - gap.from_ms == 250


async def test_a_step_of_the_system_clock_is_told_once_and_recorded_time_goes_on(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0)
        before = shard.clock.now_ms()
        life.time.wall_ms -= 3_600_000
        await trio.sleep(10)
        assert shard.clock.now_ms() - before in range(9_980, 10_001)
        assert await life.tell(shard, 0) == [Code.EARLY]
    assert [event.kind for event in life.events()] == ["clock.stepped"]


async def test_every_part_counts_in_figures_that_metrics_can_show(life: Life, autojump_clock: MockClock):
    await life.add_nodes(2)
    async with life.serving(FAST) as shard:
        await life.tell(shard, 0, 1)
        await trio.sleep(2)
        figures = shard.statistics()
        for part, named in figures.items():
            for name, value in named.items():
                numbers = value.values() if isinstance(value, dict) else [value]
                assert all(type(number) is float for number in numbers), (part, name)
        registry = new_registry({part: lambda part=part: shard.statistics()[part] for part in figures})
        _, body = render_metrics(registry)
        assert b"nodepulse_intake_taken 2.0" in body
        assert b'nodepulse_judge_phase{of="normal"} 1.0' in body


async def test_many_rows_falling_silent_at_once_never_hold_up_an_ack(life: Life, autojump_clock: MockClock):
    settings = msgspec.structs.replace(
        FAST, liveness=LivenessSettings(judge_interval_ms=500, wake_slice=50, degraded_rows_min=10_000)
    )
    await life.add_nodes(1_000, workloads=1)
    async with life.serving(settings) as shard:
        assert set(await life.tell(shard, *range(1_000))) == {Code.OK}
        await trio.sleep(179)
        assert await life.tell(shard, 0) == [Code.OK]
        await trio.sleep(3)
    assert len(life.events("node.down")) == 999
    assert len({event.since_ms for event in life.events()}) == 1
    assert sum(len(rows) for rows in life.world.intervals.values()) >= 999
