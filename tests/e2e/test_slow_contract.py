"""What of the published contract takes a minute to see: the ends of sessions, the grace after a restart.

Marked slow; `test_wire_contract.py` and `test_liveness_contract.py` hold the rest.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stranger import frames as np
from tests.e2e.stranger.installation import running
from tests.e2e.stranger.party import Door, Node, now_ms, session_request, unix_ms
from tests.e2e.stranger.village import PROJECT, Village

pytestmark = pytest.mark.slow
LIFE_S = 80


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    sets = {"web.session_life_s": LIFE_S}
    with running(Path(tmp_path_factory.mktemp("stranger")), **sets) as installation:
        yield Village(installation, nodes=8, workloads=2, interval_ms=1000)


@pytest.fixture(autouse=True)
def _close(village: Village) -> Iterator[None]:
    yield
    village.close_nodes()


def test_next_ms_stays_inside_the_interval(village: Village):
    made = village.installation.provision("slow", nodes=1, workloads=1, interval_ms=20_000)
    node = village.keep(Node(Door(village.web.address, bearer=made["api_key"]), made["nodes"][0]))
    assert node.open()["ttl_ms"] == 30_000
    told = [node.beat().next_ms for _ in range(20)]
    assert all(1000 <= next_ms <= 20_000 for next_ms in told)
    assert len(set(told)) > 10  # already jittered


def test_the_65th_workload_is_refused_with_the_advice_to_register_a_further_node_key(village: Village):
    made = village.installation.provision("full", nodes=1, workloads=64, interval_ms=1000)
    with pytest.raises(AssertionError) as refused:
        village.installation.admin("workload", "add", made["nodes"][0]["node_id"])
    assert "64 slots" in str(refused.value)
    assert "node key" in str(refused.value)


def test_a_slot_number_is_never_reused(village: Village):
    node = village.opened()
    assert sorted(node.slots.values()) == [0, 1]
    village.installation.admin("workload", "retire", node.workloads[1])
    added = village.installation.admin("workload", "add", node.node_id)["workload_id"]
    node.open()
    assert node.slots == {node.workloads[0]: 0, added: 2}
    assert node.beat().code == np.OK


def test_rekey_in_the_last_tenth_then_silence_and_the_previous_generation_for_60_s(village: Village):
    node, twice = village.opened(), village.opened()
    expires = unix_ms(node.session["expires_at"])
    assert abs(expires - now_ms() - LIFE_S * 1000) < 2000
    old = {"key": twice.key, "generation": twice.generation}
    twice.open()
    replaced, margin = now_ms(), 1500
    while (now := now_ms()) < expires + margin:
        if abs(now - (replaced + 60_000)) > margin:
            twice.send(twice.frame(**old))
            heard = twice.hear(within_s=0.4, key=old["key"])
            assert (heard is not None) == (now < replaced + 60_000), now - replaced
        if abs(now - (expires - LIFE_S * 100)) > margin and abs(now - expires) > margin:
            told = node.say({"workloads": {}})
            assert (told.json["code"] == "rekey") == (now > expires - LIFE_S * 100)
            assert (node.beat().code == np.REKEY) == (now > expires - LIFE_S * 100)
        time.sleep(0.3)
    time.sleep(0.5)
    node.send(node.frame())
    assert node.hear(within_s=0.4) is None
    assert node.say({"workloads": {}}).status == 401
    assert node.beats.ask("POST", "/v1/beats", node.frame()).body == np.NOTHING
    node.open()
    assert node.beat().code == np.OK


def test_nobody_is_down_in_the_minute_after_the_engine_came_back(village: Village):
    quiet, late = village.opened(), village.opened()
    quiet.beat()
    t = quiet.beat().t_ms
    village.installation.kill_engine()
    back = now_ms()
    after = late.beat().t_ms  # first heard after the gap, then silent as well
    while now_ms() < back + 57_000:
        for node in (quiet, late):
            assert node.state() in ("up", "suspect")
        time.sleep(1.0)
    deadline = time.monotonic() + 12
    while (quiet.state(), late.state()) != ("lost", "lost") and time.monotonic() < deadline:
        time.sleep(0.2)
    down = village.web.get(f"/v1/events?project={PROJECT}&limit=1000")["items"]
    since = {event["node_id"]: unix_ms(event["since"]) for event in down if event["kind"] == "node.down"}
    assert since[late.node_id] == after + 1500
    assert since[quiet.node_id] >= t + 1500  # no beat inside the grace: only what was ours is forgiven
    answer = quiet.uptime(t, now_ms())
    first_silent = next(one for one in answer["intervals"] if one["kind"] == "silent")
    assert unix_ms(first_silent["started_at"]) == since[quiet.node_id]


def test_plain_http_from_another_machine_may_carry_frames_only(tmp_path_factory: pytest.TempPathFactory):
    host = own_address()
    if host is None:
        pytest.skip("this machine has no address but loopback")
    folder = Path(tmp_path_factory.mktemp("open"))
    with running(folder, every_address=True) as installation:
        village = Village(installation, nodes=2, workloads=1, interval_ms=1000)
        node = village.opened()
        web_port, beats_port = (
            door.address.rsplit(":", 1)[1] for door in (installation.web, installation.beats)
        )
        web, beats = Door(f"{host}:{web_port}"), Door(f"{host}:{beats_port}")
        for body in (session_request(node.made), {}):  # before `malformed`
            assert web.ask("POST", "/v1/sessions", body).refusal == (403, "tls_required")
        bearer = {"authorization": f"Bearer {node.token}"}
        assert beats.ask("POST", "/v1/beats", {"workloads": {}}, headers=bearer).refusal == (
            403,
            "tls_required",
        )
        assert beats.ask("GET", "/ping/x").refusal == (403, "tls_required")
        assert beats.ask("GET", "/api/push/x").json["code"] == "tls_required"
        answer = beats.ask("POST", "/v1/beats", node.frame())
        assert np.read_ack(node.key, answer.body).code == np.OK
        village.close_nodes()


def own_address() -> str | None:
    """An IPv4 address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host = str(probe.getsockname()[0])
        return None if host.startswith("127.") else host
