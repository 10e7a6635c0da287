"""The published backfill, RESYNC and the accounting of claims, held by an outside party.

Only the contract was read for this; the client is `stranger/`'s. The system is one of these tests' own,
because its engine is killed. `test_wire_contract.py` holds the frames, `test_liveness_contract.py` what beats
vouch for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.stranger import frames as np
from tests.e2e.stranger.backfill import ORDER, backfill_body, claim, claims_of, counts, hand_in, post
from tests.e2e.stranger.installation import running as installed
from tests.e2e.stranger.party import Door, Node, Reply, now_ms, rfc3339, session_request, unix_ms
from tests.e2e.stranger.village import Village
from tests.e2e.system import System, new_folder, running
from tests.e2e.test_slow_contract import own_address

PROJECT, TTL_MS, LIFE_S = "claims", 1500, 60
UNAUTHORIZED, MALFORMED = (401, "unauthorized"), (400, "malformed")
CLAIMED = {np.HEALTHY: "claimed_up", np.UPDATING: "claimed_updating", np.UNHEALTHY: "claimed_unhealthy"}


class People:
    """The nodes of one project of the system, each given to one test only."""

    def __init__(self, system: System) -> None:
        made = system.provision(PROJECT, nodes=60, workloads=2, interval_ms=1000)
        self.system, self._unused, self._open = system, made["nodes"], []
        self.web = Door(system.web_url, bearer=made["api_key"])

    def made(self) -> dict[str, Any]:
        return self._unused.pop()

    def opened(self) -> Node:
        return self.keep(Node(self.web, self.made()))

    def keep(self, node: Node) -> Node:
        self._open.append(node)
        node.open()
        return node

    def close(self) -> None:
        for node in self._open:
            node.close()

    def make(self, path: str, body: Any) -> Any:
        reply = self.web.ask("POST", path, body, headers={"idempotency-key": uuid.uuid4().hex})
        assert reply.status == 201, reply
        return reply.json

    def registered(self, kind: str) -> Node:
        """A node whose workload is of a kind, which provisioned ones are not."""
        key = Ed25519PrivateKey.generate()
        body = {"project": PROJECT, "name": uuid.uuid4().hex, "interval_ms": 1000}
        body |= {
            "public_key": key.public_key().public_bytes_raw().hex(),
            "workloads": [{"kind": kind, "name": "one"}],
        }
        made = self.make("/v1/nodes", body)
        named = [one["workload_id"] for one in made["workloads"]]
        keys = {"node_id": made["node_id"], "private_key": key.private_bytes_raw().hex()}
        return self.keep(Node(self.web, {**keys, "workloads": named}))

    def fetch_desired(self, node: Node) -> Reply:
        return Door(self.web.address, bearer=node.token).ask("GET", "/v1/manager/desired")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = new_folder(tmp_path_factory.mktemp("claims"))
    with running(System(folder, sets={"web.session_life_s": LIFE_S})) as started:
        yield started


@pytest.fixture(scope="module")
def people(system: System) -> Iterator[People]:
    made = People(system)
    yield made
    made.close()


@contextlib.contextmanager
def engine_dead(system: System) -> Iterator[None]:
    """`kill -9`; who would start another is held up until the block ends. Then returns when one listens."""
    killed = system.child("engine-0")
    starter = int(Path(f"/proc/{killed}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(starter, signal.SIGSTOP)
    try:
        os.kill(killed, signal.SIGKILL)
        yield
    finally:
        os.kill(starter, signal.SIGCONT)
    soon(lambda: listens(system), within_s=20)


def listens(system: System) -> bool:
    with contextlib.suppress(OSError):
        return Door(system.beats_url).ask("POST", "/v1/beats", b"").status == 400
    return False


def soon(told: Callable[[], Any], *, within_s: float = 3.0) -> None:
    deadline = time.monotonic() + within_s
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until(ms: int) -> None:
    time.sleep(max(0, ms - now_ms()) / 1000)


def timeline(node: Node, frm: int, to: int, *, index: int = 0) -> list[tuple[str, int, int]]:
    """(kind, start, end) of one workload, times counted from `frm`; sums are checked on the way."""
    answer = node.uptime(frm, to, index=index)
    found = [
        (i["kind"], unix_ms(i["started_at"]) - frm, unix_ms(i["ended_at"]) - frm) for i in answer["intervals"]
    ]
    assert sum(answer["ms"].values()) == to - frm
    for kind, total in answer["ms"].items():
        assert total == sum(end - start for k, start, end in found if k == kind)
    assert answer["paid_ms"] == answer["ms"]["up"] + answer["ms"]["claimed_up"] + answer["ms"]["maintenance"]
    return found


def ask_session(people: People, body: Any) -> Reply:
    return Door(people.web.address).ask("POST", "/v1/sessions", body)


def session_bytes(made: dict[str, Any], **changed: Any) -> bytes:
    return json.dumps(session_request(made, **changed)).encode()


def backfill_bytes(made: dict[str, Any], **changed: Any) -> bytes:
    return backfill_body(made, [], **changed)


class Signed(NamedTuple):
    """One of the two requests that a node signs."""

    path: str
    body: Callable[..., bytes]
    taken: int

    def ask(self, people: People, body: bytes) -> Reply:
        named = {"content-type": "application/json"}
        return Door(people.web.address).ask("POST", self.path, body, headers=named)

    def status(self, people: People, made: dict[str, Any], **changed: Any) -> int:
        return self.ask(people, self.body(made, **changed)).status

    def refusal(self, people: People, made: dict[str, Any], **changed: Any) -> tuple[int, str]:
        return self.ask(people, self.body(made, **changed)).refusal


SESSION = Signed("/v1/sessions", session_bytes, 201)
BACKFILL = Signed("/v1/beats/backfill", backfill_bytes, 200)
both = pytest.mark.parametrize("signed", [SESSION, BACKFILL], ids=["session", "backfill"])


# -- the kill ---------------------------------------------------------------------------------------


class Outage(NamedTuple):
    """One kill of the engine. Who was heard before and after it has t and f; [t + ttl, f) is nobody's."""

    nodes: list[Node]  # unused ones that were heard right before and after
    quiet: Node  # silent before it began
    stopped: Node
    new: Node  # never heard before
    away: Node  # not heard after
    grown: Node  # with a third workload that its first session does not know
    t: dict[str, int]
    f: dict[str, int]
    refused: Reply  # a session asked for meanwhile
    refused_s: float
    backfilled: Reply

    def node(self) -> tuple[Node, int, int]:
        """A node with t, and how long after t f was."""
        node = self.nodes.pop()
        t = self.t[node.node_id]
        return node, t, self.f[node.node_id] - t


