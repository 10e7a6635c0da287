"""A day from its first beat to its points, whole and real: crash, sale, a licence run twice, an update.

Two shards, real datagrams, engines killed; the clock runs ahead so that the day ends in a minute and a half.
What each millisecond was is asserted against the simulator's oracle, which knows nothing of the product.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from np1.codec import Code
from tests.e2e.day.expected import DAY_MS, Expected
from tests.e2e.day.story import BUYER, KEEPER, RULE, SELLER, Day, seconds_ahead
from tests.e2e.system import System, eventually, new_folder, running
from tests.proofs.verifiers import Verdict, by_node, by_us

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    folder = new_folder(tmp_path_factory.mktemp("day"))
    ahead_s = seconds_ahead()
    sets = {"clock_ahead_s": ahead_s, "worker.seal_after_s": 1}
    with running(System(folder, shards=2, sets=sets)) as system:
        told = Day(system, ahead_s=ahead_s)
        try:
            told.play()
            yield told
        finally:
            told.close()


@pytest.fixture(scope="module")
def expected(day: Day) -> Expected:
    machines = list(day.machines.values())
    kept, sold = day.licences
    licences = {kept: [day.machines["first"], day.machines["second"]], sold: [day.machines["sold"]]}
    return Expected(machines, day.facts(), licences=licences, as_of_ms=day.midnight_ms)


SEALED_S = 90  # the grace after the crash must be over before the licences of that time are settled


@pytest.fixture(scope="module")
def seal(day: Day) -> dict[str, Any]:
    """The first revision of the day, sealed by the worker."""
    path = f"/v1/projects/day/seals/{day.day}"

    def sealed() -> Any:
        day.beat_for(1, *day.running)
        return day.owner.try_status(path) == 200 and day.owner.get(path)

    found: dict[str, Any] = eventually(sealed, within_s=SEALED_S)
    return found


def test_the_second_run_of_a_licence_is_told_within_two_seconds_until_it_takes_over(
    day: Day, seal: dict[str, Any]
):
    second = day.machines["second"]
    codes = [(t_ms, code) for t_ms, code in second.codes if code is not Code.EARLY]
    stopped_ms = day.machines["first"].frames[-1].t_ms
    waiting = [code for t_ms, code in codes if codes[0][0] + 2_000 <= t_ms < stopped_ms]
    assert len(waiting) > 5
    assert set(waiting) == {Code.STANDBY}
    # The hand-over fell into the grace after the crash, which freezes leases; it is over before the seal.
    assert codes[-1][1] is Code.OK
    history = day.owner.get(f"/v1/licences/{day.licences[0]}/leases")["items"]
    assert [one["epoch"] for one in history] == [1, 2]


def test_an_answer_up_to_midnight_is_the_oracles_to_the_millisecond(
    day: Day, expected: Expected, seal: dict[str, Any]
):
    for machine in day.machines.values():
        told = day.owner.uptime(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        wanted = expected.of(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        assert told.ms == wanted.ms, machine.name
        assert sum(told.ms.values()) == wanted.to_ms - wanted.from_ms


def proof_of(day: Day, workload_id: str, **query: object) -> dict[str, Any]:
    found: dict[str, Any] = day.owner.get(f"/v1/workloads/{workload_id}/proof", day=day.day, **query)
    return found


def test_every_sealed_row_is_the_oracles_to_the_millisecond(
    day: Day, expected: Expected, seal: dict[str, Any]
):
    assert (seal["revision"], seal["rows"]) == (1, 5)
    for machine in day.machines.values():
        row = json.loads(proof_of(day, machine.workload_id)["row"])
        wanted = expected.of(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        assert row["ms"] == wanted.ms, machine.name
        assert (row["from_ms"], row["to_ms"]) == (wanted.from_ms, wanted.to_ms)
        assert row["paid_ms"] == expected.paid_ms(machine.workload_id, wanted.from_ms, wanted.to_ms)


def test_the_day_had_of_everything(day: Day, seal: dict[str, Any]):
    """Or the test before would say little."""
    rows = {name: json.loads(proof_of(day, m.workload_id)["row"]) for name, m in day.machines.items()}
    had = {name: {kind for kind, ms in row["ms"].items() if ms} for name, row in rows.items()}
    assert {"up", "standby", "silent"} <= had["first"]
    assert {"up", "standby"} <= had["second"]
    assert {"up", "claimed_up"} <= had["sold"]
    assert {"up", "maintenance"} <= had["updated"]
    assert {"up", "unhealthy", "claimed_up"} <= had["plain"]
    assert any("unobserved" in kinds for kinds in had.values())


def test_a_licence_that_was_sold_splits_the_day_between_seller_and_buyer(
    day: Day, expected: Expected, seal: dict[str, Any]
):
    workload_id = day.machines["sold"].workload_id
    row = json.loads(proof_of(day, workload_id)["row"])
    before, after = row["held"]
    assert (before["owner"], after["owner"]) == (SELLER, BUYER)
    assert before["to_ms"] == after["from_ms"] == day.sold_ms
    assert before["paid_ms"] == expected.paid_ms(workload_id, row["from_ms"], day.sold_ms)
    assert after["paid_ms"] == expected.paid_ms(workload_id, day.sold_ms, row["to_ms"])


def test_both_verifiers_hold_every_proof_and_receipt_valid(day: Day, seal: dict[str, Any], tmp_path: Path):
    files = []
    for machine in day.machines.values():
        for hour in (None, 23):
            file = tmp_path / f"{machine.name}-{hour}.json"
            file.write_text(json.dumps(proof_of(day, machine.workload_id, hour=hour)))
            files.append(file)
    roots = [seal["root"], seal["hour_roots"][23]]
    _valid(by_us(*files, *(word for root in roots for word in ("--root", root))))
    _valid(by_node(*(f"--root={root}" for root in roots), *files))
    receipt = tmp_path / "receipt.json"
    machine = day.machines["sold"]
    receipt.write_text(json.dumps(day.owner.get(f"/v1/nodes/{machine.node_id}/receipt", day=day.day)))
    (key,) = day.system.api.get("/v1/receipt-keys")["items"]
    _valid(by_us(receipt, "--key", key["public_key"]))
    _valid(by_node(f"--key={key['public_key']}", receipt))


def _valid(verdict: Verdict) -> None:
    assert verdict.code == 0, verdict


def test_why_tells_every_unpaid_millisecond(day: Day, expected: Expected, seal: dict[str, Any]):
    for machine in day.machines.values():
        told = day.owner.get(f"/v1/workloads/{machine.workload_id}/why", day=day.day)
        wanted = expected.of(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        assert told["ms"] == wanted.ms, machine.name


def micro(points: str) -> int:
    return int(Decimal(points) * 1_000_000)


def rewards(day: Day, expected: Expected) -> dict[str, int]:
    """Micro-points of each workload, by the rule's own words: for each paid second, the rest cut off."""
    found = {}
    for machine in day.machines.values():
        paid_ms = expected.paid_ms(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        found[machine.workload_id] = paid_ms * RULE.micro_points_per_paid_s // 1_000
    return found


def test_the_suggested_points_are_the_rules_and_are_committed_in_one_call_and_once(
    day: Day, expected: Expected, seal: dict[str, Any]
):
    wanted = rewards(day, expected)
    suggested = day.owner.get("/v1/projects/day/points/suggested", day=day.day)
    assert {row["workload_id"]: micro(row["points"]) for row in suggested["rows"]} == wanted
    first = day.send("POST", "/v1/projects/day/points", suggested, key="the-day")
    again = day.send("POST", "/v1/projects/day/points", suggested, key="the-day")
    assert first.status == 201, first
    assert first.json["seal_root"] == seal["root"]
    assert again.json == first.json
    other = day.send("POST", "/v1/projects/day/points/suggested", {"day": day.day})
    assert (other.status, other.json["code"]) == (409, "already_committed")
    totals = day.owner.get("/v1/projects/day/points", day=day.day)
    assert micro(totals["total_points"]) == sum(wanted.values())
    by_wallet = {one["wallet"]: micro(one["licence_points"]) for one in totals["items"] if one["wallet"]}
    sold = wanted[day.machines["sold"].workload_id]
    assert by_wallet[SELLER] > 0
    assert by_wallet[SELLER] + by_wallet[BUYER] == sold
    kept = wanted[day.machines["first"].workload_id] + wanted[day.machines["second"].workload_id]
    assert by_wallet[KEEPER] == kept


def test_a_dispute_is_answered_by_a_correction_that_both_verifiers_prove(
    day: Day, expected: Expected, seal: dict[str, Any], tmp_path: Path
):
    workload_id = day.machines["plain"].workload_id
    opened = day.send(
        "POST",
        f"/v1/workloads/{workload_id}/disputes",
        {"day": day.day, "text": "Our provider was told to move the rack by you.", "evidence": ["ticket 7"]},
        by=day.operator,
    )
    assert opened.status == 201, opened
    dispute = f"/v1/disputes/{opened.json['dispute_id']}"
    assert day.send("POST", f"{dispute}/answer", {"text": "Right, we look into it."}).status == 201
    (ill,) = [
        one
        for one in day.owner.get(f"/v1/workloads/{workload_id}/why", day=day.day)["unpaid"]
        if one["kind"] == "unhealthy"
    ]
    grant = {"workload_id": workload_id, "from": ill["from"], "to": ill["to"]}
    asked = day.send(
        "POST",
        f"/v1/projects/day/seals/{day.day}/corrections",
        {"reason": "the rack was moved on our order", "maintenances": [grant]},
    )
    assert asked.status == 202, asked
    path = f"/v1/projects/day/seals/{day.day}/corrections/{asked.json['correction_id']}"
    done = eventually(lambda: (it := day.owner.get(path))["done_at"] and it, within_s=30)
    ill_ms = round(ill["seconds"] * 1_000)
    assert (done["revision"], done["rows_changed"]) == (2, 1)
    assert done["paid_after_ms"] - done["paid_before_ms"] == ill_ms
    answer = day.send("POST", f"{dispute}/correct", {"revision": 2, "text": "Revision 2 puts it right."})
    assert answer.status == 201, answer
    assert day.owner.get(dispute) == day.operator.get(dispute)
    assert day.owner.get(dispute)["state"] == "corrected"

    old, new = (proof_of(day, workload_id, revision=number) for number in (1, 2))
    for number, proof in enumerate((old, new)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(proof))
        _valid(by_us(file))
        _valid(by_node(file))
    before, after = json.loads(old["row"])["ms"], json.loads(new["row"])["ms"]
    assert after["maintenance"] - before["maintenance"] == before["unhealthy"] - after["unhealthy"] == ill_ms

    refused = day.send("POST", "/v1/projects/day/points/suggested", {"day": day.day})
    assert refused.status == 409
    corrected = day.send(
        "POST", "/v1/projects/day/points/suggested", {"day": day.day, "reason": "dispute, revision 2"}
    )
    assert corrected.status == 201, corrected
    assert (corrected.json["revision"], corrected.json["seal_revision"]) == (2, 2)
    assert corrected.json["difference"]["rows_changed"] == 1
    more = micro(corrected.json["total_points"]) - sum(rewards(day, expected).values())
    assert more == ill_ms * RULE.micro_points_per_paid_s // 1_000
    mine = day.operator.get("/v1/me/points")["items"]
    assert sum(micro(one["points"]) for one in mine) > 0
