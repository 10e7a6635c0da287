"""What is done so that what runs is what is desired, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.drivers.port import Origin, Phase, Running
from node.manager.plan import Desired, Install, Remove, Restart, Tell, plan

WANTED = Desired(
    workload_id="a",
    slot=0,
    name="a",
    kind="k",
    version="1.0.0",
    digest="d1",
    running_version="1.0.0",
    restarts=2,
)
RUNS = Running(
    workload_id="a",
    name="a",
    version="1.0.0",
    digest="d1",
    restarts=2,
    phase=Phase.RUNNING,
    origin=Origin.ORDERED,
    since_s=0,
    run="r",
)
NOTHING_ASKED = replace(WANTED, version=None, digest=None)


@pytest.mark.parametrize(
    ("desired", "running", "actions"),
    [
        ([], [], []),
        ([WANTED], [RUNS], []),
        ([WANTED], [], [Install(WANTED)]),
        ([], [RUNS], [Remove("a")]),
        # Another version, another manifest, either alone.
        ([replace(WANTED, version="2.0.0", digest="d2")], [RUNS], "install"),
        ([replace(WANTED, version="2.0.0")], [RUNS], "install"),
        ([replace(WANTED, digest="d2")], [RUNS], "install"),
        # None is asked for: what runs may run on, and what does not need not.
        ([NOTHING_ASKED], [RUNS], []),
        ([NOTHING_ASKED], [], []),
        # Restarts: done once each; a fresh install has none to do.
        ([replace(WANTED, restarts=3)], [RUNS], "restart"),
        ([replace(NOTHING_ASKED, restarts=3)], [RUNS], "restart"),
        ([replace(WANTED, restarts=1)], [RUNS], []),
        ([replace(WANTED, restarts=3, digest="d2")], [RUNS], "install"),
        ([replace(NOTHING_ASKED, restarts=3)], [], []),
        # What the server does not know is told, also of what nobody asks for.
        ([replace(WANTED, running_version=None)], [RUNS], [Tell("a", "1.0.0", 2)]),
        ([replace(WANTED, running_version="0.9.0")], [RUNS], [Tell("a", "1.0.0", 2)]),
        ([replace(NOTHING_ASKED, running_version="0.9.0")], [RUNS], [Tell("a", "1.0.0", 2)]),
        # What crashes is the driver's to begin again.
        ([WANTED], [replace(RUNS, phase=Phase.FAILED)], []),
        ([WANTED], [replace(RUNS, phase=Phase.COMPLETED)], []),
    ],
)
def test_it_is_done(desired, running, actions):
    if actions == "install":
        actions = [Install(desired[0])]
    elif actions == "restart":
        actions = [Restart(desired[0])]
    assert list(plan(desired, {one.workload_id: one for one in running})) == actions


def test_what_goes_makes_room_for_what_comes():
    new = replace(WANTED, workload_id="b")
    assert plan([new], {"a": RUNS, "0": RUNS}) == (Remove("0"), Remove("a"), Install(new))


def test_once_carried_out_nothing_is_left_to_do():
    wanted = replace(WANTED, version="2.0.0", digest="d2", restarts=5)
    assert plan([wanted], {"a": RUNS}) == (Install(wanted),)
    done = replace(RUNS, version="2.0.0", digest="d2", restarts=5)
    assert plan([wanted], {"a": done}) == (Tell("a", "2.0.0", 5),)
    assert plan([replace(wanted, running_version="2.0.0")], {"a": done}) == ()
