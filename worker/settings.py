"""Every setting of the worker process, with its unit."""

from __future__ import annotations

import msgspec


class MailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """SMTP. An empty host means that no mail is sent (mail deliveries then wait)."""

    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = False
    sender: str = "nodepulse@localhost"
    timeout_s: float = 20.0


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Notifier and deliveries."""

    notifier_batch_max: int = 500  # events read and decided in one transaction
    poll_ms: int = 250
    delivery_concurrency_max: int = 32
    delivery_timeout_s: float = 20.0
    delivery_attempts_max: int = 10
    webhook_allow_private: bool = False  # let webhooks go to private and loopback addresses
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # 0 = a free port, told in the state file
    mail: MailSettings = msgspec.field(default_factory=MailSettings)
