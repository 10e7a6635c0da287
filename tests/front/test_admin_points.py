"""`admin points`: a sealed day committed from files and by the rule, corrected, and read."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from engine.core.amounts import points_of_micro
from engine.core.catalog import RewardRule
from engine.core.people import Act
from storage.open import AllStores
from tests.front.administered import Administered
from tests.sealing import Day, seal_a_day, tell_view


@pytest.fixture(scope="module")
def days(cli: Administered) -> dict[str, Day]:
    """Yesterday of two projects, sealed."""

    async def sealed(stores: AllStores, slug: str) -> Day:
        await tell_view(stores)
        project = await stores.directory.project(slug)
        assert project is not None
        return await seal_a_day(stores, project.project_id, nodes=1, workloads=2)

    found = {}
    for slug in ("filed", "ruled"):
        cli.admin("project", "create", slug, "--name", slug)
        found[slug] = cli.on_stores(lambda stores, slug=slug: sealed(stores, slug))
    return found


def test_a_day_is_committed_from_files_and_corrected(cli: Administered, days, tmp_path: Path) -> None:
    day, (one, two) = days["filed"].day, days["filed"].workload_ids
    rows = [{"workload_id": one, "points": "1.5"}, {"workload_id": two, "points": "2"}]
    file = tmp_path / "points.json"
    file.write_text(json.dumps({"day": day, "rows": rows}))
    made = cli.admin("points", "commit", "filed", file)
    assert (made["day"], made["revision"], made["total_points"], made["rows"]) == (day, 1, "3.5", 2)
    assert cli.audited("points.commit")["subject"] == made["commit_id"]
    assert cli.admin("points", "commit", "filed", file) == made, "the same file is the same commit"

    lines = tmp_path / "points.csv"
    lines.write_text(f"workload_id,points\n{one},4\n")
    say = ("points", "commit", "filed", lines, "--day", day, "--total")
    assert "already" not in cli.refused(*say, "5")
    assert "--reason" in cli.refused(*say, "4")
    corrected = cli.admin(*say, "4", "--reason", "two was off")
    assert (corrected["revision"], corrected["total_before"]) == (2, "3.5")

    history = cli.admin("points", "history", "filed")["commits"]
    assert [one["revision"] for one in history] == [2, 1]
    assert cli.admin("points", "totals", "filed")["totals"][0]["points"] == "4"
    by_workload = cli.admin("points", "totals", "filed", "--by", "workload")["totals"]
    assert by_workload == [{"workload_id": one, "points": "4"}]
    assert cli.admin("points", "totals", "filed", "--by", "day")["totals"] == [{"day": day, "points": "4"}]
    assert cli.admin("points", "totals", "filed", "--by", "licence", "--day", day)["totals"] == []


def test_faults_are_told_line_by_line(cli: Administered, days, tmp_path: Path) -> None:
    file = tmp_path / "points.ndjson"
    head = {"day": days["ruled"].day, "total": "1"}
    file.write_text(f'{json.dumps(head)}\n{{"workload_id": "x", "points": "1"}}\n')
    done = cli.type("admin", "points", "commit", "ruled", file)
    assert done.code == 1
    assert "rows_refused" in done.err
    assert "/lines/2/workload_id: not an id" in done.err
    assert "FILE or --suggested" in cli.misused("points", "commit", "ruled")


def test_a_day_is_committed_by_the_projects_rule(cli: Administered, days) -> None:
    day = days["ruled"].day
    say = ("points", "commit", "ruled", "--suggested", "--day", day)
    assert "no_reward_rule" in cli.refused(*say)

    async def decide(stores: AllStores) -> None:
        began = date.fromisoformat(day)
        await stores.projects.add_policy(
            Act(actor="test", now_ms=1, request_id="", made_id=""),
            days["ruled"].project_id,
            effective_from=began,
            today=began,
            uptime_source="native",
            pay_claims=True,
            reward=RewardRule(micro_points_per_paid_s=1_000_000),
        )

    cli.on_stores(decide)
    made = cli.admin(*say)
    paid_ms = days["ruled"].seal.paid_ms
    assert (made["rows"], made["total_points"]) == (2, points_of_micro(paid_ms * 1_000))
    assert "needs a reason" in cli.refused(*say, "--key", "another")
    assert "not sealed" in cli.refused("points", "commit", "ruled", "--suggested", "--day", "2020-01-01")