@pytest.fixture(scope="module")
def killed(people: People, system: System) -> Outage:
    """Before anybody is heard again; other tests fill that time."""
    nodes = [people.opened() for _ in range(12)]
    quiet, stopped, new, away, grown = (people.opened() for _ in range(5))
    path = f"/v1/nodes/{grown.node_id}/workloads"
    third = people.make(path, {"kind": kind_of(people), "name": "more"})["workload_id"]
    grown.open()
    grown.workloads.append(third)
    t = {quiet.node_id: quiet.beat().t_ms, stopped.node_id: stopped.beat().t_ms}
    stopped.beat(flags=np.STOPPING)
    wait_until(t[quiet.node_id] + TTL_MS + 200)
    for node in (*nodes, away, grown):
        t[node.node_id] = node.beat().t_ms
    with engine_dead(system):
        assert now_ms() < t[nodes[0].node_id] + TTL_MS, "the machine was too busy: try again"
        began = time.monotonic()
        refused = SESSION.ask(people, session_bytes(people.made()))
        took = time.monotonic() - began
        body = backfill_body(stopped.made, claims_of(stopped, [(now_ms() - 300, np.HEALTHY)]))
        backfilled = post(people.web, body)
    return Outage(nodes, quiet, stopped, new, away, grown, t, {}, refused, took, backfilled)


@pytest.fixture(scope="module")
def outage(killed: Outage) -> Outage:
    """After they were heard again, well within the grace of a minute."""
    wait_until(max(killed.t.values()) + 5000)
    for node in (*killed.nodes, killed.quiet, killed.new, killed.grown):
        killed.f[node.node_id] = node.beat().t_ms
    return killed


def kind_of(people: People) -> str:
    slug = f"k{uuid.uuid4().hex[:12]}"
    return people.make(f"/v1/projects/{PROJECT}/kinds", {"slug": slug})["slug"]


def test_a_session_is_refused_after_two_seconds_while_the_shard_is_away(killed: Outage):
    assert killed.refused.refusal == (503, "unavailable")
    assert int(killed.refused.headers["retry-after"]) >= 1
    assert killed.refused_s < 4.0
    if killed.backfilled.status != 200:  # claims may need no shard
        assert killed.backfilled.refusal == (503, "unavailable")


# -- what both signed requests have in common -------------------------------------------------------


@both
def test_the_first_refusal_of_the_published_order_is_told(people: People, signed: Signed):
    made, unknown = people.made(), str(uuid.uuid4())
    late, forged, short = rfc3339(now_ms() - 400_000), "00" * 64, "ab" * 15
    seen = os.urandom(16).hex()
    assert signed.status(people, made, nonce=seen) == signed.taken
    assert signed.refusal(people, made, nonce=seen) == (409, "nonce_seen")
    for _ in range(8):
        assert signed.status(people, made) == signed.taken
    everything = {"nonce": short, "node_id": unknown, "sent_at": late, "signature": forged}
    assert signed.refusal(people, made, **everything) == MALFORMED
    assert signed.refusal(people, made, node_id=unknown, sent_at=late, nonce=seen) == UNAUTHORIZED
    assert signed.refusal(people, made, signature=forged, sent_at=late, nonce=seen) == UNAUTHORIZED
    assert signed.refusal(people, made, sent_at=late, nonce=seen) == (401, "clock_skew")
    assert signed.refusal(people, made, nonce=seen) == (429, "rate")
    assert signed.refusal(people, made) == (429, "rate")


