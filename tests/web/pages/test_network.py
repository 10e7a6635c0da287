"""The network now, as who runs a project sees it: counts, lists with filters, live."""

from __future__ import annotations

import re

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.test_summary import fill


async def test_the_network_is_counted_by_state_region_and_version(control: Control):
    await fill(control)
    looked = await Browser(control, "owner").look("/projects/alpha")
    assert looked.status == 200, looked.words
    is_whole(looked)
    assert "Nodes 4 all of them" in looked.words
    assert "down 1 which" in looked.words
    assert re.search(r"eu 2 1 0 4 1 0", looked.words), looked.words
    assert "edge 1.0 3 1 0 1" in looked.words
