"""Forms of licences, disputes, notifications and oneself: they do as they say, and are refused in place."""

from __future__ import annotations

import re

from tests.web.control import Control
from tests.web.pages.browsing import Browser, Looked
from tests.web.pages.furnished import WALLET, Furnished


def alert(looked: Looked) -> str:
    """What the one form says that was refused."""
    [found] = re.findall(r'<div role="alert" class="wrong">(.*?)</div>', looked.text, re.DOTALL)
    return found


# -- licences ---------------------------------------------------------------------------------------------


async def test_a_licence_tells_who_holds_it_and_who_owned_it(furnished: Furnished):
    control = furnished.control
    await control.sql(
        "insert into licence_lease (licence_id, epoch, holder, from_ms) values ($1, 1, $2, 1700000000000)",
        furnished.licence_id,
        furnished.workload_id,
    )
    olga = furnished.browser()
    listed = await olga.look("/licences")
    assert WALLET in listed.text.lower()
    assert "#4711 w1 2023-11-14 22:13:20 w1" in listed.words
    shown = await olga.look(f"/licences/{furnished.licence_id}")
    assert "Held now by w1 since 2023-11-14 22:13:20" in shown.words
    assert "holds it" in shown.words


async def test_a_workload_is_bound_to_a_licence_and_let_go(furnished: Furnished):
    olga, path = furnished.browser(), f"/licences/{furnished.licence_id}"
    unbound = await olga.fill(path, f"{path}/unbind")
    assert (unbound.status, unbound.headers["location"]) == (303, f"{path}?told=unbound")
    assert "The workload runs under no licence now." in (await olga.look(unbound.headers["location"])).words
    assert await _licence_of(furnished) is None
    refused = await olga.fill(path, f"{path}/bind")
    assert (refused.status, "choose a workload" in alert(refused)) == (422, True)
    assert (await olga.fill(path, f"{path}/bind", workload=furnished.workload_id)).status == 303
    assert await _licence_of(furnished) == furnished.licence_id


async def _licence_of(furnished: Furnished) -> str | None:
    path = f"/v1/workloads/{furnished.workload_id}"
    return (await furnished.control.ask("GET", path, by="olga")).json["licence_id"]


async def test_a_licences_owner_disputes_a_run_on_a_machine_of_somebody_else(furnished: Furnished):
    control = furnished.control
    await control.sql(
        "insert into licence_lease (licence_id, epoch, holder, from_ms) values ($1, 1, $2, 1)",
        furnished.licence_id,
        furnished.workload_id,
    )
    await control.sql("update node set owner_id = null where node_id = $1", furnished.node_id)
    olga, path = furnished.browser(), f"/licences/{furnished.licence_id}"
    assert (await olga.look(f"/workloads/{furnished.workload_id}")).status == 404
    sent = await olga.fill(
        path, f"{path}/disputes", workload=furnished.workload_id, day=furnished.day, text="up"
    )
    assert sent.status == 409, "it was disputed before"
    assert "not settled yet" in alert(sent)
    assert f'value="{furnished.day}"' in sent.text, "what was filled in stays"
    shown = await olga.look(f"/disputes/{furnished.dispute_id}")
    assert (shown.status, f'href="/workloads/{furnished.workload_id}' in shown.text) == (200, False)


# -- points -----------------------------------------------------------------------------------------------


async def test_points_lead_to_how_they_came_about_and_to_why_not_more(furnished: Furnished):
    olga = furnished.browser()
    listed = await olga.look("/points")
    assert f"{furnished.day} alpha 12.5 " in listed.words
    [path] = re.findall(r'href="(/points/[^"]+)"', listed.text)
    day = await olga.look(path)
    assert "21 h of 1 d 87.499 %" in day.words
    assert f'href="/workloads/{furnished.workload_id}?day={furnished.day}#day"' in day.text


# -- disputes ---------------------------------------------------------------------------------------------


_SAYINGS = {"answer", "correct", "reject", "comments"}


async def test_a_dispute_is_answered_and_settled_on_its_page(furnished: Furnished):
    olga, paul, admin = (furnished.browser(by) for by in ("olga", "paul", "admin"))
    path = f"/disputes/{furnished.dispute_id}"
    for browser in (olga, paul, admin):
        text = (await browser.look(path)).text
        offered = {what for what in _SAYINGS if f'"{path}/{what}#say"' in text}
        assert offered == ({"comments"} if browser is olga else _SAYINGS)
    assert (await olga.fill(path, f"{path}/comments", text="please look")).status == 303
    assert (await paul.fill(path, f"{path}/answer", text="we look")).status == 303
    refused = await paul.fill(path, f"{path}/correct", revision="2", text="put right")
    assert (refused.status, "no revision 2" in alert(refused)) == (409, True)
    assert "put right" in refused.text
    assert (await paul.fill(path, f"{path}/correct", revision="x")).status == 422
    assert (await olga.send(f"{path}/reject", {"text": "no"})).status == 403, "that is the project's"
    assert (await paul.fill(path, f"{path}/reject", text="the seal stands")).status == 303
    words = (await olga.look(path)).words
    for said in ("You opened it", "You said", "The project answered", "The project rejected it"):
        assert said in words
    assert "It is settled" in words
    assert f'action="{path}' not in (await paul.look(path)).text, "nothing more is said in it"
    for state, told in (("rejected", True), ("open", False)):
        assert (furnished.dispute_id in (await olga.look(f"/disputes?state={state}")).text) is told
    assert furnished.dispute_id in (await paul.look("/disputes?project=alpha")).text


