"""For what cannot be asked like a page's other questions, because its answer must not be held whole: streams.

The visitor is let through by the very policy of the API's route that is answered, counted for its rate too.
"""

from __future__ import annotations

from typing import NamedTuple

from quart import request

from engine.core.people import Principal
from web.backend import Backend
from web.pages.visitor import token_of_request
from web.policy import POLICY, must_be_allowed, policy_of
from web.routing import tell_rate


class AsVisitor(NamedTuple):
    caller: Principal
    authorization: str


async def as_visitor(backend: Backend, method: str, path: str) -> AsVisitor:
    """Who looks, if they may call this route. A browser cannot send a key here: the cookie speaks for them.

    RefusedError 401, 403, 429.
    """
    authorization = f"Bearer {token_of_request()}"
    caller = await backend.keys.caller(authorization)
    tell_rate(backend.key_rate.take(caller.key_id))
    policy = policy_of(method, path)
    request.scope[POLICY] = policy  # type: ignore[literal-required]
    must_be_allowed(caller, policy)
    return AsVisitor(caller, authorization)
