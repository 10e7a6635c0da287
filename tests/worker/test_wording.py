"""The words of a notice."""

import msgspec
import pytest

from engine.core.news import notice_of
from tests.worker.fakes import NODE, make_event
from worker.deciding.kinds import KINDS
from worker.wording import rfc3339, subject, text


@pytest.mark.parametrize(
    ("unix_ms", "written"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_790_000_000_007, "2026-09-21T14:13:20.007Z"),
        (1_790_000_000_999, "2026-09-21T14:13:20.999Z"),  # never rounded up
    ],
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(unix_ms, written):
    assert rfc3339(unix_ms) == written


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_that_is_told_has_words_of_its_own(kind):
    words = text(notice_of(make_event(kind=kind)))
    assert "to be done." in words or "What to do:" in words
    assert NODE in words


def test_a_workloads_notice_names_the_workload():
    event = notice_of(make_event(kind="workload.down", workload_id="w1"))
    assert subject(event) == "[NodePulse] Workload down: w1 since 2026-09-21 14:13 UTC"
    assert text(event).startswith("Workload w1 is down.\n")


def test_a_digest_says_how_many_and_a_reminder_that_it_is_still_so():
    events = tuple(make_event(number) for number in range(2))
    digest = msgspec.structs.replace(notice_of(events[0]), form="digest", events=events, count=70)
    assert subject(digest) == "[NodePulse] 70 nodes down since 2026-09-21 14:13 UTC"
    assert "and 68 more" in text(digest)
    reminder = msgspec.structs.replace(notice_of(events[0]), form="reminder")
    assert subject(reminder).startswith("[NodePulse] Still: Node down: ")


def test_a_subject_is_always_one_line():
    assert "\n" not in subject(notice_of(make_event(detail="two\nlines")))
