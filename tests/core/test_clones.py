"""Two runs on one node key: which turns are a case, and when it is told. Times in minutes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from engine.core.clones import (
    WITHIN_MS,
    Manager,
    Turns,
    alternate,
    case_of,
    clone_of_managers,
    source_of,
    source_text,
)
from engine.core.records import Event

MINUTE_MS = 60_000
TABLE = {
    "A, B, A, B are three alternations": ("0 A, 1 B, 2 A, 3 B", {3: 1}),
    "two are not enough": ("0 A, 1 B, 2 A", {}),
    "staying is no alternation": ("0 A, 1 B, 2 B, 3 B, 4 A, 5 A, 6 B", {6: 1}),
    "all three must lie within ten minutes": ("0 A, 1 B, 6 A, 11.5 B", {}),
    "exactly ten minutes are within": ("0 A, 1 B, 6 A, 11 B", {11: 1}),
    "only the last three count": ("0 A, 1 B, 9 A, 12 B, 13 A", {13: 9}),
    "who wanders through many addresses is no clone": ("0 A, 1 B, 2 C, 3 D, 4 A, 5 B, 6 C", {}),
    "a third one in between begins anew": ("0 A, 1 B, 2 A, 3 C, 4 A, 5 B, 6 A, 7 B", {7: 5}),
    "what goes on is told once": ("0 A, 1 B, 2 A, 3 B, 4 A, 30 B, 31 A, 32 B, 33 A", {3: 1}),
    "with another one it is still the same case": ("0 A, 1 B, 2 A, 3 B, 10 C, 11 B, 12 C, 13 B", {3: 1}),
    "after an hour without it is told anew": ("0 A, 1 B, 2 A, 3 B, 63 A, 64 B, 65 A", {3: 1, 65: 63}),
    "an hour counts from the last alternation that made it a case": (
        "0 A, 1 B, 2 A, 3 B, 30 A, 31 B, 32 A, 90 B, 91 A, 91.5 B",
        {3: 1},
    ),
}


def seen(text: str) -> list[tuple[int, str]]:
    records = [record.split() for record in text.split(", ")]
    return [(round(float(at) * MINUTE_MS), who) for at, who in records]


@pytest.mark.parametrize("name", TABLE)
def test_a_case_is_told_once_with_its_first_alternation(name: str) -> None:
    text, expected = TABLE[name]
    turns: Turns[str] | None = None
    told = {}
    sightings = seen(text)
    for (_, was), (t_ms, now) in pairwise(sightings):
        if was != now:
            turns, since_ms = alternate(turns, was, now, t_ms)
            if since_ms is not None:
                told[t_ms / MINUTE_MS] = since_ms / MINUTE_MS
    assert told == expected


@pytest.mark.parametrize("name", TABLE)
def test_told_from_what_was_seen_of_the_last_minutes_it_is_the_same(name: str) -> None:
    """As the store does it: nothing is kept but who was seen, and until when it is told."""
    text, expected = TABLE[name]
    told, told_until_ms = {}, 0
    sightings = seen(text)
    for number, (t_ms, _who) in enumerate(sightings):
        before = [one for one in sightings[:number] if one[0] < t_ms - WITHIN_MS][-1:]
        recent = [one for one in sightings[: number + 1] if one[0] >= t_ms - WITHIN_MS]
        case = case_of([*before, *recent], told_until_ms)
        if case is not None:
            pair, since_ms, told_until_ms = case
            assert len(pair) == 2
            if since_ms:
                told[t_ms / MINUTE_MS] = since_ms / MINUTE_MS
    assert told == expected


def test_an_address_is_compared_without_what_a_machine_may_change_of_it() -> None:
    assert source_of("192.0.2.7") == source_of("192.0.2.7") != source_of("192.0.2.8")
    assert source_of("2001:db8:1:2::5") == source_of("2001:db8:1:2:ffff::9")
    assert source_of("2001:db8:1:2::5") != source_of("2001:db8:1:3::5")
    assert source_of("::ffff:192.0.2.7") == source_of("192.0.2.7")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")
    assert source_of("unix socket") == source_of("") == 0


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::5", "2001:db8:1:2::/64"),
        ("::1", "::1"),
    ],
)
def test_people_read_an_address_or_its_network(address: str, text: str) -> None:
    assert source_text(source_of(address)) == text


def opened(text: str) -> list[tuple[int, Manager]]:
    """``"0 A/1.0"``: minute, address and version."""
    return [(t_ms, Manager(*who.split("/"))) for t_ms, who in seen(text)]


def told(text: str, told_until_ms: int = 0) -> tuple[Event | None, int]:
    return clone_of_managers(opened(text), told_until_ms, node_id="n", project_id="p", shard=-1)


def test_two_managers_that_open_sessions_in_turns_are_one_event_that_names_both() -> None:
    event, until_ms = told("0 192.0.2.1/1.0, 1 192.0.2.2/1.1, 2 192.0.2.1/1.0, 3 192.0.2.2/1.1")
    assert event is not None
    assert (event.kind, event.node_id, event.since_ms, event.at_ms) == (
        "node.clone",
        "n",
        MINUTE_MS,
        3 * MINUTE_MS,
    )
    assert event.detail == (
        "two managers take turns at opening sessions: 192.0.2.1 (version 1.0) and 192.0.2.2 (version 1.1)"
    )
    assert until_ms == 63 * MINUTE_MS


def test_behind_one_address_two_managers_are_told_apart_by_their_versions() -> None:
    event, _ = told("0 192.0.2.1/1.0, 1 192.0.2.1/1.1, 2 192.0.2.1/1.0, 3 192.0.2.1/1.1")
    assert event is not None


def test_a_manager_that_changes_its_address_within_its_network_is_one_manager() -> None:
    event, _ = told("0 2001:db8::1/1, 1 2001:db8::2/1, 2 2001:db8::1/1, 3 2001:db8::2/1")
    assert event is None


def test_a_manager_that_is_updated_or_opens_often_is_no_clone() -> None:
    assert told("0 192.0.2.1/1.0, 1 192.0.2.1/1.1, 2 192.0.2.1/1.1, 3 192.0.2.1/1.1")[0] is None
    assert told("0 192.0.2.1/1, 1 192.0.2.1/1, 2 192.0.2.1/1, 3 192.0.2.1/1")[0] is None


def test_sessions_opened_by_nobody_knows_whom_say_nothing() -> None:
    assert told("0 /1, 1 /2, 2 /1, 3 /2") == (None, 0)


def test_a_case_that_is_told_is_only_prolonged() -> None:
    text = "0 192.0.2.1/1, 1 192.0.2.2/1, 2 192.0.2.1/1, 3 192.0.2.2/1"
    assert told(text, told_until_ms=4 * MINUTE_MS) == (None, 63 * MINUTE_MS)