@both
def test_a_clock_may_be_300_s_off_and_is_told_the_servers_time_beyond(people: People, signed: Signed):
    made = people.made()
    for off_ms in (-298_000, 298_000):
        assert signed.status(people, made, sent_at=rfc3339(now_ms() + off_ms)) == signed.taken
    for off_ms in (-302_000, 302_000, -3_600_000, 86_400_000):
        reply = signed.ask(people, signed.body(made, sent_at=rfc3339(now_ms() + off_ms)))
        assert reply.refusal == (401, "clock_skew")
        assert abs(reply.json["server_time"] - now_ms()) < 5000


@both
def test_every_form_of_rfc_3339_is_taken_and_signed_as_written(people: People, signed: Signed):
    made, now = people.made(), datetime.now(UTC)
    east = now.astimezone(timezone(timedelta(hours=5, minutes=30)))
    forms = [f"{now:%Y-%m-%dT%H:%M:%SZ}", f"{now:%Y-%m-%dt%H:%M:%S.%fz}", f"{now:%Y-%m-%dT%H:%M:%S.5+00:00}"]
    forms += [f"{now:%Y-%m-%dT%H:%M:%S.123456789Z}", f"{now:%Y-%m-%dT%H:%M:%S-00:00}"]
    forms += [east.isoformat(timespec="milliseconds")]
    for sent_at in forms:
        assert signed.status(people, made, sent_at=sent_at) == signed.taken, sent_at
    for sent_at in (f"{now:%Y-%m-%dT%H:%M:%S}", f"{now:%Y-%m-%d %H:%M:%SZ}", f"{now:%Y-%m-%d}", "", "now"):
        assert signed.refusal(people, made, sent_at=sent_at) == MALFORMED, sent_at


@both
def test_nonces_are_16_to_64_bytes_of_lower_case_hex(people: People, signed: Signed):
    made = people.made()
    for nonce in (os.urandom(16).hex(), os.urandom(17).hex(), os.urandom(64).hex()):
        assert signed.status(people, made, nonce=nonce) == signed.taken
    for nonce in ("ab" * 15, "ab" * 65, "AB" * 16, "ab" * 16 + "a", "zz" * 16, "", None, 7):
        assert signed.refusal(people, made, nonce=nonce) == MALFORMED


@both
def test_a_body_sent_twice_at_once_is_taken_once(people: People, signed: Signed):
    body = signed.body(people.made())
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: signed.ask(people, body), range(6)))
    assert sorted(reply.status for reply in replies) == [signed.taken, *[409] * 5]
    assert {reply.refusal for reply in replies if reply.status == 409} == {(409, "nonce_seen")}


@both
def test_forged_and_malformed_requests_use_up_neither_rate_nor_nonce(people: People, signed: Signed):
    made, nonce = people.made(), os.urandom(16).hex()
    for _ in range(11):
        assert signed.refusal(people, made, nonce=nonce, signature="00" * 64) == UNAUTHORIZED
    assert signed.refusal(people, made, nonce=nonce, sent_at="now") == MALFORMED
    assert signed.status(people, made, nonce=nonce) == signed.taken


@pytest.mark.parametrize(("first", "then"), [(SESSION, BACKFILL), (BACKFILL, SESSION)])
def test_nonces_and_rates_of_sessions_and_backfill_are_counted_apart(
    people: People, first: Signed, then: Signed
):
    made, nonce = people.made(), os.urandom(16).hex()
    assert first.status(people, made, nonce=nonce) == first.taken
    assert then.status(people, made, nonce=nonce) == then.taken
    for _ in range(9):
        assert first.status(people, made) == first.taken
    refused = first.ask(people, first.body(made))
    assert refused.refusal == (429, "rate")
    assert int(refused.headers["retry-after"]) >= 1
    assert then.status(people, made) == then.taken


def test_a_revoked_node_signs_nothing_any_more(people: People):
    node = people.opened()
    assert people.web.ask("POST", f"/v1/nodes/{node.node_id}/revoke").status == 200
    time.sleep(1.0)
    for signed in (SESSION, BACKFILL):
        assert signed.refusal(people, node.made) == UNAUTHORIZED
    assert node.say({"workloads": {}}).status == 401


# -- backfill: shape and signature ------------------------------------------------------------------


def test_beats_of_the_wrong_shape_are_malformed_and_none_is_taken(people: People):
    node = people.opened()
    good = claim(now_ms() - 1000, {0: np.HEALTHY}, node.generation)
    wrong: list[Any] = [{}, None, '"[]"', [1], [[]], [{}], [good, {**good, "at_ms": -1}]]
    wrong += [[good, {key: value for key, value in good.items() if key != left_out}] for left_out in good]
    wrong += [[{**good, "at_ms": value}] for value in (1.5, "1", None, True)]
    wrong += [[{**good, "generation": value}] for value in (-1, 65_536, "1", None)]
    planes: tuple[Any, ...] = ("0" * 15, "0" * 17, "000000000000000A", "0x00000000000001", "", 1, None)
    wrong += [[{**good, name: value}] for name in ("plane0", "plane1") for value in planes]
    for beats in wrong:
        assert post(people.web, backfill_body(node.made, beats)).refusal == MALFORMED, beats
    for body in (b"", b"[]", b"{", backfill_body(node.made, []) + b"]", backfill_body(node.made, [])[:-1]):
        assert post(people.web, body).refusal == MALFORMED, body
    for left_out in ORDER:
        body = backfill_body(node.made, [], order=[key for key in ORDER if key != left_out])
        assert post(people.web, body).refusal == MALFORMED, left_out
    assert counts(post(people.web, backfill_body(node.made, [good]))) == {"taken": 1}


