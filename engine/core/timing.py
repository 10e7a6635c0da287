"""The arithmetic of intervals, deadlines and grace (LIVENESS.md 1, 3 and 4).

All values are integer milliseconds. Nothing here reads a clock.
"""

GRACE_MS_MIN = 60_000
CLOCK_WINDOW_MS = 90_000  # WIRE.md, server rule 2: how far `seq >> 16` may lie from t
GENERATION_OVERLAP_MS = 60_000  # WIRE.md, Session: how long the previous generation is honoured
STALL_MS = 1_000  # LIVENESS.md 3: more than this between two readings of the sockets is a gap
INTERVAL_MS_MIN = 1_000  # WIRE.md, rules of the client
SLOTS_MAX = 64


def ttl_of_interval(interval_ms: int) -> int:
    """How long a beat vouches for its slots: 1.5 intervals (LIVENESS.md 1)."""
    return interval_ms * 3 // 2


def interval_of_ttl(ttl_ms: int) -> int:
    """The row's interval as judged: ``floor(2 * ttl / 3)`` of its last accepted beat (LIVENESS.md 1)."""
    return 2 * ttl_ms // 3


def grace_of_ttl(ttl_ms: int) -> int:
    """``max(60000, 5 * interval)`` (LIVENESS.md 1)."""
    return max(GRACE_MS_MIN, 5 * interval_of_ttl(ttl_ms))


def down_after_ms(ttl_ms: int) -> int:
    """Silence after which a SUSPECT row is DOWN: 3 intervals (LIVENESS.md 4)."""
    return 3 * interval_of_ttl(ttl_ms)


def lost_after_ms(ttl_ms: int) -> int:
    """Silence after which a DOWN row is LOST: 10 intervals (LIVENESS.md 4)."""
    return 10 * interval_of_ttl(ttl_ms)


def flip_apart_ms(ttl_ms: int) -> int:
    """Two beats at least this far apart confirm a change of health (LIVENESS.md 4)."""
    return interval_of_ttl(ttl_ms) // 2
