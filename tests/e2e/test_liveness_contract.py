"""Verdicts, events, uptime, points, restarts: the published rules of liveness, held by an outside party.

What the contract fixes to the millisecond is asserted so, from the times that the ACKs tell; how late an
answer may come on a busy machine is bounded generously. The last tests kill the engine and stop the system.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stranger import frames as np
from tests.e2e.stranger.installation import running
from tests.e2e.stranger.party import Node, now_ms, rfc3339, unix_ms
from tests.e2e.stranger.village import PROJECT, Village

INTERVAL_MS, TTL_MS = 1000, 1500
KINDS = {"up", "updating", "unhealthy", "stopped", "silent", "standby", "unobserved", "maintenance"}
KINDS |= {"maintenance_own", "claimed_up", "claimed_updating", "claimed_unhealthy"}
SAID = {np.HEALTHY: "up", np.UNHEALTHY: "unhealthy", np.UPDATING: "updating", np.ABSENT: "unhealthy"}
LATE_MS = 3000  # what a busy machine may add to a verdict


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with running(Path(tmp_path_factory.mktemp("stranger"))) as installation:
        yield Village(installation, nodes=20, workloads=3, interval_ms=INTERVAL_MS)


@pytest.fixture(scope="module")
def silent_node(village: Village) -> Iterator[tuple[Node, int, list[dict[str, Any]]]]:
    """A node that beat once and is looked at every second: node, t of its beat, what was answered."""
    node, seen = Node(village.web, village.made()), []
    node.open()
    ack = node.beat()

    def look() -> None:
        while now_ms() < ack.t_ms + 10 * INTERVAL_MS + LATE_MS:
            seen.append(village.web.get(f"/v1/nodes/{node.node_id}"))
            time.sleep(1.0)

    looking = threading.Thread(target=look)
    looking.start()
    yield node, ack.t_ms, seen
    looking.join()
    node.close()


@pytest.fixture(autouse=True)
def _close(village: Village, silent_node: Any) -> Iterator[None]:
    yield
    village.close_nodes()


def events(village: Village, node: Node) -> list[dict[str, Any]]:
    """All of one node, by way of the cursor."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = village.web.get(f"/v1/events?project={PROJECT}&limit=7{after}")
        found += page["items"]
        if not page["items"] or page["next_cursor"] is None:
            return [event for event in found if event["node_id"] == node.node_id]
        after = f"&after={page['next_cursor']}"


