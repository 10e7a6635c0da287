"""Day's close, as an owner sees it: what a day waits for, what is suggested, committed, corrected."""

from __future__ import annotations

import re

import trio

from tests.sealing import seal_days
from tests.web.control import Control
from tests.web.pages.browsing import Browser, Looked, forms_of
from tests.web.pages.owned import a_day, unsettle
from tests.web.pages.test_every_page import is_whole
from tests.web.pages.test_forms import alert
from tests.web.points_given import PATH


async def commits(control: Control, day: str) -> list[dict[str, object]]:
    found = await control.ask("GET", f"{PATH}/commits?day={day}", by="owner")
    return found.json["items"]


async def test_a_day_that_runs_and_one_that_waits_say_so_and_why(control: Control) -> None:
    day = await a_day(control, sealed=False)
    await unsettle(control, day)
    paul = Browser(control, "paul")
    listed = await paul.look("/projects/alpha/days")
    is_whole(listed)
    lacks = "leases are not settled up to midnight"
    assert f"{day.day} waiting – – – – {lacks}" in listed.words
    assert re.search(r"running – – – – it ends", listed.words)
    waits = await paul.look(f"/projects/alpha/days/{day.day}")
    is_whole(waits)
    assert "What its seal waits for" in waits.words
    assert "Shard 0 is in the live view yes" in waits.words
    assert f"Who held which licence is settled up to midnight not yet {lacks}" in waits.words
    part = await paul.look(f"/projects/alpha/days/{day.day}", **{"hx-request": "true"})
    assert "<h1" not in part.text
    assert "What its seal waits for" in part.words
    await control.sql("delete from lease_say")
    assert "Nothing is missing" in (await paul.look(f"/projects/alpha/days/{day.day}")).words


async def test_an_empty_project_says_how_its_first_day_comes(control: Control) -> None:
    made = await control.ask("POST", "/v1/projects", json={"slug": "gamma"})
    assert made.status == 201
    listed = await Browser(control, "admin").look("/projects/gamma/days")
    is_whole(listed)
    assert (
        "nodepulse node register --project gamma"
        in re.findall(r'class="empty">(.*?)</div>', listed.text, re.S)[0]
    )
    assert (await Browser(control, "foreign").look("/projects/alpha/days")).status == 404


async def test_the_suggestion_is_looked_at_and_committed_once_by_a_double_click(control: Control) -> None:
    day = await a_day(control)
    paul, path = Browser(control, "paul"), f"/projects/alpha/days/{day.day}"
    looked = await paul.look(path)
    is_whole(looked)
    assert "Points 31.119999 against seal revision 1 Rows 4 workloads Receivers 1" in looked.words
    assert "olga by machines 31.119999 0" in looked.words
    assert "0.0001 points for each paid second, at most 8 a day" in looked.words
    assert "up 3 d 18 h" in looked.words
    [form] = [each for each in forms_of(looked.text) if each.action == f"{path}/suggested#suggested"]
    answers: list[Looked] = []

    async def click() -> None:
        answers.append(await paul.send(f"{path}/suggested", form.fields))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(click)
        nursery.start_soon(click)
    assert [each.status for each in answers] == [303, 303], answers
    assert [each["total_points"] for each in await commits(control, day.day)] == ["31.119999"]
    after = await paul.look(answers[0].headers["location"].partition("#")[0])
    assert "It is committed." in after.words
    assert "committed" in (await paul.look("/projects/alpha/days")).words


async def test_what_was_shown_is_what_is_committed_or_nothing(control: Control) -> None:
    day = await a_day(control)
    paul, path = Browser(control, "paul"), f"/projects/alpha/days/{day.day}"
    [form] = [
        each
        for each in forms_of((await paul.look(path)).text)
        if each.action == f"{path}/suggested#suggested"
    ]
    await paul.fill(path, f"{path}/correction", reason="looked again")
    await seal_days(control.stores)
    refused = await paul.send(f"{path}/suggested", form.fields)
    assert (refused.status, "the newest seal" in alert(refused)) == (409, True)
    assert await commits(control, day.day) == []


