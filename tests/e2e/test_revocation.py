"""Revoking takes effect everywhere within a second (WIRE.md, Session): UDP, bearer tokens, web, capabilities.

Beats are sent all the time; the last one that was still taken must lie less than a second behind the moment
at which the revocation was committed.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from np1.codec import Code
from tests.e2e.api import Api, now_ms
from tests.e2e.node import Node, SilenceError, ask_session
from tests.e2e.system import System

WITHIN_MS = 1_000


@pytest.fixture
def node(system: System):
    made = system.provision("revoked", nodes=1, workloads=1)
    with Node(system.api, made["nodes"][0]) as opened:
        yield SimpleNamespace(node=opened, made=made["nodes"][0], beats=Api(*system.beats))


def last_success_ms(attempts: list[Callable[[], bool]], revoke: Callable[[], int]) -> tuple[int, list[int]]:
    """When `revoke` was committed, and when each attempt, tried on and on, last succeeded before failing."""
    last = [0] * len(attempts)
    failed = [threading.Event() for _ in attempts]
    stop = threading.Event()

    def go_on(number: int) -> None:
        while not stop.is_set():
            began_ms = now_ms()
            if attempts[number]():
                last[number] = began_ms
                failed[number].clear()
            else:
                failed[number].set()
            time.sleep(0.02)

    threads = [threading.Thread(target=go_on, args=[number]) for number in range(len(attempts))]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    revoked_ms = revoke()
    try:
        assert all(one.wait(10) for one in failed)
        time.sleep(1.0)  # and none comes back
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(one.is_set() for one in failed)
    return revoked_ms, last


def revoke_node(system: System, node_id: str) -> int:
    """Revoke it; when that was committed, at the latest."""

    async def work(stores):
        await stores.directory.revoke_node(node_id, now_ms=now_ms())
        return now_ms()

    return system.on_stores(work)


def test_a_revoked_node_is_refused_by_udp_json_and_web_within_a_second(system, node):
    def by_udp() -> bool:
        try:
            node.node.exchange(node.node.frame(), within_s=0.3)
        except SilenceError:
            return False
        return True

    def by_json() -> bool:
        reply = node.beats.post(
            "/v1/beats",
            {"workloads": {}},
            headers={"authorization": f"Bearer {node.node.grant.token}"},
        )
        assert reply.status in (200, 401), reply
        return reply.status == 200

    revoked_ms, last = last_success_ms([by_udp, by_json], lambda: revoke_node(system, node.made["node_id"]))
    assert min(last) > revoked_ms - 500
    assert max(last) < revoked_ms + WITHIN_MS
    refused = ask_session(system.api, node.made)
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")


def test_a_re_keyed_node_is_refused_with_the_old_key_within_a_second_and_goes_on_with_the_new(system, node):
    """Over the routes of the API, as an operator would after a key was stolen."""
    secret = secrets.token_hex(32)

    async def add_key(stores):
        digest = hashlib.sha256(secret.encode()).digest()
        await stores.directory.create_key(
            scope="admin", project_id=None, key_sha256=digest, name="e2e", now_ms=now_ms()
        )

    system.on_stores(add_key)
    api, path = system.api_for(secret), f"/v1/nodes/{node.made['node_id']}"
    stolen, new = node.node.grant.token, Ed25519PrivateKey.generate()

    def by_udp() -> bool:
        try:
            node.node.exchange(node.node.frame(), within_s=0.3)
        except SilenceError:
            return False
        return True

    def by_json() -> bool:
        reply = node.beats.post("/v1/beats", {"workloads": {}}, headers={"authorization": f"Bearer {stolen}"})
        assert reply.status in (200, 401), reply
        return reply.status == 200

    def by_manager() -> bool:
        status = system.api_for(stolen).request("GET", "/v1/manager/desired").status
        assert status in (200, 401), status
        return status == 200

    def rekey() -> int:
        reply = api.post(f"{path}/rekey", {"public_key": new.public_key().public_bytes_raw().hex()})
        assert reply.status == 200, reply
        return now_ms()

    rekeyed_ms, last = last_success_ms([by_udp, by_json, by_manager], rekey)
    assert min(last) > rekeyed_ms - 500
    assert max(last) < rekeyed_ms + WITHIN_MS
    refused = ask_session(system.api, node.made)
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")
    with Node(system.api, {**node.made, "private_key": new.private_bytes_raw().hex()}) as again:
        assert again.beat().code in (Code.OK, Code.EARLY)
    assert not by_json()  # the stolen token stays dead, also with a living session beside it
    assert not by_manager()


def test_both_generations_of_a_revoked_node_are_dropped(system, node):
    older = node.node.frame()
    node.node.exchange(older)
    before = node.node.frame()
    node.node.open()
    assert node.node.beat().code is not None
    revoke_node(system, node.made["node_id"])
    time.sleep(WITHIN_MS / 1000)
    for frame in (before, node.node.frame()):
        with pytest.raises(SilenceError):
            node.node.exchange(frame, within_s=0.3)


def test_a_revoked_api_key_sees_nothing_within_a_second(system):
    system.provision("revoked-key")
    made = system.admin("key", "create", "--project", "revoked-key")
    api = system.api_for(made["api_key"])

    def may_read() -> bool:
        status = api.request("GET", "/v1/nodes").status
        assert status in (200, 401)
        return status == 200

    async def work(stores):
        assert await stores.directory.revoke_key(made["key_id"], now_ms=now_ms())
        return now_ms()

    revoked_ms, (last,) = last_success_ms([may_read], lambda: system.on_stores(work))
    assert revoked_ms - 500 < last < revoked_ms + WITHIN_MS


def test_a_capability_that_was_rotated_or_whose_check_is_revoked_is_unknown_within_a_second(system):
    system.provision("revoked-check")
    made = system.admin("check", "create", "--project", "revoked-check", "--name", "job")
    path = made["ping_url"].removeprefix(system.beats_url)
    push = made["push_url"].removeprefix(system.beats_url)
    beats = Api(*system.beats)

    def may(call: str) -> Callable[[], bool]:
        def attempt() -> bool:
            status = beats.request("GET", call).status
            assert status in (200, 404)
            return status == 200

        return attempt

    async def rotate(stores):
        await stores.directory.rotate_capability(made["node_id"], now_ms=now_ms())
        return now_ms()

    rotated_ms, last = last_success_ms([may(path), may(push)], lambda: system.on_stores(rotate))
    assert min(last) > rotated_ms - 500
    assert max(last) < rotated_ms + WITHIN_MS
