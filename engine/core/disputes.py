"""Disputes: what an operator holds against a sealed day, and what the project says to that.

Pure records, the state machine as a table, and the port. Both sides see the same record; what was said stays.
Who may speak for which side is web's (web/sight.py); this is what each side may do when.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from engine.core.fleet import Sight
from engine.core.people import Act

DisputeState = Literal["open", "answered", "corrected", "rejected"]
What = Literal["open", "comment", "answer", "correct", "reject"]
Side = Literal["operator", "project", "installation"]
STATES: tuple[DisputeState, ...] = ("open", "answered", "corrected", "rejected")
ENTRIES_MAX = 200  # of one dispute
TEXT_CHARS_MAX = 4_000
EVIDENCE_MAX = 32
EVIDENCE_CHARS_MAX = 200

_BOTH: tuple[Side, ...] = ("operator", "project", "installation")
_PROJECT: tuple[Side, ...] = ("project", "installation")  # who runs the installation speaks for any project
# In a state, what may be done, by whom, and what the state is then. All else is refused.
STEPS: dict[tuple[DisputeState, What], tuple[tuple[Side, ...], DisputeState]] = {
    ("open", "comment"): (_BOTH, "open"),
    ("open", "answer"): (_PROJECT, "answered"),
    ("open", "correct"): (_PROJECT, "corrected"),
    ("open", "reject"): (_PROJECT, "rejected"),
    ("answered", "comment"): (_BOTH, "answered"),
    ("answered", "answer"): (_PROJECT, "answered"),
    ("answered", "correct"): (_PROJECT, "corrected"),
    ("answered", "reject"): (_PROJECT, "rejected"),
}


class DisputeRefusedError(Exception):
    """It cannot be done; the text says why."""


class AlreadyOpenError(Exception):
    """This person has an unsettled dispute of this workload's day; `dispute_id` names it."""

    def __init__(self, dispute_id: str) -> None:
        super().__init__(f"your dispute {dispute_id} of that day is not settled yet: say it there")
        self.dispute_id = dispute_id


def step(state: DisputeState, what: What, side: Side) -> DisputeState:
    """The state after `side` does `what`. DisputeRefusedError."""
    found = STEPS.get((state, what))
    if found is None:
        raise DisputeRefusedError(f"the dispute is {state}: nothing more is said in it")
    sides, after = found
    if side not in sides:
        raise DisputeRefusedError(f"the {side} does not {what} a dispute")
    return after


def check_correction(*, disputed: int, corrected: int, newest: int) -> None:
    """A correction points to a revision that came after the disputed one. DisputeRefusedError."""
    if corrected <= disputed:
        raise DisputeRefusedError(
            f"revision {corrected} is not newer than revision {disputed}, the disputed one"
        )
    if corrected > newest:
        raise DisputeRefusedError(f"there is no revision {corrected} of that day: seal it again first")


def check_open(*, sealed_ms: int, now_ms: int, open_ms: int) -> None:
    """A day can be disputed for so long after its newest seal. DisputeRefusedError."""
    if now_ms >= sealed_ms + open_ms:
        raise DisputeRefusedError(f"that day was sealed more than {open_ms // 86_400_000} days ago")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was said. `revision`: of the seal that corrected the day; of a correction only."""

    entry_id: str
    what: What
    side: Side
    actor: str
    text: str
    evidence: tuple[str, ...] = ()
    revision: int | None = None
    at_ms: int = 0


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """`day`: YYYY-MM-DD; `revision`: of its seal when it was opened. `entries`: by time; only where one
    dispute is asked for."""

    dispute_id: str
    project_id: str
    project: str  # slug
    node_id: str
    workload_id: str
    day: str
    revision: int
    opener_id: str
    state: DisputeState
    opened_ms: int
    changed_ms: int
    entries: tuple[Entry, ...] = ()


class NewDispute(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    node_id: str
    workload_id: str
    day: str
    revision: int
    opener_id: str
    text: str
    evidence: tuple[str, ...]


class DisputeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None does not narrow."""

    project_id: str | None = None
    workload_id: str | None = None
    opener_id: str | None = None
    day: str | None = None
    state: DisputeState | None = None


class Disputes(Protocol):
    """StoreUnavailableError. Each change comes with its event and its audit entry, in one transaction."""

    async def open(self, new: NewDispute, *, act: Act) -> Dispute:
        """The dispute `act.made_id`, made when absent. AlreadyOpenError."""
        ...

    async def say(
        self,
        dispute_id: str,
        what: What,
        side: Side,
        *,
        text: str,
        evidence: tuple[str, ...],
        revision: int | None,
        act: Act,
    ) -> Dispute | None:
        """With the entry `act.made_id`, made when absent; None: there is no such dispute.

        DisputeRefusedError, also for the entry after ENTRIES_MAX and for a revision that corrects nothing.
        """
        ...

    async def dispute(self, dispute_id: str) -> Dispute | None:
        """With its entries."""
        ...

    async def disputes(
        self, sight: Sight, which: DisputeFilter, *, after: str | None, limit: int
    ) -> list[Dispute]:
        """By id, after the one given; without entries. A person sees their own and their projects'."""
        ...
