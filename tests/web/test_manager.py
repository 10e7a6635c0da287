"""What a manager asks and reports, ordered restarts, and the windows that excuse them, over real stores."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.orders import ORDER_MS
from tests.web.control import Answered, Control
from web.main import system_ms

KINDS = "/v1/projects/alpha/kinds"
VERSIONS = f"{KINDS}/gateway/versions"
INTERVAL_MS = 60_000  # of the fixture's node


class Gateway:
    """Kind `gateway` in alpha, run by the two workloads of olga's node, both heard of."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.node_id = control.node.node_id
        self.first, self.second = control.node.workload_ids

    async def fill(self) -> None:
        control = self.control
        made = await control.ask("POST", KINDS, by="owner", json={"slug": "gateway"})
        await control.sql(
            "update workload set kind_id = $1, first_report_ms = created_ms where node_id = $2",
            made.json["kind_id"],
            self.node_id,
        )

    async def offer(self, version: str, percent: int = 100, manifest: str = "{}") -> None:
        body = {"version": version, "manifest": manifest, "rollout_percent": percent}
        made = await self.control.ask("POST", VERSIONS, by="owner", json=body)
        assert made.status == 201, made.json

    async def change(self, version: str, **change: Any) -> None:
        changed = await self.control.ask("PATCH", f"{VERSIONS}/{version}", by="owner", json=change)
        assert changed.status == 200, changed.json

    async def minimum(self, version: str | None) -> None:
        body = {"minimum_version": version}
        assert (await self.control.ask("PATCH", f"{KINDS}/gateway", by="owner", json=body)).status == 200

    async def desired(self, **headers: str) -> Answered:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.control.ask("GET", "/v1/manager/desired", by="manager", headers=named)

    async def report(self, workload_id: str, **report: Any) -> Answered:
        path = f"/v1/manager/workloads/{workload_id}/version"
        return await self.control.ask("PUT", path, by="manager", json=report)

    async def restart(self, workload_id: str, key: str = "") -> Answered:
        return await self.control.ask("POST", f"/v1/workloads/{workload_id}/restart", by="owner", key=key)

    async def roll_out(self) -> int:
        """Let the worker do all that waits; how many flags it turned."""
        turned = 0
        while worked := await self.control.stores.rollouts.work(nodes=100, now_ms=system_ms()):
            turned += worked.changed
        return turned

    async def resync(self) -> bool:
        """What the engine is told of the node."""
        _, specs = await self.control.stores.registry.changes(0, shard=0, shards=1)
        (spec,) = [spec for spec in specs if spec.node_id == self.node_id]
        return spec.resync

    async def windows(self, workload_id: str) -> list[tuple[int, int]]:
        found = await self.control.stores.history.windows(workload_id, 0, 1 << 60)
        assert not any(window.own or window.workload_id is None for window in found)
        return [(window.from_ms, window.to_ms) for window in found]

    async def events(self) -> list[tuple[str, str | None]]:
        found = await self.control.stores.history.events(project_id=None, after=0, limit=100)
        return [(event.kind, event.workload_id) for _, event in found]


@pytest.fixture
async def gateway(control: Control) -> Gateway:
    made = Gateway(control)
    await made.fill()
    return made


# -- the desired state ------------------------------------------------------------------------------------


async def test_a_manager_is_told_what_its_node_should_run(gateway: Gateway):
    await gateway.offer("1.0.0", manifest='{"image": "a"}')
    answer = await gateway.desired()
    assert answer.status == 200
    assert answer.json["node_id"] == gateway.node_id
    assert answer.json["interval_ms"] == INTERVAL_MS
    first, second = answer.json["workloads"]
    assert (first["slot"], first["name"], second["workload_id"]) == (0, "w0", gateway.second)
    assert (first["kind"], first["version"], first["running_version"]) == ("gateway", "1.0.0", None)
    manifest = await gateway.control.ask("GET", first["manifest_url"], by="manager")
    assert manifest.body == b'{"image": "a"}'
    assert manifest.headers["etag"] == f'"{first["digest"]}"'
    known = {"if-none-match": manifest.headers["etag"]}
    again = await gateway.control.ask("GET", first["manifest_url"], by="manager", headers=known)
    assert (again.status, again.body) == (304, b"")


