"""Every setting of the worker process, with its unit."""

from __future__ import annotations

import msgspec

from engine.core.apprise_url import DEFAULT_SCHEMAS
from worker.publish_settings import PublishSettings


class MailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """SMTP. An empty host means that no mail is sent (mail deliveries then wait)."""

    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = False
    sender: str = "nodepulse@localhost"
    timeout_s: float = 20.0
    address_per_hour_max: int = 20  # notices to one address


class CustomSubgraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The form of the preset `custom` (worker/ownership/forms.py Form): a query and paths in its answer."""

    query: str = ""
    items: str = "tokens"
    id: str = "id"
    key: str = "tokenID"
    value: str = "owner"
    contract: str = "contract"
    contract_filter: str = "contract"
    key_filter: str = "tokenID_in"


class OwnershipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How owners and balances are read from subgraphs."""

    url: str = ""  # for collections that name none
    preset: str = "openzeppelin"
    keys: str = ""  # origin=key, separated by spaces
    allow_private: bool = False  # let a project's subgraph be in private and loopback networks
    poll_s: float = 300.0
    nightly_hour_utc: int = 3  # of the full pass
    depth_blocks: int = 64  # how far each look reads back
    block_age_s_max: float = 900.0  # of a subgraph's newest block
    timeout_s: float = 30.0  # of one query
    tokens_max: int = 2_000_000  # of one collection
    concurrency_max: int = 2  # collections looked at side by side
    custom: CustomSubgraph = msgspec.field(default_factory=CustomSubgraph)

    @property
    def keys_by_origin(self) -> dict[str, str]:
        """ValueError when it is not of its form; the text holds no key."""
        found = {}
        for each in self.keys.split():
            origin, equals, key = each.partition("=")
            if not equals or not key or not origin.startswith(("https://", "http://")):
                raise ValueError("must be https://host=KEY, several separated by spaces")
            found[origin.lower().rstrip("/")] = key
        return found


class ReportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When reports are written, as cron expressions in UTC; empty: never."""

    daily_cron: str = "0 6 * * *"  # of the day before
    weekly_cron: str = "30 6 * * 1"  # of the seven days before
    seal_wait_s: float = 6 * 3_600.0  # how long one waits for a day to be sealed


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long what was told, and what was asked, is kept. History and money are kept for ever."""

    deliveries_days: int = 90  # after a delivery was settled
    letters_days: int = 30  # after a letter was settled
    idempotency_days: int = 1  # how long a request can be sent again


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Notifier and deliveries."""

    notifier_batch_max: int = 500  # events read and decided in one transaction
    notifier_project_delay_s: float = 300.0  # how long a project's channels wait for a return
    notifier_gather_s: float = 300.0  # falls within this time (or the delay, if shorter) are one digest
    notifier_area_nodes_min: int = 20  # falls of a region or an ingress at once that operators hear of,
    notifier_area_percent_min: int = 15  # and their share of its nodes
    poll_ms: int = 250
    delivery_concurrency_max: int = 128
    delivery_endpoint_max: int = 8  # of them to one receiver's origin
    delivery_timeout_s: float = 20.0
    delivery_lease_margin_s: float = 40.0  # after which another worker takes what a killed one had in hand
    delivery_attempts_max: int = 10
    webhook_allow_private: bool = False  # let webhooks and services lie at private and loopback addresses
    apprise_schemas: str = DEFAULT_SCHEMAS  # chat and SMS services, separated by spaces; empty: none
    seal_after_s: int = 600  # after midnight UTC a day is sealed at the earliest
    dead_man_url: str = ""  # called while all is well; empty: nothing is
    dead_man_s: float = 60.0  # how often
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # 0 = a free port, told in the state file
    mail: MailSettings = msgspec.field(default_factory=MailSettings)
    ownership: OwnershipSettings = msgspec.field(default_factory=OwnershipSettings)
    retention: RetentionSettings = msgspec.field(default_factory=RetentionSettings)
    publish: PublishSettings = msgspec.field(default_factory=PublishSettings)
    reports: ReportSettings = msgspec.field(default_factory=ReportSettings)
