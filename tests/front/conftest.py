"""The commands on a database of their own, one per module: starting nothing, they are quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.embedded import EmbeddedServer
from tests.front.administered import Administered, administered


@pytest.fixture(scope="module")
def cli(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: EmbeddedServer,
    valkey_server: EmbeddedServer,
    migrated_template: str,
) -> Iterator[Administered]:
    """`cli.admin(...)`: what a command prints as an object."""
    folder = tmp_path_factory.mktemp("administered")
    with administered(folder, postgres_server, valkey_server, migrated_template) as made:
        yield made
