"""Opens all stores of one process and closes them again.

Nothing connects here: PostgreSQL and Redis may be away now and come back, each call says so for itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import trio

from engine.core.accounts import Accounts, SignIn
from engine.core.announcements import Announcements
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
from engine.core.inventory import Inventory, InventorySync
from engine.core.leases import Leases, LeaseSettling
from engine.core.ledger import Ledger
from engine.core.letters import Letters
from engine.core.maintenance import Windows
from engine.core.newsroom import Newsroom
from engine.core.notices import Notices
from engine.core.orders import Orders, Rollouts
from engine.core.outbox import Outbox
from engine.core.points_preview import PointsPreviews
from engine.core.ports import Directory, History, LiveView, RegistryFeed
from engine.core.publication import Publications
from engine.core.receipts import ReceiptKeys
from engine.core.registration import Registration
from engine.core.reports import Reports
from engine.core.retention import Retention
from engine.core.schedule import Schedule
from engine.core.sealed import Seals
from engine.core.sealing import Corrections, Sealing
from engine.core.sending import Sending
from engine.core.status import StatusBooks
from engine.core.told import Told
from storage.pool import Postgres
from storage.postgres_accounts import PostgresAccounts
from storage.postgres_announcements import PostgresAnnouncements
from storage.postgres_audit import PostgresAuditLog
from storage.postgres_backfill import PostgresBackfill
from storage.postgres_bulk import PostgresBulk
from storage.postgres_catalog import PostgresCatalog
from storage.postgres_consent import PostgresConsent
from storage.postgres_corrections import PostgresCorrections
from storage.postgres_desired import PostgresOrders
from storage.postgres_directory import PostgresDirectory
from storage.postgres_disputes import PostgresDisputes
from storage.postgres_evidence import PostgresEvidence
from storage.postgres_fleet import PostgresFleet
from storage.postgres_history import PostgresHistory
from storage.postgres_idempotency import PostgresIdempotency
from storage.postgres_installation import PostgresInstallationBooks
from storage.postgres_inventory import PostgresInventory
from storage.postgres_inventory_sync import PostgresInventorySync
from storage.postgres_leases import PostgresLeases
from storage.postgres_ledger import PostgresLedger
from storage.postgres_letters import PostgresLetters
from storage.postgres_newsroom import PostgresNewsroom
from storage.postgres_notices import PostgresNotices
from storage.postgres_outbox import PostgresOutbox
from storage.postgres_preview import PostgresPreviews
from storage.postgres_projects import PostgresProjects
from storage.postgres_publications import PostgresPublications
from storage.postgres_receipts import PostgresReceiptKeys
from storage.postgres_registration import PostgresRegistration
from storage.postgres_registry import PostgresRegistryFeed
from storage.postgres_rejoin import PostgresRejoin
from storage.postgres_releases import PostgresReleases
from storage.postgres_reports import PostgresReports
from storage.postgres_retention import PostgresRetention
from storage.postgres_rollouts import PostgresRollouts
from storage.postgres_schedule import PostgresSchedule
from storage.postgres_sealing import PostgresSealing
from storage.postgres_seals import PostgresSeals
from storage.postgres_sending import PostgresSending
from storage.postgres_settle import PostgresLeaseSettling
from storage.postgres_sign_in import PostgresSignIn
from storage.postgres_status import PostgresStatusBooks
from storage.postgres_told import PostgresTold
from storage.postgres_windows import PostgresWindows
from storage.redis_asks import RedisAsks
from storage.redis_live import RedisLiveView
from storage.settings import DatabaseSettings, RedisSettings


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the data plane and of what hangs on it (engine/core/ports.py), open."""

    registry: RegistryFeed
    history: History
    live: LiveView
    directory: Directory
    outbox: Outbox
    newsroom: Newsroom
    sending: Sending
    statistics: Callable[[], dict[str, int]] = dict  # of the connections; nothing in memory