async def test_a_file_is_looked_at_and_committed_and_corrected(control: Control) -> None:
    day = await a_day(control)
    paul, path = Browser(control, "paul"), f"/projects/alpha/days/{day.day}"
    first, second = day.workload_ids[:2]
    file = f"workload_id,points\r\n{first},10\r\n{second},0.5\r\n".encode()
    fields = {"once": "one", "revision": "1", "total": "10.5", "reason": "", "do": "check"}
    checked = await paul.upload(f"{path}/points", fields, file=file)
    assert checked.status == 200, checked.words
    assert "Nothing is committed yet" in checked.words
    assert (
        "Against the project's rule (31.119999 points): 2 workloads with another amount, 0" in checked.words
    )
    assert await commits(control, day.day) == []
    made = await paul.upload(f"{path}/points", {**fields, "do": "commit"}, file=file)
    assert made.headers["location"] == f"{path}?told=committed#history", made.words
    again = await paul.upload(f"{path}/points", {**fields, "do": "commit"}, file=file)
    assert again.status == 303, "sent twice, committed once"
    refused = await paul.upload(f"{path}/points", {**fields, "once": "two", "do": "commit"}, file=file)
    assert (refused.status, "a correction needs a reason" in alert(refused)) == (409, True)
    ndjson = (
        f'{{"day":"{day.day}","revision":1,"total":"12"}}\n{{"workload_id":"{first}","points":"12"}}\n'
    ).encode()
    more = {**fields, "once": "three", "total": "", "reason": "the <first> was wrong", "do": "commit"}
    assert (await paul.upload(f"{path}/points", more, file=ndjson, name="x.ndjson")).status == 303
    newest, oldest = await commits(control, day.day)
    assert (newest["total_points"], newest["reason"]) == ("12", "the <first> was wrong")
    shown = await paul.look(path)
    assert "the &lt;first&gt; was wrong" in shown.text
    one = await paul.look(f"/projects/alpha/commits/{newest['commit_id']}")
    is_whole(one)
    assert "10.5 12" in one.words, "for whom it changed how much"
    assert f"/projects/alpha/commits/{oldest['commit_id']}" in one.text
    rows = await paul.look(f"/projects/alpha/commits/{newest['commit_id']}/rows?format=csv")
    assert rows.text.splitlines()[1].startswith(f"{first},12,")
    assert f'filename="points-alpha-{newest["commit_id"][-12:]}.csv"' in rows.headers["content-disposition"]


async def test_what_is_wrong_with_a_file_stands_beside_its_field_and_what_was_typed_stays(
    control: Control,
) -> None:
    day = await a_day(control)
    paul, path = Browser(control, "paul"), f"/projects/alpha/days/{day.day}"
    fields = {"once": "one", "revision": "1", "total": "7", "reason": "because", "do": "commit"}
    file = f"workload_id,points\n{day.workload_ids[0]},8\n".encode()
    wrong = await paul.upload(f"{path}/points", fields, file=file)
    assert (wrong.status, 'value="7"' in wrong.text, ">because</textarea>" in wrong.text) == (422, True, True)
    assert '<small class="wrong-at">the rows sum to 8, not to 7</small>' in wrong.text
    for content, said in (
        (b"workload_id,points\nx,1\n", "not an id"),
        (b"a,b\n", "must name the columns"),
        (b"{\n", "its first line is no JSON"),
        (b'{"day":"2020-01-01"}\n', "the file is of 2020-01-01"),
        (b"[]\n", "must name the columns"),
        (b"\xff\xfe\n", "not UTF-8"),
    ):
        refused = await paul.upload(f"{path}/points", fields, file=content)
        assert (refused.status in (400, 422), said in alert(refused)) == (True, True), (
            content,
            refused.words,
        )
    nothing = await paul.upload(f"{path}/points", fields, file=b"", name="")
    assert "choose a file" in alert(nothing)
    assert (await paul.send(f"{path}/points", fields)).status == 422, "no form with a file"
    assert await commits(control, day.day) == []


