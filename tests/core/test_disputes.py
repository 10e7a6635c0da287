"""Who may say what in a dispute, and what it is then: the table, held against a second one."""

import pytest

from engine.core.disputes import (
    STATES,
    STEPS,
    DisputeRefusedError,
    check_correction,
    check_open,
    step,
)

DAY = 86_400_000
# What the operator, the project and the installation make of a dispute in each state; `-`: refused.
EXPECTED = {
    "comment": {"open": "ooo", "answered": "aaa", "corrected": "---", "rejected": "---"},
    "answer": {"open": "-aa", "answered": "-aa", "corrected": "---", "rejected": "---"},
    "correct": {"open": "-cc", "answered": "-cc", "corrected": "---", "rejected": "---"},
    "reject": {"open": "-rr", "answered": "-rr", "corrected": "---", "rejected": "---"},
    "open": {"open": "---", "answered": "---", "corrected": "---", "rejected": "---"},
}
SIDES = ("operator", "project", "installation")


@pytest.mark.parametrize("what", EXPECTED)
@pytest.mark.parametrize("state", STATES)
def test_the_table(what, state):
    found = ""
    for side in SIDES:
        try:
            found += step(state, what, side)[0]
        except DisputeRefusedError:
            found += "-"
    assert found == EXPECTED[what][state]


def test_a_settled_dispute_goes_nowhere_and_none_becomes_open_again():
    assert {state for state, _ in STEPS} == {"open", "answered"}
    assert all(after != "open" for (state, _), (_, after) in STEPS.items() if state != "open")


def test_a_correction_points_to_a_later_revision_that_is_there():
    check_correction(disputed=1, corrected=2, newest=2)
    check_correction(disputed=1, corrected=3, newest=4)
    for corrected, newest in ((1, 1), (1, 2), (0, 2), (3, 2)):
        with pytest.raises(DisputeRefusedError, match="revision"):
            check_correction(disputed=1, corrected=corrected, newest=newest)


def test_a_day_can_be_disputed_for_so_long_after_its_seal():
    check_open(sealed_ms=DAY, now_ms=31 * DAY - 1, open_ms=30 * DAY)
    with pytest.raises(DisputeRefusedError, match="30 days"):
        check_open(sealed_ms=DAY, now_ms=31 * DAY, open_ms=30 * DAY)
