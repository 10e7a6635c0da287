"""An operator's furnished world for the tests of pages."""

from __future__ import annotations

import pytest

from tests.web.control import Control
from tests.web.pages.furnished import Furnished


@pytest.fixture
async def furnished(control: Control) -> Furnished:
    made = Furnished(control)
    await made.fill()
    return made
