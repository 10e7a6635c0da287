"""Events by cursor and as a stream: oldest first, none twice, none missed, nobody else's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from engine.core.fleet import EventFilter, Sight
from tests.web.fakes import ADMIN_KEY, FOREIGN_KEY, PROJECT_KEY, World, bearer
from web.settings import WebSettings
from web.stream import HEARTBEAT_S, EventStream


async def page(world: World, query: str = "", key: str = PROJECT_KEY) -> dict[str, Any]:
    response = await world.client.get(f"/v1/events?{query}", headers=bearer(key))
    assert response.status_code == 200
    answer: dict[str, Any] = await response.get_json()
    return answer


async def test_an_event_has_the_shape_of_the_contract(world: World) -> None:
    event = world.happen("node.down")
    answer = await page(world, "project=alpha&after=&limit=10")
    [item] = answer["items"]
    assert answer["next_cursor"] == "1"
    assert item == {
        "event_id": event.event_id,
        "kind": "node.down",
        "node_id": world.node.node_id,
        "workload_id": None,
        "since": item["since"],
        "at": item["at"],
        "workloads": [world.workload.workload_id],
        "detail": "",
        "cursor": "1",
    }
    assert item["since"] < item["at"]
    assert item["at"].endswith("Z")


async def test_pages_follow_each_other_without_a_hole_or_a_repetition(world: World) -> None:
    told = [world.happen("node.up").event_id for _ in range(7)]
    seen: list[str] = []
    after = ""
    while after is not None:
        answer = await page(world, f"limit=3&after={after}")
        seen += [item["event_id"] for item in answer["items"]]
        after = answer["next_cursor"]
    assert seen == told


async def test_a_follower_goes_on_after_the_last_page(world: World) -> None:
    for _ in range(3):
        world.happen("node.up")
    after = (await page(world, "limit=3"))["next_cursor"]
    assert await page(world, f"after={after}") == {"items": [], "next_cursor": None}
    later = world.happen("node.down")
    assert [item["event_id"] for item in (await page(world, f"after={after}"))["items"]] == [later.event_id]
    response = await world.client.get("/v1/events?project=alpha&limit=2", headers=bearer(PROJECT_KEY))
    assert response.headers["link"] == '</v1/events?project=alpha&limit=2&after=2>; rel="next"'


async def test_a_key_sees_its_own_projects_events_only(world: World) -> None:
    mine = world.happen("node.down")
    theirs = world.happen("node.down", project=world.foreign)
    assert [i["event_id"] for i in (await page(world))["items"]] == [mine.event_id]
    assert [i["event_id"] for i in (await page(world, key=FOREIGN_KEY))["items"]] == [theirs.event_id]
    assert len((await page(world, key=ADMIN_KEY))["items"]) == 2
    assert len((await page(world, "project=beta", key=ADMIN_KEY))["items"]) == 1
    for slug in ("beta", "no-such", "NO%2Fslug"):
        response = await world.client.get(f"/v1/events?project={slug}", headers=bearer(PROJECT_KEY))
        assert response.status_code == 404


@pytest.mark.parametrize(
    "query", ["after=x", "after=-1", "after=99999999999999999999", "limit=0", "limit=1001"]
)
async def test_what_is_no_cursor_or_limit_is_refused(world: World, query: str) -> None:
    assert (await world.client.get(f"/v1/events?{query}", headers=bearer(PROJECT_KEY))).status_code == 400


class Listener:
    """Reads one stream straight from the ASGI app: Quart's test client cannot be cancelled."""

    def __init__(self, world: World, query: str = "", **headers: str) -> None:
        given = {**bearer(PROJECT_KEY), **headers}
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/events/stream",
            "raw_path": b"/v1/events/stream",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }
        self.app = world.app
        self.frames: list[dict[str, str]] = []
        self.comments = 0
        self.status = 0
        self.ended_at: float | None = None
        self._asked = False

    async def run(self) -> None:
        await self.app(self.scope, self._receive, self._send)
        self.ended_at = trio.current_time()

    async def _receive(self) -> dict[str, Any]:
        if self._asked:
            await trio.sleep_forever()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self._take(message["body"].decode())

    def _take(self, text: str) -> None:
        for block in filter(None, text.split("\n\n")):
            lines = [line.partition(": ") for line in block.split("\n")]
            fields = {name: value for name, _, value in lines if name}
            self.comments += block.startswith(":")
            if "id" in fields:
                self.frames.append(fields)

    @property
    def ids(self) -> list[str]:
        return [frame["id"] for frame in self.frames]


async def test_a_stream_gives_what_was_and_then_what_comes(world: World, nursery: trio.Nursery) -> None:
    first = world.happen("node.down")
    listener = Listener(world)
    nursery.start_soon(listener.run)
    await trio.sleep(0.1)
    assert listener.ids == ["1"]
    item = msgspec.json.decode(listener.frames[0]["data"])
    assert (item["event_id"], listener.frames[0]["event"]) == (first.event_id, "node.down")
    began = trio.current_time()
    world.happen("node.up")
    world.live.announced.set()
    await trio.testing.wait_all_tasks_blocked()
    assert listener.ids == ["1", "2"]
    assert trio.current_time() - began < 0.1
    world.app.backend.tails.close()