def test_ten_thousand_beats_are_taken_and_one_more_is_malformed(people: People):
    node, begin = people.opened(), now_ms() - 30_000
    claims = claims_of(node, [(begin + at, np.HEALTHY) for at in range(10_001)])
    forged = backfill_body(node.made, claims, signature="00" * 64)
    assert post(people.web, forged).refusal == MALFORMED
    assert post(people.web, backfill_body(node.made, claims)).refusal == MALFORMED
    assert counts(post(people.web, backfill_body(node.made, claims[:-1]))) == {"taken": 10_000}
    again = counts(post(people.web, backfill_body(node.made, claims[1:])))
    assert again == {"taken": 1, "duplicate": 9_999}


def test_the_signature_is_over_the_bytes_of_the_beats_as_they_stand(people: People):
    node, begin = people.opened(), now_ms() - 10_000
    zero, one = "0" * 16, "0" * 15 + "1"
    texts = [
        '[{"at_ms":%d,"plane0":"%s","plane1":"%s","generation":%d}]',
        '[\n\t{ "at_ms" :%d ,\r\n"plane0": "%s","plane1" :"%s", "generation": %d  } \n ]',
        '[{"x": "]}[{\\"]\\\\", "at_ms":%d,"plane0":"%s","plane1":"%s","generation":%d, "y":[[],["]"]]}]',
        '[{"\\u0061t_ms":%d,"plane\\u0030":"\\u0030%s","plane1":"%s","generation":%d,"\\"]\\u005d":"ü€😀"}]',
        '[{"at_ms":%d,"plane0":"%s","plane1":"%s","beats":[{"beats":[]}],"generation":%d}]',
    ]
    orders = [
        ORDER,
        ORDER[::-1],
        ("beats", *ORDER[:3], "signature"),
        (*ORDER[:3], "signature", "beats"),
        ORDER,
    ]
    for turn, (text, order) in enumerate(zip(texts, orders, strict=True)):
        plane0 = one[1:] if "\\u0030%s" in text else one
        beats = text % (begin + turn, plane0, zero, node.generation)
        assert counts(post(people.web, backfill_body(node.made, beats, order=order))) == {"taken": 1}, text
    loose = backfill_body(node.made, texts[0] % (begin + 10, one, zero, node.generation))
    loose = loose.replace(b'"beats": [', b'"b\\u0065ats"\n\t : \r\n[').replace(b"}], ", b"}] \n , ")
    assert counts(post(people.web, b" \n" + loose + b"\n")) == {"taken": 1}
    decoy = backfill_body(node.made, texts[0] % (begin + 11, one, zero, node.generation))
    decoy = b'{"a": "\\"beats\\": [", "b": {"beats": [1]}, ' + decoy[1:]
    assert counts(post(people.web, decoy)) == {"taken": 1}


def test_the_same_beats_in_other_bytes_are_not_what_was_signed(people: People):
    node, other = people.opened(), people.made()
    body = backfill_body(
        node.made, claims_of(node, [(now_ms() - 2000, np.HEALTHY), (now_ms() - 1000, np.HEALTHY)])
    )
    first, second = json.loads(body)["beats"]
    changed = [
        body.replace(b"[{", b"[ {"),
        body.replace(b"}]", b"}\n]"),
        body.replace(b"at_ms", b"\\u0061t_ms"),
    ]
    changed += [body.replace(b'"at_ms": ', b'"at_ms":'), body.replace(b"}, {", b"},{")]
    changed += [body.replace(json.dumps(first).encode(), json.dumps(second).encode())]
    changed += [body.replace(b'"plane1": "00', b'"plane1": "f0')]
    changed += [body.replace(node.node_id.encode(), other["node_id"].encode())]
    changed += [backfill_body({**node.made, "private_key": other["private_key"]}, [first])]
    changed += [backfill_body(node.made, [first], node_id=str(uuid.uuid4()))]
    bodies = []
    for one in changed:
        assert one != body
        reply = post(people.web, one)
        assert reply.refusal == UNAUTHORIZED, one
        bodies.append({key: value for key, value in reply.json.items() if key != "request_id"})
    assert all(one == bodies[0] for one in bodies)
    assert counts(post(people.web, body)) == {"taken": 2}
    assert post(people.web, body).refusal == (409, "nonce_seen")


def test_a_session_signature_opens_no_backfill_and_a_key_said_twice_is_refused(people: People):
    node = people.opened()
    request = session_request(node.made)
    crossed = backfill_body(node.made, [], sent_at=request["sent_at"], nonce=request["nonce"])
    crossed = crossed.replace(json.loads(crossed)["signature"].encode(), request["signature"].encode())
    assert post(people.web, crossed).refusal == UNAUTHORIZED
    beats = claims_of(node, [(now_ms() - 1000, np.HEALTHY)])
    body = backfill_body(node.made, beats)
    for twice in (b'{"beats": [], ' + body[1:], body[:-1] + b', "beats": []}'):
        assert post(people.web, twice).status in (400, 401)  # never beats that nobody signed
    assert hand_in(node, (beats[0]["at_ms"], np.HEALTHY)) == {"taken": 1}


