"""Idempotency-Key over HTTP: a POST that creates happens once, and its answer is its sender's alone."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine.core.ports import StoreUnavailableError
from tests.web.control import Answered, Control
from web.app import RESOURCES
from web.policy import PUBLIC, policy_of

ME = {"scope": "user", "name": "laptop"}


async def make(control: Control, key: str | None, body: Any = ME, *, by: str = "olga") -> Answered:
    return await control.ask("POST", "/v1/keys", by=by, json=body, key=key)


async def keys_made(control: Control) -> int:
    return len(await control.sql("select 1 from api_key where name = 'laptop'"))


async def test_the_same_request_again_gets_the_same_answer_with_its_secret(control: Control):
    first, again = await make(control, "k"), await make(control, "k")
    assert (first.status, first.body, first.headers["location"]) == (
        again.status,
        again.body,
        again.headers["location"],
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await keys_made(control) == 1
    assert len(await control.sql("select 1 from audit")) == 1


async def test_the_same_credential_in_another_spelling_gets_the_same_answer(control: Control):
    first = await make(control, "k")
    for scheme in ("bearer ", "BEARER  "):
        spelled = {"authorization": f"{scheme}{control.bearers['olga']} ", "idempotency-key": "k"}
        again = await control.ask("POST", "/v1/keys", by=None, json=ME, key=None, headers=spelled)
        assert (again.status, again.body) == (201, first.body), scheme


async def test_another_body_under_the_same_key_is_refused(control: Control):
    await make(control, "k")
    other = await make(control, "k", {**ME, "name": "phone"})
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    elsewhere = await control.ask("POST", "/v1/me/channels", by="olga", json=ME, key="k")
    assert elsewhere.status == 422
    query = await control.ask("POST", "/v1/keys?x=y", by="olga", json=ME, key="k")
    assert query.status == 422


async def test_without_a_key_or_with_one_that_is_none_nothing_is_made(control: Control):
    for key in (None, "k" * 256, "two words", "ümlaut"):
        answer = await make(control, key)
        assert (answer.status, answer.json["code"]) == (400, "bad_parameter"), key
    assert await keys_made(control) == 0


async def test_of_the_same_request_many_times_at_once_one_makes_something(control: Control):
    answers: list[Answered] = []

    async def attempt() -> None:
        answers.append(await make(control, "k"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    bodies = {answer.body for answer in answers if answer.status == 201}
    busy = [answer for answer in answers if answer.status != 201]
    assert len(bodies) == 1
    assert all((answer.status, answer.json["code"]) == (409, "still_running") for answer in busy)
    assert all(answer.headers["retry-after"] == "1" for answer in busy)
    assert await keys_made(control) == 1


async def test_another_credential_has_nothing_of_the_answer(control: Control):
    first = await make(control, "k")
    theirs = await make(control, "k", by="sam")
    assert theirs.status == 201
    assert theirs.json["api_key"] != first.json["api_key"]
    assert theirs.json["key"]["user_id"] == control.users["sam"]


async def test_the_stored_answer_cannot_be_read_without_the_credential(control: Control):
    first = await make(control, "k")
    (row,) = await control.sql("select credential, key, answer from idempotency")
    secret = first.json["api_key"].encode()
    assert secret not in row["answer"]
    assert first.json["key"]["key_id"].encode() not in row["answer"]
    assert control.bearers["olga"] not in (row["credential"], row["key"])


async def test_a_request_that_was_refused_may_be_put_right_under_the_same_key(control: Control):
    wrong = await make(control, "k", {**ME, "expires_at": "soon"})
    assert wrong.status == 422
    assert (await make(control, "k")).status == 201


@pytest.mark.parametrize("crashes", ["before", "after"])
async def test_after_a_crash_the_same_thing_is_made_not_a_second_one(control: Control, crashes: str):
    """The process died between taking the request on and keeping its answer, having made the thing or not."""
    if crashes == "after":
        lost = await make(control, "k")
        await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")
    else:
        caller = control.key_ids["olga"]
        await make(control, "k", {**ME, "scope": "project", "project": "nosuch"})  # leaves nothing
        lost = None
        await control.sql("delete from idempotency where credential = $1", caller)
    again = await make(control, "k")
    assert again.status == 201
    assert await keys_made(control) == 1
    assert len(await control.sql("select 1 from audit")) == 1
    control.bearers["made"] = again.json["api_key"]
    assert (await control.ask("GET", "/v1/me", by="made")).status == 200
    if lost is not None:  # whose secret nobody ever saw, and which no longer works
        assert {**again.json["key"], "prefix": ""} == {**lost.json["key"], "prefix": ""}
        assert again.json["api_key"] != lost.json["api_key"]
        control.bearers["lost"] = lost.json["api_key"]
        assert (await control.ask("GET", "/v1/me", by="lost")).status == 401


class FailsOnce:
    """A port whose `create_key` fails the first time, after it took effect."""

    def __init__(self, port: Any, error: Exception) -> None:
        self._port, self._error = port, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def create_key(self, *given: Any, **named: Any) -> Any:
        made = await self._port.create_key(*given, **named)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return made


async def test_a_request_that_failed_is_run_again_at_once_and_makes_nothing_twice(control: Control):
    stores = control.app.backend.stores
    failing = FailsOnce(stores.accounts, StoreUnavailableError("the connection broke"))
    control.app.backend.stores = Replaced(stores, accounts=failing)
    assert (await make(control, "k")).status == 503
    assert await keys_made(control) == 1
    assert (await make(control, "k")).status == 201
    assert await keys_made(control) == 1


class Replaced:
    """Stores with some of their ports replaced."""

    def __init__(self, stores: Any, **ports: Any) -> None:
        self._stores, self._ports = stores, ports

    def __getattr__(self, name: str) -> Any:
        return self._ports.get(name) or getattr(self._stores, name)


def test_every_post_that_creates_takes_a_key_and_anybodys_none():
    """Of what anybody may call no credential seals the answer, so nothing is kept there."""
    creating = [route for route in RESOURCES if route.creates]
    assert creating
    for route in creating:
        assert route.method == "POST"
        assert PUBLIC not in policy_of(route.method, route.path).roles
        assert {201, 202} & route.answers.keys(), route.path