def within(seconds: float, told: Callable[[], Any]) -> Any:
    """The first true answer; the last one when time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := told()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def has_right_id(event: dict[str, Any]) -> bool:
    subject = event["workload_id"] if event["kind"].startswith("workload.") else event["node_id"]
    text = f"{event['kind']}\0{subject}\0{unix_ms(event['since'])}"
    return event["event_id"] == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def timeline(answer: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [
        (one["kind"], unix_ms(one["started_at"]), unix_ms(one["ended_at"])) for one in answer["intervals"]
    ]


def test_uptime_is_what_the_acknowledged_beats_vouch_for_to_the_millisecond(village: Village):
    node = village.opened()
    slot, said = node.slots[node.workloads[0]], []
    story = [(np.HEALTHY, 0.1), (np.HEALTHY, 0.4), (np.UNHEALTHY, 0.2), (np.UPDATING, 1.8), (np.ABSENT, 0.3)]
    story += [(np.HEALTHY, 2.0), (np.UNHEALTHY, 0.1)]
    for state, pause in story:
        ack = node.beat({slot: state})
        said.append((SAID[state], ack.t_ms, ack.t_ms + ack.ttl_ms))
        time.sleep(pause)
    stop = node.beat(flags=np.STOPPING)
    said.append(("stopped", stop.t_ms, now_ms() + 3_600_000))
    begin = said[0][1] - 5  # after its creation, which may lie only a moment before
    answer = node.uptime(begin, now_ms() + 60_000)
    to = unix_ms(answer["to"])
    expected, at = [], begin
    for (kind, start, end), after in zip(said, [*(s for _, s, _ in said[1:]), to], strict=True):
        expected += [("silent", at, start), (kind, start, min(end, after))]
        at = min(end, after)
    merged: list[tuple[str, int, int]] = []
    for kind, start, end in expected:
        if merged and merged[-1][0] == kind and merged[-1][2] == start:
            merged[-1] = (kind, merged[-1][1], end)
        elif start < end:
            merged.append((kind, start, end))
    assert timeline(answer) == merged
    assert answer["to"] == answer["as_of"]  # `to` in the future is cut
    assert sum(answer["ms"].values()) == to - begin
    assert set(answer["ms"]) == KINDS
    for kind in KINDS:
        assert answer["ms"][kind] == sum(end - start for k, start, end in merged if k == kind)


def test_the_window_is_cut_to_the_life_and_silent_before_the_first_report(village: Village):
    node = village.opened()
    answer = node.uptime(now_ms() - 86_400_000, now_ms() + 86_400_000)
    assert unix_ms(answer["from"]) > now_ms() - 300_000
    assert answer["to"] == answer["as_of"]
    window = unix_ms(answer["to"]) - unix_ms(answer["from"])
    assert answer["ms"]["silent"] == sum(answer["ms"].values()) == window
    assert timeline(answer) == [("silent", unix_ms(answer["from"]), unix_ms(answer["to"]))]
    assert node.workload_state() == "new"
    node.beat({})  # absent is no first report
    assert (node.state(), node.workload_state()) == ("up", "new")
    before = node.uptime(now_ms() - 86_400_000, now_ms() - 80_000_000)
    assert sum(before["ms"].values()) == 0


def test_a_window_in_the_future_is_cut_at_as_of_too(village: Village):
    node = village.opened()
    answer = node.uptime(now_ms() + 60_000, now_ms() + 120_000)
    assert sum(answer["ms"].values()) == 0
    assert unix_ms(answer["to"]) <= unix_ms(answer["as_of"])


def test_a_node_stopped_once_is_one_event_and_back_is_another(village: Village):
    node = village.opened()
    node.beat()
    first = node.beat(flags=np.STOPPING)
    node.beat(flags=np.STOPPING)
    assert node.state() == "stopped"
    back = node.beat()
    assert node.state() == "up"
    told = within(5, lambda: len(found := events(village, node)) >= 2 and found)
    known = [(event["kind"], unix_ms(event["since"])) for event in told]
    assert known == [("node.stopped", first.t_ms), ("node.up", back.t_ms)]
    assert all(has_right_id(event) for event in told)
    assert all(sorted(event["workloads"]) == sorted(node.workloads) for event in told)


def test_health_flips_when_two_beats_half_an_interval_apart_say_so(village: Village):
    node = village.opened()
    one, two, three = (node.slots[workload] for workload in node.workloads)
    good, bad, moving = np.HEALTHY, np.UNHEALTHY, np.UPDATING

    def say(first: int, second: int, third: int) -> int:
        time.sleep(0.55)
        return node.beat({one: first, two: second, three: third}).t_ms

    say(good, good, good)
    down = say(bad, np.ABSENT, bad)
    say(bad, moving, good)  # updating neither counts nor resets, healthy contradicts
    say(bad, np.ABSENT, bad)
    up = say(good, good, good)
    say(good, good, good)
    told = within(5, lambda: len(found := events(village, node)) >= 4 and found)
    known = {(event["kind"], event["workload_id"], unix_ms(event["since"])) for event in told}
    expected = {
        (kind, id_, t)
        for id_ in node.workloads[:2]
        for kind, t in (("workload.down", down), ("workload.up", up))
    }
    assert known == expected
    assert len(told) == 4
    assert all(has_right_id(event) for event in told)


def test_two_beats_less_than_half_an_interval_apart_flip_nothing(village: Village):
    node = village.opened()
    node.beat()
    times = [node.beat(dict.fromkeys(node.slots.values(), np.UNHEALTHY)).t_ms for _ in range(3)]
    assert node.beat().t_ms - times[0] < 3000
    time.sleep(0.5)
    if times[-1] - times[0] < INTERVAL_MS // 2:
        assert events(village, node) == []


def test_points_are_not_committed_before_the_day_is_sealed(village: Village):
    path = f"/v1/projects/{PROJECT}/points"
    one, two = village.made()["workloads"][:2]

    def commit(day: str, rows: list[dict[str, str]], key: str) -> Any:
        body = {"day": day, "rows": rows}
        return village.web.ask("POST", path, body, headers={"idempotency-key": key})

    def days_ago(days: int) -> str:
        return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d")

    def rows(**points: str) -> list[dict[str, str]]:
        return [
            {"workload_id": {"one": one, "two": two}.get(name, str(uuid.uuid4())), "points": p}
            for name, p in points.items()
        ]

    assert commit(days_ago(0), rows(one="1"), "today").status >= 400
    assert commit(days_ago(-1), rows(one="1"), "tomorrow").status >= 400
    for turn, bad in enumerate(("1.0000001", "-1", "1e3", "x", "")):
        assert commit(days_ago(2), rows(one=bad), f"bad-{turn}").status >= 400
    whole = commit(days_ago(2), rows(one="1.000001", two="2"), "whole")
    assert (whole.status, whole.json["code"]) == (409, "not_sealed")  # they did not live then
    assert village.web.get(path)["total_points"] == "0"


def test_silence_is_suspect_then_down_then_lost_at_the_published_times(
    village: Village, silent_node: tuple[Node, int, list[dict[str, Any]]]
):
    node, t, seen = silent_node
    within(15 + LATE_MS / 1000, lambda: seen and seen[-1]["state"] == "lost")
    order = ["up", "suspect", "down", "lost"]
    states = [answer["state"] for answer in seen]
    assert states == sorted(states, key=order.index)
    assert states[-1] == "lost"
    first_at = {"suspect": t + TTL_MS, "down": t + 3 * INTERVAL_MS, "lost": t + 10 * INTERVAL_MS}
    for answer in seen:  # never too soon, and not much too late
        as_of, at = unix_ms(answer["as_of"]), order.index(answer["state"])
        assert at == 0 or as_of >= first_at[answer["state"]]
        assert at == 3 or as_of < first_at[order[at + 1]] + LATE_MS
    (down,) = events(village, node)
    assert (down["kind"], unix_ms(down["since"])) == ("node.down", t + TTL_MS)
    assert has_right_id(down)
    assert sorted(down["workloads"]) == sorted(node.workloads)
    assert 0 <= unix_ms(down["at"]) - (t + 3 * INTERVAL_MS) < LATE_MS
    back = node.beat()
    assert node.state() == "up"
    up = within(5, lambda: events(village, node)[1:])
    assert [(event["kind"], unix_ms(event["since"])) for event in up] == [("node.up", back.t_ms)]


def test_every_page_of_events_goes_on_where_the_last_one_ended(village: Village):
    whole = village.web.get(f"/v1/events?project={PROJECT}&limit=1000")["items"]
    assert len(whole) >= 6
    paged: list[Any] = []
    after = ""
    while len(paged) < len(whole):
        page = village.web.get(f"/v1/events?project={PROJECT}&limit=2{after}")
        assert len(page["items"]) <= 2
        paged += page["items"]
        after = f"&after={page['next_cursor']}"
    assert paged[: len(whole)] == whole
    assert [unix_ms(event["at"]) for event in whole] == sorted(unix_ms(event["at"]) for event in whole)


def test_what_was_acknowledged_outlives_a_killed_engine(village: Village):
    node, stopped, double, fresh = (village.opened() for _ in range(4))
    first_of_two = {"key": double.key, "generation": double.generation}
    double.open()
    stopped.beat()
    stopped.beat(flags=np.STOPPING)
    double.beat()
    engines = village.installation.engine_pids()
    frame = node.frame()
    node.send(frame)
    last = node.hear()
    covered_until = last.t_ms + TTL_MS
    killed_ms = village.installation.kill_engine_until(covered_until + 100, engines=engines)
    assert killed_ms < covered_until, "the machine was too busy for this test: try again"
    node.send(frame)
    assert node.hear().code == np.STALE  # the last seq survived
    time.sleep(max(0.0, (last.t_ms + 2 * TTL_MS - now_ms()) / 1000))
    again = node.beat()
    assert again.code == np.OK
    answer = node.uptime(last.t_ms, again.t_ms)
    assert answer["to"] == rfc3339(again.t_ms)
    # Covered when the engine was killed (g0), no longer when another listened (g1), and back within the grace
    # of a minute: what nobody vouched for from g0 to the return is our fault. Were it back while the node was
    # still covered, its absence after that would be its own.
    assert timeline(answer) == [
        ("up", last.t_ms, covered_until),
        ("unobserved", covered_until, again.t_ms),
    ]
    assert stopped.state() == "stopped"
    assert fresh.beat().code == np.OK
    assert double.beat(**first_of_two).code in (np.OK, np.EARLY)
    assert double.beat().code in (np.OK, np.EARLY)
    assert double.say({"workloads": {}}).status == 200
    assert all(event["kind"] != "node.down" for event in events(village, node))


def test_sigterm_stops_in_order_with_exit_code_0(village: Village):
    engines = village.installation.engine_pids()
    code, seconds = village.installation.stop()
    assert code == 0
    assert seconds < 15
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)
