"""Each place that roots are published at, met as a real one."""

from __future__ import annotations

import os
import time

import msgspec
import pytest
import trio
from standardwebhooks.webhooks import Webhook

from engine.core.evm import Transaction
from engine.core.proof_check import Statement, read_text
from engine.core.sealed import statement_text
from tests.proofs.sealed_day import SealedDay
from tests.worker.fakes import SECRET
from tests.worker.receivers import HttpReceiver, serving
from tests.worker.s3_server import BUCKET, s3_server
from worker.guarded import GuardedClient
from worker.publish_settings import (
    PublishEvmSettings,
    PublishS3Settings,
    PublishSettings,
    PublishWebhookSettings,
)
from worker.publish_targets import UnpublishedError, evm_target, file_target, s3_target, webhook_target

SEAL = SealedDay(project="edge-ai").seal
OTHER = SealedDay(nodes=3, reason="a gap\nwas ours").seal


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_file_gets_one_line_per_seal_that_a_verifier_takes(tmp_path):
    path = tmp_path / "roots.jsonl"
    publish = file_target(path)
    await publish(SEAL)
    assert (await publish(OTHER)).note == f"appended to {path}"
    lines = path.read_text().splitlines()
    assert lines == [statement_text(SEAL).decode(), statement_text(OTHER).decode()]
    assert read_text(lines[1], Statement, "statement").reason == "a gap\nwas ours"


async def test_half_a_line_of_a_writer_that_died_spoils_no_other(tmp_path):
    path = tmp_path / "roots.jsonl"
    path.write_text('{"v":1,"proj')
    await file_target(path)(SEAL)
    assert path.read_text() == '{"v":1,"proj\n' + statement_text(SEAL).decode() + "\n"


async def test_many_writers_of_one_file_leave_whole_lines(tmp_path):
    path = tmp_path / "roots.jsonl"
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(file_target(path), SEAL)
    assert path.read_text() == (statement_text(SEAL).decode() + "\n") * 20


async def test_a_file_that_cannot_be_written_is_tried_again(tmp_path):
    with pytest.raises(UnpublishedError, match="No such file"):
        await file_target(tmp_path / "gone" / "roots")(SEAL)
    if os.geteuid():
        (tmp_path / "closed").touch(mode=0o400)
        with pytest.raises(UnpublishedError, match="Permission denied"):
            await file_target(tmp_path / "closed")(SEAL)


async def test_a_webhook_can_verify_the_statement_and_tell_a_repetition():
    async with serving(HttpReceiver()) as receiver, GuardedClient(user_agent="t") as client:
        publish = webhook_target(f"http://127.0.0.1:{receiver.port}/x", SECRET, client, wall_ms=wall_ms)
        await publish(SEAL)
        await publish(SEAL)
    (line, headers, body), (_, again, same) = receiver.requests
    assert line == "POST /x HTTP/1.1"
    message = Webhook(SECRET).verify(body, headers)
    assert message["type"] == "seal.published"
    assert message["data"]["statement"] == statement_text(SEAL).decode()
    assert message["data"]["root"] == SEAL.root.hex()
    assert (headers["webhook-id"], body) == (again["webhook-id"], same)


@pytest.mark.parametrize("status", ["302 Found", "403 Forbidden", "503 Busy"])
async def test_a_webhook_that_does_not_take_it_is_tried_again(status):
    answer = f"HTTP/1.1 {status}\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".encode()
    async with serving(HttpReceiver(answer)) as receiver, GuardedClient(user_agent="t") as client:
        publish = webhook_target(f"http://127.0.0.1:{receiver.port}/", SECRET, client, wall_ms=wall_ms)
        with pytest.raises(UnpublishedError, match=f"HTTP {status[:3]}"):
            await publish(SEAL)


async def test_nobody_there_is_tried_again():
    async with GuardedClient(user_agent="t") as client:
        publish = webhook_target("http://127.0.0.1:9/", SECRET, client, wall_ms=wall_ms)
        with pytest.raises(UnpublishedError, match="Connect"):
            await publish(SEAL)


async def test_an_s3_store_takes_what_is_signed_and_nothing_else():
    with s3_server() as s3:
        settings = PublishS3Settings(
            url=f"{s3.url}/", access_key=s3.access_key, secret_key=s3.secret_key, prefix="np $/ü+"
        )
        async with GuardedClient(user_agent="t") as client:
            published = await s3_target(settings, client, wall_ms=wall_ms)(SEAL)
            assert published.note == "stored as np $/ü+edge-ai/2026-01-31/1.json"
            stored = s3.stored("np%20%24/%C3%BC%2Bedge-ai/2026-01-31/1.json")
            assert stored == statement_text(SEAL)
            wrong = msgspec.structs.replace(settings, secret_key="no" + s3.secret_key)
            with pytest.raises(UnpublishedError, match="HTTP 403"):
                await s3_target(wrong, client, wall_ms=wall_ms)(SEAL)
            elsewhere = msgspec.structs.replace(settings, url=f"{s3.base}/not-{BUCKET}")
            with pytest.raises(UnpublishedError, match="HTTP 404"):
                await s3_target(elsewhere, client, wall_ms=wall_ms)(SEAL)


async def test_a_transaction_is_prepared_and_nothing_is_sent():
    to = "0x" + "aB" * 20
    published = await evm_target(PublishEvmSettings(to=to, chain_id=10, data_prefix="0x12345678"))(SEAL)
    assert published.prepared is not None
    made = msgspec.json.decode(published.prepared, type=Transaction)
    assert (made.chain_id, made.to) == (10, to.lower())
    assert made.data.startswith("0x12345678" + SEAL.root.hex())


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (PublishSettings(webhook=PublishWebhookSettings(url="https://x")), "webhook.secret"),
        (
            PublishSettings(webhook=PublishWebhookSettings(url="https://x", secret="whsec_?")),
            "webhook.secret",
        ),
        (PublishSettings(s3=PublishS3Settings(url="https://x", access_key="a")), "s3.access_key"),
        (PublishSettings(evm=PublishEvmSettings(to="0x12")), "evm.to"),
        (PublishSettings(evm=PublishEvmSettings(data_prefix="0x123")), "evm.data_prefix"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, key):
    assert [name for name, _ in settings.problems()] == [key]


def test_settings_that_can_work_are_not():
    webhook = PublishWebhookSettings(url="https://x", secret=SECRET)
    assert list(PublishSettings(webhook=webhook).problems()) == []
    assert not PublishSettings().named
