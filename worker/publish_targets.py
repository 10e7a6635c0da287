"""Where statements of seals are published: a file, a webhook, an S3-compatible store, a prepared transaction.

Each is an async function of a seal. What goes wrong in operation is an UnpublishedError, whose text is shown
to whoever runs the project; the same statement may arrive more than once. The operator of the installation
names these places, so they may lie in private networks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import httpx2
import msgspec
import trio
from standardwebhooks.webhooks import Webhook

from engine.core.evm import root_transaction
from engine.core.sealed import Seal, statement_text
from worker.addresses import AddressRefusedError
from worker.aws_signature import S3Key, quoted_path, signed_headers
from worker.guarded import BadUrlError, GuardedClient
from worker.publish_settings import PublishEvmSettings, PublishS3Settings, PublishSettings
from worker.wording import rfc3339


class UnpublishedError(Exception):
    """It did not arrive, or nobody can say; to be tried again."""


class Published(msgspec.Struct, frozen=True):
    """`note`: where it is. `prepared`: what a signer needs."""

    note: str
    prepared: str | None = None


Target: TypeAlias = Callable[[Seal], Awaitable[Published]]


def targets_of(
    settings: PublishSettings, client: GuardedClient, *, wall_ms: Callable[[], int]
) -> dict[str, Target]:
    """Those that are configured. `wall_ms`: the system's clock, by which receivers judge signatures."""
    found: dict[str, Target] = {}
    if settings.file:
        found["file"] = file_target(Path(settings.file))
    if settings.webhook.url:
        found["webhook"] = webhook_target(
            settings.webhook.url, settings.webhook.secret, client, wall_ms=wall_ms
        )
    if settings.s3.url:
        found["s3"] = s3_target(settings.s3, client, wall_ms=wall_ms)
    if settings.evm.to:
        found["evm"] = evm_target(settings.evm)
    return found


def file_target(path: Path) -> Target:
    """Appends a line and has it on disk."""

    async def publish(seal: Seal) -> Published:
        try:
            await trio.to_thread.run_sync(_append, path, statement_text(seal) + b"\n")
        except OSError as error:
            raise UnpublishedError(f"{path}: {error.strerror}") from error
        return Published(f"appended to {path}")

    return publish


def _append(path: Path, line: bytes) -> None:
    """One writer at a time, and never behind half a line of one that died while it wrote."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # a file that is new
    finally:
        os.close(folder)


def webhook_target(url: str, secret: str, client: GuardedClient, *, wall_ms: Callable[[], int]) -> Target:
    """A POST after Standard Webhooks; the id is the statement's, so a repetition is recognisable."""

    async def publish(seal: Seal) -> Published:
        text = statement_text(seal)
        body = webhook_body(seal)
        message_id = f"seal_{hashlib.sha256(text).hexdigest()[:32]}"
        at_s = wall_ms() // 1_000
        signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(at_s, tz=UTC), body.decode())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature,
        }
        await _send(client, "POST", url, body, headers)
        return Published("taken by the webhook")

    return publish


def webhook_body(seal: Seal) -> bytes:
    """The same bytes at each attempt."""
    return msgspec.json.encode(
        {
            "type": "seal.published",
            "timestamp": rfc3339(seal.sealed_ms),
            "data": {
                "project": seal.project,
                "day": seal.day,
                "revision": seal.revision,
                "root": seal.root.hex(),
                "statement": statement_text(seal).decode(),
            },
        }
    )


def s3_target(settings: PublishS3Settings, client: GuardedClient, *, wall_ms: Callable[[], int]) -> Target:
    """A PUT of ``<prefix><project>/<day>/<revision>.json`` into the bucket."""
    key = S3Key(settings.access_key, settings.secret_key, settings.region)

    async def publish(seal: Seal) -> Published:
        name = f"{settings.prefix}{seal.project}/{seal.day}/{seal.revision}.json"
        base, text = settings.url.rstrip("/"), statement_text(seal)
        at = datetime.fromtimestamp(wall_ms() / 1_000, tz=UTC)
        plain = {"content-type": "application/json"}
        headers = signed_headers("PUT", f"{base}/{name}", text, plain, key=key, at=at)
        headers.pop("host")
        await _send(client, "PUT", f"{base}/{quoted_path(name)}", text, headers)
        return Published(f"stored as {name}")

    return publish


def evm_target(settings: PublishEvmSettings) -> Target:
    """A transaction that carries the root, for its signer to fetch."""

    async def publish(seal: Seal) -> Published:
        transaction = root_transaction(
            seal,
            chain_id=settings.chain_id,
            to=settings.to.lower(),
            data_prefix=bytes.fromhex(settings.data_prefix.removeprefix("0x")),
            gas=settings.gas,
        )
        return Published("prepared for its signer", msgspec.json.encode(transaction).decode())

    return publish


async def _send(client: GuardedClient, method: str, url: str, body: bytes, headers: dict[str, str]) -> None:
    try:
        async with client.request(method, url, content=body, headers=headers, allow_private=True) as response:
            status = response.status_code
    except (AddressRefusedError, BadUrlError) as error:
        raise UnpublishedError(str(error)) from error
    except httpx2.HTTPError as error:
        raise UnpublishedError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
    if not 200 <= status < 300:
        raise UnpublishedError(f"HTTP {status}")