# -- notifications ----------------------------------------------------------------------------------------


async def test_settings_are_kept_and_wrong_ones_shown_again(furnished: Furnished):
    olga = furnished.browser()
    wrong = await olga.fill("/notifications", "/notifications", quiet_from="22:00", quiet_to="")
    assert (wrong.status, "quiet hours have a beginning and an end" in alert(wrong)) == (422, True)
    assert 'name="quiet_from" value="22:00"' in wrong.text
    for fields in ({"down_delay_s": "soon"}, {"down_delay_s": "86401"}, {"time_zone": "Nowhere"}):
        assert (await olga.fill("/notifications", "/notifications", **fields)).status in (400, 422), fields
    fields = {
        "down_delay_s": "60",
        "quiet_from": "22:00",
        "quiet_to": "07:00",
        "time_zone": "Europe/Lisbon",
        "daily_report": "on",
    }
    assert (await olga.send("/notifications", fields)).status == 303
    kept = (await furnished.control.ask("GET", "/v1/me/notifications", by="olga")).json
    assert kept == {**fields, "down_delay_s": 60, "daily_report": True, "weekly_report": False}


async def test_a_webhooks_secret_is_shown_once(furnished: Furnished):
    olga = furnished.browser()
    fields = [("kind", "webhook"), ("target", "https://example.org/hook"), ("event_kinds", "node.down")]
    made = await olga.send("/notifications/channels", [*fields, ("event_kinds", "node.up")])
    assert made.status == 200
    [secret] = re.findall(r'<code class="secret">(whsec_[^<]+)</code>', made.text)
    after = await olga.look("/notifications")
    assert secret not in after.text
    assert "https://example.org/hook webhook on Node went down, Node is back" in after.words


async def test_a_channel_that_cannot_be_is_refused_with_what_was_chosen(furnished: Furnished):
    olga = furnished.browser()
    fields = [("kind", "mail"), ("target", "nobody"), ("event_kinds", "node.up")]
    refused = await olga.send("/notifications/channels", fields)
    assert refused.status == 422
    assert "<strong>target</strong>" in alert(refused)
    assert 'value="nobody"' in refused.text
    assert 'value="node.up" checked' in refused.text
    assert (await olga.send("/notifications/channels", {"kind": "pigeon", "target": "x"})).status == 400


async def test_a_channel_is_tested_replayed_and_removed(furnished: Furnished):
    olga, path = furnished.browser(), f"/notifications/{furnished.channel_id}"
    assert "dead" in (await olga.look(path)).words
    assert (await olga.fill(path, f"{path}/test")).status == 303
    [[due]] = await furnished.control.sql("select count(*) from delivery where state = 'due'")
    assert due == 1
    assert "None in this state" in (await olga.look(f"{path}?state=sent")).words
    replay = f"{path}/deliveries/{furnished.delivery_id}/replay"
    assert (await olga.send(replay)).headers["location"] == f"{path}?told=replayed"
    assert (await olga.send(f"{path}/replay")).status == 303
    await furnished.control.sql("update channel set disabled_ms = 1, disabled_note = 'it said 410'")
    off = await olga.look(path)
    assert "it said 410" in off.words
    refused = await olga.send(f"{path}/test")
    assert (refused.status, "enable" in alert(refused)) == (409, True)
    assert (await olga.send(f"{path}/enable")).status == 303
    assert (await olga.fill("/notifications", f"{path}/remove")).status == 303
    assert (await olga.look(path)).status == 404


# -- oneself ----------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_works_and_is_revoked(furnished: Furnished):
    olga = furnished.browser()
    fields = [("name", "lisbon"), ("days", "30"), ("permissions", "read"), ("permissions", "write")]
    made = await olga.send("/me/keys", fields)
    [secret] = re.findall(r'<code class="secret">([^<]+)</code>', made.text)
    control = furnished.control
    control.bearers["made"] = secret
    me = (await control.ask("GET", "/v1/me", by="made")).json
    assert (me["user"]["name"], me["permissions"]) == ("olga", ["read", "write"])
    shown = await olga.look("/me")
    assert secret not in shown.text
    assert "lisbon read, write" in shown.words
    assert (await olga.fill("/me", f"/me/keys/{me['credential_id']}/revoke")).status == 303
    assert "revoked" in (await olga.look("/me")).words
    none = await olga.send("/me/keys", {"name": "none"})
    assert (none.status, "permissions" in alert(none)) == (400, True)


async def test_a_name_is_kept(furnished: Furnished):
    olga = furnished.browser()
    assert (await olga.fill("/me", "/me/name", name="Olga O.")).status == 303
    assert "<h1>Olga O.</h1>" in (await olga.look("/me?told=name-kept")).text
    assert (await olga.fill("/me", "/me/name", name="x" * 201)).status == 400


async def test_a_projects_key_sees_pages_and_is_told_that_it_is_no_person(control: Control):
    key = Browser(control, "owner")
    for path in ("/licences", "/me", "/nodes", "/points", "/disputes"):
        assert (await key.look(path)).status == 200, path
    assert "not for a person" in (await key.look("/me")).words
    refused = await key.look("/notifications")
    assert (refused.status, "Not yours to do" in refused.words) == (403, True)
