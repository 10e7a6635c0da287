"""Proofs and receipts over HTTP, over days that a worker sealed: both verifiers take what is served."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import msgspec
import pytest

from engine.core.keys import MasterSecrets
from engine.core.sealed import DAY_MS
from tests.proofs.verifiers import by_node, by_us
from tests.sealing import Day, make_day, seal_days, yesterday_ms
from tests.web.control import Control

HOURS = (0, 9, 11, 23)


async def sealed(control: Control, **how: object) -> Day:
    day = await make_day(control.stores, control.alpha.project_id, owner_id=control.users["olga"], **how)
    (seal,) = await seal_days(control.stores)
    return msgspec.structs.replace(day, seal=seal)


def kept(folder: Path, name: str, body: bytes) -> Path:
    (folder / name).write_bytes(body)
    return folder / name


async def test_every_workload_and_hour_of_a_sealed_day_can_be_proved(
    control: Control, tmp_path: Path
) -> None:
    day = await sealed(control, nodes=3, workloads=2)
    files = []
    for number, workload_id in enumerate(day.workload_ids):
        for hour in ("", *HOURS):
            query = f"?day={day.day}" + (f"&hour={hour}" if hour != "" else "")
            answer = await control.ask("GET", f"/v1/workloads/{workload_id}/proof{query}", by="olga")
            assert answer.status == 200, answer.json
            files.append(kept(tmp_path, f"{number}-{hour}.json", answer.body))
    assert day.seal is not None
    statements = kept(tmp_path, "published", msgspec.json.decode(files[0].read_bytes())["statement"].encode())
    ours = by_us(*files, "--json", "--statement", statements)
    assert ours.code == 0, ours
    assert by_node(*files, f"--statement={statements}").code == 0
    found = msgspec.json.decode(ours.lines[0])["files"]
    assert {each["workload"] for each in found} == set(day.workload_ids)
    assert {each["root"] for each in found} == {day.seal.root.hex()}


async def test_a_day_that_is_not_sealed_says_what_it_waits_for(control: Control) -> None:
    day = await make_day(control.stores, control.alpha.project_id, owner_id=control.users["olga"])
    path = f"/v1/workloads/{day.workload_ids[0]}/proof"
    waiting = await control.ask("GET", f"{path}?day={day.day}", by="olga")
    assert (waiting.status, waiting.json["code"]) == (404, "not_sealed")
    assert waiting.json["detail"].startswith(f"{day.day} is not sealed yet: ")
    to_come = await control.ask("GET", f"{path}?day=2999-01-01", by="olga")
    assert (to_come.json["code"], to_come.json["detail"]) == ("not_sealed", "2999-01-01 is not over")
    await seal_days(control.stores)
    second = await control.ask("GET", f"{path}?day={day.day}&revision=2", by="olga")
    assert (second.json["code"], second.json["detail"]) == (
        "not_sealed",
        f"the newest revision of {day.day} is 1",
    )
    assert (await control.ask("GET", f"{path}?day={day.day}&revision=1", by="olga")).status == 200


async def test_what_did_not_live_on_the_day_is_not_in_its_seal(control: Control) -> None:
    day = await sealed(control)
    later = control.node
    for path in (f"/v1/workloads/{later.workload_ids[0]}/proof", f"/v1/nodes/{later.node_id}/receipt"):
        answer = await control.ask("GET", f"{path}?day={day.day}")
        assert (answer.status, answer.json["code"]) == (404, "not_in_seal")


NO_QUERIES = (
    "",
    "?day=",
    "?day=2026-02-30",
    "?day=yesterday",
    "?day=2026-01-01&hour=24",
    "?day=2026-01-01&hour=-1",
    "?day=2026-01-01&hour=",
    "?day=2026-01-01&revision=0",
    "?day=2026-01-01&revision=99999999999",
    "?day=0000-01-01",
)


async def test_what_is_no_day_hour_or_revision_is_refused(control: Control) -> None:
    for query in NO_QUERIES:
        answer = await control.ask("GET", f"/v1/workloads/{control.node.workload_ids[0]}/proof{query}")
        assert (query, answer.status, answer.json["code"]) == (query, 400, "bad_parameter")


async def test_a_receipt_is_signed_by_a_key_that_is_listed_and_always_the_same(
    control: Control, tmp_path: Path
) -> None:
    day = await sealed(control)
    path = f"/v1/nodes/{day.nodes[0].node_id}/receipt?day={day.day}"
    first = await control.ask("GET", path, by="olga")
    keys = await control.ask("GET", "/v1/receipt-keys", by=None)
    assert first.status == keys.status == 200
    (key,) = keys.json["items"]
    assert (key["key_id"], key["until"]) == ("1-1", None)
    assert first.json["key_id"] == key["key_id"]
    file = kept(tmp_path, "receipt.json", first.body)
    assert by_us(file, "--key", key["public_key"]).code == 0
    assert by_node(file, f"--key={key['public_key']}").code == 0
    said = msgspec.json.decode(first.json["statement"])
    assert day.seal is not None
    assert said["node"] == day.nodes[0].node_id
    assert said["root"] == day.seal.root.hex()
    assert [each["workload"] for each in said["workloads"]] == list(day.nodes[0].workload_ids)
    assert all(sum(each["ms"].values()) == DAY_MS for each in said["workloads"])
    assert said["paid_ms"] == sum(each["paid_ms"] for each in said["workloads"]) > 0
    assert (await control.ask("GET", path, by="olga")).body == first.body


async def test_after_a_rotation_new_seals_are_signed_with_the_new_key_and_old_ones_as_before(
    control: Control,
) -> None:
    made = await make_day(control.stores, control.alpha.project_id, nodes=1, day_ms=yesterday_ms() - DAY_MS)
    first, second = await seal_days(control.stores)
    path = f"/v1/nodes/{made.nodes[0].node_id}/receipt?day="
    before = await control.ask("GET", path + first.day)
    control.app.backend.secrets = MasterSecrets(secrets={1: bytes(range(32)), 2: b"2" * 32})
    after = await control.ask("GET", path + second.day)
    assert (before.json["key_id"], after.json["key_id"]) == ("1-1", "2-1")
    assert (await control.ask("GET", path + first.day)).body == before.body
    old, new = (await control.ask("GET", "/v1/receipt-keys", by=None)).json["items"]
    assert (old["until"], new["until"]) == (new["from"], None)
    # Another secret under an id that was used: another key, and what the lost one signed is signed anew.
    control.app.backend.secrets = MasterSecrets(secrets={2: b"3" * 32})
    again = await control.ask("GET", path + first.day)
    assert again.json["key_id"] == "2-2"
    assert len((await control.ask("GET", "/v1/receipt-keys", by=None)).json["items"]) == 3


async def test_keys_of_receipts_are_never_changed_or_removed(control: Control) -> None:
    await control.ask("GET", "/v1/receipt-keys", by=None)
    for statement in (
        "delete from receipt_key",
        "update receipt_key set from_ms = 0",
        "truncate receipt_seal",
    ):
        with pytest.raises(asyncpg.RaiseError, match="never changed or removed"):
            await control.sql(statement)
