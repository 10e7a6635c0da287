"""`GET /openapi.json`: OpenAPI 3.1, made from the routes and the very types that are served.

Nothing is described by hand that the code knows: schemas come from msgspec, paths and parameters from the
routes. The document is made once per app.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from quart import Response

from engine.core.people import Principal, Role
from web.policy import policy_of
from web.problems import CONTENT_TYPE, ProblemDocument
from web.routing import Answer, Parameter, Route

_REF = "#/components/schemas/{name}"


def routes(others: Sequence[Route], *, version: str) -> tuple[Route, ...]:
    """The one route of this module, describing the others and itself."""
    ready: list[bytes] = []

    async def openapi(_backend: object, _caller: Principal) -> Response:
        return Response(ready[0], content_type="application/json")

    own = Route(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="This description",
        tag="operation",
        limited=False,
        answers={200: Answer(description="OpenAPI 3.1")},
    )
    ready.append(msgspec.json.encode(describe([*others, own], version=version)))
    return (own,)


def describe(all_routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """The whole document."""
    schemas, components = _schemas(all_routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in all_routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "NodePulse", "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
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
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *(_parameter(each) for each in route.parameters)],
        "responses": {str(status): _response(answer, schemas) for status, answer in route.answers.items()},
    }
    for status in route.refusals:
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": schemas[ProblemDocument]}},
        }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
    if Role.PUBLIC not in policy_of(route.method, route.path).roles:
        operation["security"] = [{"key": []}]
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.path_parameters
    ]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _response(answer: Answer, schemas: dict[Any, Any]) -> dict[str, Any]:
    schema = {"type": "string"} if answer.type is None else schemas[answer.type]
    if answer.type is None and answer.content_type == "application/json":
        schema = {"type": "object"}
    return {"description": answer.description, "content": {answer.content_type: {"schema": schema}}}
