"""Maintenance windows: opened before they begin, looked at, ended early or taken back.

One opened by who runs the project is paid, one that the operator opens is not (LIVENESS.md 2). How much may
be opened stands in engine/core/maintenance.py; windows of ordered updates open by themselves (orders.py).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Response, request

from engine.core.people import Principal, Role
from engine.core.ports import NodeRecord, NodeRefusedError, WindowRefusedError
from engine.core.records import Window
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import canonical_uuid
from web.node_registration import Id, form_of_id, must_be_a_machine
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, bad_parameter, not_found
from web.routing import Answer, Parameter, Route, read_body, reply
from web.times import DAY_MS, TIME_MS_MAX, format_rfc3339, parse_rfc3339

Time = Annotated[str, msgspec.Meta(max_length=40)]


class NewWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`from`, `to`: RFC 3339, at most 60 minutes per workload and UTC day. `workload_id`: of this workload
    only, else of the whole node. `own`: the operator's own, not paid; left out: unless you run it."""

    from_: Time = msgspec.field(name="from")
    to: Time
    workload_id: Id | None = None
    own: bool | None = None


class WindowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Half-open. `own`: the operator's (`maintenance_own`, not paid), else the project's (`maintenance`)."""

    window_id: str
    node_id: str
    workload_id: str | None
    from_: str = msgspec.field(name="from")
    to: str
    own: bool


class WindowsAnswer(msgspec.Struct, frozen=True):
    """A page of windows, by id."""

    items: list[WindowAnswer]
    next_cursor: str | None


def _answer(node_id: str, window: Window) -> WindowAnswer:
    return WindowAnswer(
        window_id=window.window_id,
        node_id=node_id,
        workload_id=window.workload_id,
        from_=format_rfc3339(window.from_ms),
        to=format_rfc3339(window.to_ms),
        own=window.own,
    )


async def open_window(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    asked, _ = await read_body(NewWindow)
    node = await sight.node(backend, caller, node_id)
    must_be_a_machine(node)
    runs = _runs_project(caller, node)
    own = not runs if asked.own is None else asked.own
    if not own and not runs:
        raise RefusedError(403, "forbidden", "operators open windows of their own: own must be true")
    workload_id = None if asked.workload_id is None else form_of_id(asked.workload_id, "/workload_id")
    act = act_of(backend, caller)
    try:
        made = await backend.directory.open_window(
            node.node_id,
            workload_id,
            from_ms=_time(asked.from_, "/from"),
            to_ms=_time(asked.to, "/to"),
            own=own,
            now_ms=act.now_ms,
            act=act,
        )
    except WindowRefusedError as error:
        raise RefusedError(422, "window_refused", str(error)) from error
    except NodeRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    return reply(_answer(node.node_id, made), 201)


async def list_windows(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    node = await sight.node(backend, caller, node_id)
    limit, after = limit_parameter(), id_cursor()
    found = await backend.stores.windows.of_node(
        node.node_id,
        from_ms=_time_parameter("from", backend.clock() - DAY_MS),
        to_ms=_time_parameter("to", TIME_MS_MAX),
        after=after,
        limit=limit + 1,
    )
    page, cursor = cut(found, limit, lambda one: one.window_id)
    items = [_answer(node.node_id, one) for one in page]
    return reply(WindowsAnswer(items=items, next_cursor=cursor), headers=link_headers(cursor))


async def end_window(backend: Backend, caller: Principal, *, node_id: str, window_id: str) -> Response:
    node = await sight.node(backend, caller, node_id)
    key = canonical_uuid(window_id)
    found = await backend.stores.windows.window(node.node_id, key) if key else None
    if found is None:
        raise not_found("window")
    if not found.own and not _runs_project(caller, node):
        raise RefusedError(403, "forbidden", "this window was opened by who runs the project: they end it")
    try:
        await backend.stores.windows.end(node.node_id, found.window_id, act=act_of(backend, caller))
    except WindowRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    return Response(b"", 204)


def _runs_project(caller: Principal, node: NodeRecord) -> bool:
    return bool(sight.roles_over(caller, project_id=node.project_id) & (Role.OWNER | Role.ADMIN))


def _time(text: str, pointer: str) -> int:
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error), errors=[Fault(str(error), pointer)]) from error


def _time_parameter(name: str, default_ms: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default_ms
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from error


_PATH = "/v1/nodes/{node_id}/windows"
_TIME_SCHEMA = {"type": "string", "format": "date-time"}

ROUTES = (
    Route(
        method="GET",
        path=_PATH,
        handler=list_windows,
        summary="Maintenance windows of a node and of its workloads",
        tag="nodes",
        parameters=(
            Parameter(name="from", description="Ended after; a day ago if left out", schema=_TIME_SCHEMA),
            Parameter(name="to", description="Begun before", schema=_TIME_SCHEMA),
            *PARAMETERS,
        ),
        answers={200: Answer(description="A page", type=WindowsAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="POST",
        path=_PATH,
        handler=open_window,
        summary="Open a maintenance window, before it begins",
        tag="nodes",
        creates=True,
        body=NewWindow,
        answers={201: Answer(description="The window", type=WindowAnswer)},
        refusals=(400, 404, 409, 422),
    ),
    Route(
        method="DELETE",
        path=_PATH + "/{window_id}",
        handler=end_window,
        summary="Take a window back, or end one that is open",
        tag="nodes",
        answers={204: Answer(description="It is gone, or ends now")},
        refusals=(404, 409),
    ),
)
