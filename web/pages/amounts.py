"""Amounts as pages of the installation show them: bytes, rates, waits, histograms as bars; Jinja filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from web.pages.rendering import ENVIRONMENT, number

BAR_WIDTH = 100  # of the longest, in its own units
# Causes of gaps (LIVENESS.md 3) as people read them, and what stands behind each.
CAUSES = {
    "crash": "the engine was killed or crashed",
    "restart": "the engine was restarted",
    "stall": "the engine stalled",
    "drops": "the kernel dropped datagrams for want of buffer",
    "disk_full": "the journal could not be written",
    "degraded": "our own canaries were not heard",
    "lost_shard": "the shard was lost",
}


class Bar(msgspec.Struct, frozen=True):
    """One bucket. `words`: its bounds; `width`: of BAR_WIDTH."""

    words: str
    count: int
    width: float


def bars_of(buckets: Iterable[Mapping[str, Any]], *, upto: str, count: str, unit: str) -> list[Bar]:
    """Buckets of an answer, `upto` and `count` the names of their fields, from the first that has any to the
    last."""
    told = list(buckets)
    some = [at for at, bucket in enumerate(told) if bucket[count]]
    if not some:
        return []
    most = max(bucket[count] for bucket in told)
    shown = told[some[0] : some[-1] + 1]
    last = next(bucket[upto] for bucket in reversed(told) if bucket[upto] is not None)
    return [
        Bar(
            f"up to {bucket[upto]:g} {unit}" if bucket[upto] is not None else f"above {last:g} {unit}",
            bucket[count],
            round(BAR_WIDTH * bucket[count] / most, 2),
        )
        for bucket in shown
    ]


def size(count: float) -> str:
    """Bytes with the unit that fits."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def rate(per_s: float) -> str:
    """Per second: whole where that says enough."""
    return number(round(per_s)) if per_s >= 100 or per_s == int(per_s) else f"{per_s:.1f}"


def wait(ms: float | None) -> str:
    """A wait to a tenth of a millisecond."""
    if ms is None:
        return "–"
    return f"{ms:.1f} ms" if ms < 100 else f"{number(round(ms))} ms"


def cause(word: str) -> str:
    return CAUSES.get(word, word.replace("_", " "))


ENVIRONMENT.filters |= {"size": size, "rate": rate, "wait": wait, "cause": cause}
