"""Who is told of what, and when: the cases, one story each.

Minutes after noon; delays are five minutes unless a recipient has another.
"""

from typing import get_args

import pytest

from engine.core.newsroom import Policy
from engine.core.notices import EventKind, TakenKind
from engine.core.records import event_id
from tests.worker.newsdesk import ANN, BOB, OPS, Desk, at, operator, person, project
from worker.deciding.kinds import KINDS

DOWN, UP, STOPPED = "node.down", "node.up", "node.stopped"
MINE, OURS, THEIRS = "ann-mail", "project-hook", "ops-mail"
AT_ONCE = {"down_delay_s": 0}

# -- one node, one recipient: story, and what is told -----------------------------------------------------
STORIES = {
    "a fall is told when it has lasted as long as the recipient wants": (
        [(0, DOWN, "n")],
        [(5, MINE, DOWN, 1)],
    ),
    "who is back before that is not spoken of": (
        [(0, DOWN, "n"), (4, UP, "n")],
        [],
    ),
    "who hears of the fall hears of the return": (
        [(0, DOWN, "n"), (10, UP, "n")],
        [(5, MINE, DOWN, 1), (11, MINE, UP, 1)],
    ),
    "a return alone is not told": (
        [(0, UP, "n")],
        [],
    ),
    "who believes in a fall is not told of the next while the return is untold": (
        [(0, DOWN, "n"), (10, UP, "n"), (10.5, DOWN, "n")],
        [(5, MINE, DOWN, 1)],
    ),
    "each fall that lasts is told, and each return": (
        [(0, DOWN, "n"), (10, UP, "n"), (90, DOWN, "n"), (100, UP, "n")],
        [(5, MINE, DOWN, 1), (11, MINE, UP, 1), (95, MINE, DOWN, 1), (101, MINE, UP, 1)],
    ),
    "a stop in order alarms nobody": (
        [(0, STOPPED, "n"), (9, UP, "n")],
        [],
    ),
    "a fall that ends in a stop within the delay is not told": (
        [(0, DOWN, "n"), (3, STOPPED, "n")],
        [],
    ),
    "a return after fall and stop is told to who heard of the fall": (
        [(0, DOWN, "n"), (6, STOPPED, "n"), (20, UP, "n")],
        [(5, MINE, DOWN, 1), (21, MINE, UP, 1)],
    ),
    "a workload on a node that is heard falls and rises by itself": (
        [(0, "workload.down", "n/w"), (10, "workload.up", "n/w")],
        [(5, MINE, "workload.down", 1), (11, MINE, "workload.up", 1)],
    ),
    "node and workload are two subjects": (
        [(0, "workload.down", "n/w"), (1, DOWN, "n"), (7, UP, "n")],
        [(6, MINE, "digest workload.down", 2), (8, MINE, UP, 1)],
    ),
    "what is no fall is told at once": (
        [(0, "licence.conflict", "n/w"), (1, "node.clone", "n"), (2, "workload.below_minimum", "n/w")],
        [
            (0, MINE, "licence.conflict", 1),
            (1, MINE, "node.clone", 1),
            (2, MINE, "workload.below_minimum", 1),
        ],
    ),
}


@pytest.mark.parametrize(("story", "told"), STORIES.values(), ids=STORIES)
def test_of_one_node(story, told):
    desk = Desk(person())
    desk.play(*story)
    desk.pass_until(24 * 60 - 1)
    assert desk.told == told


# -- who hears --------------------------------------------------------------------------------------------
AUDIENCE = [
    # kind, subject, who is told when no channel names kinds
    (DOWN, "n", [MINE, OURS]),
    ("workload.down", "n/w", [MINE, OURS]),
    ("workload.below_minimum", "n/w", [MINE, OURS]),
    ("licence.conflict", "n/w", [MINE, OURS]),
    ("node.clone", "n", [MINE, OURS]),
    ("dispute.opened", "n/w", ["bob-mail", OURS]),  # who runs the project must answer
    ("dispute.answered", "n/w", [MINE, OURS]),
    ("node.stopped", "n", []),  # nor by default:
    ("seal.done", "n", []),
    ("points.committed", "n", []),
    ("gap.opened", "", [THEIRS]),
    ("gap.closed", "", [THEIRS]),
    ("shard.degraded", "", [THEIRS]),
    ("clock.stepped", "", [THEIRS]),
    ("actor.quarantined", "", [THEIRS]),
    ("publication.failed", "", [THEIRS]),
    ("something.new", "", [THEIRS]),  # of no project: the installation's
    (DOWN, "strange", [OURS]),  # of nobody's node only its project hears
]


