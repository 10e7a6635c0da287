"""What a changing handler hands to the stores: who acts, when, in which request; the id of what is made."""

from __future__ import annotations

from quart import request

from engine.core.people import Act, Principal
from storage.ids import new_id
from web.backend import Backend
from web.problems import REQUEST_ID

MADE_ID = "nodepulse.made_id"  # where the id of a repeatable request is left in the ASGI scope


def act_of(backend: Backend, caller: Principal) -> Act:
    """The act of the present request; its `made_id` is the same however often the request is repeated."""
    if MADE_ID not in request.scope:
        request.scope[MADE_ID] = new_id()  # type: ignore[literal-required]
    return Act(
        actor=caller.actor,
        now_ms=backend.clock(),
        request_id=str(request.scope.get(REQUEST_ID, "")),
        made_id=request.scope[MADE_ID],  # type: ignore[literal-required]
    )
