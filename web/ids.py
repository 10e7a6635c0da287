"""The forms of ids and slugs in paths and bodies: what has another form never reaches a store."""

from __future__ import annotations

import re
import uuid

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def canonical_uuid(text: str) -> str | None:
    """The canonical form of an id, or None."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None
