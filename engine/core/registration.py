"""What people register and take back: nodes with their keys, and the workloads that run on them.

Records and the port. Everything is audited; what engines must hear of they are told in the same transaction;
doing a thing twice is the same as doing it once. Nothing is deleted: what money was paid for is retired.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.core.people import Act
from engine.core.ports import NodeRecord, WorkloadRecord


class Asker(msgspec.Struct, frozen=True):
    """Under whose hands a licence is bound: whoever runs the project may bind any of it; `user_id`: whose
    wallet else must own it (None: nobody's). `admin`: of the installation, who gives machines to anybody."""

    user_id: str | None
    runs_project: bool
    admin: bool = False


class NewWorkload(msgspec.Struct, frozen=True):
    """A workload to be. `kind`: slug of a living kind of the node's project; None (the command line's): it is
    of none, so no version is asked for."""

    kind: str | None
    name: str
    licence_id: str | None = None


class NewMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A node to be; its public key is a point of the curve (ed25519.py)."""

    project_id: str
    name: str
    public_key: bytes
    interval_ms: int
    owner_id: str | None = None
    region: str = ""
    workloads: tuple[NewWorkload, ...] = ()


class NodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a thing as it is; `owner_id` UNSET does, None means nobody."""

    name: str | None = None
    region: str | None = None
    owner_id: str | msgspec.UnsetType | None = msgspec.UNSET


class WorkloadChange(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a thing as it is; `licence_id` UNSET does, None means under none."""

    name: str | None = None
    kind: str | None = None
    licence_id: str | msgspec.UnsetType | None = msgspec.UNSET


class KeyTakenError(Exception):
    """A node has this public key already; one key, one node."""


class NameTakenError(Exception):
    """Another source of uptime knows another node by this name."""


class GoneError(Exception):
    """The thing, or what it belongs to, is revoked or retired; the text says which."""


class OperatorRefusedError(Exception):
    """The person has nothing to do with the project, so nobody but they and an admin may make them operate a
    node of it: it would let whoever runs it reach them, and put machines into their list."""


class ReferenceRefusedError(Exception):
    """What is referred to is not there, or not for this caller. `pointer`: where it stands in the body."""

    def __init__(self, text: str, pointer: str) -> None:
        super().__init__(text)
        self.pointer = pointer


class Registration(Protocol):
    """Changes of nodes and workloads. What is changed is found to be the caller's before (web/sight.py).

    All raise GoneError for what is retired, except retiring it again.
    """

    async def register(self, new: NewMachine, *, act: Act, asker: Asker) -> NodeRecord:
        """The node with the id `act.made_id`; what is there, if it was made before.

        KeyTakenError; ReferenceRefusedError; OperatorRefusedError for an owner who is neither the asker nor
        operates a living node of the project nor owns a licence of it, unless an admin asks.
        """
        ...

    async def change_node(self, node_id: str, change: NodeChange, *, act: Act) -> NodeRecord:
        """ReferenceRefusedError for an owner that there is not."""
        ...

    async def rekey(self, node_id: str, public_key: bytes, *, act: Act) -> NodeRecord:
        """From now on this key; all sessions end. KeyTakenError; GoneError also for a revoked node."""
        ...

    async def revoke(self, node_id: str, *, act: Act) -> NodeRecord:
        """All sessions end, and no key opens one again."""
        ...

    async def retire_node(self, node_id: str, *, act: Act) -> NodeRecord:
        """It and its workloads are no longer expected; what they did stays."""
        ...

    async def set_partner(self, node_id: str, partner_node_id: str, *, act: Act) -> NodeRecord:
        """How another source of uptime calls it. NameTakenError when another node is called so."""
        ...

    async def add_workload(self, node_id: str, new: NewWorkload, *, act: Act, asker: Asker) -> WorkloadRecord:
        """The workload with the id `act.made_id`. RowFullError for the 65th; ReferenceRefusedError."""
        ...

    async def change_workload(
        self, workload_id: str, change: WorkloadChange, *, act: Act, asker: Asker
    ) -> WorkloadRecord:
        """Another kind is another thing to run: its manager is told. ReferenceRefusedError."""
        ...

    async def retire_workload(self, workload_id: str, *, act: Act) -> WorkloadRecord: ...
