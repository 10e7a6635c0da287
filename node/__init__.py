"""What runs on a machine: the client SDK in two shells round np1's state machine, and the manager.

`NodeClient` is for trio, `BlockingNodeClient` for plain blocking code; both open sessions, beat over UDP,
fall back to HTTP and keep what was never acknowledged. They are imported when they are asked for: a command
that only reads a file needs neither trio nor cryptography.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node.blocking import BlockingNodeClient
    from node.calls import SessionRefused
    from node.client import NodeClient
    from node.identity import NodeIdentity

__all__ = ["BlockingNodeClient", "NodeClient", "NodeIdentity", "SessionRefused"]
_PLACES = {
    "BlockingNodeClient": "node.blocking",
    "NodeClient": "node.client",
    "NodeIdentity": "node.identity",
    "SessionRefused": "node.calls",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
