"""Every setting of the publication of roots. None is published unless a target is named."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_HEX = re.compile(r"(0x)?([0-9a-fA-F]{2}){0,64}", re.ASCII)


class PublishWebhookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A POST after Standard Webhooks. An empty URL: none."""

    url: str = ""
    secret: str = ""  # whsec_...


class PublishS3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An object in an S3-compatible store. An empty URL: none."""

    url: str = ""  # of the bucket, its name in the path
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    prefix: str = ""


class PublishEvmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A transaction prepared for a signer elsewhere. An empty address: none."""

    to: str = ""
    chain_id: int = 1
    data_prefix: str = ""  # hex
    gas: int = 100_000


class PublishSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where roots are published."""

    file: str = ""
    timeout_s: float = 20.0  # of one attempt
    webhook: PublishWebhookSettings = msgspec.field(default_factory=PublishWebhookSettings)
    s3: PublishS3Settings = msgspec.field(default_factory=PublishS3Settings)
    evm: PublishEvmSettings = msgspec.field(default_factory=PublishEvmSettings)

    @property
    def named(self) -> bool:
        """Whether there is any target."""
        return bool(self.file or self.webhook.url or self.s3.url or self.evm.to)

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key below worker.publish, what to do) for what cannot work; no text holds a secret."""
        if self.webhook.url and not _is_webhook_secret(self.webhook.secret):
            yield "webhook.secret", "must be a Standard Webhooks secret: whsec_ and base64"
        if self.s3.url and not (self.s3.access_key and self.s3.secret_key):
            yield "s3.access_key", "and secret_key are needed with worker.publish.s3.url"
        if self.evm.to and not _ADDRESS.fullmatch(self.evm.to):
            yield "evm.to", "must be an address: 0x and 40 hex digits"
        if not _HEX.fullmatch(self.evm.data_prefix):
            yield "evm.data_prefix", "must be at most 64 bytes in hex"


def _is_webhook_secret(text: str) -> bool:
    try:
        Webhook(text)
    except (ValueError, EmptyWebhookSecretError):
        return False
    return text.startswith("whsec_")
