"""What the handlers work with: stores, settings, secrets, clock, and the few parts of web that have state.

One `Backend` per app. It starts nothing by itself: `run` drives its pollers and is started by whoever serves
the app (main.py, a test's nursery).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from engine.core.accounts import Accounts, SignIn
from engine.core.announcements import Announcements
from engine.core.apprise_url import DEFAULT_SCHEMAS, schemas_of
from engine.core.asks import RowAsks
from engine.core.audit import AuditLog
from engine.core.backfill import Backfill
from engine.core.bulk import Bulk
from engine.core.catalog import Catalog, Projects, Releases
from engine.core.consent import Consent
from engine.core.disputes import Disputes
from engine.core.evidence import Evidence
from engine.core.fleet import Fleet
from engine.core.idempotency import Idempotency
from engine.core.installation import InstallationBooks
from engine.core.inventory import Inventory
from engine.core.keys import MasterSecrets
from engine.core.leases import Leases
from engine.core.ledger import Ledger
from engine.core.maintenance import Windows
from engine.core.notices import Notices
from engine.core.orders import Orders
from engine.core.points_preview import PointsPreviews
from engine.core.ports import Directory, History, LiveView
from engine.core.publication import Publications
from engine.core.receipts import ReceiptKeys
from engine.core.registration import Registration
from engine.core.schedule import Schedule
from engine.core.sealed import Seals
from engine.core.sealing import Corrections
from engine.core.status import StatusBooks
from engine.core.told import Told
from engine.core.uptime_source import UptimeSource
from storage.metrics_http import Statistics
from web.auth import Keys
from web.badge_svg import Badge
from web.counted import Counted
from web.heads import Heads
from web.kept import Kept
from web.policy_memory import Policies
from web.rates import Rate
from web.settings import WebSettings
from web.summaries import Summaries
from web.tails import Tails

# Of what anybody may see without signing in: how old it may be, and how many are kept in memory.
STATUS_KEPT_S, STATUSES_MAX = 15.0, 256
BADGE_KEPT_S, BADGES_MAX = 30.0, 4_096


class Stores(Protocol):
    """The stores web uses; storage.open hands out something of this shape."""

    @property
    def directory(self) -> Directory: ...
    @property
    def history(self) -> History: ...
    @property
    def live(self) -> LiveView: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def previews(self) -> PointsPreviews: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def accounts(self) -> Accounts: ...
    @property
    def sign_in(self) -> SignIn: ...
    @property
    def notices(self) -> Notices: ...
    @property
    def told(self) -> Told: ...
    @property
    def consent(self) -> Consent: ...
    @property
    def announcements(self) -> Announcements: ...
    @property
    def asks(self) -> RowAsks | None: ...
    @property
    def audit(self) -> AuditLog: ...
    @property
    def idempotency(self) -> Idempotency: ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def bulk(self) -> Bulk: ...
    @property
    def fleet(self) -> Fleet: ...
    @property
    def evidence(self) -> Evidence: ...
    @property
    def backfill(self) -> Backfill: ...
    @property
    def registration(self) -> Registration: ...
    @property
    def projects(self) -> Projects: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def releases(self) -> Releases: ...
    @property
    def orders(self) -> Orders: ...
    @property
    def disputes(self) -> Disputes: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def seals(self) -> Seals: ...
    @property
    def corrections(self) -> Corrections: ...
    @property
    def receipt_keys(self) -> ReceiptKeys: ...
    @property
    def publications(self) -> Publications: ...
    @property
    def windows(self) -> Windows: ...
    @property
    def installation(self) -> InstallationBooks: ...
    @property
    def status(self) -> StatusBooks: ...


class BeatDoor(Protocol):
    """Where clients beat: the part of the engine's ingest settings that a session tells them."""

    @property
    def port(self) -> int: ...
    @property
    def public_udp(self) -> str: ...
    @property
    def public_http(self) -> str: ...
    @property
    def allow_plaintext(self) -> bool: ...