async def test_a_workload_without_a_kind_or_a_version_is_left_alone(gateway: Gateway):
    await gateway.control.sql("update workload set kind_id = null where workload_id = $1", gateway.second)
    workloads = (await gateway.desired()).json["workloads"]
    assert [(one["kind"], one["version"], one["manifest_url"]) for one in workloads] == [
        ("gateway", None, None),
        (None, None, None),
    ]
    for workload_id in (gateway.first, gateway.second):
        path = f"/v1/manager/manifests/{workload_id}"
        assert (await gateway.control.ask("GET", path, by="manager")).status == 404


async def test_the_desired_state_is_polled_by_its_etag(gateway: Gateway):
    await gateway.offer("1.0.0")
    first = await gateway.desired()
    etag = first.headers["etag"]
    assert (await gateway.desired(if_none_match=etag)).status == 304
    await gateway.report(gateway.first, version="1.0.0")
    assert (await gateway.desired(if_none_match=etag)).status == 304  # nothing else is asked for
    await gateway.offer("2.0.0")
    changed = await gateway.desired(if_none_match=etag)
    assert changed.status == 200
    assert {one["version"] for one in changed.json["workloads"]} == {"2.0.0"}
    assert changed.headers["etag"] != etag


async def test_a_manager_sees_its_own_node_only(gateway: Gateway):
    control = gateway.control
    (foreign,) = control.foreign_node.workload_ids
    assert (await control.ask("GET", f"/v1/manager/manifests/{foreign}", by="manager")).status == 404
    for other in (foreign, "0192f3a4-5b6c-7d8e-9f01-23456789abcd", "nothing"):
        assert (await gateway.report(other, restarts=1)).status == 404
    for by in ("admin", "owner", "olga"):
        assert (await control.ask("GET", "/v1/manager/desired", by=by)).status == 403
    assert (await control.ask("GET", "/v1/manager/desired", by=None)).status == 401


# -- RESYNC -----------------------------------------------------------------------------------------------


async def test_a_change_is_told_until_it_is_fetched(gateway: Gateway):
    await gateway.desired()
    assert await gateway.resync() is False
    await gateway.offer("1.0.0")
    assert await gateway.roll_out() == 1
    assert await gateway.resync() is True
    await gateway.desired()
    assert await gateway.resync() is False
    assert await gateway.roll_out() == 0


async def test_what_makes_no_difference_to_a_node_is_not_told(gateway: Gateway):
    await gateway.offer("2.0.0")
    await gateway.roll_out()
    await gateway.desired()
    await gateway.offer("1.0.0")
    await gateway.change("1.0.0", withdrawn=True)
    assert await gateway.roll_out() == 0
    assert await gateway.resync() is False


async def test_a_change_that_was_taken_back_before_it_was_fetched_is_no_longer_told(gateway: Gateway):
    await gateway.desired()
    await gateway.offer("1.0.0")
    await gateway.roll_out()
    await gateway.change("1.0.0", rollout_percent=0)
    assert await gateway.roll_out() == 1
    assert await gateway.resync() is False


async def test_who_never_fetched_is_told_of_what_changes_for_him_and_of_nothing_else(gateway: Gateway):
    await gateway.offer("1.0.0", 0)
    assert await gateway.roll_out() == 0  # nobody is offered it
    assert await gateway.resync() is False
    await gateway.offer("1.1.0")
    assert await gateway.roll_out() == 1
    await gateway.control.open_session(gateway.node_id)  # no remedy: that is to fetch it
    assert await gateway.resync() is True
    await gateway.desired()
    assert await gateway.resync() is False