@pytest.mark.parametrize(("kind", "subject", "told"), AUDIENCE)
def test_who_hears_of_what(kind, subject, told):
    desk = Desk(
        person(**AT_ONCE), person(BOB, **AT_ONCE), operator(), project(), policy=Policy(project_delay_ms=0)
    )
    desk.node("strange", None)
    desk.play((0, kind, subject))
    desk.pass_until(1)
    assert sorted(channel for _, channel, *_ in desk.told) == told


@pytest.mark.parametrize("kind", ["seal.done", "points.committed", "node.stopped"])
def test_some_kinds_are_told_to_those_who_name_them(kind):
    desk = Desk(person(BOB, event_kinds=(kind,)), person(event_kinds=(kind,)), project(event_kinds=(kind,)))
    desk.play((0, kind, "n"))
    desk.pass_until(1)
    mine = MINE if kind == "node.stopped" else "bob-mail"  # the node's owner, or the project's
    assert sorted(channel for _, channel, *_ in desk.told) == [mine, OURS]


def test_a_channel_that_names_kinds_is_told_those_only():
    desk = Desk(person(event_kinds=(DOWN,)), project(event_kinds=(UP,)))
    desk.play((0, DOWN, "n"), (10, UP, "n"))
    desk.pass_until(30)
    assert desk.told == [(5, MINE, DOWN, 1)]  # the project was never told of the fall, so not of the return


def test_every_kind_that_a_channel_may_name_is_in_the_table():
    assert set(get_args(EventKind)) == set(KINDS)
    assert {"announcement", "report"} < set(get_args(TakenKind))


# -- digests ----------------------------------------------------------------------------------------------
def test_ten_thousand_nodes_down_at_once_are_one_message_per_recipient_and_channel():
    desk = Desk(person(), project(), person(BOB))
    for number in range(10_000):
        desk.node(f"n{number}", BOB if number % 2 else ANN)
    desk.happen(*[desk.event(DOWN, f"n{number}", number % 4 / 4) for number in range(10_000)])
    desk.pass_until(30)
    desk.happen(*[desk.event(UP, f"n{number}", 30 + number % 4 / 4) for number in range(10_000)])
    desk.pass_until(60)
    told = sorted((channel, what, count) for _, channel, what, count in desk.told)
    assert told == [
        (MINE, "digest node.down", 5_000),
        (MINE, "digest node.up", 5_000),
        ("bob-mail", "digest node.down", 5_000),
        ("bob-mail", "digest node.up", 5_000),
        (OURS, "digest node.down", 10_000),
        (OURS, "digest node.up", 10_000),
    ]


def test_a_digest_holds_each_fall_for_its_whole_delay_and_leaves_out_who_is_back():
    desk = Desk(person())
    desk.play((0, DOWN, "a"), (2, DOWN, "b"), (4.5, DOWN, "c"), (6, UP, "b"))
    desk.pass_until(30)
    assert desk.told == [(9.5, MINE, "digest node.down", 2)]


def test_who_falls_after_the_hold_time_of_the_first_is_told_apart():
    desk = Desk(person())
    desk.play((0, DOWN, "a"), (6, DOWN, "b"))
    desk.pass_until(30)
    assert desk.told == [(5, MINE, DOWN, 1), (11, MINE, DOWN, 1)]


def test_with_no_delay_a_fall_is_told_at_once():
    desk = Desk(person(**AT_ONCE))
    desk.play((0, DOWN, "a"), (1, DOWN, "b"))
    desk.pass_until(2)
    assert desk.told == [(0, MINE, DOWN, 1), (1, MINE, DOWN, 1)]


# -- flapping ---------------------------------------------------------------------------------------------
def flaps(changes: int, *, every: float = 2):
    return [(number * every, UP if number % 2 else DOWN, "n") for number in range(changes)]


