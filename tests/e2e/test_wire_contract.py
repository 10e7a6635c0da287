"""The published beat protocol, held against a running installation by an outside party.

Only the contract was read for this: client, codec and SipHash under `stranger/` are its own. Here: sessions,
frames by UDP and HTTP, the JSON path, pings and pushes. Time, verdicts and restarts are held by
`test_liveness_contract.py`, what takes a minute by `test_slow_contract.py`.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.stranger import frames as np
from tests.e2e.stranger.installation import running
from tests.e2e.stranger.party import SILENCE_S, Door, Reply, now_ms, rfc3339, session_request, unix_ms
from tests.e2e.stranger.village import Village

INTERVAL_MS, TTL_MS = 1000, 1500


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with running(Path(tmp_path_factory.mktemp("stranger"))) as installation:
        yield Village(installation, nodes=40, workloads=3, interval_ms=INTERVAL_MS)


@pytest.fixture(autouse=True)
def _close(village: Village) -> Iterator[None]:
    yield
    village.close_nodes()


def ask_session(village: Village, body: Any) -> Reply:
    """Without an API key: the signature is all there is."""
    return Door(village.web.address).ask("POST", "/v1/sessions", body)


def a_second_later() -> None:
    """STALE and CLOCK are told once per second and row."""
    time.sleep(1.1)


def test_a_session_has_the_published_shape_and_its_key_works_at_once(village: Village):
    made = village.made()
    reply = ask_session(village, session_request(made))
    assert reply.status == 201
    assert set(reply.json) >= {"sessions", "server_ms"}
    assert abs(reply.json["server_ms"] - now_ms()) < 5000
    (session,) = reply.json["sessions"]
    named = {"row", "generation", "key", "token", "expires_at", "interval_ms", "ttl_ms", "endpoints", "slots"}
    assert set(session) >= named
    assert (session["interval_ms"], session["ttl_ms"]) == (INTERVAL_MS, TTL_MS)
    assert session["key"] == bytes.fromhex(session["key"]).hex()
    assert len(session["key"]) == 32
    assert unix_ms(session["expires_at"]) > now_ms()
    assert session["expires_at"].endswith("Z")
    beats = village.installation.beats.address
    assert session["endpoints"] == {"udp": beats, "http": f"http://{beats}"}
    assert {entry["workload_id"] for entry in session["slots"]} == set(made["workloads"])
    assert all(0 <= entry["slot"] <= 63 for entry in session["slots"])
    assert village.opened().beat().code == np.OK


@pytest.mark.parametrize(("host", "told"), [("example.org", "example.org"), ("[::1]:9", "[::1]")])
def test_endpoints_carry_the_host_name_of_the_request(village: Village, host: str, told: str):
    body = session_request(village.made())
    reply = village.web.ask("POST", "/v1/sessions", body, headers={"host": host})
    port = village.installation.beats.address.rsplit(":", 1)[1]
    expected = {"udp": f"{told}:{port}", "http": f"http://{told}:{port}"}
    assert reply.json["sessions"][0]["endpoints"] == expected


def test_a_session_request_of_the_wrong_shape_is_malformed(village: Village):
    made = village.made()
    wrong: list[Any] = [b"{", [1], {}]
    wrong += [session_request(made, nonce=nonce) for nonce in ("ab" * 15, "ab" * 65, "AB" * 16, "a" * 33)]
    wrong += [session_request(made, manager_version=text) for text in ("", "a b", "a" * 129, "ä", 3)]
    wrong += [session_request(made, sent_at=text) for text in ("yesterday", "2026-01-01T00:00:00")]
    wrong += [{**session_request(made), "signature": text} for text in ("zz" * 64, "00" * 63, "AA" * 64)]
    for body in wrong:
        assert ask_session(village, body).refusal == (400, "malformed"), body


def test_an_unknown_node_and_a_bad_signature_get_one_and_the_same_answer(village: Village):
    made, other = village.made(), village.made()
    late = rfc3339(now_ms() - 400_000)
    refused = [
        {**session_request(made), "node_id": str(uuid.uuid4())},
        {**session_request(made), "node_id": other["node_id"]},
        {**session_request(made), "signature": "00" * 64},
        {**session_request(made), "manager_version": "changed"},
        {**session_request(made, sent_at=late), "signature": "00" * 64},  # comes before clock_skew
    ]
    bodies = []
    for body in refused:
        reply = ask_session(village, body)
        assert reply.refusal == (401, "unauthorized")
        bodies.append({key: value for key, value in reply.json.items() if key != "request_id"})
    assert all(body == bodies[0] for body in bodies)


@pytest.mark.parametrize("off_ms", [-302_000, 302_000])
def test_a_skewed_clock_is_told_the_servers_time(village: Village, off_ms: int):
    reply = ask_session(village, session_request(village.made(), sent_at=rfc3339(now_ms() + off_ms)))
    assert reply.refusal == (401, "clock_skew")
    assert abs(reply.json["server_time"] - now_ms()) < 5000


def test_a_nonce_is_taken_once_and_ten_signed_requests_a_minute_are_too(village: Village):
    made = village.made()
    first = session_request(made, sent_at=rfc3339(now_ms() - 290_000))
    assert ask_session(village, first).status == 201
    assert ask_session(village, first).refusal == (409, "nonce_seen")
    for _ in range(8):
        assert ask_session(village, session_request(made)).status == 201
    for body in (session_request(made), first):  # rate comes before nonce_seen
        assert ask_session(village, body).refusal == (429, "rate")
    late = session_request(made, sent_at=rfc3339(now_ms() - 400_000))  # and after clock_skew
    assert ask_session(village, late).refusal == (401, "clock_skew")


def test_forged_requests_do_not_use_up_a_nodes_rate(village: Village):
    made = village.made()
    for _ in range(12):
        forged = {**session_request(made), "signature": "00" * 64}
        assert ask_session(village, forged).refusal == (401, "unauthorized")
    assert ask_session(village, session_request(made)).status == 201


def test_ok_and_early_follow_the_times_that_the_acks_tell(village: Village):
    node, last = village.opened(), None
    for pause in (0.0, 0.02, 0.35, 0.1, 0.1, 0.1, 0.6):
        time.sleep(pause)
        ack = node.beat()
        early = last is not None and ack.t_ms - last < INTERVAL_MS // 4
        assert ack.code == (np.EARLY if early else np.OK)
        assert ack.ttl_ms == TTL_MS
        assert abs(ack.t_ms - now_ms()) < 2000
        assert ack.next_ms >= 1000
        last = ack.t_ms


def test_a_replay_is_stale_and_a_far_seq_is_clock_with_no_ttl(village: Village):
    node = village.opened()
    first = node.beat()
    assert node.say({"workloads": {}}).json["code"] in ("ok", "early")  # JSON leaves the last seq alone
    assert node.beat(seq=first.seq + 1).code in (np.OK, np.EARLY)
    assert node.beat(seq=first.seq)[::6] == (np.STALE, 0)
    a_second_later()
    assert node.beat(seq=first.seq - 1).code == np.STALE
    for off_ms in (-92_000, 92_000, -10_000_000, 10_000_000):
        a_second_later()
        ack = node.beat(seq=(now_ms() + off_ms) << 16)
        assert (ack.code, ack.ttl_ms) == (np.CLOCK, 0)
    assert node.beat(seq=(now_ms() + 80_000) << 16).code == np.OK  # inside the 90 s
    assert node.beat(seq=(now_ms() + 85_000) << 16).code in (np.OK, np.EARLY)


def test_stale_and_clock_together_are_told_once_per_second(village: Village):
    node = village.opened()
    first = node.beat()
    began = time.monotonic()
    for _ in range(10):
        node.send(node.frame(seq=first.seq))
        node.send(node.frame(seq=1))
    heard = []
    while (ack := node.hear(within_s=0.3)) is not None:
        heard.append(ack.code)
    if time.monotonic() - began < 1.0:
        assert len(heard) == 1
    assert set(heard) <= {np.STALE, np.CLOCK}
    a_second_later()
    assert node.beat(seq=1).code == np.CLOCK  # over STALE


def test_no_ack_suppresses_ok_and_early_only(village: Village):
    node = village.opened()
    for flags in (np.NO_ACK, np.NO_ACK, np.NO_ACK | np.STOPPING):
        node.send(node.frame(flags=flags))
        assert node.hear(within_s=SILENCE_S) is None
    assert node.state() == "stopped"  # taken all the same
    assert node.beat(seq=1, flags=np.NO_ACK).code == np.CLOCK


def test_bytes_that_do_not_authenticate_get_silence_and_change_nothing(village: Village):
    node, other = village.opened(), village.opened()
    good = node.frame()
    wrong = [good[:47], good + b"\0", b"", good * 2, os.urandom(48), b"\x11" + os.urandom(47)]
    wrong += [node.frame(first_byte=byte) for byte in (0x10, 0x12, 0x01, 0x21)]
    wrong += [node.frame(flags=flags) for flags in (4, 8, 16, 32, 64, 128, 255)]
    wrong += [node.frame(row=row) for row in (other.row, 4_000_000_000, 10_000)]
    wrong += [node.frame(generation=generation) for generation in (0, node.generation + 1, 65_535)]
    wrong += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(32)]
    wrong += [good[:47] + bytes([good[47] ^ 0x80]), node.frame(key=bytes(16))]
    for frame in wrong:
        node.send(frame)
    assert node.hear(within_s=SILENCE_S) is None
    assert node.state() == "new"
    if all(len(frame) == np.BEAT_BYTES for frame in wrong[4:]):
        answer = node.beats.ask("POST", "/v1/beats", b"".join(wrong[4:]))
        assert answer.body == np.NOTHING * len(wrong[4:])
    node.send(good)
    assert node.hear().code == np.OK


def test_planes_say_the_states_and_bits_outside_the_map_say_nothing(village: Village):
    node = village.opened()
    slots = [node.slots[workload] for workload in node.workloads]
    said = dict(zip(slots, (np.HEALTHY, np.UNHEALTHY, np.UPDATING), strict=True))
    assert node.beat({**said, 40: np.HEALTHY, 63: np.UPDATING}).code == np.OK
    assert [node.workload_state(index) for index in range(3)] == ["up", "unhealthy", "updating"]
    node.beat({slots[2]: np.HEALTHY})
    assert [node.workload_state(index) for index in range(3)] == ["unhealthy", "unhealthy", "up"]


def test_a_read_after_an_ack_contains_that_beat(village: Village):
    node = village.opened()
    for turn in range(6):
        state = (np.HEALTHY, np.UNHEALTHY, np.UPDATING)[turn % 3]
        ack = node.beat(dict.fromkeys(node.slots.values(), state))
        kind = ("up", "unhealthy", "updating")[turn % 3]
        assert node.workload_state() == kind
        answer = node.uptime(ack.t_ms, now_ms() + 60_000)
        assert answer["intervals"][-1]["kind"] == kind
        assert unix_ms(answer["intervals"][-1]["started_at"]) == ack.t_ms


def test_a_new_workload_is_told_by_resync_until_a_newer_frame_comes(village: Village):
    node = village.opened()
    node.beat()
    added = village.installation.admin("workload", "add", node.node_id)["workload_id"]
    time.sleep(0.6)
    new_slot = max(node.slots.values()) + 1
    assert node.beat({0: np.HEALTHY, new_slot: np.HEALTHY}).code == np.RESYNC
    stopping = node.beat(flags=np.STOPPING)
    assert (stopping.code, stopping.ttl_ms) == (np.RESYNC, 0)
    assert node.beat(flags=np.NO_ACK).code == np.RESYNC
    assert node.say({"workloads": {added: "healthy"}}).json["code"] == "resync"
    assert village.web.get(f"/v1/workloads/{added}")["state"] == "new"  # the old map is frozen
    old = {"key": node.key, "generation": node.generation}
    node.open()
    assert node.slots[added] == new_slot
    assert node.beat(**old).code == np.RESYNC  # no newer frame has come yet
    time.sleep(0.3)
    assert node.beat().code == np.OK
    assert node.beat(**old).code in (np.OK, np.EARLY)
    assert village.web.get(f"/v1/workloads/{added}")["state"] == "up"


def test_the_previous_generation_is_honoured_and_the_one_before_is_not(village: Village):
    node = village.opened()
    node.beat()
    first, first_token = {"key": node.key, "generation": node.generation}, node.token
    node.open()
    assert node.generation == first["generation"] + 1
    assert node.beat(**first).code in (np.OK, np.EARLY)
    assert node.say({"workloads": {}}, token=first_token).status == 200
    node.open()
    node.send(node.frame(**first))
    assert node.hear(within_s=SILENCE_S) is None
    assert node.say({"workloads": {}}, token=first_token).status == 401
    low = node.beat(seq=(now_ms() - 60_000) << 16)  # seq starts anew with each generation
    assert low.code in (np.OK, np.EARLY)


def test_a_revoked_node_is_silent_within_a_second_and_gets_no_session(village: Village):
    node = village.opened()
    node.beat()
    village.installation.admin("node", "revoke", node.node_id)
    time.sleep(1.0)
    node.send(node.frame())
    assert node.hear(within_s=SILENCE_S) is None
    assert node.beats.ask("POST", "/v1/beats", node.frame()).body == np.NOTHING
    assert node.say({"workloads": {}}).status == 401
    assert ask_session(village, session_request(node.made)).refusal == (401, "unauthorized")


def test_http_answers_a_batch_in_its_order_with_zeros_for_what_udp_drops(village: Village):
    node, other = village.opened(), village.opened()
    one, two = node.frame(), node.frame(flags=np.NO_ACK)
    sent = [one, node.frame(key=bytes(16)), two, one, node.frame(seq=1), node.frame(seq=1), other.frame()]
    answer = node.beats.ask("POST", "/v1/beats", b"".join(sent))
    assert (answer.status, len(answer.body)) == (200, 48 * len(sent))
    parts = [answer.body[at : at + 48] for at in range(0, len(answer.body), 48)]
    assert parts[1] == np.NOTHING
    assert np.read_ack(other.key, parts[6]).code == np.OK
    codes = [np.read_ack(node.key, parts[at]).code for at in (0, 2, 3, 4, 5)]
    assert codes == [
        np.OK,
        np.EARLY,
        np.STALE,
        np.CLOCK,
        np.CLOCK,
    ]  # one t for all; NO_ACK and the once a second: UDP only
    stopping = node.beats.ask("POST", "/v1/beats", node.frame(flags=np.STOPPING)).body
    assert np.read_ack(node.key, stopping).ttl_ms == 0
    assert node.state() == "stopped"


def test_http_takes_1_to_1024_whole_frames_or_nothing(village: Village):
    node = village.opened()
    for body, status in ((b"", 400), (node.frame()[:47], 400), (node.frame() + b"\0", 400)):
        assert node.beats.ask("POST", "/v1/beats", body).status == status
    assert node.beats.ask("POST", "/v1/beats", node.frame() * 1025).status == 413
    assert node.state() == "new"
    full = node.beats.ask("POST", "/v1/beats", node.frame() + bytes(48 * 1023))
    assert (full.status, len(full.body)) == (200, 48 * 1024)
    assert full.body[48:] == bytes(48 * 1023)
    assert node.state() == "up"


def test_json_beats_say_all_states_and_unknown_ids_are_told_resync(village: Village):
    node = village.opened()
    one, two, three = node.workloads
    said = node.say({"workloads": {one: "healthy", two: "unhealthy", three: "updating"}, "stopping": False})
    assert said.status == 200
    assert set(said.json) == {"code", "next_ms", "ttl_ms", "server_ms"}
    assert (said.json["code"], said.json["ttl_ms"]) == ("ok", TTL_MS)
    assert [node.workload_state(index) for index in range(3)] == ["up", "unhealthy", "updating"]
    assert node.say({"workloads": {two: "healthy"}}).json["code"] in ("ok", "early")
    assert [node.workload_state(index) for index in range(3)] == ["unhealthy", "up", "unhealthy"]
    assert node.say({"workloads": {one: "healthy"}}).json["code"] in ("ok", "early")
    assert node.say({"workloads": {one: "healthy", "who": "healthy"}}).json["code"] == "resync"
    stopped = node.say({"stopping": True})
    assert (stopped.status, stopped.json["ttl_ms"]) == (200, 0)
    assert (node.state(), node.workload_state()) == ("stopped", "stopped")


def test_json_beats_of_the_wrong_shape_or_token_change_nothing(village: Village):
    node = village.opened()
    one = node.workloads[0]
    wrong: list[Any] = [{}, [], {"stopping": False}, {"workloads": None}, {"workloads": [one]}]
    wrong += [{"workloads": {one: value}} for value in ("absent", "Healthy", "", 1, None)]
    wrong += [{"workloads": {}, "stopping": value} for value in (1, "true", None)]
    wrong += [{"workloads": {one: "healthy", "who": "sick"}}]
    for body in wrong:
        assert node.say(body).status == 400, body
    for token in ("", "x", node.token[:-4] + ("AAAA" if node.token[-4:] != "AAAA" else "BBBB")):
        assert node.say({"workloads": {one: "healthy"}}, token=token).status == 401
    assert node.beats.ask("POST", "/v1/beats", {"workloads": {}}).status == 401
    assert node.state() == "new"


def test_ping_and_push_beat_for_a_check(village: Village):
    words = ("--project", "stranger", "--name", "cron", "--interval-ms", 8000)
    made = village.installation.admin("check", "create", *words)
    ping, push = urlsplit(made["ping_url"]), urlsplit(made["push_url"])
    door = Door(ping.netloc)

    def state() -> str:
        return village.web.get(f"/v1/workloads/{made['workload_id']}")["state"]

    plain = (
        ("GET", "/log", "new"),
        ("GET", "/start", "updating"),
        ("GET", "", "up"),
        ("POST", "/fail", "unhealthy"),
    )
    more = (
        ("HEAD", "", "up"),
        ("GET", "/255", "unhealthy"),
        ("POST", "/0", "up"),
        ("GET", "/1", "unhealthy"),
    )
    for method, tail, then in (*plain, *more, ("POST", "/log", "unhealthy")):
        answer = door.ask(method, ping.path + tail, b"some output" if method == "POST" else None)
        assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"OK")
        assert state() == then, (method, tail)
    assert door.ask("GET", ping.path + "/256").status == 400
    for query, then in (
        ("", "up"),
        ("?status=down&msg=x&ping=", "unhealthy"),
        ("?status=up&msg=OK&ping=12", "up"),
    ):
        answer = door.ask("GET", push.path + query)
        assert (answer.status, answer.json) == (200, {"ok": True})
        assert state() == then
    assert door.ask("POST", push.path + "?status=UP").json == {"ok": True}
    assert state() == "unhealthy"  # anything but up
    wrong = ping.path[:-1] + ("0" if ping.path[-1] != "0" else "1")
    for path in (wrong, "/ping/x", f"/ping/{uuid.uuid4()}"):
        assert door.ask("GET", path).status == 404
    refused = door.ask("GET", push.path[:-1] + ("0" if push.path[-1] != "0" else "1"))
    assert refused.status == 404
    assert refused.json["ok"] is False
    assert "msg" in refused.json
