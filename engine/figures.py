"""A shard's figures (engine/core/figures.py), gathered from its parts when somebody asks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from engine.core.figures import ShardFigures
from np1.codec import Code

if TYPE_CHECKING:
    from engine.intake import Intake
    from engine.shard import Shard

# Answers that are no refusal: the beat counts (STANDBY: in part).
_TAKEN = (Code.OK, Code.EARLY, Code.STANDBY)


def rejected(intake: Intake) -> Counter[str]:
    """What came and does not count, by reason: answered by a refusal, or not worth an answer."""
    found = Counter(intake.rejected)
    for code, number in intake.answered.items():
        if code not in _TAKEN:
            found[Code(code).name.lower()] += number
    return found


def figures_of(shard: Shard) -> ShardFigures:
    """As of now."""
    parts, intake, table = shard.parts, shard.intake, shard.table
    reasons = rejected(intake)
    journal, commits = parts.journal.statistics(), parts.committer.statistics()
    flushes, silence = parts.flusher.statistics(), parts.judge.silence
    actors, gaps, clock = parts.actors.statistics(), parts.gaps.statistics(), parts.clock.statistics()
    away = {"PostgreSQL": flushes.history_away or parts.registry.away, "the live view": flushes.live_away}
    return ShardFigures(
        shard=shard.number,
        shards=table.shards,
        at_ms=parts.clock.now_ms(),
        started_ms=shard.started_ms,
        rows=table.rows,
        slots=table.slots,
        beats_per_s=intake.throughput.beats_per_s,
        beats_total=intake.taken,
        rejected_total=dict(reasons),
        rejected_last_min=intake.throughput.rejected_last_min(reasons),
        waited_last_min=intake.throughput.waited_last_min(),
        journal_position=journal.position,
        journal_bytes=journal.bytes_on_disk,
        journal_failures=journal.failures,
        commit_ms_last=commits.commit_ms_last,
        commit_ms_max=commits.commit_ms_max,
        flush_lag_bytes=flushes.journal_lag_bytes,
        flush_ms_last=flushes.cycle_ms_last,
        flush_failures=flushes.failures,
        away=[store for store, gone in away.items() if gone],
        taking=shard.listening and not intake.busy,
        gaps_open=parts.gaps.open_since(),
        gaps_total=gaps.gaps,
        unobserved_ms_total=gaps.unobserved_ms,
        phase=parts.judge.breaker.phase,
        phase_since_ms=parts.judge.breaker.since_ms,
        suspect=silence.suspect,
        watched=silence.watched,
        actors_quarantined=actors.quarantined,
        actor_crashes=actors.crashes,
        clock_error_ms=clock[0],
        clock_stepped=bool(clock[1]),
    )