def test_six_changes_within_an_hour_are_one_notice_then_silence_then_how_it_stands():
    desk = Desk(person(**AT_ONCE))
    desk.play(*flaps(15))  # the last change, at minute 28, is a fall
    desk.pass_until(120)
    assert [(minute, what) for minute, _, what, _ in desk.told] == [
        (0, DOWN),
        (2, UP),
        (4, DOWN),
        (6, UP),
        (8, DOWN),
        (10, "node.flapping"),
        (58, "node.steady"),
    ]
    assert desk.notices[-1][2].events[0].detail == "down"
    assert [event.kind for event in desk.recorded] == ["node.flapping", "node.steady"]
    desk.play((130, UP, "n"))
    desk.pass_until(140)
    assert desk.told[-1] == (130, MINE, UP, 1)


def test_what_flaps_faster_than_the_delay_is_told_as_flapping_all_the_same():
    desk = Desk(person())
    desk.play(*flaps(8, every=1))  # the last change, at minute 7, is a return
    desk.pass_until(120)
    assert [(minute, what) for minute, _, what, _ in desk.told] == [(5, "node.flapping"), (37, "node.steady")]
    assert desk.notices[-1][2].events[0].detail == "up"


def test_five_changes_an_hour_are_no_flapping():
    desk = Desk(person(**AT_ONCE))
    desk.play(*[(number * 12.5, UP if number % 2 else DOWN, "n") for number in range(12)])
    desk.pass_until(300)
    assert {what for _, _, what, _ in desk.told} == {DOWN, UP}


def test_who_believes_in_a_fall_and_was_not_yet_told_of_steady_is_told_of_no_other_fall():
    desk = Desk(person(**AT_ONCE))
    desk.windows = {"n": (at(39), at(60))}
    desk.play(*flaps(6), (45, DOWN, "n"))
    desk.pass_until(120)
    assert [what for _, _, what, _ in desk.told] == [DOWN, UP, DOWN, UP, DOWN, "node.flapping"]


LICENCE = {"detail": "licence L is held by workload w (epoch 7)"}


def test_two_runs_that_take_a_licence_from_each_other_are_a_few_notices_and_then_silence():
    desk = Desk(person(**AT_ONCE), person(BOB, **AT_ONCE))
    desk.node("m", BOB)
    for number in range(100):  # one each two seconds, of Ann's run and of Bob's in turn
        desk.pass_until(number / 30)
        desk.happen(desk.event("licence.conflict", "mn"[number % 2] + "/w", number / 30, **LICENCE))
    desk.pass_until(120)
    for channel in (MINE, "bob-mail"):
        told = [(what, count) for _, whose, what, count in desk.told if whose == channel]
        assert told[0] == ("licence.conflict", 1)
        assert sorted(told[1:3])[-1] == ("licence.flapping", 1)
        assert told[3:] == [("licence.steady", 1)]
    conflicts = [one for *_, one in desk.notices if one.kind == "licence.conflict"]
    assert sum(notice.count for notice in conflicts) == 5
    assert desk.dropped == {"flapping": 95}
    (steady,) = {notice.events[0].detail for *_, notice in desk.notices if notice.kind == "licence.steady"}
    assert steady == "95 conflicts were recorded and not told"
    assert [event.kind for event in desk.recorded].count("licence.steady") == 1


def test_another_licences_conflicts_are_counted_for_themselves():
    desk = Desk(person(**AT_ONCE))
    for number in range(10):
        detail = f"licence L{number % 2} is held by workload w (epoch 7)"
        desk.happen(desk.event("licence.conflict", "n/w", number, detail=detail))
    assert desk.dropped == {}


def test_news_of_one_kind_to_one_channel_is_told_once_and_then_once_in_the_gathering_time():
    desk = Desk(person(**AT_ONCE), project())
    for number in range(40):
        desk.pass_until(number / 2)
        desk.happen(desk.event("workload.below_minimum", f"n/w{number}", number / 2))
    desk.play((3.1, "node.clone", "n"))  # another kind waits for nobody
    desk.pass_until(60)
    for channel in (MINE, OURS):
        told = [(minute, what, count) for minute, whose, what, count in desk.told if whose == channel]
        below = [(minute, count) for minute, what, count in told if "below" in what]
        assert [minute for minute, _ in below] == [0, 5, 10, 15, 20]
        assert sum(count for _, count in below) == 40, "nothing is skipped"
        assert "node.clone" in [what for _, what, _ in told]