async def test_an_event_whose_announcement_came_too_early_or_never_is_told_within_a_second(
    world: World, nursery: trio.Nursery
) -> None:
    listener = Listener(world)
    nursery.start_soon(listener.run)
    world.live.announced.set()
    await trio.sleep(0.5)
    world.happen("node.up")
    await trio.sleep(1.1)
    assert listener.ids == ["1"]
    world.live.away = True
    world.happen("node.down")
    await trio.sleep(1.1)
    assert listener.ids == ["1", "2"]
    world.app.backend.tails.close()


async def test_a_stream_resumes_after_the_last_event_id(world: World, nursery: trio.Nursery) -> None:
    for _ in range(5):
        world.happen("node.up")
    resumed, after = Listener(world, **{"last-event-id": "3"}), Listener(world, "after=4")
    both = Listener(world, "after=1", **{"last-event-id": "4"})
    for listener in (resumed, after, both):
        nursery.start_soon(listener.run)
    await trio.sleep(0.1)
    assert (resumed.ids, after.ids, both.ids) == (["4", "5"], ["5"], ["5"])
    world.app.backend.tails.close()


async def test_a_long_past_is_streamed_whole(world: World, nursery: trio.Nursery) -> None:
    for _ in range(450):
        world.happen("node.up")
    listener = Listener(world)
    nursery.start_soon(listener.run)
    await trio.sleep(0.1)
    assert listener.ids == [str(n) for n in range(1, 451)]
    world.app.backend.tails.close()


async def test_what_a_stream_does_not_tell_is_gone_through_once(world: World, nursery: trio.Nursery) -> None:
    """One that waits for what never comes would read the whole past at each ring, before all others."""
    for _ in range(450):
        world.happen("node.up")
    listener = Listener(world, "kinds=node.down")
    nursery.start_soon(listener.run)
    await trio.sleep(5)
    asked = world.fleet.asked_after
    assert asked[0] == 0
    assert set(asked[1:]) == {450}
    world.happen("node.up")
    world.happen("node.down")
    world.live.announced.set()
    await trio.testing.wait_all_tasks_blocked()
    assert listener.ids == ["452"]
    world.app.backend.tails.close()


async def test_a_quiet_stream_is_kept_alive_by_comments(world: World, nursery: trio.Nursery) -> None:
    listener = Listener(world)
    nursery.start_soon(listener.run)
    await trio.sleep(3 * HEARTBEAT_S + 1)
    assert listener.comments == 3
    world.app.backend.tails.close()


async def test_a_stream_outlives_an_outage_of_history(world: World, nursery: trio.Nursery) -> None:
    listener = Listener(world)
    nursery.start_soon(listener.run)
    await trio.sleep(0.1)
    world.history.away = world.directory.away = True
    await trio.sleep(5)
    world.happen("node.up")
    world.history.away = world.directory.away = False
    await trio.sleep(1.1)
    assert listener.ids == ["1"]
    world.app.backend.tails.close()


async def test_streams_end_when_the_process_does(world: World, nursery: trio.Nursery) -> None:
    listener = Listener(world)
    nursery.start_soon(listener.run)
    await trio.sleep(1)
    world.app.backend.tails.close()
    await trio.sleep(0.01)
    assert listener.ended_at is not None
    assert world.app.backend.tails.statistics()["open"] == 0
    response = await world.client.get("/v1/events/stream", headers=bearer(PROJECT_KEY))
    assert response.status_code == 503


async def test_a_revoked_keys_stream_ends_within_two_seconds(world: World, nursery: trio.Nursery) -> None:
    listener = Listener(world)
    nursery.start_soon(listener.run)
    await trio.sleep(5)
    assert listener.ended_at is None
    world.revoke(PROJECT_KEY)
    await trio.sleep(2)
    assert listener.ended_at is not None


async def test_streams_of_a_project_share_one_query_per_ring(world: World, nursery: trio.Nursery) -> None:
    listeners = [Listener(world) for _ in range(50)]
    for listener in listeners:
        nursery.start_soon(listener.run)
    await trio.sleep(1.5)
    reads = world.history.event_reads
    await trio.sleep(10)
    assert world.history.event_reads - reads <= 11
    world.happen("node.up")
    await trio.sleep(1.1)
    assert all(listener.ids == ["1"] for listener in listeners)
    world.app.backend.tails.close()


async def test_streams_beyond_the_bound_are_refused_and_a_gone_one_makes_room(
    jumping: None, nursery: trio.Nursery
) -> None:
    world = World(settings=WebSettings(sse_streams_max=1))
    nursery.start_soon(world.app.backend.run)
    listener, second, third = (Listener(world) for _ in range(3))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as listening:
            listening.start_soon(listener.run)
            await trio.sleep(0.1)
            await second.run()
            scope.cancel()
    assert (listener.status, second.status) == (200, 503)
    nursery.start_soon(third.run)
    await trio.sleep(0.1)
    assert third.status == 200
    world.app.backend.tails.close()


async def test_a_stream_whose_client_was_gone_before_its_first_byte_is_counted_out(world: World) -> None:
    async def welcome() -> bool:
        return True

    stream = EventStream(
        world.app.backend.tails, sight=Sight(), which=EventFilter(), after=0, still_welcome=welcome
    )
    assert world.app.backend.tails.statistics()["open"] == 1
    del stream
    assert world.app.backend.tails.statistics()["open"] == 0


async def test_head_of_the_stream_ends(world: World) -> None:
    with trio.fail_after(1):
        response = await world.client.head("/v1/events/stream", headers=bearer(PROJECT_KEY))
    assert response.status_code == 200
    assert response.content_type.startswith("text/event-stream")
