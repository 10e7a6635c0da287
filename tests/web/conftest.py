"""A world per test, its backend running, on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from storage.open import AllStores
from tests.web.control import Control
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


@pytest.fixture
async def control(stores: AllStores, postgres_url: str, nursery: trio.Nursery) -> AsyncIterator[Control]:
    """The app over real stores with a credential for every role (control.py); its backend is running."""
    made = Control(stores, postgres_url)
    await made.fill()
    nursery.start_soon(made.engine.run)
    nursery.start_soon(made.app.backend.run)
    with trio.fail_after(10):
        while made.app.backend.heads.head(0) is None:  # noqa: ASYNC110 - it must be asked
            await trio.sleep(0.02)
    yield made
    with trio.CancelScope(shield=True):
        await made.close()
    nursery.cancel_scope.cancel()