async def test_the_minimum_is_told_as_well(gateway: Gateway):
    await gateway.offer("1.0.0")
    await gateway.offer("2.0.0", 0)
    await gateway.roll_out()
    assert {one["version"] for one in (await gateway.desired()).json["workloads"]} == {"1.0.0"}
    await gateway.minimum("2.0.0")
    assert await gateway.roll_out() == 1
    assert {one["version"] for one in (await gateway.desired()).json["workloads"]} == {"2.0.0"}


# -- orders and their windows -----------------------------------------------------------------------------


async def test_an_ordered_update_opens_one_window_which_ends_an_interval_after_it_is_done(gateway: Gateway):
    await gateway.offer("1.0.0")
    before = system_ms()
    await gateway.desired()
    ((from_ms, to_ms),) = await gateway.windows(gateway.first)
    assert before <= from_ms <= system_ms()
    assert to_ms == from_ms + ORDER_MS
    await gateway.desired()
    assert await gateway.windows(gateway.first) == [(from_ms, to_ms)]
    done = await gateway.report(gateway.first, version="1.0.0")
    assert (done.status, done.json["running_version"], done.json["version"]) == (200, "1.0.0", "1.0.0")
    ((again_from_ms, ended_ms),) = await gateway.windows(gateway.first)
    assert again_from_ms == from_ms
    assert INTERVAL_MS <= ended_ms - from_ms <= system_ms() - before + INTERVAL_MS
    assert await gateway.windows(gateway.second) == [(from_ms, to_ms)]  # not done yet
    _, specs = await gateway.control.stores.registry.changes(0, shard=0, shards=1)
    told = [w.to_ms for spec in specs for w in spec.windows if w.workload_id == gateway.first]
    assert told == [ended_ms]


async def test_a_workload_that_was_never_heard_of_needs_no_window(gateway: Gateway):
    await gateway.control.sql(
        "update workload set first_report_ms = null where workload_id = $1", gateway.first
    )
    await gateway.offer("1.0.0")
    await gateway.desired()
    assert await gateway.windows(gateway.first) == []
    assert len(await gateway.windows(gateway.second)) == 1


async def test_going_to_and_fro_between_versions_opens_no_second_window(gateway: Gateway):
    await gateway.offer("1.0.0")
    await gateway.offer("2.0.0")
    for running in ("1.0.0", "2.0.0", "1.0.0"):
        await gateway.report(gateway.first, version=running)
        await gateway.desired()
    assert len(await gateway.windows(gateway.first)) == 1


async def test_a_restart_is_ordered_once_per_request_told_and_excused(gateway: Gateway):
    await gateway.desired()
    ordered = await gateway.restart(gateway.first, key="k")
    assert (ordered.status, ordered.json["restarts"]) == (202, 1)
    assert (await gateway.restart(gateway.first, key="k")).json["restarts"] == 1
    assert await gateway.resync() is True
    assert await gateway.windows(gateway.first) == []  # it begins when the manager hears of it
    workloads = (await gateway.desired()).json["workloads"]
    assert [one["restarts"] for one in workloads] == [1, 0]
    assert len(await gateway.windows(gateway.first)) == 1
    assert await gateway.windows(gateway.second) == []
    await gateway.report(gateway.first, restarts=1)
    await gateway.desired()
    ((from_ms, to_ms),) = await gateway.windows(gateway.first)
    assert to_ms - from_ms < ORDER_MS
    assert (await gateway.restart(gateway.first)).json["restarts"] == 2
    await gateway.desired()
    assert len(await gateway.windows(gateway.first)) == 2
    audited = await gateway.control.sql("select detail from audit where action = 'workload.restart'")
    assert [one["detail"] for one in audited] == ['{"restarts":1}', '{"restarts":2}']


