"""The oracle's single sentences: each rule of LIVENESS.md and WIRE.md that is one comparison or one product.

They are methods, so that a test can bend exactly one of them and see that the checker notices. Written from
the documents alone, on purpose without a look at the product's own arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.history import Gap

OK, EARLY, STALE, CLOCK, RESYNC, REKEY, MOVED, BUSY, STANDBY = range(9)
CREDITING = frozenset({OK, EARLY, RESYNC, REKEY, STANDBY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """An accepted, durable frame. `t_ms` is lifted to the row's last accepted one. `mask` is its slot map."""

    frame_id: int
    index: int
    t_ms: int
    ttl_ms: int
    stopping: bool
    mask: int
    plane0: int
    plane1: int


class Rules:
    """The letter of the documents. LIVENESS.md section in brackets."""

    clock_window_ms = 90_000  # WIRE.md, server rule 2
    overlap_ms = 60_000  # WIRE.md, Session
    refusal_pause_ms = 1_000  # WIRE.md, server rule 4
    registry_lag_ms = 1_000  # how late a shard may know of a registry change
    standby_lag_ms = 2_000  # [5] code 8 may lag
    tick_ms = 1_000  # [3]
    breaker_rows = 20  # [3] DEGRADED needs at least so many SUSPECT rows
    breaker_percent = 15  # [3] and more than this part of UP + SUSPECT
    release_intervals = 7  # [3] all rows released at 15 % per interval

    def interval(self, ttl_ms: int) -> int:
        """[1] floor(2 * ttl / 3)."""
        return 2 * ttl_ms // 3

    def grace(self, ttl_ms: int) -> int:
        """[1] max(60000, 5 * interval)."""
        return max(60_000, 5 * self.interval(ttl_ms))

    # --- acceptance
    def too_early(self, t_ms: int, last: Beat | None) -> bool:
        """WIRE.md code 1: sooner than floor(interval / 4) after the last accepted beat."""
        return last is not None and t_ms - last.t_ms < self.interval(last.ttl_ms) // 4

    def off_clock(self, seq: int, t_ms: int) -> bool:
        return abs((seq >> 16) - t_ms) > self.clock_window_ms

    def stale(self, seq: int, last_seq: int | None) -> bool:
        return last_seq is not None and seq <= last_seq

    def credits(self, code: int) -> bool:
        return code in CREDITING

    # --- coverage
    def coverage_end(self, beat: Beat) -> int:
        """[2] never longer than t + ttl."""
        return beat.t_ms + beat.ttl_ms

    def covers(self, beat: Beat, x_ms: int) -> bool:
        """The row is covered by its last beat at x (x at or after the beat). STOPPING covers nothing."""
        return not beat.stopping and x_ms < self.coverage_end(beat)

    def stops(self, beat: Beat) -> bool:
        return beat.stopping

    # --- the observer's fault
    def gap_grace(self, causes: set[str], ttl_ms: int) -> int:
        """[3] how long after a gap's end a row may return. Of drops alone it is one interval."""
        if causes == {"drops"}:
            return self.interval(ttl_ms)
        return self.grace(ttl_ms)

    def follows_on(self, start_ms: int, previous_end_ms: int, grace_ms: int) -> bool:
        """[3] a gap that starts before the previous gap's g1 + grace (and no beat in between) is merged."""
        return start_ms < previous_end_ms + grace_ms

    def back_in_time(self, back_ms: int, g1_ms: int, bound_ms: int) -> bool:
        """[3] f < g1 + grace."""
        return back_ms < g1_ms + bound_ms

    def bound_of_covered(self, bound_ms: int, ttl_ms: int) -> int:
        """[3] for a row still covered at g1: f < g1 + ttl, so that a short stall forgives no long absence."""
        return min(bound_ms, ttl_ms)

    def forgiven_from_start(self, last: Beat | None, g0_ms: int) -> bool:
        """[3] s = g0: the last beat at or before g0 is not STOPPING and g0 < t + ttl."""
        return last is not None and self.covers(last, g0_ms)

    def no_down_before(self, gap: Gap, ttl_ms: int) -> int:
        """[3] no DOWN verdict for a row before g1 + grace."""
        return gap.to_ms + self.grace(ttl_ms)

    # --- verdicts
    def suspect_at(self, anchor_ms: int, ttl_ms: int) -> int:
        return anchor_ms + ttl_ms

    def down_at(self, anchor_ms: int, ttl_ms: int) -> int:
        return anchor_ms + 3 * self.interval(ttl_ms)

    def lost_at(self, anchor_ms: int, ttl_ms: int) -> int:
        return anchor_ms + 10 * self.interval(ttl_ms)

    def silence_began(self, last: Beat) -> int:
        """[4] since of node.down, before forgiveness: the row's end of coverage."""
        return last.t_ms + last.ttl_ms

    def flip_apart(self, ttl_ms: int) -> int:
        """[4] two beats at least floor(interval / 2) apart."""
        return self.interval(ttl_ms) // 2
