"""The manager is released with the rest: one number for both."""

from __future__ import annotations

from engine.core.version import VERSION
from node.version import VERSION as NODE_VERSION


def test_the_manager_has_the_version_of_the_product():
    assert NODE_VERSION == VERSION
