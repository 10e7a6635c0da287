"""`/v1/installation`: how the shards are now, what is wrong with them, and when we did not listen.

Each shard is asked for its figures in the door where it tells rows (engine/core/asks.py); one that does not
answer is told of by what the live view has of it. The outbox is outgoing.py's.
"""

from __future__ import annotations

import re

import msgspec
import trio
from quart import Response, request

from engine.core.figures import WAITED_BOUNDS_MS, ShardFigures, waited_ms
from engine.core.people import Principal
from engine.core.records import Gap, ShardHead
from engine.core.version import VERSION
from web.backend import Backend
from web.concerns import Concern, concerns_of
from web.paging import PARAMETERS, cut, limit_parameter, link_headers
from web.problems import bad_parameter
from web.routing import Answer, Route, reply, reply_polled
from web.times import format_rfc3339

FIGURES_S_MAX = 1.0  # a shard that takes longer is told of without
SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}
_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,9})\.(\d{1,9})\.([a-z_]{1,32})", re.ASCII)


class WaitedBucket(msgspec.Struct, frozen=True):
    """Beats that waited no longer than this and longer than the bucket before; null: longer than all."""

    to_ms: int | None
    beats: int


class WaitedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How long beats of the last minute waited from being received to being answered, durable by then.

    Null: none came. 10000: that long or longer."""

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    buckets: list[WaitedBucket]


class OpenGap(msgspec.Struct, frozen=True):
    """A time in which beats are not taken, and that lasts."""

    cause: str
    since: str


class FiguresAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Of a shard that answers. Totals are since `started_at`. `phase`: normal; degraded: very many fell
    silent at once, so no verdict is given; releasing: they are given slowly again. `suspect` of `watched`
    rows are silent. `away`: stores out of its reach. `clock_error_ms`: its clock less the system's."""

    started_at: str
    slots: int
    beats_per_s: float
    beats_total: int
    rejected_total: dict[str, int]
    rejected_last_min: dict[str, int]
    waited: WaitedAnswer
    journal_position: str
    journal_bytes: int
    journal_failures: int
    commit_ms_last: float
    commit_ms_max: float
    flush_lag_bytes: int
    flush_ms_last: float
    flush_failures: int
    away: list[str]
    taking: bool
    gaps_open: list[OpenGap]
    gaps_total: int
    unobserved_ms_total: int
    phase: str
    phase_since: str | None
    suspect: int
    watched: int
    actors_quarantined: int
    actor_crashes: int
    clock_error_ms: float
    clock_stepped: bool


class ShardAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. `watermark_age_ms`: how old what can be read of it is; null: it was never heard of.
    `undecided_since`: it cannot take beats since. `figures` null: it does not answer."""

    shard: int
    rows: int
    watermark: str | None
    watermark_age_ms: int | None
    registry_position: int
    degraded: bool
    undecided_since: str | None
    figures: FiguresAnswer | None


class IngestAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Of all shards that answer together."""

    beats_per_s: float
    beats_total: int
    rejected_last_min: dict[str, int]
    rejected_total: dict[str, int]
    waited: WaitedAnswer


class InstallationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How the installation is. `concerns`: what is wrong, the worst first; empty: nothing is known to be."""

    as_of: str
    version: str
    ingest: IngestAnswer
    shards: list[ShardAnswer]
    concerns: list[Concern]


class GapItem(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a shard did not listen: our fault, for which nobody is blamed. `of_shards`: how many
    shards there were then."""

    shard: int
    of_shards: int
    cause: str
    from_: str = msgspec.field(name="from")
    to: str
    length_ms: int


class GapsAnswer(msgspec.Struct, frozen=True):
    """A page, those that ended last first."""

    items: list[GapItem]
    next_cursor: str | None


async def get_installation(backend: Backend, _caller: Principal) -> Response:
    figures = await _ask_all(backend)
    known = [one for one in figures.values() if one is not None]
    answer = InstallationAnswer(
        as_of=format_rfc3339(backend.clock()),
        version=VERSION,
        ingest=IngestAnswer(
            beats_per_s=sum(one.beats_per_s for one in known),
            beats_total=sum(one.beats_total for one in known),
            rejected_last_min=_summed([one.rejected_last_min for one in known]),
            rejected_total=_summed([one.rejected_total for one in known]),
            waited=_waited(
                [sum(column) for column in zip(*(one.waited_last_min for one in known), strict=True)]
            ),
        ),
        shards=[
            _shard(shard, backend.heads.head(shard), backend.heads.watermark_age_ms(shard), one)
            for shard, one in figures.items()
        ],
        concerns=concerns_of(backend.heads, figures),
    )
    return reply_polled(answer)


