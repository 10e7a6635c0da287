"""The HTTP side of tests: one request, one connection, JSON in and out. Standard library only."""

from __future__ import annotations

import http.client
import json
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

ANSWER_S = 20.0


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """Requests to one host and port; `key` is sent as bearer."""

    def __init__(self, host: str, port: int, *, key: str = "", timeout_s: float = ANSWER_S) -> None:
        self._host, self._port, self._key, self._timeout_s = host, port, key, timeout_s

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own."""
        own = {"authorization": f"Bearer {self._key}"} if self._key else {}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body=body, headers={**own, **(headers or {})})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: object, *, headers: dict[str, str] | None = None) -> Reply:
        """POST as JSON."""
        named = {"content-type": "application/json", **(headers or {})}
        return self.request("POST", path, body=json.dumps(body).encode(), headers=named)

    def get(self, path: str, **query: object) -> Any:
        """The JSON of a GET that must succeed."""
        words = {name.rstrip("_"): str(value) for name, value in query.items() if value is not None}
        reply = self.request("GET", f"{path}?{urlencode(words)}" if words else path)
        assert reply.status == 200, (path, reply.status, reply.body[:500])
        return reply.json

    def text(self, path: str) -> str:
        reply = self.request("GET", path)
        assert reply.status == 200, (path, reply.status, reply.body[:500])
        return reply.body.decode()

    def try_status(self, path: str) -> int:
        """The status of a GET; 0 when nobody answers."""
        try:
            return self.request("GET", path).status
        except (OSError, http.client.HTTPException):
            return 0

    # -- what the product answers -------------------------------------------------------------------

    def node_state(self, node_id: str) -> str:
        state: str = self.get(f"/v1/nodes/{node_id}")["state"]
        return state

    def workload_state(self, workload_id: str) -> str:
        state: str = self.get(f"/v1/workloads/{workload_id}")["state"]
        return state

    def uptime(self, workload_id: str, from_ms: int | None = None, to_ms: int | None = None) -> Uptime:
        """The whole life when no window is given."""
        answer = self.get(
            f"/v1/workloads/{workload_id}/uptime",
            from_=None if from_ms is None else rfc3339(from_ms),
            to=None if to_ms is None else rfc3339(to_ms),
            intervals="true",
        )
        return Uptime(
            answer["ms"],
            [
                (one["kind"], unix_ms(one["started_at"]), unix_ms(one["ended_at"]))
                for one in answer["intervals"]
            ],
            unix_ms(answer["from"]),
            unix_ms(answer["to"]),
            unix_ms(answer["as_of"]),
            answer,
        )

    def events(self, project: str | None = None) -> list[dict[str, Any]]:
        """All events, page by page."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            page = self.get("/v1/events", project=project, after=after, limit=1_000)
            found += page["items"]
            after = page["next_cursor"]
            if after is None:
                return found


class Uptime(NamedTuple):
    """An answer of `/uptime`, times as unix ms."""

    ms: dict[str, int]
    intervals: list[tuple[str, int, int]]
    from_ms: int
    to_ms: int
    as_of: int
    raw: dict[str, Any]

    def of(self, *kinds: str) -> list[tuple[int, int]]:
        """The intervals of these kinds, neighbours merged."""
        merged: list[tuple[int, int]] = []
        for kind, started, ended in self.intervals:
            if kind not in kinds:
                continue
            if merged and merged[-1][1] == started:
                merged[-1] = (merged[-1][0], ended)
            else:
                merged.append((started, ended))
        return merged

    def check_sum(self) -> None:
        """Kinds sum to the window, intervals cover it without a break and agree with the sums."""
        assert sum(self.ms.values()) == self.to_ms - self.from_ms, self.raw
        at = self.from_ms
        sums = dict.fromkeys(self.ms, 0)
        for kind, started, ended in self.intervals:
            assert started == at < ended, self.raw
            sums[kind] += ended - started
            at = ended
        assert at == self.to_ms, self.raw
        assert sums == self.ms, self.raw


def rfc3339(ms: int) -> str:
    whole, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
