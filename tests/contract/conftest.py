"""Each test of the contract suite runs twice: on the memory twins and on the real stores."""

from __future__ import annotations

import pytest

from storage.memory import MemoryWorld, memory_stores_of
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings
from tests.contract.given import NOW


@pytest.fixture(params=["memory", "real"])
def store_settings(request) -> tuple[DatabaseSettings, RedisSettings] | None:
    """Where the real stores are; None for the twins."""
    if request.param == "memory":
        return None
    # Asked for here and not as an argument, so that a run of the twins alone starts no servers.
    return (
        DatabaseSettings(url=request.getfixturevalue("postgres_url")),
        RedisSettings(url=request.getfixturevalue("valkey_url")),
    )


@pytest.fixture
async def stores(store_settings, on_uvloop):
    if store_settings is None:
        yield memory_stores_of(MemoryWorld(now_ms=lambda: NOW))
        return
    async with open_stores(*store_settings) as opened:
        yield opened