async def _ask_all(backend: Backend) -> dict[int, ShardFigures | None]:
    found: dict[int, ShardFigures | None] = dict.fromkeys(range(backend.shards))
    asks = backend.asks
    if asks is None:
        return found

    async def ask(shard: int) -> None:
        with trio.move_on_after(FIGURES_S_MAX + 0.5):  # the store itself may hang
            found[shard] = await asks.figures(shard, timeout_s=FIGURES_S_MAX)

    async with trio.open_nursery() as nursery:
        for shard in found:
            nursery.start_soon(ask, shard)
    return found


def _summed(counts: list[dict[str, int]]) -> dict[str, int]:
    """By reason, the most frequent first."""
    names = {name for each in counts for name in each}
    sums = {name: sum(each.get(name, 0) for each in counts) for name in names}
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _waited(counts: list[int]) -> WaitedAnswer:
    most = float(WAITED_BOUNDS_MS[-1])
    found = {name: waited_ms(counts, share) for name, share in SHARES.items()}
    bounds = (*WAITED_BOUNDS_MS, None)
    buckets = [WaitedBucket(bound, count) for bound, count in zip(bounds, counts, strict=False)]
    shown = {name: None if ms is None else round(min(ms, most), 3) for name, ms in found.items()}
    return WaitedAnswer(**shown, buckets=buckets)


def _shard(
    shard: int, head: ShardHead | None, age_ms: int | None, figures: ShardFigures | None
) -> ShardAnswer:
    undecided_ms = None if head is None else head.provisional_from_ms
    told = head is not None and head.watermark_ms > 0  # else it has just begun
    return ShardAnswer(
        shard=shard,
        rows=0 if head is None else head.rows,
        watermark=format_rfc3339(head.watermark_ms) if head is not None and told else None,
        watermark_age_ms=age_ms if told else None,
        registry_position=0 if head is None else head.registry_position,
        degraded=head is not None and head.degraded,
        undecided_since=None if undecided_ms is None else format_rfc3339(undecided_ms),
        figures=None if figures is None else _figures(figures),
    )


def _figures(figures: ShardFigures) -> FiguresAnswer:
    told = msgspec.structs.asdict(figures)
    told |= {
        "started_at": format_rfc3339(figures.started_ms),
        "waited": _waited(figures.waited_last_min),
        "journal_position": str(figures.journal_position),
        "gaps_open": [OpenGap(cause, format_rfc3339(ms)) for cause, ms in sorted(figures.gaps_open.items())],
        "phase_since": format_rfc3339(figures.phase_since_ms) if figures.phase_since_ms else None,
    }
    return FiguresAnswer(**{name: told[name] for name in FiguresAnswer.__struct_fields__})


async def list_gaps(backend: Backend, _caller: Principal) -> Response:
    limit = limit_parameter()
    found = await backend.stores.installation.gaps(before=_gap_cursor(), limit=limit + 1)
    page, next_cursor = cut(
        found, limit, lambda gap: f"{gap.to_ms}.{gap.from_ms}.{gap.shard}.{gap.shards}.{gap.cause}"
    )
    items = [
        GapItem(
            shard=gap.shard,
            of_shards=gap.shards,
            cause=gap.cause,
            from_=format_rfc3339(gap.from_ms),
            to=format_rfc3339(gap.to_ms),
            length_ms=gap.to_ms - gap.from_ms,
        )
        for gap in page
    ]
    return reply(GapsAnswer(items, next_cursor), headers=link_headers(next_cursor))


def _gap_cursor() -> Gap | None:
    text = request.args.get("after")
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    to_ms, from_ms, shard, shards = (int(part) for part in match.groups()[:4])
    return Gap(shard=shard, from_ms=from_ms, to_ms=to_ms, cause=match[5], shards=shards)


ROUTES = (
    Route(
        method="GET",
        path="/v1/installation",
        handler=get_installation,
        summary="How the shards are now, how quickly beats are answered, and what is wrong",
        tag="operation",
        answers={
            200: Answer(description="As of now", type=InstallationAnswer),
            304: Answer(description="It is as you have it"),
        },
    ),
    Route(
        method="GET",
        path="/v1/installation/gaps",
        handler=list_gaps,
        summary="Times in which we did not listen, those that ended last first",
        tag="operation",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of gaps", type=GapsAnswer)},
        refusals=(400,),
    ),
)
