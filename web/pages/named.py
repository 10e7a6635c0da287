"""What projects are called, for pages that show things of several of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from web.pages.visitor import Visitor

PAGES_MAX = 10  # of 1000 projects; beyond them an id is shown


async def projects_of(visitor: Visitor, items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The slugs of the projects that these are of, by id; empty where they are all of one."""
    wanted = {item["project_id"] for item in items}
    found: dict[str, str] = {}
    after = None
    for _ in range(PAGES_MAX if len(wanted) > 1 else 0):
        page = await visitor.api.get("/v1/projects", after=after, limit=1000)
        found |= {each["project_id"]: each["slug"] for each in page["items"] if each["project_id"] in wanted}
        after = page["next_cursor"]
        if after is None or len(found) == len(wanted):
            break
    return found
