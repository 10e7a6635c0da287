"""Which version a node should run: stable, fair, and never below the minimum."""

import itertools
import random
import uuid

import pytest

from engine.core.rollout import Offer, Wanted, admits, desired, desired_digest, is_below, offered, share_ppm

_rng = random.Random(3)
NODES = [str(uuid.UUID(int=_rng.getrandbits(128), version=4)) for _ in range(20_000)]
V1, V2, V3 = (f"0190000{number}-0000-7000-8000-000000000000" for number in (1, 2, 3))


def offer(version_id: str, version: str, percent: int, *, withdrawn: bool = False) -> Offer:
    return Offer(version_id, version, percent, withdrawn)


def runs(versions: list[Offer], node_id: str, *, minimum: str | None = None) -> str | None:
    found = desired(offered(versions, minimum=minimum), node_id)
    return found and found.version


def test_a_rollout_reaches_its_share_of_the_nodes():
    for percent in (1, 10, 50, 90):
        reached = sum(admits(V1, node, rollout_percent=percent) for node in NODES)
        assert reached / len(NODES) == pytest.approx(percent / 100, abs=0.01)
    assert not any(admits(V1, node, rollout_percent=0) for node in NODES)
    assert all(admits(V1, node, rollout_percent=100) for node in NODES)


def test_a_growing_rollout_keeps_those_that_it_reached_before():
    reached = [{node for node in NODES if admits(V1, node, rollout_percent=p)} for p in range(0, 101, 10)]
    assert all(before <= after for before, after in itertools.pairwise(reached))


def test_the_first_nodes_of_one_version_are_not_those_of_the_next():
    first, second = ({node for node in NODES if share_ppm(v, node) < 100_000} for v in (V1, V2))
    assert len(first & second) / len(NODES) == pytest.approx(0.01, abs=0.004)


def test_the_choice_is_written_in_stone():
    # A change of the hash would move every running rollout to other nodes.
    assert share_ppm(V1, "0190aaaa-0000-7000-8000-000000000001") == 330_389


def test_a_node_runs_the_highest_version_that_admits_it():
    versions = [offer(V1, "1.10.0", 100), offer(V2, "1.9.0", 100), offer(V3, "2.0.0-rc.1", 10)]
    chosen = {node: runs(versions, node) for node in NODES}
    assert {node for node, version in chosen.items() if version == "2.0.0-rc.1"} == {
        node for node in NODES if admits(V3, node, rollout_percent=10)
    }
    assert set(chosen.values()) == {"2.0.0-rc.1", "1.10.0"}


def test_a_withdrawn_version_is_nobodys():
    versions = [offer(V1, "1.0.0", 100), offer(V2, "2.0.0", 100, withdrawn=True)]
    assert {runs(versions, node) for node in NODES[:100]} == {"1.0.0"}
    assert runs([offer(V2, "2.0.0", 100, withdrawn=True)], NODES[0]) is None


def test_without_a_rollout_nothing_is_asked_for():
    assert runs([], NODES[0]) is None
    assert runs([offer(V1, "1.0.0", 0)], NODES[0]) is None


def test_nobody_is_asked_to_run_less_than_the_minimum():
    versions = [offer(V1, "1.0.0", 100), offer(V2, "2.0.0", 10), offer(V3, "3.0.0", 10)]
    chosen = {node: runs(versions, node, minimum="2.0.0") for node in NODES}
    assert set(chosen.values()) == {"2.0.0", "3.0.0"}
    assert {node for node in NODES if chosen[node] == "3.0.0"} == {
        node for node in NODES if admits(V3, node, rollout_percent=10)
    }


def test_the_minimum_is_for_everybody_even_before_its_rollout():
    versions = [offer(V1, "1.0.0", 100), offer(V2, "2.0.0", 0)]
    assert {runs(versions, node, minimum="2.0.0") for node in NODES[:100]} == {"2.0.0"}


def test_of_two_builds_the_later_one_is_chosen_by_everybody():
    versions = [offer(V1, "1.0.0+a", 100), offer(V2, "1.0.0+b", 100)]
    assert {runs(order, NODES[0]) for order in (versions, versions[::-1])} == {"1.0.0+b"}


def test_what_is_offered_ends_with_what_is_for_everybody():
    versions = [offer(V1, "1.0.0", 50), offer(V2, "2.0.0", 100), offer(V3, "3.0.0", 1)]
    assert [one.version for one in offered(versions, minimum=None)] == ["3.0.0", "2.0.0"]


@pytest.mark.parametrize(
    ("running", "minimum", "below"),
    [
        (None, "2.0.0", False),
        ("1.0.0", None, False),
        ("2.0.0-rc.1", "2.0.0", True),
        ("2.0.0", "2.0.0", False),
        ("2.0.0", "2.0.0+build", False),
        ("10.0.0", "9.0.0", False),
    ],
)
def test_below_the_minimum_is_what_is_known_to_run_less(running, minimum, below):
    assert is_below(running, minimum) is below


def test_the_digest_changes_with_whatever_is_asked_for_and_with_nothing_else():
    base = Wanted("w1", 0, "k", V1, 0)
    other = Wanted("w2", 1, None, None, 0)
    changed = [
        [base],
        [base, other],
        [Wanted("w1", 0, "k", V2, 0)],
        [Wanted("w1", 0, "k", V1, 1)],
        [Wanted("w1", 0, "l", V1, 0)],
        [Wanted("w1", 1, "k", V1, 0)],
        [Wanted("w3", 0, "k", V1, 0)],
        [],
    ]
    digests = {desired_digest(wanted) for wanted in changed}
    assert len(digests) == len(changed)
    assert {len(digest) for digest in digests} == {16}
    assert desired_digest([other, base]) == desired_digest([base, other])
