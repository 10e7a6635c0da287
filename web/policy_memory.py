"""The policies of projects, remembered for a moment: every read of uptime asks for them.

Who may call what is policy.py's; what the policies mean for an answer, sources.py's.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from engine.core.catalog import PolicyRecord, Projects

BELIEF_S = 1.0  # policies begin with days to come, so a second matters to nobody
PROJECTS_MAX = 1_024  # whose policies are remembered; all are forgotten when it is full


class Policies:
    """Looks policies up, with a short memory."""

    def __init__(self, projects: Callable[[], Projects]) -> None:
        """`projects`: gives the port, when it is needed."""
        self._projects = projects
        self._believed: dict[str, tuple[float, list[PolicyRecord]]] = {}

    async def of(self, project_id: str) -> list[PolicyRecord]:
        now = trio.current_time()
        believed = self._believed.get(project_id)
        if believed is not None and now < believed[0]:
            return believed[1]
        policies = await self._projects().policies(project_id)
        if len(self._believed) >= PROJECTS_MAX:
            self._believed.clear()
        self._believed[project_id] = (now + BELIEF_S, policies)
        return policies