# -- reminders --------------------------------------------------------------------------------------------
def test_a_node_still_down_is_reminded_of_every_day_three_times():
    desk = Desk(person())
    desk.play((0, DOWN, "n"))
    desk.pass_until(10 * 24 * 60)
    day = 24 * 60
    assert desk.told == [(5, MINE, DOWN, 1)] + [
        (5 + day * number, MINE, "reminder node.down", 1) for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("end", [UP, STOPPED])
def test_nobody_is_reminded_of_what_is_over(end):
    desk = Desk(person())
    desk.play((0, DOWN, "n"), (60, end, "n"))
    desk.pass_until(10 * 24 * 60)
    assert not [what for *_, what, _ in desk.told if what.startswith("reminder")]


# -- quiet hours ------------------------------------------------------------------------------------------
QUIET = {"quiet_from": "22:00", "quiet_to": "07:00", "time_zone": "UTC"}
EVENING, MORNING = 10 * 60, 19 * 60  # 22:00 and 07:00, in minutes after noon


def test_in_quiet_hours_notices_wait_and_then_are_one_digest_without_who_is_back():
    desk = Desk(person(**QUIET))
    night = EVENING + 60
    desk.play((night, DOWN, "a"), (night + 60, DOWN, "b"), (night + 120, DOWN, "c"), (night + 180, UP, "b"))
    desk.pass_until(MORNING + 60)
    assert desk.told == [(MORNING, MINE, "digest node.down", 2)]


def test_a_delay_that_ends_in_quiet_hours_waits_for_their_end():
    desk = Desk(person(**QUIET))
    desk.play((EVENING - 2, DOWN, "n"))
    desk.pass_until(MORNING + 1)
    assert desk.told == [(MORNING, MINE, DOWN, 1)]


def test_quiet_hours_are_of_the_persons_time_zone():
    desk = Desk(person(**QUIET | {"time_zone": "America/New_York"}))  # noon UTC is 08:00 there
    desk.play((0, DOWN, "a"), (MORNING - 60, DOWN, "b"))  # 06:00 UTC is 02:00 there
    desk.pass_until(MORNING + 5 * 60)
    assert desk.told == [(5, MINE, DOWN, 1), (MORNING + 4 * 60, MINE, DOWN, 1)]


def test_what_is_urgent_passes_quiet_hours():
    desk = Desk(operator(**QUIET))
    desk.play((EVENING + 60, "gap.opened", ""), (EVENING + 61, "clock.stepped", ""))
    desk.pass_until(MORNING + 1)
    assert desk.told == [(EVENING + 60, THEIRS, "gap.opened", 1), (MORNING, THEIRS, "clock.stepped", 1)]


# -- maintenance ------------------------------------------------------------------------------------------
def test_nothing_is_told_of_a_node_in_maintenance_until_it_is_over():
    desk = Desk(person(**AT_ONCE))
    desk.windows = {"n": (at(0), at(45)), "w": (at(0), at(30))}
    desk.play((1, "workload.down", "n/w"), (2, "workload.down", "m/w"), (3, "workload.down", "m/v"))
    desk.pass_until(20)
    assert desk.told == [(3, MINE, "workload.down", 1)]
    desk.pass_until(60)
    assert [event.workload_id for *_, notice in desk.notices for event in notice.events] == ["v", "w"]


def test_what_is_over_before_the_window_is_was_never_worth_telling():
    desk = Desk(person(**AT_ONCE))
    desk.windows = {"n": (at(0), at(45))}
    desk.play((1, "workload.down", "n/w"), (40, "workload.up", "n/w"))
    desk.pass_until(120)
    assert desk.told == []


# -- a shard in doubt -------------------------------------------------------------------------------------
def test_while_a_shard_is_degraded_only_operators_hear_anything():
    desk = Desk(person(), operator())
    desk.play(
        (0, DOWN, "a"), (1, DOWN, "b"), (2, "shard.degraded", ""), (20, UP, "b"), (30, "shard.recovered", "")
    )
    assert desk.told == [(2, THEIRS, "shard.degraded", 1)]
    desk.pass_until(40)
    assert desk.told[1:] == [(30, THEIRS, "shard.recovered", 1), (30.3, MINE, DOWN, 1)] or (
        desk.told[1:] == [(30, THEIRS, "shard.recovered", 1), (30.5, MINE, DOWN, 1)]
    )
    assert [event.node_id for event in desk.notices[-1][2].events] == ["a"]


def test_another_shards_nodes_are_told_of_meanwhile():
    desk = Desk(person())
    desk.happen(desk.event("shard.degraded", "", 0, shard=1))
    desk.play((0, DOWN, "n"))
    desk.pass_until(10)
    assert desk.told == [(5, MINE, DOWN, 1)]


# -- regions and ingresses --------------------------------------------------------------------------------
def fall_of_a_region(count: int, *, total: int, region: str = "eu"):
    desk = Desk(operator(**QUIET), person())
    desk.totals = {"region:eu": total, "ingress:0": 100_000}
    for number in range(count):
        desk.node(f"n{number}", region=region)
        desk.happen(desk.event(DOWN, f"n{number}", EVENING + 60 + number / 60))
    desk.pass_until(EVENING + 65)
    return [what for _, channel, what, _ in desk.told if channel == THEIRS]


@pytest.mark.parametrize(
    ("count", "total", "told"),
    [
        (19, 19, []),  # few
        (20, 20, ["region.down"]),
        (100, 120, ["region.down"]),  # once
        (20, 1_000, []),  # not even a sixth of it
    ],
)
def test_many_nodes_of_a_region_at_once_are_one_notice_to_operators(count, total, told):
    assert fall_of_a_region(count, total=total) == told


def test_of_one_ingress_as_well():
    desk = Desk(operator())
    desk.totals = {"ingress:0": 30}
    desk.happen(*[desk.event(DOWN, f"n{number}", 0) for number in range(30)])
    desk.pass_until(1)
    assert [what for _, _, what, _ in desk.told] == ["ingress.down"]
    assert desk.recorded[0].detail == "20 of 30 nodes of ingress 0 fell within two minutes"


def test_seven_nodes_that_fall_three_times_are_seven_nodes():
    desk = Desk(operator())
    desk.totals = {"ingress:0": 30}
    for number in range(5):
        kind = UP if number % 2 else DOWN
        desk.happen(*[desk.event(kind, f"n{node}", number / 4) for node in range(7)])
    assert desk.recorded == []
    desk.happen(*[desk.event(DOWN, f"m{node}", 1.5) for node in range(13)])
    assert desk.recorded[0].detail == "20 of 30 nodes of ingress 0 fell within two minutes"


def test_a_node_counts_in_its_area_where_it_fell_last():
    desk = Desk(operator())
    desk.totals = {"ingress:0": 20}
    desk.happen(*[desk.event(DOWN, f"n{node}", 0) for node in range(19)])
    desk.play((1.5, UP, "n0"), (1.8, DOWN, "n0"))
    desk.happen(*[desk.event(DOWN, f"m{node}", 3) for node in range(19)])
    assert [event.detail for event in desk.recorded] == [
        "20 of 20 nodes of ingress 0 fell within two minutes"
    ]


# -- channels and nodes that are gone ---------------------------------------------------------------------
def test_a_channel_that_is_gone_hears_nothing_more():
    desk = Desk(person())
    desk.play((0, DOWN, "n"))
    desk.recipients.clear()
    desk.pass_until(60)
    assert desk.told == []
    assert desk.state.items == {}


def test_nobody_is_told_of_a_node_that_was_retired():
    desk = Desk(person())
    desk.play((0, DOWN, "n"))
    desk.nodes["n"] = type(desk.nodes["n"])(owner_id=ANN, gone=True)
    desk.pass_until(60)
    assert desk.told == []


def test_a_node_that_was_sold_is_told_of_to_who_heard_of_its_fall():
    desk = Desk(person(), person(BOB))
    desk.play((0, DOWN, "n"))
    desk.pass_until(10)
    desk.node("n", BOB)
    desk.play((20, UP, "n"))
    desk.pass_until(30)
    assert desk.told == [(5, MINE, DOWN, 1), (21, MINE, UP, 1)]


def test_the_notice_of_a_single_event_is_known_by_the_events_id():
    desk = Desk(person())
    desk.play((0, DOWN, "n"))
    desk.pass_until(10)
    assert desk.notices[0][2].notice_id == event_id(DOWN, "n:0", at(0))


def test_an_operator_is_also_told_of_nodes_of_his_own():
    desk = Desk(operator())
    desk.node("n", OPS)
    desk.play((0, DOWN, "n"))
    desk.pass_until(10)
    assert desk.told == [(5, THEIRS, DOWN, 1)]
