"""What a commit of points would come to, as a port: whom it would give how much, and how it differs.

Nothing is written. Rows differ from those of the commit that counts, or from what the project's rule gives.
What is committed stands in ledger.py; the adapter is storage/postgres_preview.py.
"""

from __future__ import annotations

from typing import IO, Protocol

import msgspec

from engine.core.ledger import BeneficiaryKind, NewCommit


class Receiver(msgspec.Struct, frozen=True):
    """Whom how much would belong to. `name`: of the account, if there is one. `before`: what the commit that
    counts gives them. Micro-points."""

    kind: BeneficiaryKind
    beneficiary: str
    name: str
    micro_points: int
    through_licences: int
    before: int


class DifferingRow(msgspec.Struct, frozen=True):
    """A workload whose amount differs, in micro-points. None: it has no row there."""

    workload_id: str
    here: int | None
    there: int | None


class Comparison(msgspec.Struct, frozen=True):
    """Rows beside others: how many have another amount, are only here, are only there. `total`: of the
    others. `most`: those that differ by most."""

    rows_changed: int
    rows_added: int
    rows_removed: int
    total: int
    most: tuple[DifferingRow, ...]


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What would be committed. `receivers`: how many there are, `top`: those with most. `counted`: against
    the commit that counts, `suggested`: against what the rule gives; None where there is none."""

    receivers: int
    top: tuple[Receiver, ...]
    counted: Comparison | None
    suggested: Comparison | None


class PointsPreviews(Protocol):
    """Rows are packed ledger.ROW_DTYPE, read from where their file stands. At most `most` are listed."""

    async def preview(
        self, new: NewCommit, rows: IO[bytes], *, suggested: IO[bytes] | None, most: int
    ) -> Preview:
        """What `Ledger.commit` would write. RowsRefusedError."""
        ...

    async def compare(self, commit_id: str, *, suggested: IO[bytes], most: int) -> Comparison:
        """The rows of a commit against these."""
        ...
