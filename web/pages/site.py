"""All pages together, and how they become part of the app. Each module of pages states its own."""

from __future__ import annotations

from quart_trio import QuartTrio

from web.backend import Backend
from web.pages import (
    announcements,
    audit,
    clock,
    commits,
    day_forms,
    days,
    disputes,
    fleet,
    installation,
    kinds,
    licences,
    live,
    me,
    network,
    nodes,
    notifications,
    outbox,
    people,
    points,
    project_channels,
    project_disputes,
    project_keys,
    refusals,
    roots,
    rules,
    schedule,
    sign_in,
    static_files,
    status,
    totals,
    uptime,
    workloads,
)
from web.pages.pages import Page, install


def install_pages(app: QuartTrio, backend: Backend) -> None:
    """Add all pages. To be called before the app is put into its guard: they ask the API inside of it."""
    api = app.asgi_app
    clock.install(app, backend.clock)
    refusals.install(app, api)
    install(app, api, all_pages(backend))


def all_pages(backend: Backend) -> tuple[Page, ...]:
    """Every page there is; each is driven in a browser by tests/browser."""
    return (
        *static_files.PAGES,
        *sign_in.pages(backend),
        *live.pages(backend),
        *nodes.PAGES,
        *workloads.PAGES,
        *licences.PAGES,
        *points.PAGES,
        *disputes.PAGES,
        *notifications.PAGES,
        *me.PAGES,
        *network.PAGES,
        *fleet.PAGES,
        *kinds.PAGES,
        *uptime.pages(backend),
        *installation.PAGES,
        *outbox.PAGES,
        *schedule.PAGES,
        *roots.PAGES,
        *audit.PAGES,
        *people.PAGES,
        *announcements.PAGES,
        *status.PAGES,
        *days.PAGES,
        *day_forms.PAGES,
        *commits.PAGES,
        *rules.PAGES,
        *project_channels.PAGES,
        *project_keys.PAGES,
        *announcements.OF_PROJECT,
        *totals.PAGES,
        *project_disputes.PAGES,
    )
