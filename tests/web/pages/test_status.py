"""The public status page: only where the owner wants it, the same for everybody, honest about ourselves."""

from __future__ import annotations

import msgspec
import trio

from engine.core.ports import StoreUnavailableError
from engine.core.records import Gap
from engine.core.status import incidents_of
from storage.ids import new_id
from tests.contract.given import batch
from tests.sealing import make_day, seal_days, yesterday_ms
from tests.web.control import Control, system_ms
from tests.web.pages.browsing import Browser
from tests.web.test_installation import wait_watermark

NASTY = '"><script>alert(1)</script>'
MINUTE_MS = 60_000


async def make_public(control: Control, *, name: str = "Alpha") -> None:
    changed = await control.ask(
        "PATCH", "/v1/projects/alpha", by="paul", json={"name": name, "public_status": True}
    )
    assert changed.status == 200, changed.json
    assert changed.json["public_status"] is True
    await wait_watermark(control)


async def test_a_project_is_private_until_its_owner_wants_otherwise(control: Control) -> None:
    nobody = Browser(control, None)
    private, unknown = await nobody.look("/status/alpha"), await nobody.look("/status/no-such")
    assert private.status == unknown.status == 404
    assert private.words == unknown.words, "what is private looks as if it were not there"
    assert (await control.ask("GET", "/v1/status/alpha", by="owner")).status == 404
    for by in ("olga", "foreign"):
        change = await control.ask("PATCH", "/v1/projects/alpha", by=by, json={"public_status": True})
        assert change.status in (403, 404)
    paul = Browser(control, "paul")
    assert "private" in (await paul.look("/projects/alpha/status")).words
    done = await paul.fill("/projects/alpha/status", "/projects/alpha/status")
    assert done.headers["location"] == "/projects/alpha/status?told=public"
    assert "/badges/projects/alpha.svg" in (await paul.look("/projects/alpha/status")).text
    control.app.backend.statuses._entries.clear()  # what was kept of it is older than half a minute
    assert (await nobody.look("/status/alpha")).status == 200
    [entry] = (await control.ask("GET", "/v1/audit?action=project.change")).json["items"]
    assert entry["detail"] == {"public_status": True}
    assert (await Browser(control, "olga").look("/projects/alpha/status")).status == 403
    assert (await paul.fill("/projects/alpha/status", "/projects/alpha/status")).status == 303
    control.app.backend.statuses._entries.clear()
    assert (await nobody.look("/status/alpha")).status == 404


async def test_the_page_is_the_same_for_everybody_and_names_nobody(control: Control) -> None:
    await make_public(control, name=NASTY)
    nobody, olga = (
        await Browser(control, None).look("/status/alpha"),
        await Browser(control).look("/status/alpha"),
    )
    assert nobody.text == olga.text
    assert nobody.headers["cache-control"] == "public, max-age=15"
    assert "script-src 'self'" in nobody.headers["content-security-policy"]
    assert NASTY not in nobody.text
    assert "alert(1)" in nobody.words
    for secret in ("olga", "paul", "mine", control.node.node_id, control.alpha.project_id):
        assert secret not in nobody.text
    again = await Browser(control, None).look("/status/alpha", **{"if-none-match": nobody.headers["etag"]})
    assert (again.status, again.text) == (304, "")


async def test_it_tells_days_faults_and_maintenance(control: Control) -> None:
    made = await make_day(control.stores, control.alpha.project_id, nodes=1, day_ms=yesterday_ms())
    await control.stores.lease_settling.settle(shards=1, now_ms=system_ms())
    await seal_days(control.stores)
    now_ms = system_ms()
    gaps = [
        Gap(0, now_ms - 3_600_000, now_ms - 3_540_000, "disk_full", 1),
        Gap(0, now_ms - 3_530_000, now_ms - 3_500_000, "crash", 1),
        Gap(0, now_ms - 1_000_000, now_ms - 998_000, "stall", 1),
    ]
    await control.stores.history.flush(
        msgspec.structs.replace(batch(position=10**6, watermark_ms=now_ms), gaps=gaps)
    )
    for own, minutes in ((False, 30), (True, 45)):
        await control.sql(
            "insert into maintenance_window (window_id, node_id, from_ms, to_ms, own, created_ms)"
            " values ($1, $2, $3, $4, $5, 1)",
            new_id(),
            made.nodes[0].node_id,
            now_ms - MINUTE_MS,
            now_ms + minutes * MINUTE_MS,
            own,
        )
    await make_public(control)
    told = (await control.ask("GET", "/v1/status/alpha", by=None)).json
    assert [day["day"] for day in told["days"]] == [made.day]
    assert 0 < told["days"][0]["ratio"] <= 1
    assert (told["gaps"], told["gaps_ms"]) == (3, 92_000)
    assert [incident["causes"] for incident in told["incidents"]] == [["disk_full", "crash"]]
    assert [work["nodes"] for work in told["maintenance"]] == [1], "an operator's own is theirs alone"
    assert told["observing"]
    words = (await Browser(control, None).look("/status/alpha")).words
    assert "1 sealed day " in words
    assert "the journal could not be written; the engine was killed or crashed" in words
    assert "3 such times, short ones as well, 1 min 32 s together" in words
    assert "1 node now" in words


async def test_while_we_do_not_listen_it_says_so_and_claims_nothing(control: Control) -> None:
    await make_public(control)
    heads = control.app.backend.heads
    shard = heads._shards[0]
    assert shard.head is not None
    stuck = msgspec.structs.replace(shard.head, provisional_from_ms=system_ms() - MINUTE_MS, degraded=True)
    shard.take = lambda _head, _ms: None  # type: ignore[method-assign]
    shard.head = stuck
    told = (await control.ask("GET", "/v1/status/alpha", by=None)).json
    assert (told["state"], told["observing"], told["doubting"]) == ("unknown", False, True)
    assert told["incidents"][0]["to"] is None
    words = (await Browser(control, None).look("/status/alpha")).words
    assert "We do not listen to all of it now" in words
    assert "The network is up" not in words
    assert "lasts" in words


async def test_with_the_database_away_what_was_kept_goes_on(control: Control) -> None:
    await make_public(control)
    first = await Browser(control, None).look("/status/alpha")
    backend = control.app.backend

    async def away(*_args: object, **_named: object) -> None:
        raise StoreUnavailableError("PostgreSQL does not answer")

    for entry in backend.statuses._entries.values():
        entry.until = trio.current_time() - 1
    backend.directory.project = away  # type: ignore[method-assign, assignment]
    still = await Browser(control, None).look("/status/alpha")
    assert (still.status, still.text) == (200, first.text)
    other = await Browser(control, None).look("/status/beta")
    assert other.status == 503


def test_gaps_that_nearly_touch_are_one_incident_whatever_their_shards() -> None:
    gaps = [
        Gap(1, 1_000, 2_000, "crash", 2),
        Gap(0, 1_500, 9_000, "restart", 2),
        Gap(0, 69_000, 70_000, "stall", 2),
    ]
    [incident] = incidents_of(gaps)
    assert (incident.from_ms, incident.to_ms, incident.causes) == (
        1_000,
        70_000,
        ("crash", "restart", "stall"),
    )
    assert len(incidents_of([*gaps, Gap(0, 130_001, 130_002, "stall", 2)])) == 2
