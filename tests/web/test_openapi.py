"""The description of the API says what is served: every route, every type, and examples that are valid."""

from __future__ import annotations

import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from engine.core.people import Role
from tests.web.fakes import World
from web.app import RESOURCES
from web.examples import example_of
from web.openapi import describe, refusals_of
from web.policy import POLICIES, policy_of
from web.routing import Route

IDS = [f"{route.method} {route.path}" for route in RESOURCES]


async def served(world: World) -> dict:
    response = await world.client.get("/openapi.json")
    return msgspec.json.decode(await response.get_data())


async def test_the_document_is_valid_openapi(world: World) -> None:
    document = await served(world)
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_that_is_served_is_described_and_none_besides(world: World) -> None:
    document = await served(world)
    described = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    rules = {
        (f"{method} {rule.rule.replace('<', '{').replace('>', '}')}", rule.endpoint.startswith("page "))
        for rule in world.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert described == {rule for rule, is_page in rules if not is_page}
    assert not any("/v1/" in rule for rule, is_page in rules if is_page), "pages stand beside the API"


async def test_every_route_has_a_policy_and_every_policy_a_route(world: World) -> None:
    document = await served(world)
    described = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    assert described == set(POLICIES)


def test_a_route_without_a_policy_does_not_start() -> None:
    with pytest.raises(LookupError, match=r"web/policy\.py"):
        policy_of("GET", "/v1/forgotten")


def test_operations_have_names_of_their_own() -> None:
    names = [route.handler.__name__ for route in RESOURCES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("route", RESOURCES, ids=IDS)
def test_every_example_is_one_of_its_type(route: Route) -> None:
    for kind in (route.body, *(answer.type for answer in route.answers.values())):
        if kind is not None:
            msgspec.json.decode(msgspec.json.encode(example_of(kind)), type=kind)


@pytest.mark.parametrize("route", RESOURCES, ids=IDS)
def test_every_example_is_valid_by_the_described_schema(route: Route) -> None:
    document = describe([route], version="1")
    for operation in document["paths"][route.path].values():
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [response.get("content", {}) for response in operation["responses"].values()]
        for content in contents:
            for media in content.values():
                if "example" in media:
                    schema = {**media["schema"], "components": document["components"]}
                    jsonschema_rs.Draft202012Validator(schema).validate(media["example"])


def test_whoever_needs_a_key_is_told_so_and_may_be_refused() -> None:
    for route in RESOURCES:
        public = Role.PUBLIC in policy_of(route.method, route.path).roles
        assert {401, 403} <= set(refusals_of(route)) or public, route.path
        (operation,) = describe([route], version="1")["paths"][route.path].values()
        assert operation["security"] == ([] if public else [{"key": []}])
