"""What the API tells those who run the installation: shards, outbox, gaps, roots, audit."""

from __future__ import annotations

import msgspec
import pytest
import trio

from engine.core.asks import Told
from engine.core.figures import WAITED_BOUNDS_MS, ShardFigures
from engine.core.records import Gap
from storage.ids import new_id
from storage.open import AllStores
from tests.contract.given import batch
from tests.web.control import Control, system_ms

QUIET = ShardFigures(
    shard=0,
    shards=1,
    at_ms=1,
    started_ms=1,
    rows=3,
    slots=4,
    beats_per_s=12.5,
    beats_total=1_000,
    rejected_total={"mac": 3, "stale": 9},
    rejected_last_min={"stale": 2},
    waited_last_min=[0, 0, 99, *[0] * (len(WAITED_BOUNDS_MS) - 3), 1],
    journal_position=77,
    journal_bytes=4_096,
    journal_failures=0,
    commit_ms_last=1.5,
    commit_ms_max=9.0,
    flush_lag_bytes=10,
    flush_ms_last=3.0,
    flush_failures=0,
    away=[],
    taking=True,
    gaps_open={},
    gaps_total=2,
    unobserved_ms_total=5_000,
    phase="normal",
    phase_since_ms=0,
    suspect=0,
    watched=3,
    actors_quarantined=0,
    actor_crashes=0,
    clock_error_ms=0.1,
    clock_stepped=False,
)


class Teller:
    """The shard's side of asks, over the real Valkey; it tells what it is told to tell."""

    def __init__(self, stores: AllStores) -> None:
        self._stores, self.figures = stores, QUIET

    async def run(self) -> None:
        while True:
            asks = await self._stores.asks.asked(0)
            curious = [ask for ask in asks if ask.figures]
            told = [(ask, Told(ask.number, b"", b"", b"", [], self.figures)) for ask in curious]
            await self._stores.asks.answer(told)


async def dead_letter(control: Control, *, name: str = "ops", target: str = "https://example.org/x") -> str:
    """A message to a webhook of alpha that was given up; the delivery's id."""
    channel_id, delivery_id = new_id(), new_id()
    await control.sql(
        """
        insert into channel (channel_id, project_id, kind, target, name, created_ms)
        values ($1, $2, 'webhook', $3, $4, 1)
        """,
        channel_id,
        control.alpha.project_id,
        target,
        name,
    )
    notice = {"notice_id": delivery_id, "form": "event", "kind": "node.down", "at_ms": 1_000, "since_ms": 1}
    await control.sql(
        """
        insert into notice (notice_id, form, kind, body, created_ms) values ($1, 'event', 'node.down', $2, 1)
        """,
        delivery_id,
        msgspec.json.encode(notice),
    )
    await control.sql(
        """
        insert into delivery (delivery_id, channel_id, notice_id, state, due_ms, created_ms, kind, attempts,
          attempted_ms, settled_ms, note)
        values ($1::text::uuid, $2, $1, 'dead', 1, 1, 'webhook', 8, 3500, 9000, '500 from the receiver')
        """,
        delivery_id,
        channel_id,
    )
    return delivery_id


async def wait_watermark(control: Control) -> None:
    """Until the pretended engine has told something."""
    heads = control.app.backend.heads
    with trio.fail_after(10):
        while (head := heads.head(0)) is None or head.watermark_ms <= 0:  # noqa: ASYNC110 - it must be asked
            await trio.sleep(0.02)


@pytest.fixture
async def teller(control: Control, nursery: trio.Nursery) -> Teller:
    made = Teller(control.stores)
    nursery.start_soon(made.run)
    await wait_watermark(control)
    with trio.fail_after(10):
        while await control.stores.asks.figures(0, timeout_s=0.2) is None:  # noqa: ASYNC110 - it must listen
            await trio.sleep(0.02)
    return made


async def test_a_shard_that_answers_is_told_of_with_its_figures(control: Control, teller: Teller) -> None:
    answer = (await control.ask("GET", "/v1/installation")).json
    assert answer["concerns"] == []
    assert answer["ingest"]["beats_per_s"] == 12.5
    assert list(answer["ingest"]["rejected_total"]) == ["stale", "mac"], "the most frequent first"
    waited = answer["ingest"]["waited"]
    assert 2 <= waited["p50_ms"] <= 5
    assert waited["p999_ms"] == WAITED_BOUNDS_MS[-1], "longer than the last bound is no infinity in JSON"
    assert waited["buckets"][-1] == {"to_ms": None, "beats": 1}
    [shard] = answer["shards"]
    assert shard["figures"]["journal_position"] == "77"
    assert shard["watermark_age_ms"] < 2_000