async def test_a_restart_that_ran_into_a_crash_of_ours_is_not_ordered_twice(gateway: Gateway):
    await gateway.restart(gateway.first, key="k")
    # As if the process had died between the commit and writing the answer down, and the lease ran out.
    await gateway.control.sql("update idempotency set status = null, answer = null, lease_ms = 0")
    assert (await gateway.restart(gateway.first, key="k")).json["restarts"] == 1


async def test_a_manager_that_reports_one_version_and_the_other_in_turn_is_told_of_once_an_hour(
    gateway: Gateway,
):
    """Or one machine could fill a project's history, and the mailboxes of those who hear of its events."""
    for version in ("1.0.0", "2.0.0"):
        await gateway.offer(version)
    await gateway.minimum("2.0.0")
    for _ in range(5):
        assert (await gateway.report(gateway.first, version="1.0.0")).json["below_minimum"]
        assert not (await gateway.report(gateway.first, version="2.0.0")).json["below_minimum"]
    told = len(await gateway.events())
    assert 1 <= told <= 2  # the hour may turn meanwhile
    await gateway.control.sql("update event set event_id = cursor::text")  # as if it were of an hour ago
    await gateway.report(gateway.first, version="1.0.0")
    assert len(await gateway.events()) == told + 1


async def test_a_report_to_a_process_whose_clock_is_behind_still_ends_the_window(gateway: Gateway):
    await gateway.offer("1.0.0")
    await gateway.desired()
    # As if it had been opened by another web process, whose clock is ahead of ours.
    ahead = "update maintenance_window set from_ms = from_ms + 120000, to_ms = to_ms + 120000"
    await gateway.control.sql(ahead)
    assert (await gateway.report(gateway.first, version="1.0.0")).status == 200
    ((from_ms, to_ms),) = await gateway.windows(gateway.first)
    assert to_ms == from_ms + 1


async def test_who_may_order_a_restart(gateway: Gateway):
    path = f"/v1/workloads/{gateway.first}/restart"
    for by, status in (("foreign", 404), ("sam", 403), ("olga", 403), ("manager", 403), ("paul", 202)):
        assert (await gateway.control.ask("POST", path, by=by)).status == status


async def test_what_is_retired_or_has_no_manager_is_not_restarted(gateway: Gateway):
    control = gateway.control
    await control.sql("update workload set retired_ms = created_ms where workload_id = $1", gateway.second)
    assert (await gateway.restart(gateway.second)).status == 409
    await control.sql("update node set kind = 'check' where node_id = $1", gateway.node_id)
    assert (await gateway.restart(gateway.first)).status == 409


async def test_when_a_days_maintenance_is_used_up_the_order_stands_without_a_window(gateway: Gateway):
    now_ms = system_ms()
    day_ms = now_ms // 86_400_000 * 86_400_000
    for start_ms in (day_ms, day_ms + 86_400_000):  # this day's hour and, should midnight pass, the next's
        await gateway.control.sql(
            """
            insert into maintenance_window (window_id, node_id, from_ms, to_ms, own, created_ms)
            values (gen_random_uuid(), $1, $2, $3, true, $2)
            """,
            gateway.node_id,
            start_ms,
            start_ms + 3_600_000,
        )
    await gateway.restart(gateway.first)
    assert (await gateway.desired()).json["workloads"][0]["restarts"] == 1
    ordered = "select count(*) from maintenance_window where ordered"
    assert (await gateway.control.sql(ordered))[0][0] == 0
    assert (await gateway.report(gateway.first, restarts=1)).status == 200


# -- what runs --------------------------------------------------------------------------------------------


async def test_a_version_that_there_is_not_is_refused_with_those_that_there_are(gateway: Gateway):
    await gateway.offer("1.0.0")
    await gateway.offer("2.0.0", 0)
    refused = await gateway.report(gateway.first, version="3.0.0")
    assert (refused.status, refused.json["code"]) == (422, "unknown_version")
    assert refused.json["detail"] == "known: 2.0.0, 1.0.0"
    for wrong in ({"version": "three"}, {"version": "1.0.0\n"}, {"restarts": -1}, {"restarts": 2**31}):
        assert (await gateway.report(gateway.first, **wrong)).status in (400, 422)