# -- backfill: what is taken and what is ignored ----------------------------------------------------


def test_beats_are_taken_or_ignored_one_by_one_each_for_a_reason(people: People):
    node, now = people.opened(), now_ms()
    good, gen = {0: np.HEALTHY}, node.generation

    def said(*beats: tuple[int, int]) -> dict[str, int]:
        given = [claim(now + at, good, generation) for at, generation in beats]
        return counts(post(people.web, backfill_body(node.made, given)))

    assert said() == {"taken": 0}
    assert said((-5000, gen), (-4000, gen), (60_000, gen), (3_600_000, gen)) == {"taken": 2, "future": 2}
    assert said((-5000, gen), (-4500, gen), (-4000, gen)) == {"taken": 1, "duplicate": 2}
    assert said((-3900, gen + 1), (-3800, gen), (-3700, 65_535)) == {"taken": 1, "generation": 2}
    assert said((-3000, gen), (-3100, gen), (-2900, gen)) == {"taken": 2, "order": 1}
    assert said((-3100, gen), (-2800, gen), (-2800, gen)) == {"taken": 2, "duplicate": 1}
    assert said((0, gen - 1), (60_000, gen)) == {"taken": 0, "generation": 1, "future": 1}


def test_ended_generations_may_still_be_named(people: People):
    node, now = people.opened(), now_ms()
    first = node.generation
    for _ in range(3):
        node.open()
    assert node.say({"workloads": {}}).status == 200
    beats = [claim(now - 1000 + at, {0: np.HEALTHY}, first + at) for at in range(5)]
    assert counts(post(people.web, backfill_body(node.made, beats))) == {"taken": 4, "generation": 1}


def test_a_node_that_never_opened_a_session_has_no_generation_to_name(people: People):
    made = people.made()
    beats = [claim(now_ms() - 1000 + at, {0: np.HEALTHY}, at) for at in range(3)]
    assert counts(post(people.web, backfill_body(made, beats))) == {"taken": 0, "generation": 3}


def test_claims_handed_in_from_many_sides_at_once_are_each_taken_once(people: People):
    node, begin = people.opened(), now_ms() - 5000
    claims = claims_of(node, [(begin + at, np.HEALTHY) for at in range(1000)])
    bodies = [backfill_body(node.made, claims[at : at + 600]) for at in (0, 400, 200, 0, 400)]
    with ThreadPoolExecutor(5) as pool:
        told = [counts(reply) for reply in pool.map(lambda body: post(people.web, body), bodies)]
    assert sum(one["taken"] for one in told) == 1000
    assert sum(one.get("duplicate", 0) for one in told) == 2000
    assert all(set(one) <= {"taken", "duplicate"} for one in told)


# -- the accounting of claims -----------------------------------------------------------------------


def test_without_claims_our_own_fault_is_unobserved(outage: Outage):
    node, t, f = outage.node()
    assert timeline(node, t, t + f) == [("up", 0, TTL_MS), ("unobserved", TTL_MS, f)]


def test_a_claim_says_its_state_until_the_next_one_or_its_ttl(outage: Outage):
    node, t, f = outage.node()
    one, two = node.slots[node.workloads[0]], node.slots[node.workloads[1]]
    story = [
        (2000, {one: np.HEALTHY, two: np.UNHEALTHY, 40: np.HEALTHY}),
        (2300, {one: np.UPDATING, two: np.UNHEALTHY}),
        (2500, {one: np.UNHEALTHY, two: np.HEALTHY, 63: np.UPDATING}),
        (2600, {two: np.HEALTHY}),  # absent counts as unhealthy
        (2700, {one: np.HEALTHY, two: np.UPDATING}),
    ]
    assert hand_in(node, *((t + at, states) for at, states in story)) == {"taken": 5}
    end = 2700 + node.session["ttl_ms"]
    assert timeline(node, t, t + f) == [
        ("up", 0, TTL_MS),
        ("unobserved", TTL_MS, 2000),
        ("claimed_up", 2000, 2300),
        ("claimed_updating", 2300, 2500),
        ("claimed_unhealthy", 2500, 2700),
        ("claimed_up", 2700, end),
        ("unobserved", end, f),
    ]
    assert timeline(node, t, t + f, index=1) == [
        ("up", 0, TTL_MS),
        ("unobserved", TTL_MS, 2000),
        ("claimed_unhealthy", 2000, 2500),
        ("claimed_up", 2500, 2700),
        ("claimed_updating", 2700, end),
        ("unobserved", end, f),
    ]


def test_a_claim_takes_nothing_from_what_beats_vouch_for(outage: Outage):
    node, t, f = outage.node()
    after = node.beat().t_ms - t
    wait_until(t + after + 100)
    told = [(10, np.UNHEALTHY), (1200, np.UPDATING), (f - 300, np.UNHEALTHY), (f + 20, np.UNHEALTHY)]
    assert hand_in(node, (t - 400, np.UNHEALTHY), *((t + at, state) for at, state in told)) == {"taken": 5}
    assert timeline(node, t, t + after) == [
        ("up", 0, TTL_MS),
        ("claimed_updating", TTL_MS, 1200 + TTL_MS),  # began while covered, holds for its own ttl
        ("unobserved", 1200 + TTL_MS, f - 300),
        ("claimed_unhealthy", f - 300, f),  # cut at the accepted beat
        ("up", f, after),
    ]


