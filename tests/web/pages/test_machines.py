"""The pages of machines: the list, a node with its windows and receipts, a workload's days and why."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from engine.core.ports import NewNode
from engine.core.proof_check import check_proof
from engine.core.proofs import ProofDocument
from engine.core.receipts import ReceiptDocument, check_receipt
from tests.web.pages.furnished import Furnished
from tests.web.test_events import Listener


async def test_the_list_shows_how_much_of_each_day_was_paid_and_can_be_narrowed(furnished: Furnished):
    olga = furnished.browser()
    whole = await olga.look("/nodes")
    assert f"{furnished.day}: 93.749 % paid" in whole.text
    assert {"mine", "sealed-0"} <= set(whole.words.split())
    assert "other" not in whole.words.split(), "that is somebody else's"
    narrowed = await olga.look("/nodes?name=sealed")
    assert "sealed-0" in narrowed.words
    assert ">mine<" not in narrowed.text
    assert "None here" in (await olga.look("/nodes?state=up")).words
    part = await olga.look("/nodes?name=sealed", **{"hx-request": "true"})
    assert part.text.lstrip().startswith("<tr>")


async def test_the_list_goes_on_where_a_page_ends(furnished: Furnished):
    control = furnished.control
    project_id, owner_id = control.alpha.project_id, control.users["olga"]
    many = [
        NewNode(project_id, f"many-{number}", "check", None, 60_000, ("w",), (), owner_id)
        for number in range(60)
    ]
    await control.stores.directory.create_nodes(many, now_ms=1)
    olga = furnished.browser()
    first = await olga.look("/nodes?name=many")
    [further] = re.findall(r'<a href="(/nodes\?[^"]*)" rel="next"', first.text)
    second = await olga.look(further.replace("&amp;", "&"))
    names = [re.findall(r">(many-\d+)<", page.text) for page in (first, second)]
    assert (len(names[0]), len(names[1])) == (50, 10)
    assert not set(names[0]) & set(names[1])


async def test_a_window_is_opened_and_taken_back_on_the_nodes_page(furnished: Furnished):
    olga, path = furnished.browser(), f"/nodes/{furnished.node_id}"
    begin = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    sent = await olga.fill(path, f"{path}/windows", **{"from": begin, "minutes": "30"})
    assert (sent.status, sent.headers["location"]) == (303, f"{path}?told=window-opened#windows"), sent.words
    shown = await olga.look(f"{path}?told=window-opened")
    assert "The maintenance window is entered." in shown.words
    assert begin.replace("T", " ") in shown.words
    [end] = re.findall(rf'action="({path}/windows/[0-9a-f-]+/end)"', shown.text)
    assert (await olga.send(end)).status == 303
    assert begin.replace("T", " ") not in (await olga.look(path)).words.partition("Open a window")[0]


async def test_a_window_that_cannot_be_is_refused_in_its_form_with_what_was_filled_in(furnished: Furnished):
    olga, path = furnished.browser(), f"/nodes/{furnished.node_id}"
    begin = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    for fields, told in (
        ({"from": "2026-01-31T10:00"}, "opened before it begins"),
        ({"from": begin, "minutes": "61"}, "from 1 to 60 minutes"),
        ({"from": "soon"}, "write the beginning as"),
    ):
        refused = await olga.fill(path, f"{path}/windows", **fields)
        assert refused.status == 422, fields
        [alert] = re.findall(r'<div role="alert" class="wrong">(.*?)</div>', refused.text, re.DOTALL)
        assert told in alert
        assert f'value="{fields["from"]}"' in refused.text
    assert (await furnished.control.sql("select count(*) from maintenance_window"))[0][0] == 0


async def test_a_form_that_is_sent_twice_is_done_once(furnished: Furnished):
    olga, path = furnished.browser(), f"/nodes/{furnished.node_id}"
    begin = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    fields = {"from": begin, "minutes": "30", "once": "01a2030a-b3cd-7000-bc48-0760097a84b4"}
    for _ in range(2):
        assert (await olga.send(f"{path}/windows", fields)).status == 303
    assert (await furnished.control.sql("select count(*) from maintenance_window"))[0][0] == 1


async def test_receipts_and_proofs_are_downloaded_as_the_api_has_them_and_hold(furnished: Furnished):
    olga = furnished.browser()
    page = await olga.look(f"/nodes/{furnished.node_id}")
    [receipt] = re.findall(r'href="(/nodes/[^"]*/receipts/[^"]*)" download', page.text)
    document = msgspec.json.decode((await olga.look(receipt)).text, type=ReceiptDocument)
    assert check_receipt(document, verifies=_verifies).node == furnished.node_id
    page = await olga.look(f"/workloads/{furnished.workload_id}?day={furnished.day}")
    [proof] = set(re.findall(r'href="(/workloads/[^"]*/proofs/[^"]*)" download', page.text))
    proved = (await olga.look(proof)).text
    assert json.loads(json.loads(proved)["row"])["workload"] == furnished.workload_id
    assert check_proof(msgspec.json.decode(proved, type=ProofDocument)) is not None


async def test_a_workloads_day_tells_every_unpaid_interval_with_its_cause(furnished: Furnished):
    path = f"/workloads/{furnished.workload_id}?day={furnished.day}"
    looked = await furnished.browser().look(path)
    words = looked.words
    assert "Paid 21 h of 1 d" in words
    assert "09:00:00 12:00:00 3 h silent" in words
    assert "No beat of the node arrived" in words
    assert 'class="band silent"' in looked.text
    today = (await furnished.browser().look(f"/workloads/{furnished.workload_id}")).words
    assert "once it is sealed" in today


async def test_a_dispute_is_opened_from_the_day_that_it_is_about(furnished: Furnished):
    control = furnished.control
    await control.sql("alter table dispute disable trigger all")
    await control.sql("update dispute set state = 'rejected'")
    await control.sql("alter table dispute enable trigger all")
    olga, path = furnished.browser(), f"/workloads/{furnished.workload_id}"
    page = f"{path}?day={furnished.day}"
    empty = await olga.fill(page, f"{path}/disputes", text="")
    assert (empty.status, 'role="alert"' in empty.text) == (400, True)
    assert f'name="day" value="{furnished.day}"' in empty.text, "it is the same day's page"
    sent = await olga.fill(page, f"{path}/disputes", text="I was up", evidence="event:1\n\n gap:2 ")
    assert sent.status == 303, sent.words
    shown = await olga.look(sent.headers["location"])
    assert "Your dispute is open" in shown.words
    assert "You opened it" in shown.words
    assert re.findall(r'<code class="id">((?:event|gap):\d)</code>', shown.text) == ["event:1", "gap:2"]
    again = await olga.fill(page, f"{path}/disputes", text="I was up")
    assert (again.status, "not settled yet" in again.words) == (409, True)


def _verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    return True


async def test_a_page_that_is_open_is_told_what_happens_from_then_on(
    furnished: Furnished, nursery: trio.Nursery
):
    control = furnished.control
    looked = await furnished.browser().look(f"/nodes/{furnished.node_id}")
    [source] = re.findall(r'data-live="([^"]+)"', looked.text)
    path, _, query = source.partition("?")
    listener = Listener(control, query, cookie=f"nodepulse_login={control.bearers['olga']}")
    listener.scope |= {"path": path, "raw_path": path.encode()}
    nursery.start_soon(listener.run)
    with trio.fail_after(10):
        while not listener.status:  # noqa: ASYNC110 - nothing else tells that it listens
            await trio.sleep(0.01)
        await control.sql(
            """
            insert into event (event_id, kind, shard, project_id, node_id, since_ms, at_ms, workloads, detail)
            values ('e2', 'node.up', 0, $1, $2, 1, 1, '{}', '')
            """,
            control.alpha.project_id,
            furnished.node_id,
        )
        while not listener.frames:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert [json.loads(frame["data"])["event_id"] for frame in listener.frames] == ["e2"], "not what was"
    assert "event" not in listener.frames[0], "browsers hand events with a name to nobody"
    control.app.backend.tails.close()
