"""A typed client of the API, for those who integrate with it.

``Client(base_url, key)`` has a method for each operation (generated/api.py); what they take and return are
the types of generated/types.py. Needs httpx2, msgspec and stamina; nothing else of NodePulse is imported.
"""

from __future__ import annotations

from nodepulse.client.calls import Polled, Stream, pages
from nodepulse.client.errors import (
    ClientError,
    CutOffError,
    Fault,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
)
from nodepulse.client.generated import types
from nodepulse.client.generated.api import Client
from nodepulse.client.streams import follow_events, ndjson, uptime_rows

__all__ = [
    "Client",
    "ClientError",
    "CutOffError",
    "Fault",
    "Polled",
    "ProblemError",
    "Stream",
    "UnexpectedAnswerError",
    "UnreachableError",
    "follow_events",
    "ndjson",
    "pages",
    "types",
    "uptime_rows",
]
