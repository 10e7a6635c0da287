"""The rows of bulk uptime as they are served: JSON, NDJSON and CSV.

Which workloads, and what their time was, comes from bulk_reading.py; the routes are in bulk.py. CSV has the
same fields in one line: COLUMNS says which. Times repeat a lot, so their text is made once per value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from engine.core.bulk import BulkItem
from engine.core.compose_many import paid_and_ratio
from engine.core.inventory import Ownership
from engine.core.records import KINDS
from engine.core.uptime_source import HOUR_MS
from storage.bulk_reading import Asked, Chunk
from web.times import format_rfc3339

Format = Literal["json", "ndjson", "csv"]
CONTENT_TYPES: dict[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
}
NATIVE_MS = 1  # how fine our own uptime is


class BulkMs(msgspec.Struct, frozen=True, gc=False):
    """Milliseconds by kind; together they are the window, cut to the workload's life and to as_of."""

    standby: int
    up: int
    claimed_up: int
    maintenance: int
    updating: int
    claimed_updating: int
    claimed_unhealthy: int
    unhealthy: int
    stopped: int
    unobserved: int
    maintenance_own: int
    silent: int


class BulkOwner(msgspec.Struct, frozen=True, gc=False):
    """Who owned the licence at the end of the window. `user_id`: of the account with that wallet, if any."""

    wallet: str
    user_id: str | None


class BulkOwnerSpan(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    """Who owned the licence in [from, to), cut to the window."""

    wallet: str
    user_id: str | None
    from_: str
    to: str


class BulkRow(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    """One workload. `paid_ms`: by the project's policy of each day; `ratio`: paid_ms / (to - from -
    ms.unobserved), null when that is zero. `provisional`: some of it may still change. `operator_id`: the
    user whose machine it is; `owner`, `owners`: of the licence. `granularity_ms`: how fine `source` measures.
    """

    workload_id: str
    name: str
    kind: str | None
    licence_id: str | None
    chain_id: int | None
    contract: str | None
    token_id: str | None
    node_id: str
    node_name: str
    operator_id: str | None
    owner: BulkOwner | None
    owners: list[BulkOwnerSpan]
    from_: str
    to: str
    as_of: str
    ms: BulkMs
    paid_ms: int
    ratio: float | None
    provisional: bool
    source: Literal["native", "datagram"]
    granularity_ms: int


assert BulkMs.__struct_fields__ == KINDS
COLUMNS = (
    "workload_id name kind licence_id chain_id contract token_id node_id node_name operator_id"
    " owner_wallet owner_user_id owners from to as_of "
    + " ".join(f"{kind}_ms" for kind in KINDS)
    + " paid_ms ratio provisional source granularity_ms"
).split()
_time = lru_cache(maxsize=4_096)(format_rfc3339)
_encoder = msgspec.json.Encoder()


class Owners(msgspec.Struct, frozen=True):
    """Who owned which licence within the window, and who these wallets are."""

    spans: Mapping[str, Sequence[Ownership]]
    users: Mapping[str, str]  # user ids by wallet


def rows_of(chunk: Chunk, owners: Owners, asked: Asked) -> list[BulkRow]:
    """The rows of those that can be told."""
    totals, items = chunk.totals, chunk.items
    paid, ratio = paid_and_ratio(totals)
    ms, provisional = totals.ms.tolist(), totals.provisional.tolist()
    from_ms, to_ms, as_of = totals.from_ms.tolist(), totals.to_ms.tolist(), totals.as_of_ms.tolist()
    return [
        _row(
            items[at],
            asked,
            _owned(items[at].licence_id, owners, asked),
            (_time(from_ms[at]), _time(to_ms[at]), _time(as_of[at])),
            BulkMs(*ms[at]),
            paid[at],
            (ratio[at], provisional[at]),
        )
        for at in chunk.told
    ]


def _row(
    item: BulkItem,
    asked: Asked,
    owned: tuple[BulkOwner | None, list[BulkOwnerSpan]],
    times: tuple[str, str, str],
    ms: BulkMs,
    paid_ms: int,
    told: tuple[float | None, bool],
) -> BulkRow:
    return BulkRow(
        item.workload_id,
        item.name,
        item.kind,
        item.licence_id,
        item.chain_id,
        item.contract,
        item.token_id,
        item.node_id,
        item.node_name,
        item.operator_id,
        *owned,
        *times,
        ms,
        paid_ms,
        *told,
        asked.source,
        NATIVE_MS if asked.source == "native" else HOUR_MS,
    )


def _owned(
    licence_id: str | None, owners: Owners, asked: Asked
) -> tuple[BulkOwner | None, list[BulkOwnerSpan]]:
    spans = owners.spans.get(licence_id, ()) if licence_id else ()
    told = [
        BulkOwnerSpan(
            span.owner,
            owners.users.get(span.owner),
            _time(max(span.from_ms, asked.from_ms)),
            _time(asked.to_ms if span.to_ms is None else min(span.to_ms, asked.to_ms)),
        )
        for span in spans
    ]
    if not spans or (spans[-1].to_ms is not None and spans[-1].to_ms < asked.to_ms):
        return None, told
    return BulkOwner(told[-1].wallet, told[-1].user_id), told


class Lines:
    """How a stream is written: what comes first, rows, the end, and what is said when it breaks off."""

    def __init__(
        self,
        head: bytes,
        rows: Callable[[Sequence[BulkRow]], bytes],
        end: Callable[[int], bytes],
        broken: bytes | None,
    ) -> None:
        self.head, self.rows, self.end = head, rows, end
        self.broken = broken  # None: the connection is cut instead, so that no client takes it for whole


def _ndjson_end(rows: int) -> bytes:
    return b'{"end":true,"rows":%d}\n' % rows


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _csv_rows(rows: Sequence[BulkRow]) -> bytes:
    return _csv(_flat(row) for row in rows)


def _flat(row: BulkRow) -> list[object]:
    """In the order of COLUMNS; null is an empty field, `owners` is the same JSON as in the other formats."""
    owner = row.owner
    return [
        row.workload_id,
        row.name,
        row.kind,
        row.licence_id,
        row.chain_id,
        row.contract,
        row.token_id,
        row.node_id,
        row.node_name,
        row.operator_id,
        owner.wallet if owner else None,
        owner.user_id if owner else None,
        _encoder.encode(row.owners).decode() if row.owners else None,
        row.from_,
        row.to,
        row.as_of,
        *msgspec.structs.astuple(row.ms),
        row.paid_ms,
        row.ratio,
        "true" if row.provisional else "false",
        row.source,
        row.granularity_ms,
    ]


NDJSON = Lines(
    b"",
    _encoder.encode_lines,
    _ndjson_end,
    b'{"error":{"code":"unavailable","detail":"what is read from went away: ask again"}}\n',
)
CSV = Lines(_csv([COLUMNS]), _csv_rows, lambda _rows: b"", None)
