"""The rows of a seal: what was composed of a page of workloads, put together with whose it was.

Pure, and run in a thread: a page is thousands of rows. Where all of it is read stands in seal_day.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.core.bulk import BulkItem
from engine.core.compose_many import Totals, paid_and_ratio
from engine.core.inventory import Ownership
from engine.core.leases import Binding
from engine.core.records import PAID_KINDS
from engine.core.sealed import Held, SealedRow

Spans = Sequence[tuple[str, str, int, int]]  # licence, owner, from_ms, to_ms: within the row's window


class Page(msgspec.Struct, frozen=True):
    """Workloads in order of (node, slot), and all that their rows are made of.

    `held`: of each workload who owned its licence when. `asked_paid_ms`: paid time in each of these spans,
    where it was asked for and cannot be cut out of what was composed.
    """

    items: Sequence[BulkItem]
    totals: Totals
    source: str
    pay_claims: bool
    held: Sequence[Spans]
    refused: Mapping[str, Mapping[str, int]]
    asked_paid_ms: Mapping[int, Sequence[int]]


def held_by(
    bindings: Sequence[Binding],
    owners: Mapping[str, Sequence[Ownership]],
    from_ms: int,
    to_ms: int,
) -> Spans:
    """Which licence a workload ran under and who owned that, by time, cut to the window."""
    if not bindings:
        return ()
    found: list[tuple[str, str, int, int]] = []
    for binding in bindings:
        low, high = (
            max(from_ms, binding.from_ms),
            min(to_ms, to_ms if binding.to_ms is None else binding.to_ms),
        )
        for owned in owners.get(binding.licence_id, ()):
            start = max(low, owned.from_ms)
            end = min(high, high if owned.to_ms is None else owned.to_ms)
            if start < end:
                found.append((binding.licence_id, owned.owner, start, end))
    return sorted(found, key=lambda span: span[2])


def rows_of(page: Page) -> list[SealedRow]:
    """The page's rows, in its order."""
    totals = page.totals
    paid, _ = paid_and_ratio(totals)
    windows = zip(totals.from_ms.tolist(), totals.to_ms.tolist(), strict=True)
    return [
        SealedRow(
            workload_id=item.workload_id,
            node_id=item.node_id,
            operator_id=item.operator_id,
            kind=item.kind,
            source=page.source,
            from_ms=from_ms,
            to_ms=to_ms,
            ms=tuple(ms),
            paid_ms=paid[place],
            held=_held(page, place, from_ms, to_ms, paid[place]),
            refused=dict(page.refused[item.node_id]) if item.node_id in page.refused else {},
        )
        for place, (item, ms, (from_ms, to_ms)) in enumerate(
            zip(page.items, totals.ms.tolist(), windows, strict=True)
        )
    ]


def _held(page: Page, place: int, from_ms: int, to_ms: int, paid_ms: int) -> tuple[Held, ...]:
    spans = page.held[place]
    if not spans:
        return ()
    if len(spans) == 1 and spans[0][2:] == (from_ms, to_ms):
        return (Held(*spans[0], paid_ms),)
    if place in page.asked_paid_ms:
        return tuple(Held(*span, ms) for span, ms in zip(spans, page.asked_paid_ms[place], strict=True))
    return tuple(Held(*span, _paid_within(page, place, span[2], span[3])) for span in spans)


def _paid_within(page: Page, place: int, from_ms: int, to_ms: int) -> int:
    assert page.totals.hours is not None, "asked for by the hour"
    kinds = page.totals.hours.within(place, from_ms, to_ms)
    return sum(
        ms for kind, ms in kinds.items() if kind in PAID_KINDS and (page.pay_claims or kind != "claimed_up")
    )
