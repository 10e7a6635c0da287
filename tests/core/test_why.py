"""Why an interval is not paid, as a table: what the records say of it. Times in the tables are seconds.

The intervals come from `compose` over the same records, so that every case is one that can be.
"""

from __future__ import annotations

import pytest

from engine.core.compose import OPEN_END
from engine.core.leases import StandbySpan
from engine.core.records import KINDS, PAID_KINDS, Event
from engine.core.why import RECORDS_MAX, TEXTS, Around, Cause, Session, Unpaid, why
from tests.core.compose_cases import beats, claims, drops, gap, lease, seconds, window, world
from tests.core.compose_oracle import World


def event(kind: str, since_s: float) -> Event:
    since_ms = seconds(since_s)
    return Event(f"{kind}@{since_s:g}", kind, 0, "p", "n", None, since_ms, since_ms)


def asked(case: World, *, pay_claims: bool = True, **more: object) -> list[Unpaid]:
    composed = case.composed(pay_claims=pay_claims)
    records = {
        "base": case.rows,
        "gaps": case.gaps,
        "windows": case.windows,
        "first_report": case.first_report,
        "provisional_from_ms": composed.provisional_from_ms,
        **more,
    }
    told, left_out = why(composed.intervals, Around(**records), pay_claims=pay_claims)  # type: ignore[arg-type]
    assert left_out == 0
    unpaid_ms = sum(composed.ms.values()) - composed.paid_ms
    assert sum(one.to_ms - one.from_ms for one in told) == unpaid_ms, "the sums are those of uptime"
    return told


def said(told: list[Unpaid]) -> str:
    return "; ".join(_said(one) for one in told)


def _said(one: Unpaid) -> str:
    cause = one.cause
    words = [f"{one.kind} {one.from_ms / 1000:g}-{one.to_ms / 1000:g}", cause.what]
    if cause.since_ms is not None:
        words.append(f"since {cause.since_ms / 1000:g}")
    if cause.last_beat_ms is not None:
        words.append(f"beat {cause.last_beat_ms / 1000:g}")
    words += [cause.event_id] if cause.event_id else []
    words += [f"{each.cause}@{each.from_ms / 1000:g}" for each in cause.gaps]
    words += list(cause.windows)
    words += [f"{each.holder_id}#{each.epoch}" for each in cause.standbys]
    return " ".join(words + ["provisional"] * cause.provisional)


def standby(from_s: float, to_s: float | None, epoch: int, holder_id: str) -> StandbySpan:
    return StandbySpan(
        workload_id="w-mine",
        licence_id="nft",
        epoch=epoch,
        holder_id=holder_id,
        from_ms=seconds(from_s),
        to_ms=None if to_s is None else seconds(to_s),
    )


