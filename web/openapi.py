"""`GET /openapi.json`: OpenAPI 3.1, made from the routes and the very types that are served.

Nothing is described by hand that the code knows: schemas come from msgspec, paths and parameters from the
routes. The document is made once per app, when it is first asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from quart import Response

from engine.core.people import Principal, Role
from web.examples import BY_NAME, example_of
from web.idempotency import HEADER as IDEMPOTENCY_KEY
from web.policy import Policy, policy_of
from web.problems import CONTENT_TYPE, ProblemDocument
from web.routing import Answer, Parameter, Route

_REF = "#/components/schemas/{name}"
_HEADERS = {
    "RateLimit": {
        "description": "What is left of the caller's rate, and in how many seconds it is whole again",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "The caller's rate: q requests in w seconds",
        "schema": {"type": "string"},
    },
}


def routes(others: Sequence[Route], *, version: str) -> tuple[Route, ...]:
    """The one route of this module, describing the others and itself."""

    @functools.cache
    def document() -> bytes:
        return msgspec.json.encode(describe([*others, own], version=version))

    async def openapi(_backend: object, _caller: Principal) -> Response:
        return Response(document(), content_type="application/json")

    own = Route(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="This description",
        tag="operation",
        limited=False,
        answers={200: Answer(description="OpenAPI 3.1")},
    )
    return (own,)


def describe(all_routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """The whole document."""
    schemas, components = _schemas(all_routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in all_routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "NodePulse",
            "version": version,
            "description": "Liveness and uptime of a network of machines. Times are RFC 3339 in UTC; names "
            "say the unit of durations. Refusals are application/problem+json with a `code` for programs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in all_routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, the token of one who signed in, or a node's session token",
                }
            },
        },
    }


def _schemas(all_routes: Iterable[Route]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """(schema by type, components by name) of every type that is taken or served."""
    types: list[Any] = [ProblemDocument]
    for route in all_routes:
        types += [route.body, *(answer.type for answer in route.answers.values())]
    unique = [kind for kind in dict.fromkeys(types) if kind is not None]
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    return dict(zip(unique, schemas, strict=True)), components


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    policy = policy_of(route.method, route.path)
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "description": _who(policy),
        "tags": [route.tag],
        "parameters": [
            *_path_parameters(route),
            *(_parameter(each) for each in (*route.parameters, *_implied(route))),
        ],
        "responses": {
            str(status): _response(route, status, answer, schemas) for status, answer in route.answers.items()
        },
    }
    for status in refusals_of(route):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": schemas[ProblemDocument]}},
        }
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.body], "example": example_of(route.body)}}
        content |= {kind: {"schema": {"type": "string"}} for kind in route.body_content_types}
        operation["requestBody"] = {"required": True, "content": content}
    operation["security"] = [] if Role.PUBLIC in policy.roles else [{"key": []}]
    return operation


def refusals_of(route: Route) -> list[int]:
    """Every status that a route may refuse with: what it says itself, and what may meet any request."""
    statuses = {*route.refusals, 400, 408, 413, 503}
    if Role.PUBLIC not in policy_of(route.method, route.path).roles:
        statuses |= {401, 403}
    if route.limited:
        statuses.add(429)
    if route.creates:
        statuses |= {409, 422}
    if route.path_parameters:
        statuses.add(404)
    return sorted(statuses - route.answers.keys())


def _who(policy: Policy) -> str:
    if Role.PUBLIC in policy.roles:
        return "Anybody may call this."
    named = [role.name or "" for role in Role if role in policy.roles]
    return f"For: {', '.join(named).lower()}. A key needs the permission `{policy.permission}`."


def _implied(route: Route) -> list[Parameter]:
    """The headers that a route takes because of what it is."""
    implied = []
    if route.creates:
        implied.append(
            Parameter(
                name=IDEMPOTENCY_KEY,
                description="New for each thing made; the same key and body again get the stored answer",
                where="header",
                required=True,
                schema={"type": "string", "pattern": "^[!-~]{1,255}$", "example": "2026-01-31-first-try"},
            )
        )
    if 304 in route.answers:
        implied.append(
            Parameter(name="If-None-Match", description="The ETag of what you have", where="header")
        )
    return implied


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in route.path_parameters
    ]


def _path_schema(name: str) -> dict[str, Any]:
    if name.endswith("_id"):
        return {"type": "string", "format": "uuid", "example": BY_NAME["node_id"]}
    if name in ("slug", "kind"):
        return {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$", "example": BY_NAME[name]}
    return {"type": "string", "maxLength": 128, "minLength": 1, "example": BY_NAME.get(name, "example")}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _response(route: Route, status: int, answer: Answer, schemas: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if route.limited:
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    if status in (204, 304):
        return described
    content: dict[str, Any] = {"schema": {"type": "string"}}
    if answer.type is not None:
        content = {"schema": schemas[answer.type], "example": example_of(answer.type)}
    elif answer.content_type == "application/json":
        content = {"schema": {"type": "object"}}
    others = {kind: {"schema": {"type": "string"}} for kind in answer.other_content_types}
    described["content"] = {answer.content_type: content, **others}
    return described
