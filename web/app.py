"""The app factory: routes, refusals and the guard put together.

An app starts only once, so every call makes a new one. What serves it stands in main.py and server.py.
"""

from __future__ import annotations

from collections.abc import Callable

from quart_trio import QuartTrio

from engine.core.apprise_url import DEFAULT_SCHEMAS
from engine.core.keys import MasterSecrets
from engine.core.uptime_source import UptimeSource
from engine.core.version import VERSION
from web import (
    announcements,
    audit,
    backfill,
    badges,
    bulk,
    channels,
    collections,
    confirmations,
    datagram,
    deliveries,
    disputes,
    events,
    health,
    installation,
    keys,
    kinds,
    leases,
    licences,
    manager,
    me,
    metrics,
    network_days,
    node_list,
    node_registration,
    node_workloads,
    nodes,
    openapi,
    outgoing,
    points,
    points_export,
    points_preview,
    points_reads,
    points_streams,
    points_suggested,
    problems,
    project_days,
    project_policies,
    projects,
    proofs,
    publications,
    receipts,
    release_files,
    releases,
    restarts,
    routing,
    running,
    schedule,
    seal_corrections,
    seals,
    sessions,
    sign_in,
    status,
    summary,
    summary_stream,
    unsubscribe,
    uptime_days,
    users,
    versions,
    why,
    windows,
    workload_list,
    workloads,
)
from web.backend import Backend, BeatDoor, Stores
from web.cors import Cors
from web.guard import Guard
from web.pages import uploads
from web.pages.site import install_pages
from web.proxies import Proxies
from web.settings import WebSettings
from web.spool import Spools

RESOURCES = (
    *sign_in.ROUTES,
    *me.ROUTES,
    *network_days.ROUTES,
    *users.ROUTES,
    *keys.ROUTES,
    *audit.ROUTES,
    *channels.ROUTES,
    *deliveries.ROUTES,
    *unsubscribe.ROUTES,
    *confirmations.ROUTES,
    *announcements.ROUTES,
    *sessions.ROUTES,
    *backfill.ROUTES,
    *seals.ROUTES,
    *seal_corrections.ROUTES,
    *project_days.ROUTES,
    *node_list.ROUTES,
    *nodes.ROUTES,
    *node_registration.ROUTES,
    *node_workloads.ROUTES,
    *datagram.ROUTES,
    *workload_list.ROUTES,
    *workloads.ROUTES,
    *uptime_days.ROUTES,
    *why.ROUTES,
    *proofs.ROUTES,
    *receipts.ROUTES,
    *publications.ROUTES,
    *disputes.ROUTES,
    *schedule.ROUTES,
    *installation.ROUTES,
    *status.ROUTES,
    *badges.ROUTES,
    *outgoing.ROUTES,
    *summary.ROUTES,
    *summary_stream.ROUTES,
    *bulk.ROUTES,
    *events.ROUTES,
    *points.ROUTES,
    *points_reads.ROUTES,
    *points_streams.ROUTES,
    *points_suggested.ROUTES,
    *points_preview.ROUTES,
    *points_export.ROUTES,
    *collections.ROUTES,
    *licences.ROUTES,
    *leases.ROUTES,
    *projects.ROUTES,
    *project_policies.ROUTES,
    *kinds.ROUTES,
    *versions.ROUTES,
    *releases.ROUTES,
    *manager.ROUTES,
    *release_files.ROUTES,
    *restarts.ROUTES,
    *running.ROUTES,
    *windows.ROUTES,
    *health.ROUTES,
)


class WebApp(QuartTrio):
    """A QuartTrio app that knows its backend; `asgi_app` goes through the guard."""

    backend: Backend
    requests: metrics.Requests


def create_app(
    stores: Stores,
    settings: WebSettings,
    secrets: MasterSecrets,
    clock: Callable[[], int],
    *,
    ingest: BeatDoor,
    shards: int,
    uptime_source: UptimeSource | None = None,
    services: str = DEFAULT_SCHEMAS,
    seal_after_ms: int = 600_000,
) -> WebApp:
    """The web API over these stores. `clock`: the system's time in unix ms.

    Whoever serves it also runs ``app.backend.run()``, without which nothing follows the live view.
    """
    app = WebApp("web", static_folder=None)
    app.backend = Backend(
        stores=stores,
        settings=settings,
        ingest=ingest,
        secrets=secrets,
        shards=shards,
        clock=clock,
        uptime_source=uptime_source,
        services=services,
        seal_after_ms=seal_after_ms,
    )
    app.requests = metrics.Requests(app.backend.statistics())
    served = (*RESOURCES, *metrics.routes(app.requests))
    served = (*served, *openapi.routes(served, version=VERSION))
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes_max
    app.config["BODY_TIMEOUT"] = settings.body_s_max
    app.config["RESPONSE_TIMEOUT"] = None  # server.py bounds what a client does not read
    app.url_map.merge_slashes = False
    problems.install(app)
    routing.install(app, app.backend, served)
    install_pages(app, app.backend)
    guard = Guard(
        app.asgi_app,  # type: ignore[arg-type]
        limit_of=routing.body_limits(served, longest=settings.body_bytes_max),
        body_s_max=settings.body_s_max,
        bodies_bytes_max=settings.bodies_bytes_max,
        spools=Spools(
            [*routing.spooled_routes(served), *uploads.SPOOLED],
            bytes_max=settings.spool_bytes_max,
            all_bytes_max=settings.spools_bytes_max,
            s_max=settings.spool_s_max,
            admit=uploads.admission(app.backend, routing.admission(app.backend, served)),
        ),
        requests=app.requests,
        cors=Cors(settings.cors_origins),
        proxies=Proxies(settings.trusted_proxies),
        access_log=settings.access_log,
    )
    app.backend.watch("web_bodies", guard.statistics)
    app.asgi_app = guard  # type: ignore[method-assign, assignment]
    return app
