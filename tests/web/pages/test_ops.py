"""Pages for those who run the installation: what they show is what the API says, to admins alone."""

from __future__ import annotations

import re

import msgspec
import pytest
import trio

from storage.ids import new_id
from tests.sealing import make_day, seal_days, yesterday_ms
from tests.web.control import Control
from tests.web.pages.browsing import Browser, forms_of
from tests.web.pages.test_every_page import is_whole
from tests.web.test_installation import QUIET, Teller, dead_letter, wait_watermark
from web.pages import announcements, audit, installation, outbox, people, roots, schedule

MODULES = (announcements, audit, installation, outbox, people, roots, schedule)
NASTY = '<script>alert("x")</script>'
# Empty of everything but the overview, which always has shards.
EMPTY = [
    page.path for module in MODULES for page in module.PAGES if page.method == "GET" and "{" not in page.path
]


@pytest.fixture
async def teller(control: Control, nursery: trio.Nursery) -> Teller:
    made = Teller(control.stores)
    nursery.start_soon(made.run)
    await wait_watermark(control)
    with trio.fail_after(10):
        while await control.stores.asks.figures(0, timeout_s=0.2) is None:  # noqa: ASYNC110 - it must listen
            await trio.sleep(0.02)
    return made


async def test_every_page_is_whole_when_there_is_nothing_and_says_what_to_do_next(control: Control) -> None:
    admin = Browser(control, "admin")
    for path in EMPTY:
        looked = await admin.look(path)
        assert looked.status == 200, (path, looked.words)
        is_whole(looked)
        assert 'aria-current="page"' in looked.text, path
    for path in ("/installation/gaps", "/installation/schedule", "/installation/publications",
                 "/installation/people?who=0x" + "9" * 40, "/installation/announcements"):  # fmt: skip
        text = (await admin.look(path)).text
        assert 'class="empty"' in text or "Nobody has just that" in text, path


async def test_others_are_refused_as_the_api_refuses_them(control: Control) -> None:
    user = f"/installation/people/{control.users['olga']}"
    for by in ("olga", "paul", "owner"):
        browser = Browser(control, by)
        for path in (*EMPTY, user):
            looked = await browser.look(path)
            assert looked.status == 403, (by, path, looked.status)
        for module in MODULES:
            for page in module.PAGES:
                if page.method == "POST":
                    path = page.path.format(user_id=control.users["sam"], delivery_id=new_id())
                    fields = {"which": "send", "title": "t", "text": "t", "project": "beta", "name": "x"}
                    assert (await browser.send(path, fields)).status in (403, 404), (by, path)
    assert (await Browser(control, None).look("/installation")).status == 303
    names = await control.sql("select name from account where user_id = $1", control.users["sam"])
    assert names[0]["name"] == "sam"


async def test_the_overview_tells_what_the_shards_tell(control: Control, teller: Teller) -> None:
    admin = Browser(control, "admin")
    words = (await admin.look("/installation")).words
    for said in (
        "Nothing is known to be wrong",
        "12.5/s",
        "1 of 1",
        "stale",
        "up to 5 ms",
        "above 10000 ms",
        "listens",
    ):
        assert said in words, said
    teller.figures = msgspec.structs.replace(
        QUIET, phase="degraded", phase_since_ms=1_000, suspect=30, watched=60, rejected_total={NASTY: 1}
    )
    part = await admin.look("/installation", **{"hx-request": "true"})
    assert "<html" not in part.text
    assert "DEGRADED: 30 of 60 rows fell silent at once" in part.words
    assert "Look at the network" in part.words
    assert NASTY not in part.text
    assert 'hx-trigger="every 2s"' in (await admin.look("/installation")).text


async def test_a_shard_that_is_silent_is_said_to_be(control: Control) -> None:
    await wait_watermark(control)
    words = (await Browser(control, "admin").look("/installation")).words
    assert "Shard 0 does not answer" in words
    assert "0 of 1" in words


async def test_a_dead_letter_is_sent_again_by_its_button(control: Control) -> None:
    first = await dead_letter(control, name=NASTY, target=f"https://example.org/{NASTY}")
    admin = Browser(control, "admin")
    shown = await admin.look("/installation/outbox")
    is_whole(shown)
    assert NASTY not in shown.text
    assert "500 from the receiver" in shown.words
    assert "from being received" not in shown.words
    assert "up to 2.5 s" in shown.words
    done = await admin.fill("/installation/outbox", f"/installation/outbox/{first}/replay")
    assert (done.status, done.headers["location"]) == (303, "/installation/outbox?told=replayed")
    now = await admin.look("/installation/outbox")
    assert "None: nothing was given up" in now.words
    gone = await admin.send(f"/installation/outbox/{first}/replay")
    assert gone.status == 404


async def test_a_form_of_another_site_sends_nothing_again(control: Control) -> None:
    first = await dead_letter(control)
    sent = await Browser(control, "admin").send(f"/installation/outbox/{first}/replay", site="cross-site")
    assert sent.status == 403
    assert (await control.sql("select state from delivery"))[0]["state"] == "dead"