HELD = (standby(100, 160, 3, "w-other"), standby(160, None, 4, "w-third"))
TABLE: dict[str, tuple[World, dict[str, object], str]] = {
    "silence has the last beat before it, and the event that told of it": (
        world(beats("0 up, 60 up")),
        {"events": [event("node.down", 150)]},
        "silent 150-600 node_silent since 150 beat 60 node.down@150",
    ),
    "a silence too short for a verdict has no event": (
        world(beats("0 up, 60 up, 160 up"), asked=(0, 200)),
        {},
        "silent 150-160 node_silent since 150 beat 60",
    ),
    "an event of an earlier silence is not that of a later one": (
        world(beats("0 up, 400 up"), asked=(0, 550)),
        {"events": [event("node.down", 90), event("node.up", 400)]},
        "silent 90-400 node_silent since 90 beat 0 node.down@90; "
        "silent 490-550 node_silent since 490 beat 400",
    ),
    "who was down at midnight already is down by the event of the day before": (
        world(beats("0 up"), asked=(300, 600)),
        {"events": [event("node.down", 90)]},
        "silent 300-600 node_silent since 90 beat 0 node.down@90",
    ),
    "nothing counts before the first report": (
        world(beats("200 up"), asked=(0, 250)),
        {},
        "silent 0-200 not_reported_yet",
    ),
    "who never reported is told so": (world(()), {}, "silent 0-600 not_reported_yet"),
    "a node whose session lacks the workload is told to open a new one": (
        world(beats("0 up")),
        {"sessions": [Session(seconds(-5), True), Session(seconds(50), False)]},
        "silent 90-600 not_in_session since 50 beat 0",
    ),
    "but not if the node itself was silent": (
        world(beats("0 up")),
        {"sessions": [Session(seconds(50), False)], "events": [event("node.down", 90)]},
        "silent 90-600 node_silent since 90 beat 0 node.down@90",
    ),
    "what a session opened later lacks says nothing of before": (
        world(beats("0 up")),
        {"sessions": [Session(seconds(-5), True), Session(seconds(120), False)]},
        "silent 90-600 node_silent since 90 beat 0",
    ),
    "unhealthy since the first beat that said so, with the event of the flip": (
        world(beats("0 up, 60 unhealthy, 100 unhealthy, 140 up"), asked=(0, 200)),
        {"events": [event("workload.down", 60), event("workload.up", 140)]},
        "unhealthy 60-140 unhealthy since 60 workload.down@60",
    ),
    "unhealthy since before the day": (
        world(beats("0 unhealthy, 80 unhealthy, 160 up"), asked=(100, 200)),
        {"events": [event("workload.down", 0)]},
        "unhealthy 100-160 unhealthy since 0 workload.down@0",
    ),
    "a change of ttl does not begin it anew": (
        world(beats("0 unhealthy, 60 unhealthy/120, 100 up"), asked=(70, 150)),
        {},
        "unhealthy 70-100 unhealthy since 0",
    ),
    "updating has no event": (
        world(beats("0 up, 60 updating, 100 up"), asked=(0, 150)),
        {},
        "updating 60-100 updating since 60",
    ),
    "stopped until the next beat": (
        world(beats("0 up, 60 stopped, 500 up"), asked=(0, 550)),
        {"events": [event("node.stopped", 60), event("node.up", 500)]},
        "stopped 60-500 stopped since 60 node.stopped@60",
    ),
    "what is forgiven names our gap, and goes on after it until the beat": (
        world(beats("0 up, 160 up"), gaps=[gap(80, 100)], asked=(0, 200)),
        {},
        "unobserved 90-160 our_gap since 80 crash@80",
    ),
    "all gaps of a chain are named, also the one that ended before the cover did": (
        world(beats("0 up, 300 up"), gaps=[gap(50, 60, "stall"), gap(120, 180)], asked=(0, 320)),
        {},
        "unobserved 90-300 our_gap since 50 stall@50 crash@120",
    ),
    "what could still be forgiven is provisional": (
        world(beats("0 up"), gaps=[gap(80, 100)], asked=(0, 150), as_of=150),
        {},
        "unobserved 90-150 our_gap since 80 crash@80 provisional",
    ),
    "an undecided gap is named while it lasts": (
        world(beats("0 up"), gaps=[gap(80, OPEN_END / 1000, "degraded")], asked=(0, 150), as_of=150),
        {},
        "unobserved 90-150 our_gap since 80 degraded@80 provisional",
    ),
    "a gap that forgives nothing is no cause": (
        world(beats("0 up"), gaps=[gap(300, 320)]),
        {},
        "silent 90-600 node_silent since 90 beat 0",
    ),
    "datagrams that the kernel dropped": (
        world(beats("0 up, 110 up"), gaps=[drops(85, 95)], asked=(0, 150)),
        {},
        "unobserved 90-110 our_gap since 85 drops@85",
    ),
    "an own window is named; the project's own are paid": (
        world(beats("0 up"), windows=[window(100, 200), window(300, 400, own=True)], asked=(0, 400)),
        {},
        "silent 90-100 node_silent since 90 beat 0; silent 200-300 node_silent since 90 beat 0; "
        "maintenance_own 300-400 own_window since 300 w",
    ),
    "standby names who held the licence, in which epoch, one after the other": (
        world(beats("0 up, 80 up, 160 up"), leases=[lease(100, 160), lease(160, None)], asked=(0, 200)),
        {"standbys": HELD},
        "standby 100-200 other_run since 100 w-other#3 w-third#4",
    ),
    "a standby that ended before is not named": (
        world(beats("0 up, 80 up, 160 up"), leases=[lease(160, None)], asked=(0, 200)),
        {"standbys": HELD},
        "standby 160-200 other_run since 160 w-third#4",
    ),
    "claims say what was, unpaid where they do not say up": (
        world(
            beats("0 up, 300 up"),
            gaps=[gap(80, 290)],
            claims=claims("100 up, 160 unhealthy"),
            asked=(0, 310),
        ),
        {},
        "unobserved 90-100 our_gap since 80 crash@80; claimed_unhealthy 160-250 claimed since 160 crash@80; "
        "unobserved 250-300 our_gap since 80 crash@80",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_unpaid_interval_has_its_cause(name: str) -> None:
    case, more, expected = TABLE[name]
    assert said(asked(case, **more)) == expected


def test_claims_that_are_not_paid_are_told_by_the_policy() -> None:
    case = world(beats("0 up, 200 up"), gaps=[gap(80, 190)], claims=claims("90 up, 130 up"), asked=(0, 210))
    assert said(asked(case)) == ""
    assert said(asked(case, pay_claims=False)) == "claimed_up 90-200 claimed_up since 90 crash@80"


def test_every_kind_that_is_not_paid_has_a_cause_and_every_cause_a_text() -> None:
    unpaid = [kind for kind in KINDS if kind not in PAID_KINDS or kind == "claimed_up"]
    told, _ = why([(kind, 0, 1) for kind in unpaid], Around(), pay_claims=False)
    assert [one.kind for one in told] == unpaid
    assert all(TEXTS[one.cause.what] for one in told)


def test_what_is_told_is_bounded_and_the_rest_is_counted() -> None:
    flapping = [("silent", number, number + 1) for number in range(50)]
    told, left_out = why(flapping, Around(), pay_claims=True, intervals_max=7)
    assert [one.from_ms for one in told] == list(range(7))
    assert left_out == 43


def test_of_very_many_gaps_behind_one_interval_only_so_many_are_named() -> None:
    gaps = [gap(second, second + 1, "stall") for second in range(0, 100, 2)]
    told, _ = why([("unobserved", 0, seconds(100))], Around(gaps=gaps), pay_claims=True)
    assert len(told[0].cause.gaps) == RECORDS_MAX


def test_a_cause_says_only_what_belongs_to_it() -> None:
    told = asked(world(beats("0 up, 60 updating, 100 up"), asked=(0, 150)))
    assert told[0].cause == Cause(what="updating", since_ms=60_000)