def test_an_accepted_beat_ends_a_claim_from_before_it(outage: Outage):
    node, t, f = outage.node()
    assert hand_in(node, (t - 1, np.UNHEALTHY), (t, np.UNHEALTHY)) == {"taken": 2}
    assert timeline(node, t, t + f) == [("up", 0, TTL_MS), ("unobserved", TTL_MS, f)]


def test_of_claims_with_equal_time_the_first_stored_counts(outage: Outage):
    node, t, f = outage.node()
    assert hand_in(node, (t + 2000, np.HEALTHY), (t + 2000, np.UNHEALTHY)) == {"taken": 1, "duplicate": 1}
    before = timeline(node, t, t + f)
    assert before[2] == ("claimed_up", 2000, 2000 + TTL_MS)
    assert hand_in(node, (t + 2000, np.UPDATING)) == {"taken": 0, "duplicate": 1}
    node.open()  # another generation makes it no other time
    assert hand_in(node, (t + 2000, np.UPDATING)) == {"taken": 0, "duplicate": 1}
    assert timeline(node, t, t + f) == before


def test_claims_handed_in_later_cut_those_that_were_there(outage: Outage):
    node, t, f = outage.node()
    assert hand_in(node, (t + 2000, np.HEALTHY), (t + 3000, np.HEALTHY)) == {"taken": 2}
    assert timeline(node, t, t + f)[2] == ("claimed_up", 2000, 3000 + TTL_MS)
    assert hand_in(node, (t + 1800, np.UPDATING), (t + 2500, np.UNHEALTHY)) == {"taken": 2}
    assert timeline(node, t, t + f)[1:] == [
        ("unobserved", TTL_MS, 1800),
        ("claimed_updating", 1800, 2000),
        ("claimed_up", 2000, 2500),
        ("claimed_unhealthy", 2500, 3000),
        ("claimed_up", 3000, 3000 + TTL_MS),
        ("unobserved", 3000 + TTL_MS, f),
    ]


def test_ignored_claims_are_not_accounted(outage: Outage):
    node, t, f = outage.node()
    beats = claims_of(node, [(t + 3000, np.HEALTHY), (t + 2000, np.HEALTHY)])
    beats.append(claim(t + 3100, {0: np.UNHEALTHY}, node.generation + 1))
    beats += claims_of(node, [(now_ms() + 60_000, np.UNHEALTHY)])
    told = counts(post(node.web, backfill_body(node.made, beats)))
    assert told == {"taken": 1, "order": 1, "generation": 1, "future": 1}
    assert timeline(node, t, t + f) == [
        ("up", 0, TTL_MS),
        ("unobserved", TTL_MS, 3000),
        ("claimed_up", 3000, 3000 + TTL_MS),
        ("unobserved", 3000 + TTL_MS, f),
    ]


def test_stopping_is_nothing_that_a_claim_can_undo(outage: Outage):
    node, t = outage.stopped, outage.t[outage.stopped.node_id]
    assert hand_in(node, (t + 3000, np.HEALTHY)) == {"taken": 1}
    frm, to = t + 1000, t + 6000
    assert timeline(node, frm, to) == [("stopped", 0, to - frm)]


def test_who_was_silent_before_the_gap_stays_silent_whatever_it_claims(outage: Outage):
    node, t = outage.quiet, outage.t[outage.quiet.node_id]
    f = outage.f[node.node_id] - t
    assert hand_in(node, *((t + at, np.HEALTHY) for at in range(1000, f, 500)))["taken"] > 3
    assert timeline(node, t, t + f) == [("up", 0, TTL_MS), ("silent", TTL_MS, f)]


def test_before_its_first_beat_a_workload_is_silent_whatever_it_claims(outage: Outage):
    node, f = outage.new, outage.f[outage.new.node_id]
    assert hand_in(node, *((f - at, np.HEALTHY) for at in range(4000, 0, -500))) == {"taken": 8}
    frm = f - 4000
    assert timeline(node, frm, f + 1) == [("silent", 0, 4000), ("up", 4000, 4001)]


def test_what_may_still_be_forgiven_is_provisional_and_takes_claims(outage: Outage):
    node, t = outage.away, outage.t[outage.away.node_id]
    to = t + 4500
    assert timeline(node, t, to) == [("up", 0, TTL_MS), ("unobserved", TTL_MS, 4500)]
    assert node.uptime(t, to)["provisional"] is True
    assert hand_in(node, (t + 2000, np.HEALTHY)) == {"taken": 1}
    assert timeline(node, t, to)[2] == ("claimed_up", 2000, 2000 + TTL_MS)
    back = node.beat().t_ms - t
    assert timeline(node, t, t + back) == [
        ("up", 0, TTL_MS),
        ("unobserved", TTL_MS, 2000),
        ("claimed_up", 2000, 2000 + TTL_MS),
        ("unobserved", 2000 + TTL_MS, back),
    ]
    assert node.uptime(t, t + back)["provisional"] is False


