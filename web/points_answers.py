"""What is answered about commits of points: the types, and how they are made from the ledger's records."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from engine.core.amounts import points_of_micro
from engine.core.ledger import BeneficiaryKind, Changed, Commit
from web.backend import Backend
from web.times import format_rfc3339

CHANGES_TOLD = 100  # of a correction, in the answer itself


class ChangeItem(msgspec.Struct, frozen=True):
    """What a correction changed for somebody. `kind`: what `beneficiary` is: a wallet, a user's or a node's
    id, or empty for nobody."""

    EXAMPLES: ClassVar = {"kind": "wallet", "before": "12.5", "after": "13"}

    kind: BeneficiaryKind
    beneficiary: str
    before: str
    after: str


class DifferenceAnswer(msgspec.Struct, frozen=True):
    """Against the commit before it. `beneficiaries`: the first 100 for whom it changed; all are at `changes`
    of the commit."""

    replaces: str
    rows_changed: int
    rows_added: int
    rows_removed: int
    total_before: str
    total_after: str
    beneficiaries: list[ChangeItem]


class CommitAnswer(msgspec.Struct, frozen=True):
    """A commit. Of a day the highest `revision` counts. `seal_revision`, `seal_root` (hex): of the seal that
    it was committed against; 0 and empty before there were seals. `difference`: of a correction."""

    commit_id: str
    project: str
    day: str
    revision: int
    seal_revision: int
    seal_root: str
    rows: int
    total_points: str
    reason: str
    committed_at: str
    committed_by: str
    difference: DifferenceAnswer | None


def change_item(changed: Changed) -> ChangeItem:
    return ChangeItem(
        kind=changed.kind,
        beneficiary=changed.beneficiary,
        before=points_of_micro(changed.before),
        after=points_of_micro(changed.after),
    )


async def commit_answer(backend: Backend, project: str, commit: Commit) -> CommitAnswer:
    """With for whom it changed how much, as far as that is told."""
    changes = await backend.stores.ledger.differences(commit, after=None, limit=CHANGES_TOLD)
    return answer_of(project, commit, changes)


def answer_of(project: str, commit: Commit, changes: list[Changed]) -> CommitAnswer:
    difference = commit.difference
    return CommitAnswer(
        commit_id=commit.commit_id,
        project=project,
        day=commit.day,
        revision=commit.revision,
        seal_revision=commit.seal_revision,
        seal_root=commit.seal_root.hex(),
        rows=commit.rows,
        total_points=points_of_micro(commit.total_micro_points),
        reason=commit.reason,
        committed_at=format_rfc3339(commit.committed_ms),
        committed_by=commit.actor,
        difference=None
        if difference is None
        else DifferenceAnswer(
            replaces=difference.replaces,
            rows_changed=difference.rows_changed,
            rows_added=difference.rows_added,
            rows_removed=difference.rows_removed,
            total_before=points_of_micro(difference.total_before),
            total_after=points_of_micro(commit.total_micro_points),
            beneficiaries=[change_item(each) for each in changes],
        ),
    )
