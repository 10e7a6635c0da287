"""Disputes as whoever runs the project meets them: what waits, what the records say, how it is settled."""

from __future__ import annotations

from tests.sealing import seal_days
from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.owned import a_day
from tests.web.pages.test_every_page import is_whole
from tests.web.pages.test_forms import alert

PATH = "/projects/alpha/disputes"


async def opened(control: Control) -> tuple[str, str, str]:
    """(dispute, workload, day): of a workload that lost three hours."""
    day = await a_day(control)
    workload_id = day.workload_ids[1]
    body = {"day": day.day, "text": "I was <i>up</i>", "evidence": ["event:e1"]}
    made = await control.ask("POST", f"/v1/workloads/{workload_id}/disputes", by="olga", json=body)
    assert made.status == 201, made.json
    return made.json["dispute_id"], workload_id, day.day


async def test_what_waits_for_an_answer_is_listed_by_state_and_day(control: Control) -> None:
    paul = Browser(control, "paul")
    empty = await paul.look(PATH)
    is_whole(empty)
    assert "No dispute waits for an answer." in empty.words
    dispute_id, workload_id, day = await opened(control)
    listed = await paul.look(PATH)
    is_whole(listed)
    for found in (dispute_id, workload_id, f"/projects/alpha/days/{day}"):
        assert found in listed.text
    assert dispute_id in (await paul.look(f"/projects/alpha/days/{day}")).text
    assert dispute_id not in (await paul.look(f"{PATH}?day=2020-01-01")).text
    answered = await paul.fill(f"/disputes/{dispute_id}", f"/disputes/{dispute_id}/answer", text="we look")
    assert answered.status == 303
    assert dispute_id not in (await paul.look(PATH)).text
    for state in ("answered", "any"):
        assert dispute_id in (await paul.look(f"{PATH}?state={state}")).text
    assert (await paul.look(f"{PATH}?state=x")).status == 400
    assert (await paul.look(f"{PATH}?day=x")).status == 400


async def test_both_sides_see_the_same_records_and_a_newer_seal_beside_the_disputed_one(
    control: Control,
) -> None:
    dispute_id, workload_id, day = await opened(control)
    paul, olga, path = Browser(control, "paul"), Browser(control, "olga"), f"/disputes/{dispute_id}"
    for browser in (paul, olga):
        looked = await browser.look(path)
        is_whole(looked)
        assert "I was &lt;i&gt;up&lt;/i&gt;" in looked.text
        assert "paid 20 h 59 min" in looked.words or "paid 21 h" in looked.words
        assert "Every unpaid interval" in looked.words
        assert "event:e1" in looked.words
    days = f"/projects/alpha/days/{day}"
    assert f'href="{days}#seals"' in (await paul.look(path)).text, "how there comes to be a newer seal"
    refused = await paul.fill(path, f"{path}/correct", revision="2", text="put right")
    assert (refused.status, "no revision 2" in alert(refused), "put right" in refused.text) == (
        409,
        True,
        True,
    )
    lines = f"{workload_id} 09:30 11:30"
    sent = await paul.fill(days, f"{days}/correction", reason="works", maintenances=lines)
    assert sent.status == 303, sent.words
    await seal_days(control.stores)
    both = await olga.look(path)
    assert "Disputed seal, revision 1 Newest seal, revision 2" in both.words
    assert "maintenance by the project 0 ms 2 h" in both.words
    assert (await paul.fill(path, f"{path}/correct", text="put right")).status == 303
    done = await olga.look(path)
    assert "The project corrected it with revision 2" in done.words


async def test_what_is_wrong_stands_beside_its_field(control: Control) -> None:
    dispute_id, _, _ = await opened(control)
    paul, path = Browser(control, "paul"), f"/disputes/{dispute_id}"
    for form, field in (("answer", "text"), ("reject", "text")):
        refused = await paul.fill(path, f"{path}/{form}", **{field: "x" * 4001})
        assert (refused.status, refused.text.count('class="wrong-at"')) == (400, 1), form
        assert "x" * 4001 in refused.text


async def test_others_do_not_see_what_a_project_has_to_settle(control: Control) -> None:
    dispute_id, _, _ = await opened(control)
    for by in ("olga", "sam", "foreign"):
        assert (await Browser(control, by).look(PATH)).status in (403, 404), by
    assert (await Browser(control, "foreign").look(f"/disputes/{dispute_id}")).status == 404
