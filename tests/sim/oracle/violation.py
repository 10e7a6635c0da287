"""One disagreement between an engine and the oracle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule` is a short name to group by, `subject` whom it concerns, `at_ms` a time to look at (or None)."""

    rule: str
    subject: str
    at_ms: int | None
    detail: str
