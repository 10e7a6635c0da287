"""Circuits and bounds of endpoints, as pure state."""

from worker.circuits import CIRCUITS_MAX, OPEN_MS_MAX, OPEN_MS_MIN, Circuits

HOOK = "alpha https://hooks.example"
NOW = 1_790_000_000_000


def failed_times(circuits: Circuits, times: int, *, now_ms: int = NOW) -> list[int | None]:
    return [circuits.failed(HOOK, now_ms) for _ in range(times)]


def test_failures_in_a_row_open_and_only_the_last_of_them_says_until_when():
    circuits = Circuits(in_flight_max=4, failures_max=3)
    assert failed_times(circuits, 3) == [None, None, NOW + OPEN_MS_MIN]
    assert circuits.closed_to() == [HOOK]
    assert circuits.to_probe(NOW + OPEN_MS_MIN - 1) == []
    assert circuits.to_probe(NOW + OPEN_MS_MIN) == [HOOK]


def test_a_success_in_between_begins_the_count_anew():
    circuits = Circuits(in_flight_max=4, failures_max=3)
    failed_times(circuits, 2)
    circuits.worked(HOOK)
    assert failed_times(circuits, 2) == [None, None]
    assert circuits.closed_to() == []


def test_what_was_in_flight_when_it_opened_does_not_open_it_for_longer():
    circuits = Circuits(in_flight_max=4, failures_max=2)
    assert failed_times(circuits, 4) == [None, NOW + OPEN_MS_MIN, None, None]


def test_each_failed_probe_doubles_the_time_up_to_a_bound_and_one_that_works_closes():
    circuits = Circuits(in_flight_max=4, failures_max=1)
    now_ms, waits = NOW, []
    for _ in range(9):
        until_ms = circuits.failed(HOOK, now_ms)
        waits.append((until_ms - now_ms) // 1_000)
        now_ms = until_ms
        assert circuits.to_probe(now_ms) == [HOOK]
        circuits.probed(HOOK, found=True)
        assert circuits.to_probe(now_ms) == [], "there is one probe at a time"
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert OPEN_MS_MAX == 300_000
    circuits.worked(HOOK)
    assert circuits.closed_to() == []
    assert circuits.failed(HOOK, now_ms) == now_ms + OPEN_MS_MIN, "what worked has a clean record"


def test_without_anything_to_probe_with_it_is_closed_on_trial():
    circuits = Circuits(in_flight_max=4, failures_max=3)
    failed_times(circuits, 3)
    circuits.probed(HOOK, found=False)
    assert circuits.closed_to() == []
    assert circuits.failed(HOOK, NOW) == NOW + 2 * OPEN_MS_MIN, "the very next failure opens it, for longer"


def test_a_probe_that_was_cancelled_may_be_made_again():
    circuits = Circuits(in_flight_max=4, failures_max=1)
    until_ms = circuits.failed(HOOK, NOW)
    circuits.probed(HOOK, found=True)
    circuits.unjudged(HOOK)
    circuits.unjudged("nobody's")
    assert circuits.to_probe(until_ms) == [HOOK]


def test_one_owners_failures_leave_another_owner_at_the_same_endpoint_alone():
    circuits = Circuits(in_flight_max=4, failures_max=1)
    circuits.failed(HOOK, NOW)
    assert "beta https://hooks.example" not in circuits.closed_to()


def test_an_endpoint_holds_only_so_many_at_a_time():
    circuits = Circuits(in_flight_max=2)
    circuits.started("https://a")
    assert (circuits.full(), dict(circuits.in_flight)) == ([], {"https://a": 1})
    circuits.started("https://a")
    assert circuits.full() == ["https://a"]
    circuits.ended("https://a")
    assert circuits.full() == []
    circuits.ended("https://a")
    assert dict(circuits.in_flight) == {}


def test_what_has_no_endpoint_is_never_limited():
    circuits = Circuits(in_flight_max=1, failures_max=1)
    for _ in range(3):
        circuits.started("")
    assert circuits.failed("", NOW) is None
    assert (circuits.full(), circuits.closed_to()) == ([], [])


def test_only_so_many_circuits_are_remembered():
    circuits = Circuits(in_flight_max=1, failures_max=1)
    for number in range(CIRCUITS_MAX + 5):
        circuits.failed(f"owner {number}", NOW)
    assert len(circuits.closed_to()) == CIRCUITS_MAX
    assert "owner 4" not in circuits.closed_to()
