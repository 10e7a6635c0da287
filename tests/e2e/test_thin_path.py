"""The thin path of the issue, whole: from a signed session and a beat to a verdict, a notice and points.

One node with two workloads lives through it, in the order of the tests; each test says one sentence of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email import message_from_bytes
from types import SimpleNamespace
from typing import Any

import pytest
from standardwebhooks import Webhook

from engine.core.records import event_id
from np1.codec import FLAG_STOPPING, Code, State
from tests.e2e.api import now_ms, unix_ms
from tests.e2e.node import Node
from tests.e2e.receiver import Receiver, receiving
from tests.e2e.sealed_rows import seal_workloads
from tests.e2e.system import System, eventually
from tests.worker.receivers import Mailbox

SLUG = "thin-path"
INTERVAL_MS = 1_000
TTL_MS = 1_500
DOWN_S = 3 * INTERVAL_MS / 1000 + 5  # three intervals, and patience for a busy machine
NOTICE_S = 15.0
ADDRESS = "thin-path@example.org"


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def story(system: System, hook: Receiver) -> Iterator[SimpleNamespace]:
    """The project, its channels, its node, and what the tests find out on the way."""
    made = system.admin(
        *("provision", "--project", SLUG, "--nodes", "1", "--workloads", "2"),
        *("--interval-ms", str(INTERVAL_MS)),
    )
    channel = system.admin("channel", "add", "webhook", hook.url, "--project", SLUG)
    system.admin("channel", "add", "mail", ADDRESS, "--project", SLUG)
    api = system.api_for(made["api_key"])
    with Node(system.api, made["nodes"][0]) as node:
        yield SimpleNamespace(api=api, node=node, secret=channel["secret"])


def letters(mailbox: Mailbox) -> list[Any]:
    """What came for this story; other tests' letters come to the same mailbox."""
    return [one for one in mailbox.envelopes if one.rcpt_tos == [ADDRESS]]


def events_of(story: SimpleNamespace, *kinds: str) -> list[dict[str, Any]]:
    return [one for one in story.api.events(SLUG) if not kinds or one["kind"] in kinds]


def test_before_its_first_beat_a_node_and_its_workloads_are_new(story):
    assert story.api.node_state(story.node.node_id) == "new"
    assert [story.api.workload_state(each) for each in story.node.workloads] == ["new", "new"]


def test_a_session_names_row_key_slots_and_where_to_beat(story, system):
    grant = story.node.grant
    assert [workload for _, workload in sorted(grant.slots)] == story.node.workloads
    assert (grant.interval_ms, grant.ttl_ms) == (INTERVAL_MS, TTL_MS)
    assert grant.udp == f"127.0.0.1:{system.beats[1]}"
    assert grant.http == system.beats_url


def test_a_beat_is_acknowledged_and_the_very_next_read_knows_it(story):
    ack = story.node.beat({0: State.HEALTHY, 1: State.UPDATING})
    assert ack.code is Code.OK
    assert ack.ttl_ms == TTL_MS
    assert abs(ack.server_ms - now_ms()) < 1_000
    up = story.api.uptime(story.node.workloads[0]).of("up")
    updating = story.api.uptime(story.node.workloads[1]).of("updating")
    assert [start for start, _ in up] == [start for start, _ in updating] == [ack.server_ms]


def test_while_it_beats_it_is_up(story):
    for _ in range(4):
        ack = story.node.beat()
        assert ack.code in (Code.OK, Code.EARLY)
        assert story.api.node_state(story.node.node_id) == "up"
        assert [story.api.workload_state(each) for each in story.node.workloads] == ["up", "up"]
        time.sleep(0.4)
    story.last = story.node.beat()


def test_silent_it_is_suspect_then_down_and_its_workloads_are_silent(story):
    states = [story.api.node_state(story.node.node_id)]

    def is_down() -> bool:
        states.append(story.api.node_state(story.node.node_id))
        return states[-1] == "down"

    eventually(is_down, within_s=DOWN_S, why=lambda: states)
    assert now_ms() >= story.last.server_ms + 3 * INTERVAL_MS
    assert [state for state in states if state not in ("up", "suspect", "down")] == []
    assert "suspect" in states
    assert [story.api.workload_state(each) for each in story.node.workloads] == ["silent", "silent"]


def test_its_silence_is_one_event_that_names_its_workloads(story):
    (down,) = eventually(lambda: events_of(story, "node.down"), within_s=5)
    since_ms = story.last.server_ms + TTL_MS
    assert unix_ms(down["since"]) == since_ms
    assert down["node_id"] == story.node.node_id
    assert sorted(down["workloads"]) == sorted(story.node.workloads)
    assert down["event_id"] == event_id("node.down", story.node.node_id, since_ms)
    lag_ms = unix_ms(down["at"]) - (story.last.server_ms + 3 * INTERVAL_MS)
    assert 0 <= lag_ms < 1_000
    assert events_of(story, "workload.down") == []