async def test_what_is_wrong_with_a_shard_is_said_with_what_to_do(control: Control, teller: Teller) -> None:
    teller.figures = msgspec.structs.replace(
        QUIET,
        taking=False,
        gaps_open={"disk_full": 5_000},
        phase="degraded",
        phase_since_ms=6_000,
        suspect=40,
        watched=100,
        away=["PostgreSQL"],
        clock_stepped=True,
        clock_error_ms=3_600_000.0,
        actors_quarantined=1,
        flush_lag_bytes=1 << 30,
    )
    concerns = (await control.ask("GET", "/v1/installation")).json["concerns"]
    told = " ".join(each["what"] for each in concerns)
    for words in ("journal cannot be written", "DEGRADED: 40 of 100", "cannot reach PostgreSQL", "+3600.0 s",
                  "set 1 nodes", "1024 MiB"):  # fmt: skip
        assert words in told
    assert all(each["advice"] for each in concerns)
    severities = [each["severity"] for each in concerns]
    assert severities == sorted(severities), "critical before warning"
    [degraded] = [each for each in concerns if "DEGRADED" in each["what"]]
    assert degraded["since"] == "1970-01-01T00:00:06.000Z"


async def test_a_shard_that_does_not_answer_is_told_of_by_the_view(control: Control) -> None:
    begun = (await control.ask("GET", "/v1/installation")).json
    assert begun["shards"][0]["watermark"] is None or begun["shards"][0]["watermark_age_ms"] < 2_000
    await wait_watermark(control)
    answer = (await control.ask("GET", "/v1/installation")).json
    assert answer["shards"][0]["figures"] is None
    assert answer["shards"][0]["rows"] == 1
    assert answer["ingest"]["waited"]["p50_ms"] is None
    assert [each["what"] for each in answer["concerns"]] == ["Shard 0 does not answer"]


async def test_gaps_are_listed_page_by_page_each_once(control: Control) -> None:
    gaps = [Gap(0, 1_000 * n, 1_000 * n + 10 * (n % 3 + 1), cause, 1)
            for n in range(1, 8) for cause in ("stall", "drops")]  # fmt: skip
    await control.stores.history.flush(
        msgspec.structs.replace(batch(position=10**6, watermark_ms=system_ms()), gaps=gaps)
    )
    found, path = [], "/v1/installation/gaps?limit=3"
    while path:
        answer = await control.ask("GET", path)
        assert answer.status == 200, answer.json
        found += answer.json["items"]
        after = answer.json["next_cursor"]
        path = f"/v1/installation/gaps?limit=3&after={after}" if after else ""
    assert sorted((each["from"], each["cause"]) for each in found) == sorted(
        (f"1970-01-01T00:00:0{n}.000Z", cause) for n in range(1, 8) for cause in ("stall", "drops")
    )
    assert [each["to"] for each in found] == sorted((each["to"] for each in found), reverse=True)
    for bad in ("x", "1.2.3", "1.2.3.4.A;", "9" * 40 + ".1.1.1.stall", "1.1.9999999999.1.stall"):
        assert (await control.ask("GET", f"/v1/installation/gaps?after={bad}")).status == 400, bad


async def test_a_dead_letter_is_found_and_sent_again_by_an_admin(control: Control) -> None:
    delivery_id = await dead_letter(control)
    outbox = (await control.ask("GET", "/v1/installation/outbox")).json
    assert outbox["items"] == [
        {"kind": "webhook", "due": 0, "later": 0, "dead": 1, "oldest_due_at": None, "oldest_due_ms": None}
    ]
    assert outbox["lag_p50_s"] == 2.5
    assert sum(bucket["notices"] for bucket in outbox["lag"]) == 1
    [letter] = (await control.ask("GET", "/v1/installation/dead-letters")).json["items"]
    assert (letter["owner"], letter["note"], letter["replayable"]) == ("alpha", "500 from the receiver", True)
    again = f"/v1/installation/dead-letters/{delivery_id}/replay"
    assert (await control.ask("POST", again)).json == {"replayed": 1}
    assert (await control.ask("POST", again)).status == 404
    [line] = (await control.ask("GET", "/v1/installation/outbox")).json["items"]
    assert (line["due"], line["dead"]) == (1, 0)
    [entry] = (await control.ask("GET", "/v1/audit?action=channel.replay")).json["items"]
    assert entry["actor"] == f"key:{control.key_ids['admin']}"


