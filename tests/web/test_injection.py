"""Strings that are more than they seem, in every string that the API takes: paths, queries, headers, bodies.

Asked as an admin, so that nothing is refused before it reaches the stores. Whatever comes back is a described
answer, never a 5xx; no header appears that we did not send, and every table is still there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.web.control import Control
from web.app import RESOURCES
from web.examples import example_of
from web.openapi import refusals_of
from web.routing import Route

NASTY = (
    "'; drop table node; --",
    '"; delete from workload where true; --',
    "x\r\nx-injected: 1",
    "$1 %s {0} {{7*7}} ${jndi:ldap://x}",
    "\x00",
    "../../../../etc/passwd",
    "<script>alert(1)</script>",
    "\ud7ff\U0010ffff\u202e",
    "a" * 5_000,
)
# Streams that do not end, and what only an engine could answer within its two seconds.
LEFT_OUT = {"GET /v1/events/stream", "GET /v1/projects/{slug}/summary/stream"}
# What takes things away is asked last, for the others to have found them.
ROUTES = sorted(
    (route for route in RESOURCES if f"{route.method} {route.path}" not in LEFT_OUT),
    key=lambda route: route.method == "DELETE",
)
MODULES = sorted({route.handler.__module__ for route in ROUTES})


def strings_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where strings stand in a JSON value; keys of objects whose keys are data are not among them."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from strings_in(inner, (*at, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings_in(inner, (*at, index))


def replaced(value: Any, at: tuple[Any, ...], by: str) -> Any:
    """The same JSON value with one string in it replaced."""
    if not at:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(copy[at[0]], at[1:], by)
    return copy


def paths_of(route: Route, control: Control) -> Iterator[str]:
    """The path with each of its parameters nasty in turn."""
    there = {
        "slug": "alpha",
        "node_id": control.node.node_id,
        "workload_id": control.node.workload_ids[0],
        "user_id": control.users["olga"],
    }
    for name in route.path_parameters:
        for nasty in NASTY:
            filled = {**dict.fromkeys(route.path_parameters, "x"), **there, name: nasty}
            yield re.sub(r"\{(\w+)\}", lambda match, of=filled: quote(of[match[1]], safe=""), route.path)


def path_of(route: Route, control: Control) -> str:
    there = {
        "slug": "alpha",
        "node_id": control.foreign_node.node_id,
        "workload_id": control.foreign_node.workload_ids[0],
        "user_id": control.users["sam"],
    }
    return re.sub(r"\{(\w+)\}", lambda match: quote(there.get(match[1], "x")), route.path)


@pytest.mark.parametrize("module", MODULES)
async def test_no_string_does_more_than_be_a_string(control: Control, module: str) -> None:
    for route in ROUTES:
        if route.handler.__module__ == module:
            await ask_with_nasty_strings(control, route)
    tables = await control.sql("select count(*) as rows from node n join workload w using (node_id)")
    assert tables[0]["rows"] >= 3


async def ask_with_nasty_strings(control: Control, route: Route) -> None:
    allowed = {*route.answers, *refusals_of(route), 404, 405}

    async def send(path: str, json: Any = None, headers: dict[str, str] | None = None) -> None:
        answer = await control.ask(route.method, path, json=json, headers=headers)
        told = (route.method, path[:200], json, answer.status, answer.body[:300])
        assert answer.status in allowed, told
        assert answer.status < 500 or answer.status == 503, told
        assert "x-injected" not in answer.headers, told
        assert not any("\n" in value or "\r" in value for value in answer.headers.values()), told

    body = None if route.body is None else example_of(route.body)
    for path in paths_of(route, control):
        await send(path, body)
    here = path_of(route, control)
    for parameter in route.parameters:
        for nasty in NASTY:
            if parameter.where == "query":
                await send(f"{here}?{parameter.name}={quote(nasty)}", body)
            elif not re.search(r"[\r\n\x00]|[^\x00-\xff]", nasty):  # what no client can put into a header
                await send(here, body, {parameter.name: nasty})
    for at in strings_in(body):
        for nasty in NASTY:
            await send(here, replaced(body, at, nasty))


async def test_control_characters_and_lone_surrogates_in_json_are_refused(control: Control) -> None:
    for raw in (b'{"day": "\x00", "rows": []}', b'{"day": "\\ud800", "rows": []}', b"\xff\xfe"):
        answer = await control.ask(
            "POST",
            "/v1/projects/alpha/points",
            body=raw,
            headers={"content-type": "application/json"},
        )
        assert answer.status == 400, answer


def test_the_search_for_strings_finds_them_all() -> None:
    value = {"a": "x", "b": [{"c": "y"}, "z"], "d": 1}
    found = list(strings_in(value))
    assert found == [("a",), ("b", 0, "c"), ("b", 1)]
    assert replaced(value, ("b", 0, "c"), "!") == {"a": "x", "b": [{"c": "!"}, "z"], "d": 1}
    assert msgspec.json.encode(value) == msgspec.json.encode({"a": "x", "b": [{"c": "y"}, "z"], "d": 1})
