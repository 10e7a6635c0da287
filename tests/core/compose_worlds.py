"""Random worlds for compose: small, crowded, and full of coincidences.

Times lie on a raster of 5 s, give or take 1 ms, and so do all sums with ttl, interval and grace; so an answer
can change only at instants `raster + {-1, 0, 1}`, and asking at these is asking everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

from engine.core.compose import OPEN_END, Composition
from engine.core.records import BASE_UNHEALTHY, BASE_UP, BASE_UPDATING, Claim, Gap, Lease, Window
from tests.core.compose_oracle import Beat, Oracle, World

RASTER = 5_000
STEPS = 90
LATE = (STEPS + 70) * RASTER  # every bound has passed
TTLS = (15_000, 15_000, 30_000, 45_000, 90_000)
SAID = ("up", "up", "up", "up", "updating", "unhealthy", "absent", "stopped")
FIRM = ("crash", "stall", "degraded")

_Record = TypeVar("_Record")


def moment(rng: Random) -> int:
    return rng.randint(1, STEPS) * RASTER + rng.choice((0, 0, 0, -1, 1))


def span(rng: Random) -> tuple[int, int]:
    start = moment(rng)
    long = rng.random() < 0.4
    short_ends = (round(start / RASTER) * RASTER + 1, start + RASTER, start + 2 * RASTER, start + 4 * RASTER)
    end = moment(rng) if long else rng.choice(short_ends)
    return min(start, end), max(start, end)


def some(rng: Random, at_most: int, make: Callable[[], _Record]) -> tuple[_Record, ...]:
    return tuple(make() for _ in range(rng.randint(0, at_most)))


def random_gap(rng: Random, *, causes: tuple[str, ...] = (*FIRM, "drops", "drops")) -> Gap:
    return Gap(0, *span(rng), rng.choice(causes))


def random_beats(rng: Random) -> tuple[Beat, ...]:
    ttls = TTLS if rng.random() < 0.5 else (rng.choice(TTLS),)
    said = SAID if rng.random() < 0.5 else ("up",)
    beats = some(rng, 12, lambda: Beat(moment(rng), rng.choice(said), rng.choice(ttls)))
    return tuple(sorted(beats, key=lambda beat: beat.t))


def random_world(rng: Random, *, firm_only: bool = False) -> World:
    """Any mixture of records. With `firm_only` no drops and no undecided gaps."""
    gaps = some(rng, 5, lambda: random_gap(rng, causes=FIRM) if firm_only else random_gap(rng))
    if not firm_only and rng.random() < 0.1:
        gaps = (*gaps, Gap(0, moment(rng), OPEN_END, "degraded"))
    return World(
        beats=random_beats(rng),
        gaps=gaps,
        leases=some(rng, 1, lambda: Lease(*rng.choice((span(rng), (moment(rng), None))))),
        windows=some(rng, 2, lambda: Window("w", None, *span(rng), rng.random() < 0.5)),
        claims=some(
            rng,
            5,
            lambda: Claim(
                moment(rng), rng.choice((BASE_UP, BASE_UP, BASE_UPDATING, BASE_UNHEALTHY)), rng.choice(TTLS)
            ),
        ),
        life=rng.choice(((0, None), (0, None), span(rng))),
        as_of=rng.choice((moment(rng), LATE)),
        asked=rng.choice(((0, LATE), span(rng))),
    )


def worlds(*, firm_only: bool = False) -> st.SearchStrategy[World]:
    return st.randoms(use_true_random=False).map(lambda rng: random_world(rng, firm_only=firm_only))


def instants(from_ms: int, to_ms: int) -> list[int]:
    """The instants of [from_ms, to_ms) at which an answer can change, and `from_ms` itself."""
    raster = range(from_ms // RASTER, to_ms // RASTER + 2)
    around = {step * RASTER + jitter for step in raster for jitter in (-1, 0, 1)}
    return sorted({at for at in around if from_ms < at < to_ms} | ({from_ms} if from_ms < to_ms else set()))


def kinds(answer: Composition, at: list[int]) -> list[str]:
    """What the answer says of each of these instants, which must lie in its window."""
    return [
        next(kind for kind, started, ended in answer.intervals if started <= instant < ended)
        for instant in at
    ]


def expected(world: World) -> tuple[tuple[tuple[str, int, int], ...], int | None]:
    """The oracle's answer for the whole window: intervals, and from when it is provisional."""
    oracle = Oracle(world)
    created, retired = world.life
    low = max(world.asked[0], created)
    high = min(world.asked[1], world.as_of, world.as_of if retired is None else retired)
    intervals: list[tuple[str, int, int]] = []
    provisional_from = None
    points = instants(low, high)
    for at, following in zip(points, [*points[1:], high], strict=False):
        kind, provisional = oracle.kind(at)
        if provisional and provisional_from is None:
            provisional_from = at
        if intervals and intervals[-1][0] == kind:
            intervals[-1] = (kind, intervals[-1][1], following)
        else:
            intervals.append((kind, at, following))
    return tuple(intervals), provisional_from
