"""A world per test, its backend running, on a clock that jumps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.web.fakes import World


def jumping_run(async_fn: Callable[[], Any], *, clock: object = None, instruments: Any = ()) -> None:
    """What tests of this folder run under: nobody waits for a real second."""
    trio.run(async_fn, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # pytest-trio takes a clock only from a test's own arguments, not from its fixtures'.
        if "jumping" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=jumping_run), append=False)


@pytest.fixture
def jumping() -> None:
    """A test that uses it (as every test with a `world` does) runs on a clock that jumps."""


@pytest.fixture
async def world(jumping: None, nursery: trio.Nursery) -> World:
    made = World()
    nursery.start_soon(made.app.backend.run)
    return made