async def test_jobs_are_shown_with_how_late_they_are_and_who_ran_them(control: Control) -> None:
    now_ms = control.app.backend.clock()
    await control.sql(
        "insert into schedule_job (job, cron, catch_up, planned_ms, next_ms) values ('sweep', '* * * * *',"
        " 'every', 1, $1)",
        now_ms + 60_000,
    )
    await control.sql(
        """
        insert into schedule_run (job, due_ms, state, claims, failures, free_ms, first_ms, begun_ms, ended_ms,
          note, worker)
        values ('sweep', $1, 'due', 1, 1, $2, $1, $1, $1, $3, '')
        """,
        now_ms - 7_200_000,
        now_ms + 5_000,
        NASTY,
    )
    looked = await Browser(control, "admin").look("/installation/schedule")
    is_whole(looked)
    assert NASTY not in looked.text
    row = re.search(r"sweep.*?</tr>", looked.text, re.DOTALL)
    assert row is not None
    assert "failed" in row[0]
    assert "2 h" in row[0]
    assert "behind" in row[0]


async def test_publications_can_be_narrowed_to_those_that_wait(control: Control) -> None:
    await make_day(control.stores, control.alpha.project_id, nodes=1, day_ms=yesterday_ms())
    await control.stores.lease_settling.settle(shards=1, now_ms=control.app.backend.clock())
    await seal_days(control.stores)
    await control.stores.publications.fill(["file", "s3"], now_ms=5)
    await control.sql("update root_publication set state = 'done' where target = 'file'")
    admin = Browser(control, "admin")
    assert len(re.findall(r"<tr><th", (await admin.look("/installation/publications")).text)) == 1 + 2
    due = await admin.look("/installation/publications?due=true")
    is_whole(due)
    assert len(re.findall(r"<tr><th", due.text)) == 1 + 1
    assert "s3" in due.words


async def test_the_audit_log_is_filtered_and_its_chain_checked(control: Control) -> None:
    for number in range(3):
        await control.ask("PATCH", "/v1/projects/alpha", by="owner", json={"name": f"{NASTY}{number}"})
    await control.ask("PATCH", "/v1/projects/beta", json={"name": "plain"})
    admin = Browser(control, "admin")
    shown = await admin.look("/installation/audit")
    is_whole(shown)
    assert NASTY not in shown.text
    only = await admin.look(f"/installation/audit?actor=key:{control.key_ids['admin']}")
    assert len(re.findall(r'<tr><th scope="row">', only.text)) == 1
    none = await admin.look("/installation/audit?action=nothing")
    assert "No such entry" in none.words
    checked = await admin.fill("/installation/audit", "/installation/audit/check")
    assert (checked.status, "All entries up to 4 are as they were written" in checked.words) == (200, True)
    await control.sql("alter table audit disable trigger all")
    await control.sql("update audit set actor = 'key:nobody' where seq = 2")
    broken = await admin.fill("/installation/audit", "/installation/audit/check")
    assert "Entry 2 is not as it was written" in broken.words


async def test_a_long_chain_is_checked_by_several_presses(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PARTS_MAX", 1)
    monkeypatch.setattr("web.audit.CHECKED_MAX", 2)
    for number in range(3):
        await control.ask("PATCH", "/v1/projects/alpha", by="owner", json={"name": f"{number}"})
    admin = Browser(control, "admin")
    first = await admin.fill("/installation/audit", "/installation/audit/check")
    assert "up to entry 2; others follow" in first.words
    [form] = [each for each in forms_of(first.text) if each.action == "/installation/audit/check"]
    second = await admin.send(form.action, form.fields)
    assert "All entries up to 3 are as they were written" in second.words


async def test_a_person_is_added_made_an_owner_and_retired(control: Control) -> None:
    admin = Browser(control, "admin")
    refused = await admin.fill("/installation/people", "/installation/people/add", name="nobody")
    assert refused.status == 422
    assert "nobody" in refused.text, "what was filled in is still there"
    made = await admin.fill(
        "/installation/people", "/installation/people/add", name=NASTY, email="n@example.org"
    )
    assert made.status == 303, made.words
    path = made.headers["location"].partition("?")[0]
    shown = await admin.look(path)
    is_whole(shown)
    assert NASTY not in shown.text
    owned = await admin.fill(path, f"{path}/owner", project="alpha", which="add")
    assert "told=owner-added" in owned.headers["location"]
    user_id = path.rsplit("/", 1)[1]
    owners = (await control.ask("GET", "/v1/projects/alpha/owners")).json["items"]
    assert user_id in [owner["user_id"] for owner in owners]
    assert (await admin.fill(path, f"{path}/owner", project="alpha", which="remove")).status == 303
    kept = await admin.fill(path, path, name="Nina")
    assert kept.status == 303, kept.words
    retired = await admin.fill(path, f"{path}/retire")
    assert retired.status == 303
    words = (await admin.look(path)).words
    assert "Retired since" in words
    assert "Nina" in words


async def test_an_announcement_says_whom_it_reaches_before_it_is_sent(control: Control) -> None:
    made = await control.ask(
        "POST", "/v1/me/channels", by="olga", json={"kind": "mail", "target": "olga@example.org"}
    )
    assert made.status == 201
    admin, here = Browser(control, "admin"), "/installation/announcements"
    preview = await admin.fill(
        here, here, title=NASTY, text="Please update.", project="alpha", which="preview"
    )
    is_whole(preview)
    assert NASTY not in preview.text
    assert "It would reach 1 of 1 operators" in preview.words
    assert await control.sql("select from announcement") == []
    [form] = [each for each in forms_of(preview.text) if each.action.startswith(here)]
    assert form.fields["title"] == NASTY
    sent = await admin.send(here, {**form.fields, "which": "send"})
    assert sent.status == 303, sent.words
    listed = await admin.look(f"{here}?told=announced")
    assert NASTY not in listed.text
    assert "0 of 1" in listed.words
    wrong = await admin.send(here, {"title": "t", "text": "t", "project": "NOT A SLUG", "which": "send"})
    assert wrong.status in (400, 422)