def test_the_event_reaches_a_webhook_once_and_signed(story, hook):
    (down,) = events_of(story, "node.down")
    eventually(lambda: hook.delivered, within_s=NOTICE_S)
    (delivered,) = hook.delivered
    told = Webhook(story.secret).verify(delivered.body, delivered.headers)
    assert delivered.headers["webhook-id"] == down["event_id"]
    assert delivered.headers["content-type"] == "application/json"
    assert told["type"] == "node.down"
    assert told["data"]["node_id"] == story.node.node_id
    with pytest.raises(Exception, match="signature"):
        Webhook(story.secret).verify(delivered.body + b" ", delivered.headers)


def test_the_event_reaches_a_mailbox_once(story, mailbox: Mailbox):
    eventually(lambda: letters(mailbox), within_s=NOTICE_S)
    (envelope,) = letters(mailbox)
    message = message_from_bytes(envelope.content)
    assert story.node.node_id in message["subject"]
    (plain,) = [part for part in message.walk() if part.get_content_type() == "text/plain"]
    text = plain.get_payload(decode=True).decode()
    assert all(workload in text for workload in story.node.workloads)


def test_its_next_beat_is_one_event_and_one_notice_each(story, hook, mailbox):
    story.back = story.node.beat()
    (up,) = eventually(lambda: events_of(story, "node.up"), within_s=5)
    assert unix_ms(up["since"]) == story.back.server_ms
    eventually(lambda: len(hook.delivered) == 2 and len(letters(mailbox)) == 2, within_s=NOTICE_S)
    assert [Webhook(story.secret).verify(one.body, one.headers)["type"] for one in hook.delivered] == [
        "node.down",
        "node.up",
    ]


def test_a_planned_stop_is_an_event_without_a_notice(story, hook, mailbox):
    ack = story.node.beat({}, flags=FLAG_STOPPING)
    assert ack.code in (Code.OK, Code.EARLY)
    assert ack.ttl_ms == 0
    story.stopped = ack
    (stopped,) = eventually(lambda: events_of(story, "node.stopped"), within_s=5)
    assert unix_ms(stopped["since"]) == ack.server_ms
    assert story.api.node_state(story.node.node_id) == "stopped"
    assert len(hook.delivered) == len(letters(mailbox)) == 2


def test_every_millisecond_of_its_life_has_a_kind_and_they_sum_to_the_window(story):
    for workload in story.node.workloads:
        answer = story.api.uptime(workload)
        answer.check_sum()
        assert answer.ms["silent"] > 0
        assert answer.of("stopped") == [(story.stopped.server_ms, answer.to_ms)]
        assert (story.last.server_ms + TTL_MS, story.back.server_ms) in answer.of("silent")
        part = story.api.uptime(workload, story.last.server_ms, story.last.server_ms + 2_000)
        part.check_sum()
        assert part.ms["up"] == TTL_MS
        assert part.ms["silent"] == 2_000 - TTL_MS


def test_what_acks_vouched_for_is_exactly_what_is_up(story):
    first, *_ = story.node.acks
    answer = story.api.uptime(story.node.workloads[0])
    assert answer.of("up") == [
        (first.server_ms, story.last.server_ms + TTL_MS),
        (story.back.server_ms, story.stopped.server_ms),
    ]


def test_the_owner_commits_points_for_a_sealed_day_all_or_nothing(story, system):
    yesterday, today = (f"{datetime.now(UTC) - timedelta(days=back):%Y-%m-%d}" for back in (1, 0))
    path, first, second = f"/v1/projects/{SLUG}/points", *story.node.workloads
    rows = [{"workload_id": first, "points": "1.5"}, {"workload_id": second, "points": "0.000001"}]
    body = {"day": yesterday, "rows": rows}
    once = {"idempotency-key": "day-1"}

    assert story.api.post(path, {**body, "day": today}, headers=once).json["code"] == "day_not_over"
    assert story.api.post(path, body, headers=once).json["code"] == "not_sealed"
    seal_workloads(system.config["database"]["url"], SLUG, yesterday, [first, second])
    wrong = [*rows, {"workload_id": story.node.node_id, "points": "1"}]
    assert story.api.post(path, {**body, "rows": wrong}, headers=once).status == 422
    assert story.api.get(path)["total_points"] == "0"

    committed = story.api.post(path, body, headers=once)
    assert committed.status == 201, committed
    assert committed.json["rows"] == 2
    assert committed.json["total_points"] == "1.500001"
    assert story.api.post(path, body, headers=once).json == committed.json
    assert story.api.post(path, {**body, "rows": rows[:1]}, headers=once).status == 422
    again = story.api.post(path, body, headers={"idempotency-key": "day-1-again"})
    assert (again.status, again.json["code"]) == (409, "already_committed")

    totals = story.api.get(path, day=yesterday)
    assert totals["total_points"] == "1.500001"
    assert sum(Decimal(one["points"]) for one in totals["items"]) == Decimal("1.500001")


def test_another_projects_key_sees_nothing_of_it(story, system):
    other = system.provision("thin-path-other")
    stranger = system.api_for(other["api_key"])
    for path in (
        f"/v1/nodes/{story.node.node_id}",
        f"/v1/workloads/{story.node.workloads[0]}",
        f"/v1/workloads/{story.node.workloads[0]}/uptime",
        f"/v1/projects/{SLUG}/points",
        f"/v1/events?project={SLUG}",
    ):
        assert stranger.request("GET", path).status == 404, path
        assert system.api.request("GET", path).status == 401, path