async def test_a_day_is_sealed_once_more_with_maintenance_and_its_points_are_corrected(
    control: Control,
) -> None:
    day = await a_day(control)
    paul, path = Browser(control, "paul"), f"/projects/alpha/days/{day.day}"
    assert (await paul.fill(path, f"{path}/suggested")).status == 303
    for lines, said in (("x", "line 1: write"), (f"{day.workload_ids[1]} 09:30 9", "an RFC 3339 time")):
        refused = await paul.fill(path, f"{path}/correction", reason="why", maintenances=lines)
        assert (refused.status, said in alert(refused), lines in refused.text) == (422, True, True), lines
    lines = f"{day.workload_ids[1]} 09:30 10:30"
    assert (
        await paul.fill(path, f"{path}/correction", reason="works on the <b>net</b>", maintenances=lines)
    ).status == 303
    assert "asked for it is sealed within seconds" in (await paul.look(path)).words
    await seal_days(control.stores)
    shown = await paul.look(path)
    assert "revision 2, 1 rows changed" in shown.words
    assert "works on the &lt;b&gt;net&lt;/b&gt;" in shown.text
    assert "sealed once more since its points were committed" in shown.words
    assert "sealed once more since" in (await paul.look("/projects/alpha/days")).words
    assert "Correct to 31.479999 points" in shown.words
    refused = await paul.fill(path, f"{path}/suggested", reason="")
    assert (refused.status, "a correction needs a reason" in alert(refused)) == (409, True)
    assert (await paul.fill(path, f"{path}/suggested", reason="maintenance counts")).status == 303
    assert [each["revision"] for each in await commits(control, day.day)] == [2, 1]
    assert "corrected" in (await paul.look("/projects/alpha/days")).words


async def test_a_day_without_a_rule_leads_to_rules(control: Control) -> None:
    day = await a_day(control, rule=None)
    shown = await Browser(control, "paul").look(f"/projects/alpha/days/{day.day}")
    assert "No rule that pays anything is in force on this day." in shown.words


async def test_root_seal_and_proofs_are_downloaded(control: Control) -> None:
    day = await a_day(control)
    paul, path = Browser(control, "paul"), f"/projects/alpha/days/{day.day}"
    root = (await control.ask("GET", f"/v1/projects/alpha/seals/{day.day}")).json["root"]
    assert root in (await paul.look(path)).text
    for what in ("seal", "seal?revision=1", f"proof?workload_id={day.workload_ids[0]}"):
        got = await paul.look(f"{path}/{what}")
        assert (got.status, "attachment" in got.headers["content-disposition"]) == (200, True), what
        assert root in got.text
    for form in ("csv", "ndjson"):
        told = await paul.look(f"{path}/suggested?format={form}")
        assert told.text.count(",") >= 5
        assert form in told.headers["content-disposition"]
    assert (await paul.look(f"{path}/proof?workload_id=x")).status == 404
    assert (await paul.look("/projects/alpha/days/2020-01-01")).status == 404
    assert (await paul.look("/projects/alpha/days/x")).status == 404


async def test_strangers_and_operators_see_no_day_and_commit_nothing(control: Control) -> None:
    day = await a_day(control)
    path = f"/projects/alpha/days/{day.day}"
    for by in ("olga", "sam", "foreign"):
        browser = Browser(control, by)
        for page in ("/projects/alpha/days", path):
            assert (await browser.look(page)).status in (403, 404), (by, page)
        sent = await browser.upload(
            f"{path}/points", {"revision": "1", "total": "1"}, file=b"workload_id,points\n"
        )
        assert sent.status in (403, 404), sent.words
        assert (await browser.send(f"{path}/suggested", {"revision": "1"})).status in (403, 404)
    nobody = Browser(control, None)
    assert (await nobody.upload(f"{path}/points", {}, file=b"x" * 100)).status == 303
    assert await commits(control, day.day) == []