def test_a_claim_has_the_slot_map_of_the_generation_it_names(outage: Outage):
    node, t = outage.grown, outage.t[outage.grown.node_id]
    f, healthy = outage.f[node.node_id] - t, dict.fromkeys(node.slots.values(), np.HEALTHY)
    beats = [claim(t + 1800, healthy, node.generation - 1), claim(t + 3400, healthy, node.generation)]
    assert counts(post(node.web, backfill_body(node.made, beats))) == {"taken": 2}
    assert timeline(node, t, t + f)[2:4] == [("claimed_up", 1800, 1800 + TTL_MS), ("unobserved", 3300, 3400)]
    assert timeline(node, t, t + f, index=2) == [  # slot 2 was not in that map: bits outside it are ignored
        ("up", 0, TTL_MS),
        ("unobserved", TTL_MS, 3400),
        ("claimed_up", 3400, 3400 + TTL_MS),
        ("unobserved", 3400 + TTL_MS, f),
    ]


def test_claims_are_paid_and_leave_the_denominator_what_is_not_claimed(people: People, outage: Outage):
    node, t, f = outage.node()
    assert hand_in(node, (t + 2000, np.HEALTHY), (t + 2500, np.UNHEALTHY)) == {"taken": 2}
    answer = node.uptime(t, t + f)
    assert (answer["ms"]["claimed_up"], answer["ms"]["claimed_unhealthy"]) == (500, TTL_MS)
    assert answer["paid_ms"] == TTL_MS + 500
    assert answer["ratio"] == pytest.approx(answer["paid_ms"] / (f - answer["ms"]["unobserved"]))
    window = f"from={quote(rfc3339(t))}&to={quote(rfc3339(t + f))}"
    page = people.web.get(f"/v1/projects/{PROJECT}/uptime?{window}&limit=1000")
    (row,) = [one for one in page["items"] if one["workload_id"] == node.workloads[0]]
    assert row["ms"] == answer["ms"]


# -- RESYNC -----------------------------------------------------------------------------------------


def codes_of(node: Node) -> set[Any]:
    """What the session is told by datagram, by frame over HTTP and by JSON."""
    framed = np.read_ack(node.key, node.beats.ask("POST", "/v1/beats", node.frame()).body)
    assert framed.ttl_ms == TTL_MS
    said = node.say({"workloads": dict.fromkeys(node.slots, "healthy")}).json
    assert said["ttl_ms"] == TTL_MS
    early = {np.EARLY: np.OK, "early": "ok"}
    return {early.get(code, code) for code in (node.beat().code, framed.code, said["code"])}


FINE, TOLD = {np.OK, "ok"}, {np.RESYNC, "resync"}


def test_a_changed_slot_map_is_told_until_a_frame_of_a_newer_generation_comes(people: People):
    node = people.opened()
    assert codes_of(node) == FINE
    added = people.make(f"/v1/nodes/{node.node_id}/workloads", {"kind": kind_of(people), "name": "more"})[
        "workload_id"
    ]
    soon(lambda: codes_of(node) == TOLD)
    people.fetch_desired(node)
    time.sleep(0.6)
    assert codes_of(node) == TOLD  # the desired state is not the slot map
    old = {"key": node.key, "generation": node.generation}
    node.open()
    assert added in node.slots
    assert [node.beat(**old).code for _ in range(2)] == [np.RESYNC] * 2  # no frame of it came yet
    assert codes_of(node) == FINE
    assert node.beat(**old).code in (np.OK, np.EARLY)


def test_a_desired_version_that_changed_is_told_until_the_desired_state_is_fetched(people: People):
    kind = kind_of(people)
    node, other = people.registered(kind), people.registered(kind)
    assert codes_of(node) == codes_of(other) == FINE
    versions = f"/v1/projects/{PROJECT}/kinds/{kind}/versions"
    people.make(versions, {"version": "1.0.0", "manifest": "{}", "rollout_percent": 100})
    soon(lambda: codes_of(node) == TOLD)
    for _ in range(3):
        assert codes_of(node) == TOLD
    node.send(node.frame(flags=np.NO_ACK))  # suppresses OK and EARLY only
    assert node.hear().code == np.RESYNC
    assert node.state() == "up"
    assert [one["version"] for one in people.fetch_desired(node).json["workloads"]] == ["1.0.0"]
    soon(lambda: codes_of(node) == FINE)
    time.sleep(0.3)
    assert codes_of(node) == FINE
    assert codes_of(other) == TOLD  # who did not fetch it is told on
    people.web.ask("PATCH", f"{versions}/1.0.0", {"rollout_percent": 0})
    soon(lambda: codes_of(node) == TOLD)


def test_a_new_session_does_not_hide_a_desired_version_that_nobody_fetched(people: People):
    kind = kind_of(people)
    node, witness = people.registered(kind), people.registered(kind)
    assert codes_of(node) == codes_of(witness) == FINE
    path = f"/v1/projects/{PROJECT}/kinds/{kind}/versions"
    people.make(path, {"version": "1.0.0", "manifest": "{}", "rollout_percent": 100})
    soon(lambda: codes_of(witness) == TOLD)
    node.open()
    if codes_of(node) != TOLD:
        raise AssertionError("a new session hid the rollout")


