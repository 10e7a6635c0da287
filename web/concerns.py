"""What is wrong with the shards, in words for whoever runs the installation: what, since when, what to do.

Said from what shards tell of themselves and from how old what they told is. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from engine.core.figures import ShardFigures
from web.heads import Heads
from web.times import format_rfc3339

WATERMARK_AGE_MS_MAX = 2_000  # as readiness has it (health.py)
FLUSH_LAG_BYTES_MAX = 64 * 1024 * 1024  # of the journal: some seconds at full load
CLOCK_ERROR_MS_MAX = 1_000.0
_OF_GAPS = {
    "disk_full": ("the journal cannot be written", "Free disk space for the journal; it goes on by itself."),
    "degraded": (
        "our own canaries are not heard",
        "The way from outside to this machine is broken: look at network, firewall and load balancer.",
    ),
}


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `severity`: critical (beats are lost or nobody is judged) | warning.
    `shard` null: of all. `advice`: what to do about it."""

    severity: str
    shard: int | None
    what: str
    since: str | None
    advice: str


def concerns_of(heads: Heads, figures: Mapping[int, ShardFigures | None]) -> list[Concern]:
    """The worst first."""
    found: list[Concern] = []
    if heads.away:
        found.append(
            Concern(
                severity="critical",
                shard=None,
                what="The live view (Redis or Valkey) is out of reach of this web process",
                since=None,
                advice="Is it running? Pages show no states until it is back; beats are taken all the same.",
            )
        )
    for shard, one in figures.items():
        if one is None:
            found += _of_silent(heads, shard)
        else:
            found += _of_ingest(one)
            found += _of_stores(one)
            found += _of_rest(one)
    return sorted(found, key=lambda concern: concern.severity)


def _of_silent(heads: Heads, shard: int) -> Iterator[Concern]:
    head, age_ms = heads.head(shard), heads.watermark_age_ms(shard)
    if heads.away:
        return
    if head is None or age_ms is None or head.watermark_ms <= 0:
        yield _concern("critical", shard, "was never heard of", None, "Start its engine process.")
    elif age_ms >= WATERMARK_AGE_MS_MAX:
        yield _concern(
            "critical",
            shard,
            "is not heard",
            head.watermark_ms,
            "Is its engine process running? Look at its log; until it is back its nodes are not heard.",
        )
    else:
        yield _concern(
            "warning", shard, "does not answer", None, "It is alive but very busy, or an older version."
        )


def _of_ingest(one: ShardFigures) -> Iterator[Concern]:
    for cause, since_ms in sorted(one.gaps_open.items()):
        what, advice = _OF_GAPS.get(cause, (f"does not listen ({cause})", "Look at its log."))
        yield _concern("critical", one.shard, f"takes no beats: {what}", since_ms, advice)
    if not one.taking and not one.gaps_open:
        yield _concern("critical", one.shard, "takes no beats", None, "It starts or stops; wait a moment.")
    if one.phase == "degraded":
        yield _concern(
            "critical",
            one.shard,
            f"is DEGRADED: {one.suspect} of {one.watched} rows fell silent at once, so nobody is judged",
            one.phase_since_ms,
            "Look at the network: so many do not fail at once. It goes on by itself once they are back.",
        )
    elif one.phase == "releasing":
        yield _concern(
            "warning",
            one.shard,
            f"gives verdicts slowly again: {one.suspect} of {one.watched} rows are silent",
            one.phase_since_ms,
            "Nothing: nodes that stay silent are told of little by little.",
        )


def _of_stores(one: ShardFigures) -> Iterator[Concern]:
    for store in one.away:
        yield _concern(
            "critical",
            one.shard,
            f"cannot reach {store}",
            None,
            "Bring it back. Beats are taken meanwhile and written there later, as long as the disk lasts.",
        )
    if one.flush_lag_bytes > FLUSH_LAG_BYTES_MAX:
        behind = one.flush_lag_bytes // (1024 * 1024)
        yield _concern(
            "warning",
            one.shard,
            f"is {behind} MiB of its journal ahead of PostgreSQL",
            None,
            "PostgreSQL is too slow, or was away: look at its disk. Days are sealed later until then.",
        )


def _of_rest(one: ShardFigures) -> Iterator[Concern]:
    if one.clock_stepped or abs(one.clock_error_ms) > CLOCK_ERROR_MS_MAX:
        yield _concern(
            "warning",
            one.shard,
            f"records times {one.clock_error_ms / 1_000:+.1f} s off the system's clock, which jumped",
            None,
            "Look at the machine's time service. Recorded time comes near by 1 ms a second, or at a restart.",
        )
    if one.actors_quarantined:
        yield _concern(
            "warning",
            one.shard,
            f"has set {one.actors_quarantined} nodes or workloads aside whose tasks kept crashing",
            None,
            "Their beats count. The event log names them: report the crash.",
        )


def _concern(severity: str, shard: int, what: str, since_ms: int | None, advice: str) -> Concern:
    since = None if since_ms is None else format_rfc3339(since_ms)
    return Concern(severity=severity, shard=shard, what=f"Shard {shard} {what}", since=since, advice=advice)
