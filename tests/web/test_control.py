"""Each credential of the fixture is who it says it is."""

from __future__ import annotations

import pytest

from tests.web.control import Control


@pytest.mark.parametrize(
    ("by", "status"),
    [
        ("admin", 200),
        ("owner", 200),
        ("paul", 200),
        ("olga", 200),
        ("foreign", 404),
        ("sam", 404),
        ("manager", 403),
        (None, 401),
    ],
)
async def test_a_node_is_seen_by_its_operator_its_owners_and_admins_only(
    control: Control, by: str | None, status: int
) -> None:
    assert (await control.ask("GET", f"/v1/nodes/{control.node.node_id}", by=by)).status == status
