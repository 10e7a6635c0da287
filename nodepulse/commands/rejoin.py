"""`db rejoin`: whether each shard's journal and PostgreSQL fit, and going on where they do not.

Only a restore of one of them to another time than the other's tears them apart. Engines then flush nothing
and keep everything; docs/operations.md says what to try before `--accept`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.journal_blocks import Kind, end_of, read, segments
from engine.rejoin import OutOfStepError, Span, goes_on_at
from nodepulse.commands.acting import new_act
from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import json_option, print_json, show_all
from nodepulse.commands.stores import on_stores
from nodepulse.config import Config
from storage.open import AllStores
from storage.postgres_rejoin import ShardState
from web.times import format_rfc3339

_NEVER = ShardState(0, 0)
_TIMED = frozenset({Kind.BEATS, Kind.TICK})


@click.command()
@click.option(
    "--accept", is_flag=True, help="Go on with what there is; what neither side holds becomes a gap."
)
@json_option
@config_options
def rejoin(*, accept: bool, as_json: bool, sources: Sources) -> None:
    """Whether journals and PostgreSQL fit; --accept where they do not and cannot be made to."""

    async def work(stores: AllStores, config: Config) -> list[dict[str, Any]]:
        states = await stores.rejoin.states()
        shards = config.engine.shards
        return [
            await _look(stores, config, shard, shards, states.get(shard, _NEVER), accept=accept)
            for shard in range(shards)
        ]

    found = on_stores(sources, work)
    if as_json:
        print_json({"shards": found})
    else:
        show_all("shards", found, as_json=False)
    if any(one["state"] == "out of step" for one in found):
        raise SystemExit(1)


async def _look(
    stores: AllStores, config: Config, shard: int, shards: int, known: ShardState, *, accept: bool
) -> dict[str, Any]:
    folder = config.folder / "journal" / str(shards) / str(shard)
    span = _span_of(folder)
    state, why = "fits", ""
    if span is None:
        state, why = "no journal", f"{folder} holds none yet"
    else:
        try:
            goes_on_at(span, known.position)
        except OutOfStepError as error:
            state, why = "out of step", str(error).partition(". ")[0]
            if accept:
                lost = (known.watermark_ms, _begins_ms(folder)) if known.position < span.first else None
                await stores.rejoin.go_on_at(
                    new_act(config), shard=shard, shards=shards, position=span.first, lost=lost
                )
                state = "accepted"
    return {
        "shard": shard,
        "state": state,
        "postgres_up_to": format_rfc3339(known.watermark_ms) if known.watermark_ms else None,
        "journal_from": format_rfc3339(_begins_ms(folder)) if span else None,
        "why": why,
    }


def _span_of(folder: Path) -> Span | None:
    """As the shard in it knows it; its end may have moved on when this returns."""
    found = segments(folder)
    return Span(found[0].position, end_of(folder)) if found else None


def _begins_ms(folder: Path) -> int:
    """When the first beat or tick was written that the journal still holds."""
    return next((block.t_ms for block in read(folder, 0, kinds=_TIMED)), 0)
