"""`./run demo` as somebody sees it who types it: within a minute all that it promises is on its pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demo import Demo, demonstrated
from tests.e2e.system import eventually

pytestmark = pytest.mark.slow
PROMISED_S = 60.0


def within(demo: Demo, look: Callable[[], Any]) -> Any:
    """What is found in what is left of the minute."""
    return eventually(look, within_s=PROMISED_S - (time.monotonic() - demo.ready_at), every_s=0.25)


def events(demo: Demo, kind: str) -> list[dict[str, Any]]:
    found = demo.api("olga").get("/v1/events", newest="true", limit=200)["items"]
    return [event for event in found if event["kind"] == kind]


def test_within_a_minute_nodes_fall_and_return_a_notice_appears_and_a_day_is_sealed_and_paid(tmp_path: Path):
    with demonstrated(tmp_path, "--nodes", "15") as demo:
        olga, petra, ada = (demo.api(who) for who in ("olga", "petra", "ada"))
        assert ada.get("/v1/me")["scope"] == "admin"
        assert petra.get("/v1/me")["projects"]
        known = {event["event_id"] for event in events(demo, "node.down")}
        fallen = within(
            demo, lambda: [one for one in events(demo, "node.down") if one["event_id"] not in known]
        )[-1]
        within(
            demo,
            lambda: [
                one
                for one in events(demo, "node.up")
                if one["node_id"] == fallen["node_id"] and one["at"] > fallen["at"]
            ],
        )
        channels = [f"/notifications/{one['channel_id']}" for one in olga.get("/v1/me/channels")["items"]]
        within(demo, lambda: any("Node went down" in demo.page("olga", path) for path in channels))
        within(demo, lambda: petra.try_status(f"/v1/projects/edge-ai/seals/{demo.day}") == 200)
        commits = "/v1/projects/edge-ai/points/commits"
        [paid] = within(demo, lambda: petra.get(commits, day=demo.day)["items"])
        assert float(paid["total_points"]) > 0
        assert demo.process.poll() is None, "it runs until it is ended"
        assert demo.end() == 0
        assert demo.left_behind() == []
