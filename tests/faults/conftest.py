"""What the tests of this folder share: folders for systems that they break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.load import stop_all
from tests.e2e.system import System, new_folder, running


@pytest.fixture(scope="module")
def start_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Starts a system with the arguments of `System`; it ends with the module."""
    with ExitStack() as stack:

        def start(**options: Any) -> System:
            folder = new_folder(tmp_path_factory.mktemp("fault"))
            return stack.enter_context(running(System(folder, **options)))

        yield start


@pytest.fixture(autouse=True)
def _no_load_goes_on() -> Iterator[None]:
    yield
    stop_all()
