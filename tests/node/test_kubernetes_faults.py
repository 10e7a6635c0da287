"""The kubernetes driver when the API server refuses, is late, or is away: what it does, and what it tells."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

import node.drivers.kubernetes as driver_module
import node.drivers.kubernetes_api as api_module
from node.config import ConfigError
from node.drivers.kubernetes_access import Access, find_access
from node.drivers.kubernetes_install import RULES
from node.drivers.port import DriverError, Origin, Phase
from tests.node.kube_api.double import KubeApiDouble
from tests.node.kubernetes_rig import driving, manifest, order, phase, until

MOMENTARY: tuple[dict[str, Any], ...] = (
    {"code": 409, "message": "the object has been modified"},
    {"code": 500},
    {"cut": True},
    {"cut": True, "after": True},  # it is done, and nobody is told so
    {"raw": "no JSON", "after": True},
)


async def test_a_change_that_fails_for_a_moment_is_made_once(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:

        async def change(number: int) -> None:
            name = f"w{number}"
            await driver.apply(order(name))
            await phase(driver, name, "running")
            await driver.restart(name, restarts=1)
            await phase(driver, name, "running", restarts=1)
            await driver.remove(name)

        faults = [
            {"verb": verb, "name": f"np-w{number}", **fault, "times": times}
            for number, fault in enumerate(MOMENTARY)
            for verb, times in (("patch", 3), ("delete", 1))
        ]
        double.fail(*faults)
        async with trio.open_nursery() as nursery:
            for number in range(len(MOMENTARY)):
                nursery.start_soon(change, number)
        state = double.control("state")
    assert [one["times"] for one in state["faults"]] == [0] * len(faults)
    assert set(state["pods_made"].values()) == {2}  # one, and one after the restart
    assert set(state["most_at_once"].values()) == {1}


@pytest.mark.slow
async def test_a_conflict_that_lasts_is_told(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        double.fail({"verb": "patch", "code": 409, "message": "someone is quicker", "times": 99})
        with pytest.raises(DriverError, match="patch deployments: 409 someone is quicker"):
            await driver.apply(order("a"))
        assert driver.running() == {}


@pytest.mark.slow
async def test_retry_after_is_kept_to(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        double.fail({"verb": "patch", "code": 429, "retry_after": 1})
        began_s = time.monotonic()
        await driver.apply(order("a"))
        assert time.monotonic() - began_s >= 1.0
        double.control("forget")
        double.fail({"verb": "list", "code": 429, "retry_after": 1, "message": "too many requests"})
        await until(lambda: "429 too many requests" in driver.trouble())
        await until(lambda: driver.trouble() == "")
        times_s = [at_s for *_, at_s in double.control("state")["requests"]]
        assert max(after - before for before, after in pairwise(times_s)) >= 1.0


@pytest.mark.slow
async def test_a_server_that_hangs_is_given_up_on(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        await phase(driver, "a", "running")
        double.fail({"verb": "list", "hang_s": 4})
        await until(lambda: "does not answer: " in driver.trouble())
        assert driver.running()["a"].phase is Phase.RUNNING
        await until(lambda: driver.trouble() == "")


async def test_a_replaced_token_is_used_at_once_and_a_dead_one_is_told(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        double.new_token("second")
        await driver.apply(order("a"))
        assert driver.trouble() == ""
        (double.account / "token").write_text("expired")
        await until(lambda: "does not take our credential (401)" in driver.trouble())
        with pytest.raises(DriverError, match="401"):
            await driver.restart("a", restarts=1)
        assert driver.running()["a"].restarts == 0
        double.new_token("third")
        await until(lambda: driver.trouble() == "")
        (double.account / "token").unlink()
        await until(lambda: "No such file" in driver.trouble())
        double.new_token("fourth")
        await until(lambda: driver.trouble() == "")


async def test_a_token_that_is_replaced_while_it_is_shown_costs_nothing(
    double: KubeApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        await phase(driver, "a", "running")
        # The file is read as it was, shown, and found to be another by then.
        reads, real = dict[int, int](), Access.bearer

        def bearer(access: Access) -> str | None:
            thread = threading.get_ident()
            reads[thread] = reads.get(thread, 0) + 1
            return "old" if reads[thread] % 2 else real(access)

        monkeypatch.setattr(Access, "bearer", bearer)
        await driver.restart("a", restarts=1)
        await phase(driver, "a", "running", restarts=1)
        assert driver.trouble() == ""
        assert sum(reads.values()) >= 4


async def test_each_verb_of_the_role_is_needed_and_its_lack_is_named(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("b"))
        for at, rule in enumerate(RULES):
            (resource,) = rule["resources"]
            for verb in rule["verbs"]:
                left = [dict(one) for one in RULES]
                left[at] = {**rule, "verbs": [one for one in rule["verbs"] if one != verb]}
                double.allow(left)
                lacks = f"the role lacks the verb {verb} on {resource} in namespace nodepulse"
                if verb == "list":
                    await until(lambda lacks=lacks: lacks in driver.trouble(), why=driver.trouble)
                elif verb == "delete":
                    with pytest.raises(DriverError, match=lacks):
                        await driver.remove("b")
                elif verb == "patch":
                    with pytest.raises(DriverError, match=lacks):
                        await driver.restart("b", restarts=1)
                else:
                    with pytest.raises(DriverError, match=lacks):
                        await driver.apply(order("new"))
                double.allow([dict(one) for one in RULES])
                await until(lambda: driver.trouble() == "")
        await driver.apply(order("new"))
        await driver.remove("b")
    used = {(verb, resource) for verb, resource, *_ in double.control("state")["requests"]}
    assert used == {
        ("list", "deployments"),
        ("list", "pods"),
        ("patch", "deployments"),
        ("delete", "deployments"),
    }


@pytest.mark.slow
async def test_what_is_known_holds_while_the_server_is_away_and_not_for_ever(
    double: KubeApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(driver_module, "BLIND_S", 2.0)
    monkeypatch.setattr(driver_module, "AWAY_S_MAX", 0.5)
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("silent"))
        await driver.apply(order("speaks", manifest(health={"report": True})))
        first = await phase(driver, "silent", "running")
        await phase(driver, "speaks", "running")
        double.kill()
        await until(lambda: "does not answer" in driver.trouble())
        assert driver.trouble().startswith(double.url)
        assert driver.running()["silent"].phase is Phase.RUNNING
        await phase(driver, "silent", "failed")
        assert driver.running()["silent"].detail.startswith("not known for")
        # Who tells of himself is heard without the cluster.
        assert driver.running()["speaks"].phase is Phase.RUNNING
        double.start()
        after = await phase(driver, "silent", "running")
        assert (after.run, after.crashes, driver.trouble()) == (first.run, 0, "")


async def test_a_manager_that_starts_with_the_server_away_goes_on_with_what_it_knew(
    double: KubeApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(driver_module, "AWAY_S_MAX", 0.3)
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        await phase(driver, "a", "running")
    double.kill()
    async with driving(double, tmp_path) as driver:
        assert driver.running()["a"].origin is Origin.ADOPTED
        assert driver.running()["a"].phase is Phase.RUNNING
        assert "does not answer" in driver.trouble()
        double.start()
        await until(lambda: driver.trouble() == "")
        assert driver.running()["a"].crashes == 0
    assert double.control("state")["pods_made"] == {"np-a": 1}


async def test_an_answer_without_end_is_not_read_to_it(
    double: KubeApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a", manifest(env={"LONG": "x" * 4000})))
        await driver.apply(order("b", manifest(env={"LONG": "x" * 4000})))
        await phase(driver, "b", "running")
        # One object fits, two do not: pages get smaller until they do.
        monkeypatch.setattr(api_module, "ANSWER_BYTES_MAX", 12_000)
        await phase(driver, "a", "running")
        await trio.sleep(0.3)
        assert driver.trouble() == ""
        monkeypatch.setattr(api_module, "ANSWER_BYTES_MAX", 5_000)
        await until(lambda: "longer than 5000 bytes" in driver.trouble())


async def test_a_server_of_another_authority_is_not_believed(double: KubeApiDouble, tmp_path: Path):
    stranger = KubeApiDouble(tmp_path / "stranger")
    (double.account / "ca.crt").write_bytes((stranger.folder / "ca.crt").read_bytes())
    async with driving(double, tmp_path) as driver:
        assert "CERTIFICATE_VERIFY_FAILED" in driver.trouble()
    assert double.control("state")["requests"] == []


@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        ({}, {}, "no pod of a cluster"),
        ({"name_space": "x"}, {}, "no such option"),
        ({"api_server": "http://x:1", "namespace": "n"}, {}, "no https URL"),
        ({"api_server": "https://x:1", "namespace": "N"}, {}, "not a namespace"),
        ({"api_server": "https://x:1", "namespace": "n", "token_file": "/nowhere"}, {}, "No such file"),
        ({"kubeconfig": "/nowhere"}, {}, "No such file"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict, environment: dict, told: str):
    with pytest.raises(ConfigError, match=told):
        find_access(options, environment)
