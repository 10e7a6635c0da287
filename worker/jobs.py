"""Which jobs the worker has, when each is due (UTC), and how it catches up after an outage.

Prunes go by the present, so of those that were missed only the newest is run. Reports tell of a day or a week
of their own: each is run, however late. What goes by conditions and not by the clock, the seals and the looks
at owners, is not here.
"""

from __future__ import annotations

from functools import partial

from storage.open import AllStores
from worker.pruner import pruning
from worker.reports import KEPT_MS as SUMS_KEPT_MS
from worker.reports import Reporting
from worker.schedule import Job
from worker.settings import ReportSettings, RetentionSettings

_DAY_MS = 86_400_000
RUNS_KEPT_MS = 7 * _DAY_MS  # a run each minute is some 10,000 rows


def prunes(stores: AllStores, kept: RetentionSettings) -> tuple[Job, ...]:
    """All of them. Sessions open at up to thousands a second: their nonces are many after a minute."""
    letters = partial(stores.letters.prune, kept_ms=kept.letters_days * _DAY_MS)
    answers = partial(stores.idempotency.prune, kept_ms=kept.idempotency_days * _DAY_MS)
    deliveries = partial(stores.retention.prune_deliveries, kept_ms=kept.deliveries_days * _DAY_MS)
    runs = partial(stores.schedule.prune, kept_ms=RUNS_KEPT_MS)
    sums = partial(stores.reports.prune, kept_ms=SUMS_KEPT_MS)
    return (
        Job("prune-nonces", "* * * * *", "newest", pruning(stores.directory.prune)),
        Job("prune-letters", "*/5 * * * *", "newest", pruning(letters)),
        Job("prune-idempotency", "*/10 * * * *", "newest", pruning(answers)),
        Job("prune-mail-budgets", "*/10 * * * *", "newest", pruning(stores.sending.prune)),
        Job("prune-sign-ins", "*/10 * * * *", "newest", pruning(stores.sign_in.prune)),
        Job("prune-deliveries", "20 * * * *", "newest", pruning(deliveries)),
        Job("prune-consent", "10 4 * * *", "newest", pruning(stores.consent.prune)),
        Job("prune-beliefs", "30 4 * * *", "newest", pruning(stores.newsroom.prune)),
        Job("prune-report-sums", "50 4 * * *", "newest", pruning(sums)),
        Job("prune-schedule", "40 * * * *", "newest", pruning(runs)),
    )


def reports(stores: AllStores, settings: ReportSettings) -> tuple[Job, ...]:
    """Those that have a cron expression."""

    def job(name: str, cron: str, *, weekly: bool) -> tuple[Job, ...]:
        wait_ms = int(settings.seal_wait_s * 1000)
        run = Reporting(reports=stores.reports, outbox=stores.outbox, weekly=weekly, wait_ms=wait_ms)
        return (Job(name, cron, "every", run),) if cron else ()

    return (
        *job("report-daily", settings.daily_cron, weekly=False),
        *job("report-weekly", settings.weekly_cron, weekly=True),
    )
