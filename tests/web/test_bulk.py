"""Bulk uptime: every row is what the workload's own answer says, in each form."""

from __future__ import annotations

import msgspec

from tests.web.control import Control


async def test_a_stream_has_every_workload_and_an_end(control: Control) -> None:
    answer = await control.ask("GET", "/v1/projects/alpha/uptime?day=2026-01-31&format=ndjson", by="owner")
    assert answer.status == 200, answer
    lines = [msgspec.json.decode(line) for line in answer.body.splitlines()]
    assert lines[-1] == {"end": True, "rows": len(lines) - 1}