class Backend:
    """All that the handlers of one app share."""

    def __init__(
        self,
        *,
        stores: Stores,
        settings: WebSettings,
        ingest: BeatDoor,
        secrets: MasterSecrets,
        shards: int,
        clock: Callable[[], int],
        uptime_source: UptimeSource | None = None,
        services: str = DEFAULT_SCHEMAS,
        seal_after_ms: int = 600_000,
    ) -> None:
        """`uptime_source`: for projects whose policy says so; None: there is none. `services`: schemas of
        chat and SMS services that channels may name. `seal_after_ms`: how long after midnight days are
        sealed at the earliest, as the worker is told."""
        self.stores = stores
        self.uptime_source = uptime_source
        self.seal_after_ms = seal_after_ms
        self.services = schemas_of(services)
        self.policies = Policies(lambda: stores.projects)
        self.asks = stores.asks
        self.clock = clock  # the system's time, unix ms; what is judged by a shard's time asks `heads`
        self.directory = stores.directory
        self.history = stores.history
        self.live = stores.live
        self.settings = settings
        self.ingest = ingest
        self.secrets = secrets
        self.shards = shards
        self.heads = Heads(stores.live, shards=shards, clock=clock)
        self.keys = Keys(stores.directory, secrets, clock=clock)
        self.key_rate = Rate("key", per_min=settings.key_requests_per_min_max)
        self.address_rate = Rate("address", per_min=settings.address_requests_per_min_max)
        self.sign_in_rate = Rate("sign-in", per_min=settings.sign_ins_per_min_max)
        self.summaries = Summaries()
        self.statuses: Kept[bytes] = Kept(kept_s=STATUS_KEPT_S, most=STATUSES_MAX)
        self.badges: Kept[Badge] = Kept(kept_s=BADGE_KEPT_S, most=BADGES_MAX)
        self.bulk_streams = Counted(settings.bulk_streams_max)
        self.tails = Tails(stores.live, stores.fleet, streams_max=settings.sse_streams_max)
        self.draining = False  # readyz fails from here on
        self.sessions_opened = 0
        self.sessions_refused: dict[str, float] = {}  # by code
        self.backfills_refused: dict[str, float] = {}  # by code
        self.beats_backfilled: dict[str, float] = {}  # taken, or by the reason why not
        self._parts: dict[str, Callable[[], Statistics]] = {
            "web_heads": self.heads.statistics,
            "web_keys": self.keys.statistics,
            "web_streams": self.tails.statistics,
            "web_bulk_streams": self.bulk_streams.statistics,
            "web_summaries": self.summaries.statistics,
            "web_statuses": self.statuses.statistics,
            "web_badges": self.badges.statistics,
            "web_sessions": self._session_statistics,
            "web_backfills": self._backfill_statistics,
            "web_key_rate": self.key_rate.statistics,
            "web_address_rate": self.address_rate.statistics,
            "web_sign_in_rate": self.sign_in_rate.statistics,
        }

    @property
    def idempotency(self) -> Idempotency:
        return self.stores.idempotency

    async def run(self) -> None:
        """Follow the live view for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.heads.run)
            nursery.start_soon(self.tails.run)
            nursery.start_soon(self.summaries.run, self)

    def watch(self, part: str, statistics: Callable[[], Statistics]) -> None:
        """Let the metrics show one more part, under this name."""
        self._parts[part] = statistics

    def statistics(self) -> Mapping[str, Callable[[], Statistics]]:
        """`statistics()` of each part, by its name in the metrics; parts added later are in it."""
        return self._parts

    def _session_statistics(self) -> Statistics:
        return {"opened_total": self.sessions_opened, "refused_total": self.sessions_refused}

    def _backfill_statistics(self) -> Statistics:
        return {"refused_total": self.backfills_refused, "beats_total": self.beats_backfilled}
