"""An installation in figures, out of what its processes export: /metrics read, added up, compared.

Which processes there are and how often they are asked is commands/top.py's; what each figure means stands
with the part that counts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx2
import msgspec
from prometheus_client.openmetrics.parser import text_string_to_metric_families

ASK_S = 3.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
AT_ONCE = 16

Series = Mapping[tuple[str, str], float]  # (name, its one label's value or "") -> number


class Scrape(NamedTuple):
    """What one process told. `trouble`: why it told nothing."""

    where: str
    at_s: float
    series: Series
    trouble: str = ""

    def get(self, name: str, of: str = "") -> float:
        return self.series.get((f"nodepulse_{name}", of), 0.0)

    def has(self, name: str) -> bool:
        return any(known == f"nodepulse_{name}" for known, _ in self.series)

    def by(self, name: str) -> dict[str, float]:
        """A labelled metric by the value of its label."""
        return {of: number for (known, of), number in self.series.items() if known == f"nodepulse_{name}"}


class ShardView(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. Rates and `ack_*` since the scrape before, or since its start where there is none."""

    where: str
    rows: int
    beats_per_s: float
    rejected_per_s: dict[str, float]
    ack_p50_ms: float | None
    ack_p99_ms: float | None
    phase: str
    suspect: int
    watermark_age_s: float
    flush_lag_bytes: int
    journal_bytes: int
    gaps: int
    unobserved_s: float
    trouble: list[str]


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker."""

    where: str
    notifies: bool
    notifier_lag_ms: float
    in_flight: int
    sent: int
    dead: int
    schedule_lag_s: float
    schedule_running: int
    failed_jobs: dict[str, int]


class WebView(msgspec.Struct, frozen=True, kw_only=True):
    """One web process."""

    where: str
    requests_per_s: float
    failed: int  # answers 5xx since its start
    connections: int


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment."""

    at_s: float
    shards: list[ShardView]
    workers: list[WorkerView]
    webs: list[WebView]
    restarts: dict[str, int]
    away: dict[str, str]  # processes that did not answer, and why


def scrape(urls: Sequence[str], *, now_s: float) -> list[Scrape]:
    """Ask all of them at once; who does not answer has said why in `trouble`."""
    with httpx2.Client(timeout=ASK_S) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda url: _ask(client, url, now_s), urls))


def _ask(client: httpx2.Client, url: str, now_s: float) -> Scrape:
    try:
        answer = client.get(url)
    except httpx2.HTTPError as error:
        return Scrape(url, now_s, {}, str(error) or type(error).__name__)
    if answer.status_code != 200:
        return Scrape(url, now_s, {}, f"answers {answer.status_code}")
    if len(answer.content) > ANSWER_BYTES_MAX:
        return Scrape(url, now_s, {}, "its answer is too long")
    try:
        return Scrape(url, now_s, _series(answer.text))
    except (ValueError, KeyError, IndexError) as error:
        return Scrape(url, now_s, {}, f"it is no OpenMetrics: {error}")


def _series(text: str) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            of = sample.labels.get("of", sample.labels.get("le", sample.labels.get("status", "")))
            key = sample.name, of
            found[key] = found.get(key, 0.0) + sample.value
    return found


def frame(now: Sequence[Scrape], before: Sequence[Scrape] = ()) -> Frame:
    """What these scrapes say, compared with earlier ones of the same processes."""
    earlier = {one.where: one for one in before if not one.trouble}
    well = [one for one in now if not one.trouble]
    shards = [one for one in well if one.has("table_rows")]
    workers = [one for one in well if one.has("notifier_lag_ms")]
    restarts = [one.by("serve_restarts_total") for one in well]
    return Frame(
        at_s=max((one.at_s for one in now), default=0.0),
        shards=[_shard(one, earlier.get(one.where)) for one in shards],
        workers=[_worker(one) for one in workers],
        webs=[_web(one, earlier.get(one.where)) for one in well if one.has("web_connections_open")],
        restarts={name: int(number) for each in restarts for name, number in each.items()},
        away={one.where: one.trouble for one in now if one.trouble},
    )


