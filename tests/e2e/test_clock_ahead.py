"""An installation that runs ahead of the system's clock: everything of it does, and its clients follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from np1.codec import Code
from tests.e2e.api import now_ms
from tests.e2e.node import Node
from tests.e2e.system import System, new_folder, running

AHEAD_S = 7 * 3_600 + 11


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = new_folder(tmp_path_factory.mktemp("ahead"))
    with running(System(folder, sets={"clock_ahead_s": AHEAD_S})) as system:
        yield system


def node_of(system: System, project: str) -> tuple[dict[str, Any], Node]:
    """Made at the command line, whose clock is the installation's, too."""
    made = system.admin(*f"provision --project {project} --nodes 1 --workloads 1 --interval-ms 1000".split())
    return made, Node(system.api, made["nodes"][0], ahead_ms=AHEAD_S * 1_000)


def test_engine_web_and_command_line_run_ahead_together(ahead: System):
    made, node = node_of(ahead, "tomorrow")
    ack = node.beat()
    assert ack.code is Code.OK
    assert abs(ack.server_ms - now_ms() - AHEAD_S * 1_000) < 2_000
    api = ahead.api_for(made["api_key"])
    (workload_id,) = made["nodes"][0]["workloads"]
    uptime = api.get(f"/v1/workloads/{workload_id}/uptime")
    assert sum(uptime["ms"].values()) < 60_000  # its life began just now, by the same clock
    assert uptime["ms"]["up"] > 0
    node.close()


def test_after_a_restart_it_goes_on_where_it_was(ahead: System):
    before = now_ms()
    assert ahead.stop() == 0
    ahead.start()
    _, node = node_of(ahead, "after")
    assert 0 <= node.beat().server_ms - before - AHEAD_S * 1_000 < 60_000
    node.close()