async def test_people_see_what_runs_and_what_should_without_being_its_manager(gateway: Gateway):
    path = f"/v1/workloads/{gateway.first}/version"
    before = (await gateway.control.ask("GET", path, by="olga")).json
    assert (before["running_version"], before["wanted_version"]) == (None, None)
    await gateway.offer("1.0.0")
    await gateway.offer("2.0.0", 0)
    await gateway.minimum("1.0.0")
    await gateway.report(gateway.first, version="1.0.0")
    await gateway.change("2.0.0", rollout_percent=100)
    told = (await gateway.control.ask("GET", path, by="olga")).json
    assert told == {
        "workload_id": gateway.first,
        "kind": "gateway",
        "running_version": "1.0.0",
        "wanted_version": "2.0.0",
        "minimum_version": "1.0.0",
        "below_minimum": False,
    }
    await gateway.minimum("2.0.0")
    assert (await gateway.control.ask("GET", path, by="olga")).json["below_minimum"] is True


async def test_below_the_minimum_is_told_once_per_stay(gateway: Gateway):
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        await gateway.offer(version)
    await gateway.report(gateway.first, version="1.0.0")
    await gateway.report(gateway.second, version="2.0.0")
    told = ("workload.below_minimum", gateway.first)

    await gateway.minimum("2.0.0")
    await gateway.roll_out()
    assert await gateway.events() == [told]
    again = await gateway.report(gateway.first, version="1.0.0")
    assert (again.json["below_minimum"], again.json["minimum_version"]) == (True, "2.0.0")
    await gateway.minimum("3.0.0")
    await gateway.roll_out()
    assert await gateway.events() == [told, ("workload.below_minimum", gateway.second)]

    assert (await gateway.report(gateway.first, version="3.0.0")).json["below_minimum"] is False
    await gateway.report(gateway.first, version="1.0.0")
    assert await gateway.events() == [told, ("workload.below_minimum", gateway.second), told]
    await gateway.minimum(None)
    await gateway.roll_out()
    left = await gateway.control.sql("select 1 from workload where below_minimum_ms is not null")
    assert left == []


async def test_an_event_of_the_control_plane_says_what_and_whose(gateway: Gateway):
    await gateway.offer("1.0.0")
    await gateway.offer("2.0.0")
    await gateway.minimum("2.0.0")
    await gateway.report(gateway.first, version="1.0.0")
    (item,) = (await gateway.control.ask("GET", "/v1/events?project=alpha", by="owner")).json["items"]
    assert (item["kind"], item["node_id"]) == ("workload.below_minimum", gateway.node_id)
    assert item["detail"] == "runs 1.0.0, at least 2.0.0 is asked for"


# -- the manager's own release ----------------------------------------------------------------------------


async def test_a_manager_is_told_the_highest_release_that_reaches_its_node(gateway: Gateway):
    control = gateway.control
    assert (await control.ask("GET", "/v1/manager/release", by="manager")).status == 404
    for version, percent in (("1.9.0", 100), ("1.10.0", 100), ("2.0.0", 0)):
        body = {"version": version, "url": f"https://example.org/{version}", "sha256": "ab" * 32}
        body |= {"signature": "c2ln", "rollout_percent": percent}
        assert (await control.ask("POST", "/v1/releases", json=body)).status == 201
    told = await control.ask("GET", "/v1/manager/release", by="manager")
    assert (told.json["version"], told.json["url"]) == ("1.10.0", "https://example.org/1.10.0")
    known = {"if-none-match": told.headers["etag"]}
    assert (await control.ask("GET", "/v1/manager/release", by="manager", headers=known)).status == 304
    await control.ask("PATCH", "/v1/releases/1.10.0", json={"withdrawn": True})
    now = await control.ask("GET", "/v1/manager/release", by="manager", headers=known)
    assert now.json["version"] == "1.9.0"