def _shard(now: Scrape, before: Scrape | None) -> ShardView:
    waited = _rise(now.by("ack_seconds_bucket"), before.by("ack_seconds_bucket") if before else {})
    watermark_s = now.get("flusher_watermark_ms") / 1_000
    return ShardView(
        where=now.where,
        rows=int(now.get("table_rows")),
        beats_per_s=_rate(now, before, "intake_taken") if before else now.get("ack_beats_per_s"),
        rejected_per_s=_refused(now, before),
        ack_p50_ms=_quantile_ms(waited, 0.5),
        ack_p99_ms=_quantile_ms(waited, 0.99),
        phase=next((of for of, number in now.by("judge_phase").items() if number), "unknown"),
        suspect=int(now.get("judge_suspect")),
        watermark_age_s=round(max(0.0, now.at_s - watermark_s), 3) if watermark_s else math.inf,
        flush_lag_bytes=int(now.get("flusher_journal_lag_bytes")),
        journal_bytes=int(now.get("journal_bytes_on_disk")),
        gaps=int(now.get("gaps_gaps")),
        unobserved_s=now.get("gaps_unobserved_ms") / 1_000,
        trouble=[text for name, text in _TROUBLE.items() if now.get(name)],
    )


_TROUBLE = {
    "flusher_history_away": "PostgreSQL is away",
    "flusher_live_away": "Redis is away",
    "registry_away": "the registry is away",
    "flusher_out_of_step": "journal and PostgreSQL do not fit",
    "committer_failing": "the journal cannot be written",
    "clock_stepped": "the clock was set",
    "actors_quarantined": "actors are set aside",
}


def _refused(now: Scrape, before: Scrape | None) -> dict[str, float]:
    """Both those that were answered by a refusal and those that were worth no answer, by reason."""
    found: dict[str, float] = {}
    for name in ("refusals_counted", "intake_rejected"):
        risen = _rise(now.by(name), before.by(name) if before else now.by(name))
        for reason, number in risen.items():
            found[reason] = found.get(reason, 0.0) + number / _elapsed(now, before)
    return {reason: round(number, 2) for reason, number in found.items() if number}


def _worker(now: Scrape) -> WorkerView:
    kinds = ("webhook", "apprise")

    def of_all(what: str) -> int:
        return int(sum(now.get(f"{kind}_deliveries_{what}") for kind in kinds))

    failed = now.by("schedule_failed_total").items()
    return WorkerView(
        where=now.where,
        notifies=bool(now.get("notifier_active")),
        notifier_lag_ms=now.get("notifier_lag_ms"),
        in_flight=of_all("in_flight"),
        sent=of_all("sent_total"),
        dead=of_all("dead_total"),
        schedule_lag_s=now.get("schedule_lag_seconds"),
        schedule_running=int(now.get("schedule_running")),
        failed_jobs={job: int(number) for job, number in failed if number},
    )


def _web(now: Scrape, before: Scrape | None) -> WebView:
    by_status = now.by("web_requests_total")
    risen = _rise(by_status, before.by("web_requests_total")) if before else {}
    return WebView(
        where=now.where,
        requests_per_s=round(sum(risen.values()) / _elapsed(now, before), 1),
        failed=int(sum(number for status, number in by_status.items() if status.startswith("5"))),
        connections=int(now.get("web_connections_open")),
    )


def _elapsed(now: Scrape, before: Scrape | None) -> float:
    return max(0.001, now.at_s - before.at_s) if before else 1.0


def _rate(now: Scrape, before: Scrape, name: str) -> float:
    risen = now.get(name) - before.get(name)
    return round((risen if risen >= 0 else now.get(name)) / _elapsed(now, before), 1)


def _rise(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """How much each has risen; a process that was started again has begun at nothing."""
    if any(now.get(of, 0.0) < number for of, number in before.items()):
        before = {}
    return {of: number - before.get(of, 0.0) for of, number in now.items()}


def _quantile_ms(cumulative: Mapping[str, float], share: float) -> float | None:
    """Of a histogram by upper bounds in seconds, by straight lines within a bucket; None without any."""
    bounds = sorted((float(of.replace("+Inf", "inf")), number) for of, number in cumulative.items())
    total = bounds[-1][1] if bounds else 0.0
    if not total:
        return None
    below_s = below = 0.0
    for bound_s, number in bounds:
        if number >= share * total:
            if math.isinf(bound_s):
                return round(below_s * 1_000, 3)
            within = (share * total - below) / (number - below) if number > below else 1.0
            return round((below_s + (bound_s - below_s) * within) * 1_000, 3)
        below_s, below = bound_s, number
    return None