class AllStores(Stores, frozen=True, kw_only=True):
    """With the ports of the control plane, which have no twins in memory (docs/decisions/0050)."""

    accounts: Accounts
    ledger: Ledger
    previews: PointsPreviews
    sign_in: SignIn
    notices: Notices
    told: Told
    consent: Consent
    announcements: Announcements
    letters: Letters
    asks: RedisAsks
    audit: AuditLog
    idempotency: Idempotency
    inventory: Inventory
    inventory_sync: InventorySync
    backfill: Backfill
    evidence: Evidence
    bulk: Bulk
    fleet: Fleet
    registration: Registration
    projects: Projects
    catalog: Catalog
    releases: Releases
    orders: Orders
    rollouts: Rollouts
    leases: Leases
    lease_settling: LeaseSettling
    seals: Seals
    receipt_keys: ReceiptKeys
    publications: Publications
    sealing: Sealing
    corrections: Corrections
    windows: Windows
    schedule: Schedule
    retention: Retention
    reports: Reports
    disputes: Disputes
    rejoin: PostgresRejoin
    installation: InstallationBooks
    status: StatusBooks


@asynccontextmanager
async def open_stores(database: DatabaseSettings, redis: RedisSettings) -> AsyncIterator[AllStores]:
    """All stores, for the time of the block; only under `run_on_uvloop`."""
    async with AsyncExitStack() as closing:
        db = Postgres(database)
        await db.open()
        closing.push_async_callback(_shielded, db.close)
        registry, outbox, live = PostgresRegistryFeed(db), PostgresOutbox(db), RedisLiveView(redis)
        closing.push_async_callback(_shielded, registry.close)
        closing.push_async_callback(_shielded, outbox.close)
        asks = RedisAsks(redis)
        await asks.open()
        closing.push_async_callback(_shielded, asks.close)
        await live.open()
        closing.push_async_callback(_shielded, live.close)
        yield _all(db, registry, outbox, live, asks)


def _all(
    db: Postgres,
    registry: PostgresRegistryFeed,
    outbox: PostgresOutbox,
    live: RedisLiveView,
    asks: RedisAsks,
) -> AllStores:
    return AllStores(
        registry=registry,
        history=PostgresHistory(db),
        live=live,
        directory=PostgresDirectory(db),
        ledger=PostgresLedger(db),
        previews=PostgresPreviews(db),
        outbox=outbox,
        newsroom=PostgresNewsroom(db),
        sending=PostgresSending(db),
        accounts=PostgresAccounts(db),
        sign_in=PostgresSignIn(db),
        notices=PostgresNotices(db),
        told=PostgresTold(db),
        consent=PostgresConsent(db),
        announcements=PostgresAnnouncements(db),
        letters=PostgresLetters(db),
        asks=asks,
        audit=PostgresAuditLog(db),
        idempotency=PostgresIdempotency(db),
        inventory=PostgresInventory(db),
        inventory_sync=PostgresInventorySync(db),
        backfill=PostgresBackfill(db),
        evidence=PostgresEvidence(db),
        bulk=PostgresBulk(db),
        fleet=PostgresFleet(db),
        registration=PostgresRegistration(db),
        projects=PostgresProjects(db),
        catalog=PostgresCatalog(db),
        releases=PostgresReleases(db),
        orders=PostgresOrders(db),
        rollouts=PostgresRollouts(db),
        leases=PostgresLeases(db),
        lease_settling=PostgresLeaseSettling(db),
        seals=PostgresSeals(db),
        receipt_keys=PostgresReceiptKeys(db),
        publications=PostgresPublications(db),
        sealing=PostgresSealing(db),
        corrections=PostgresCorrections(db),
        windows=PostgresWindows(db),
        schedule=PostgresSchedule(db),
        retention=PostgresRetention(db),
        reports=PostgresReports(db),
        disputes=PostgresDisputes(db),
        rejoin=PostgresRejoin(db),
        installation=PostgresInstallationBooks(db),
        status=PostgresStatusBooks(db),
        statistics=lambda: {**db.statistics(), **live.statistics(), **asks.statistics()},
    )


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope(shield=True):
        await close()
