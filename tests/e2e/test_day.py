"""A day from its first beat to its points, whole and real: crash, sale, a licence run twice, an update.

Two shards, real datagrams, engines killed; the clock runs ahead so that the day ends in a minute and a half.
What each millisecond was is asserted against the simulator's oracle, which knows nothing of the product.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from np1.codec import Code
from tests.e2e.day.expected import DAY_MS, Expected
from tests.e2e.day.story import Day, seconds_ahead
from tests.e2e.system import System, new_folder, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    folder = new_folder(tmp_path_factory.mktemp("day"))
    ahead_s = seconds_ahead()
    sets = {"clock_ahead_s": ahead_s, "worker.webhook_allow_private": "true"}
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


def test_the_second_run_of_a_licence_is_told_within_two_seconds_and_until_it_takes_over(day: Day):
    second = day.machines["second"]
    stopped_ms = day.machines["first"].frames[-1].t_ms
    codes = [(t_ms, code) for t_ms, code in second.codes if code is not Code.EARLY]
    begun_ms = codes[0][0]
    for t_ms, code in codes:
        if begun_ms + 2_000 <= t_ms < stopped_ms:
            assert code is Code.STANDBY, (t_ms - begun_ms, code)
        if t_ms >= stopped_ms + 3_000:
            assert code is Code.OK, (t_ms - stopped_ms, code)


def test_every_kind_of_every_workload_is_the_oracles_to_the_millisecond(day: Day, expected: Expected):
    for machine in day.machines.values():
        told = day.owner.uptime(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        wanted = expected.of(machine.workload_id, day.midnight_ms - DAY_MS, day.midnight_ms)
        assert told.ms == wanted.ms, machine.name
        assert sum(told.ms.values()) == wanted.to_ms - wanted.from_ms