# -- the JSON path's token --------------------------------------------------------------------------


def test_a_token_changed_in_any_place_is_refused(people: People):
    node, other = people.opened(), people.opened()
    token = node.token
    for at, letter in enumerate(token[:-1]):
        changed = token[:at] + ("A" if letter != "A" else "B") + token[at + 1 :]
        assert node.say({"workloads": {}}, token=changed).status == 401, at
    half = len(token) // 2
    for changed in (token[:half] + other.token[half:], token[:-4], token + "AAAA", node.key.hex()):
        assert node.say({"workloads": {}}, token=changed).status == 401
    assert node.state() == "new"
    assert node.say({"workloads": {}}).status == 200


def test_a_token_of_the_generation_before_the_previous_is_refused_everywhere(people: People):
    node = people.opened()
    assert people.fetch_desired(node).status == 200
    old = Door(people.web.address, bearer=node.token)
    for _ in range(2):
        node.open()
    assert node.say({"workloads": {}}, token=old.bearer).status == 401
    time.sleep(1.0)  # as long as a revocation may take
    assert people.fetch_desired(node).status == 200
    if old.ask("GET", "/v1/manager/desired").status != 401:
        raise AssertionError("an old token was taken")


def test_claims_outlive_another_kill_and_a_short_gap_forgives_no_long_absence(
    people: People, outage: Outage, system: System
):
    node, t, f = outage.node()
    assert hand_in(node, (t + 2000, np.HEALTHY), (t + 4000, np.UNHEALTHY)) == {"taken": 2}
    before = timeline(node, t, t + f)
    for _ in range(6):  # until the engine is back while both are still covered: a busy machine takes longer
        soon_back, late = people.opened(), people.opened()
        begin = {one: one.beat().t_ms for one in (soon_back, late)}
        with engine_dead(system):
            pass
        heard = now_ms()
        if heard < begin[soon_back] + TTL_MS:
            break
    else:
        pytest.fail("the machine was too busy, six times: try again")
    assert timeline(node, t, t + f) == before
    told = hand_in(node, (t + 2000, np.UNHEALTHY), (t + 2200, np.UPDATING))
    assert told == {"taken": 1, "duplicate": 1}
    assert ("claimed_updating", 2200, 2200 + TTL_MS) in timeline(node, t, t + f)
    for one, end in ((soon_back, begin[soon_back] + TTL_MS + 60), (late, heard + TTL_MS + 50)):
        wait_until(end)
        start, back = begin[one], one.beat().t_ms - begin[one]
        assert hand_in(one, (start + TTL_MS + 20, np.HEALTHY)) == {"taken": 1}
        if one is late:
            assert timeline(one, start, start + back) == [("up", 0, TTL_MS), ("silent", TTL_MS, back)]
        else:
            assert timeline(one, start, start + back) == [
                ("up", 0, TTL_MS),
                ("unobserved", TTL_MS, TTL_MS + 20),
                ("claimed_up", TTL_MS + 20, back),
            ]


@pytest.mark.slow
def test_a_token_is_told_rekey_in_the_last_tenth_of_its_life_and_refused_after_it(people: People):
    node = people.opened()
    expires, node_token = unix_ms(node.session["expires_at"]), node.token
    assert abs(expires - now_ms() - LIFE_S * 1000) < 2000
    last_tenth, web = expires - LIFE_S * 100, Door(people.web.address, bearer=node_token)
    for at, code in ((last_tenth - 500, "ok"), (last_tenth + 300, "rekey"), (expires - 400, "rekey")):
        wait_until(at)
        assert node.say({"workloads": dict.fromkeys(node.slots, "healthy")}).json["code"] in (code, "early")
        assert web.ask("GET", "/v1/manager/desired").status == 200
        assert node.workload_state() == "up"
    wait_until(expires + 300)
    assert node.say({"workloads": dict.fromkeys(node.slots, "healthy")}).status == 401
    soon(lambda: web.ask("GET", "/v1/manager/desired").status == 401, within_s=1.5)  # may lag a second
    assert hand_in(node, (expires + 100, np.HEALTHY)) == {"taken": 1}  # its generation may be named on
    node.open()
    assert node.say({"workloads": {}}).status == 200
    assert node.say({"workloads": {}}, token=node_token).status == 401


@pytest.mark.slow
def test_plain_http_from_another_machine_may_carry_no_backfill(tmp_path_factory: pytest.TempPathFactory):
    host = own_address()
    if host is None:
        pytest.skip("this machine has no address but loopback")
    with installed(Path(tmp_path_factory.mktemp("open")), every_address=True) as installation:
        village = Village(installation, nodes=1, workloads=1, interval_ms=1000)
        node = village.opened()
        web = Door(f"{host}:{installation.web.address.rsplit(':', 1)[1]}")
        for body in (backfill_body(node.made, []), b"{}", b""):  # before `malformed`
            assert post(web, body).refusal == (403, "tls_required")
        assert counts(post(village.web, backfill_body(node.made, []))) == {"taken": 0}
        village.close_nodes()
