"""The pages of machines: the list, a node with its windows and receipts, a workload's days and why."""

from __future__ import annotations

from tests.web.pages.furnished import Furnished


async def test_pages_render(furnished: Furnished):
    olga = furnished.browser()
    for path in (
        "/nodes",
        f"/nodes/{furnished.node_id}",
        f"/workloads/{furnished.workload_id}",
        f"/workloads/{furnished.workload_id}?day={furnished.day}",
    ):
        looked = await olga.look(path)
        print(looked.words[:3000])
        assert looked.status == 200, looked.words
