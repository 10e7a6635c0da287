"""What runs on a machine: the client SDK in two shells round np1's state machine.

`NodeClient` is for trio, `BlockingNodeClient` for plain blocking code; both open sessions, beat over UDP,
fall back to HTTP and keep what was never acknowledged.
"""

from node.blocking import BlockingNodeClient
from node.calls import SessionRefused
from node.client import NodeClient
from node.identity import NodeIdentity

__all__ = ["BlockingNodeClient", "NodeClient", "NodeIdentity", "SessionRefused"]