async def test_dead_letters_of_a_removed_channel_stay_dead(control: Control) -> None:
    delivery_id = await dead_letter(control)
    await control.sql("update channel set removed_ms = 1")
    [letter] = (await control.ask("GET", "/v1/installation/dead-letters")).json["items"]
    assert not letter["replayable"]
    refused = await control.ask("POST", f"/v1/installation/dead-letters/{delivery_id}/replay?channel=true")
    assert (refused.status, refused.json["code"]) == (409, "channel_disabled")


async def test_roots_on_their_way_are_listed_by_seal_and_target(control: Control) -> None:
    await control.sql(
        """
        insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots,
          sealed_ms, node_blocks)
        select n, $1, '2026-01-31', n, 0, 0, 0, $2, $3, 1, '' from generate_series(1, 3) n
        """,
        control.alpha.project_id,
        bytes(32),
        bytes(24 * 32),
    )
    await control.sql(
        """
        insert into root_publication (seal_no, target, state, due_ms, changed_ms)
        select n, t, case when n = 3 then 'due' else 'done' end, 5, 5
        from generate_series(1, 3) n, unnest('{file,s3}'::text[]) t
        """
    )
    found, path = [], "/v1/installation/publications?limit=4"
    while path:
        answer = (await control.ask("GET", path)).json
        found += [(each["revision"], each["target"]) for each in answer["items"]]
        after = answer["next_cursor"]
        path = f"/v1/installation/publications?limit=4&after={after}" if after else ""
    assert found == [(3, "file"), (3, "s3"), (2, "file"), (2, "s3"), (1, "file"), (1, "s3")]
    due = (await control.ask("GET", "/v1/installation/publications?due=true")).json["items"]
    assert [each["target"] for each in due] == ["file", "s3"]
    assert (await control.ask("GET", "/v1/installation/publications?after=3.ftp")).status == 400


async def test_the_audit_log_is_filtered_by_who_what_and_whom(control: Control) -> None:
    for name in ("one", "two"):
        await control.ask("PATCH", "/v1/projects/alpha", by="owner", json={"name": name})
    await control.ask("PATCH", "/v1/projects/beta", by="admin", json={"name": "three"})
    by_owner = (await control.ask("GET", f"/v1/audit?actor=key:{control.key_ids['owner']}")).json["items"]
    assert [each["detail"]["name"] for each in by_owner] == ["two", "one"]
    of_beta = await control.ask("GET", f"/v1/audit?subject={control.beta.project_id}&action=project.change")
    assert [each["detail"]["name"] for each in of_beta.json["items"]] == ["three"]
    assert (await control.ask("GET", "/v1/audit?action=nothing.such")).json["items"] == []
    foreign = await control.ask("GET", f"/v1/audit?subject={control.beta.project_id}", by="owner")
    assert foreign.json["items"] == [], "of their own project alone"
    assert (await control.ask("GET", "/v1/audit?actor=%00")).status == 400


async def test_the_chain_of_the_audit_log_is_checked_part_by_part(control: Control) -> None:
    for number in range(7):
        await control.ask("PATCH", "/v1/projects/alpha", by="owner", json={"name": f"{number}"})
    first = (await control.ask("GET", "/v1/audit/chain?limit=3")).json
    assert (first["upto"], first["broken"], first["more"]) == (3, None, True)
    rest = (await control.ask("GET", f"/v1/audit/chain?after={first['upto']}")).json
    assert (rest["upto"], rest["broken"], rest["more"]) == (7, None, False)
    await control.sql("alter table audit disable trigger all")
    await control.sql("update audit set action = 'project.create' where seq = 5")
    assert (await control.ask("GET", "/v1/audit/chain")).json["broken"] == 5
    await control.sql("delete from audit where seq = 3")
    assert (await control.ask("GET", "/v1/audit/chain")).json["broken"] == 4
    assert (await control.ask("GET", "/v1/audit/chain?after=3")).json["broken"] == 3
