"""The demonstration as tests need it: people, and the ids of what there is for each of them on a page."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

from tests.e2e.api import Api
from tests.e2e.demo import Demo
from tests.e2e.system import eventually

SEALED_S = 90.0
SLUG = "edge-ai"
KIND = "gateway"
# What pages are asked that show nothing otherwise.
ASKED = {
    "/projects/{slug}/days/{day}": "?preview=1",
    "/projects/{slug}/days/{day}/proof": "?workload_id={workload_id}",
    "/projects/{slug}/uptime/export": "?day={day}&format=csv",
    "/workloads/{workload_id}": "?day={day}",
}


class World:
    """`ids(who)`: what stands for the parameters in paths of pages that this person looks at."""

    def __init__(self, demo: Demo) -> None:
        self.demo, self.url = demo, demo.url
        self._ids: dict[str, dict[str, str]] = {}

    def api(self, who: str) -> Api:
        return self.demo.api(who)

    @cached_property
    def ahead_s(self) -> int:
        """How far its clock runs ahead of ours."""
        config = json.loads((self.demo.passing_folder / "run/config.json").read_text())
        return int(config["clock_ahead_s"])

    def token(self, who: str) -> str:
        return self.demo.token(who)

    def page(self, who: str, path: str) -> str:
        """As it is without a browser."""
        return self.demo.page(who, path)

    @cached_property
    def paid_day(self) -> str:
        """Sealed and paid, and disputed on."""
        petra = self.api("petra")
        found: list[Any] = eventually(
            lambda: (
                self.api("olga").get("/v1/disputes")["items"]
                and petra.get(f"/v1/projects/{SLUG}/points/commits")["items"]
            ),
            within_s=SEALED_S,
        )
        return str(min(commit["day"] for commit in found))

    def path(self, pattern: str) -> tuple[str, str]:
        """(who looks, path) of a page by the pattern of its path, with what it must be asked."""
        who = _who(pattern)
        ids = self.ids(who)
        missing = [name for name in re.findall(r"\{(\w+)\}", pattern) if name not in ids]
        assert not missing, f"{pattern} is new: say in tests/browser/world.py what stands for {missing}"
        return who, (pattern + ASKED.get(pattern, "")).format(**ids)

    def ids(self, who: str) -> dict[str, str]:
        if who not in self._ids:
            self._ids[who] = {
                "slug": SLUG,
                "kind": KIND,
                "version": "1.4.0",
                "day": self.paid_day,
                **(self._of_operator() if who == "olga" else self._of_owner()),
            }
        return self._ids[who]

    def _of_operator(self) -> dict[str, str]:
        olga = self.api("olga")
        [dispute, *_] = olga.get("/v1/disputes")["items"]
        workload = olga.get(f"/v1/workloads/{dispute['workload_id']}")
        me = olga.get("/v1/me")["user"]["user_id"]
        mine = {one["licence_id"] for one in olga.get(f"/v1/users/{me}/licences")["items"]}
        bound = [one["licence_id"] for one in olga.get("/v1/workloads", operator="me", limit=200)["items"]]
        return {
            "dispute_id": dispute["dispute_id"],
            "workload_id": workload["workload_id"],
            "node_id": workload["node_id"],
            # One of hers that a workload of hers runs under.
            "licence_id": next(one for one in bound if one in mine),
            "channel_id": olga.get("/v1/me/channels")["items"][0]["channel_id"],
        }

    def _of_owner(self) -> dict[str, str]:
        petra = self.api("petra")
        commits = petra.get(f"/v1/projects/{SLUG}/points/commits", day=self.paid_day)["items"]
        channels = petra.get(f"/v1/projects/{SLUG}/channels")["items"]
        node = petra.get("/v1/nodes", project=SLUG, limit=1)["items"][0]
        return {
            "commit_id": commits[0]["commit_id"],
            "channel_id": channels[0]["channel_id"],
            "node_id": node["node_id"],
            "workload_id": self.ids("olga")["workload_id"],
            "user_id": self.api("olga").get("/v1/me")["user"]["user_id"],
            "dispute_id": self.ids("olga")["dispute_id"],
        }


def _who(pattern: str) -> str:
    if pattern.startswith("/installation") or pattern == "/projects":
        return "ada"
    return "petra" if pattern.startswith("/projects/") else "olga"
