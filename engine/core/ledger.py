"""The points ledger as a port: what a project's owner committed for a day, and who earned it.

Amounts are integer micro-points (amounts.py). How a request becomes rows is web's; what a project's own rule
would give, rewards.py's. Whom a row's points belong to is decided when it is committed, from the sealed row:
docs/decisions/0068-points-against-a-seal.md. The adapter is storage/postgres_ledger.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Literal, Protocol

import msgspec
import numpy as np

from engine.core.people import Act

ROWS_MAX = 1_000_000  # of one commit
FAULTS_MAX = 1_000  # told of one that is refused
# A row on its way into the ledger; `place` says where it stood in the request (a row's index, or a line).
ROW_DTYPE = np.dtype([("place", ">i4"), ("hi", ">u8"), ("lo", ">u8"), ("micro_points", ">i8")])
BeneficiaryKind = Literal["wallet", "user", "node", "nobody"]
FaultKind = Literal["unknown", "not_sealed", "twice"]


class SealRef(msgspec.Struct, frozen=True):
    """The newest seal of a project's day, as a commit names it. `root`: 32 bytes."""

    seal_no: int
    revision: int
    root: bytes
    rows: int


class NewCommit(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be committed. `reason`: empty for a day's first commit, of a correction not.

    `rows`, `total_micro_points`: of the packed rows that come with it. `licensed_only`: the project's rule of
    that day counts only time under licences (rewards.RuleOfDay), so nothing falls to the time without one.
    """

    project_id: str
    day: str
    seal: SealRef
    reason: str
    rows: int
    total_micro_points: int
    idempotency_key: str
    body_sha256: bytes
    licensed_only: bool


class Difference(msgspec.Struct, frozen=True):
    """What a correction changed against the commit before it, in rows and in the total."""

    replaces: str
    rows_changed: int
    rows_added: int
    rows_removed: int
    total_before: int


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit. Of a day the highest `revision` counts; `seal_revision`: of before there were seals 0."""

    commit_id: str
    project_id: str
    day: str
    revision: int
    seal_revision: int
    seal_root: bytes
    rows: int
    total_micro_points: int
    reason: str
    actor: str
    committed_ms: int
    difference: Difference | None


class RowFault(msgspec.Struct, frozen=True):
    """unknown: the project has no such workload; not_sealed: the seal does not name it; twice: an earlier
    row has it, too."""

    place: int
    kind: FaultKind


class Total(msgspec.Struct, frozen=True):
    """What somebody has in a window. `rank`: from 1, equal amounts share one.

    `user_id`, `name`: of the account, if there is one. `through_licences`: as much of it as came that way.
    """

    rank: int
    kind: BeneficiaryKind
    beneficiary: str
    user_id: str | None
    name: str
    wallet: str | None
    micro_points: int
    through_licences: int


class DayTotal(msgspec.Struct, frozen=True):
    day: str
    project_id: str
    project: str  # slug
    revision: int
    micro_points: int
    through_licences: int


class Changed(msgspec.Struct, frozen=True):
    """What a correction changed for somebody."""

    kind: BeneficiaryKind
    beneficiary: str
    before: int
    after: int


class Share(msgspec.Struct, frozen=True):
    """A part of a row's points: whose, and through which licence. Also as it is exported."""

    kind: BeneficiaryKind
    beneficiary: str
    licence_id: str | None
    micro_points: int


class LedgerRow(msgspec.Struct, frozen=True):
    workload_id: str
    micro_points: int
    shares: tuple[Share, ...]


class PaidRow(msgspec.Struct, frozen=True):
    """What a project's rule asks of a sealed row. `held_paid_ms`: the paid time under licences (`held`)."""

    place: int
    workload_id: str
    kind: str | None
    paid_ms: int
    held_paid_ms: int


class KeyReusedError(Exception):
    """The Idempotency-Key was used with another body."""


class StillRunningError(Exception):
    """Another commit with this key, or of this day, is being worked on."""


class AlreadyCommittedError(Exception):
    """The day is in the ledger already, and no reason for a correction was given."""


class NothingToCorrectError(Exception):
    """A reason was given, but the day was never committed."""


class SealMovedError(Exception):
    """The day has been sealed once more in the meantime."""


class RowsRefusedError(Exception):
    """Rows that may not be committed: at most FAULTS_MAX of `count`."""

    def __init__(self, faults: Sequence[RowFault], count: int) -> None:
        super().__init__(f"{count} rows are refused")
        self.faults, self.count = tuple(faults), count


class Ledger(Protocol):
    """Points: append-only, all or nothing. Windows are days [from_day, to_day), None = without an end."""

    async def newest_seal(self, project_id: str, day: str) -> SealRef | None: ...

    async def stored(self, project_id: str, idempotency_key: str, body_sha256: bytes) -> Commit | None:
        """The commit that was made with this key. KeyReusedError."""
        ...

    async def commit(self, act: Act, new: NewCommit, rows: IO[bytes]) -> tuple[Commit, bool]:
        """(commit, made now). The same key and body again: the stored commit and False.

        `rows`: packed ROW_DTYPE, read from where the file stands. KeyReusedError, StillRunningError,
        AlreadyCommittedError, NothingToCorrectError, SealMovedError, RowsRefusedError.
        """
        ...

    async def check(self, new: NewCommit, rows: IO[bytes]) -> None:
        """RowsRefusedError if `commit` would raise it; nothing is written."""
        ...

    async def commits(
        self,
        project_id: str,
        *,
        from_day: str | None,
        to_day: str | None,
        before: tuple[str, int] | None,
        limit: int,
    ) -> list[Commit]:
        """All revisions, newest day and revision first; `before`: (day, revision) of the last one seen."""
        ...

    async def commit_of(self, project_id: str, commit_id: str) -> Commit | None: ...

    async def differences(
        self, commit: Commit, *, after: tuple[str, str] | None, limit: int
    ) -> list[Changed]:
        """For whom a correction changed how much, by (kind, beneficiary)."""
        ...

    async def window_total(self, project_id: str, from_day: str | None, to_day: str | None) -> int: ...

    async def by_beneficiary(
        self,
        project_id: str,
        from_day: str | None,
        to_day: str | None,
        *,
        after: tuple[int, str, str] | None,
        limit: int,
        people_only: bool = False,
    ) -> list[Total]:
        """Most points first; a person's wallet and machines are one. `after`: (micro-points, kind,
        beneficiary) of the last one seen. `people_only`: those who can have an account (a board)."""
        ...

    async def by_licence(
        self, project_id: str, from_day: str | None, to_day: str | None, *, after: str | None, limit: int
    ) -> list[tuple[str, int]]:
        """(licence id, micro-points) in order of ids."""
        ...

    async def by_workload(
        self, project_id: str, from_day: str | None, to_day: str | None, *, after: str | None, limit: int
    ) -> list[tuple[str, int]]: ...

    async def by_day(
        self, project_id: str, from_day: str | None, to_day: str | None, *, after: str | None, limit: int
    ) -> list[Commit]:
        """The commits that count, in order of days."""
        ...

    async def earned(
        self,
        *,
        user_id: str,
        wallet: str | None,
        from_day: str | None,
        to_day: str | None,
        before: tuple[str, str] | None,
        limit: int,
    ) -> list[DayTotal]:
        """What a person earned, newest day first; `before`: (day, project id) of the last one seen."""
        ...

    async def rows(self, commit_id: str, *, after: str | None, limit: int) -> list[LedgerRow]:
        """The rows of a commit by workload id, with whom they belong to."""
        ...

    async def paid(self, seal_no: int, *, after_place: int, limit: int) -> list[PaidRow]:
        """Of a seal, in order of places; -1 begins."""
        ...
