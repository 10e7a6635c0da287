"""All ports in memory, for unit and simulation tests on plain trio with any clock."""

from __future__ import annotations

from storage.memory_directory import MemoryDirectory
from storage.memory_history import MemoryHistory
from storage.memory_live import MemoryLiveView
from storage.memory_newsroom import MemoryNewsroom
from storage.memory_outbox import MemoryOutbox
from storage.memory_registry import MemoryRegistryFeed
from storage.memory_sending import MemorySending
from storage.memory_world import MemoryWorld
from storage.open import Stores

__all__ = ["MemoryWorld", "memory_stores_of"]


def memory_stores_of(world: MemoryWorld) -> Stores:
    """The twins of all ports over one world: what one writes the others read."""
    return Stores(
        registry=MemoryRegistryFeed(world),
        history=MemoryHistory(world),
        live=MemoryLiveView(world),
        directory=MemoryDirectory(world),
        outbox=MemoryOutbox(world),
        newsroom=MemoryNewsroom(world),
        sending=MemorySending(world),
    )
