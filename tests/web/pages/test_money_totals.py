"""Points of a project over days in the browser: receivers, days, files, and the board for everybody."""

from __future__ import annotations

import csv
import io
import json

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.points_given import PATH, body, nodes, seal

PAGE = "/projects/alpha/points"


async def given(control: Control) -> None:
    """Two committed days: olga's machine and one of nobody's."""
    await control.sql("update account set name = '=1+<b>olga</b>' where name = 'olga'")
    [mine] = await nodes(control, 1, owner="olga")
    [other] = await nodes(control, 1)
    for day, points in (("2026-01-30", "3"), ("2026-01-31", "4.5")):
        await seal(control, [mine, other], day=day)
        made = await control.ask("POST", PATH, by="owner", json=body((mine, points), (other, "1"), day=day))
        assert made.status == 201, made.json


async def test_an_owner_sees_receivers_and_days_and_takes_them_as_a_file(control: Control) -> None:
    paul = Browser(control, "paul")
    empty = await paul.look(PAGE)
    is_whole(empty)
    assert 'class="empty"' in empty.text
    await given(control)
    shown = await paul.look(PAGE)
    is_whole(shown)
    assert "Points that count 9.5 of all days" in shown.words
    assert "7.5 0" in shown.words
    one = await paul.look(f"{PAGE}?from=2026-01-31")
    assert "5.5 from 2026-01-31" in one.words
    assert "2026-01-31 5.5 2 the first" in one.words
    assert "None in these days" in (await paul.look(f"{PAGE}?from=2026-03-01")).words
    assert (await paul.look(f"{PAGE}?from=x")).status == 400
    file = await paul.look(f"{PAGE}/export?from=2026-01-31")
    assert 'filename="points-alpha.csv"' in file.headers["content-disposition"]
    names, first, second = list(csv.reader(io.StringIO(file.text)))
    assert names == ["rank", "kind", "user", "name", "wallet", "points", "licence_points"]
    assert (first[:2], first[3], first[5]) == (["1", "user"], "'=1+<b>olga</b>", "4.5")
    assert (second[1], second[5]) == ("node", "1")
    lines = (await paul.look(f"{PAGE}/export?format=ndjson")).text.splitlines()
    assert json.loads(lines[0])["points"] == "7.5"
    assert json.loads(lines[-1]) == {"end": True, "rows": 2}


async def test_everybody_who_signed_in_sees_the_board_and_no_machines(control: Control) -> None:
    await given(control)
    olga, sam, path = Browser(control, "olga"), Browser(control, "sam"), "/projects/alpha/leaderboard"
    mine = await olga.look(path)
    is_whole(mine)
    assert "=1+&lt;b&gt;olga&lt;/b&gt;" in mine.text
    assert "you 7.5" in mine.words
    assert 'aria-label="Project"' not in mine.text, "it is not theirs to run"
    assert "you 7.5" not in (await sam.look(path)).words
    assert 'aria-label="Project"' in (await Browser(control, "paul").look(path)).text
    assert (await sam.look(PAGE)).status in (403, 404)
    assert (await sam.look(f"{PAGE}/export")).status in (403, 404)
    assert (await Browser(control, None).look(path)).status == 303
