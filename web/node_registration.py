"""Nodes as people register and change them: `POST /v1/nodes`, `PATCH /v1/nodes/{id}`, re-key, revoke, retire.

An operator registers machines of their own in any project; who runs the project, for nobody, or for people
who operate a node or own a licence of it; an admin for anybody. How nodes are now is nodes.py's; what runs on
them, node_workloads.py's. All rules are the store's (engine/core/registration.py), which keeps them in one
transaction with the change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from quart import Response

from engine.core.ed25519 import is_public_key
from engine.core.people import Principal, Role
from engine.core.ports import NodeRecord, RowFullError, WorkloadRecord
from engine.core.registration import (
    Asker,
    GoneError,
    KeyTakenError,
    NewMachine,
    NewWorkload,
    NodeChange,
    OperatorRefusedError,
    ReferenceRefusedError,
)
from engine.core.timing import SLOTS_MAX
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import SLUG, canonical_uuid
from web.problems import Fault, RefusedError
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern="^[^\\u0000-\\u001f]*$")]
Region = Annotated[str, msgspec.Meta(max_length=64, pattern="^[!-~]*$")]
Slug = Annotated[str, msgspec.Meta(max_length=63, pattern=f"^{SLUG.pattern}$")]
Id = Annotated[str, msgspec.Meta(max_length=36)]
PublicKey = Annotated[str, msgspec.Meta(min_length=64, max_length=64, pattern="^[0-9a-f]{64}$")]
INTERVAL_MS_DEFAULT = 60_000


class WorkloadToRegister(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kind`: slug of a workload kind of the project. `licence_id`: the licence it runs under, if any."""

    kind: Slug
    name: Name
    licence_id: Id | None = None


class NodeToRegister(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`public_key`: Ed25519, 32 bytes in lower-case hex; its other half stays on the machine.

    `owner_id`: whose machine it is; left out: the caller's, for a project's key nobody's. Somebody else's
    only if they operate a node or own a licence of the project, or an admin says so. `interval_ms`: how
    often it shall beat; less often than once a minute only if who runs the project says so: each beat
    vouches, and so is paid, for one and a half intervals.
    """

    project: Slug
    name: Name
    public_key: PublicKey
    region: Region = ""
    owner_id: Id | msgspec.UnsetType | None = msgspec.UNSET
    interval_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = INTERVAL_MS_DEFAULT
    workloads: Annotated[list[WorkloadToRegister], msgspec.Meta(max_length=SLOTS_MAX)] = []


class NodePatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is. `owner_id`: null for nobody; an admin's to change."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    region: Region | msgspec.UnsetType = msgspec.UNSET
    owner_id: Id | msgspec.UnsetType | None = msgspec.UNSET


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`public_key`: Ed25519, 32 bytes in lower-case hex."""

    public_key: PublicKey


class RegisteredWorkload(msgspec.Struct, frozen=True):
    """`kind`: slug; `licence_id`: null when it runs under none."""

    workload_id: str
    node_id: str
    slot: int
    name: str
    kind: str | None
    licence_id: str | None
    created_at: str
    retired_at: str | None


class RegisteredNode(msgspec.Struct, frozen=True):
    """A node as it is registered. `workloads`: those that are not retired, by slot."""

    node_id: str
    project_id: str
    owner_id: str | None
    name: str
    region: str
    public_key: str | None
    interval_ms: int
    partner_node_id: str | None
    revoked: bool
    created_at: str
    retired_at: str | None
    workloads: list[RegisteredWorkload]


async def register_node(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NodeToRegister)
    project = await sight.public_project(backend, caller, asked.project)
    asker = asker_of(caller, project.project_id)
    if asked.interval_ms > INTERVAL_MS_DEFAULT and not asker.runs_project:
        detail = (
            f"your machines beat at least every {INTERVAL_MS_DEFAULT} ms, unless the project says otherwise"
        )
        raise RefusedError(403, "forbidden", detail, errors=[Fault(detail, "/interval_ms")])
    new = NewMachine(
        project_id=project.project_id,
        name=asked.name,
        public_key=_point(asked.public_key),
        interval_ms=asked.interval_ms,
        owner_id=_owner_of(asked.owner_id, caller, asker),
        region=asked.region,
        workloads=tuple(
            to_register(one, at=f"/workloads/{number}") for number, one in enumerate(asked.workloads)
        ),
    )
    with refusals():
        node = await backend.stores.registration.register(new, act=act_of(backend, caller), asker=asker)
    location = {"location": f"/v1/nodes/{node.node_id}"}
    return reply(await registered(backend, node), 201, headers=location)


def asker_of(caller: Principal, project_id: str) -> Asker:
    """In whose name licences of a project are bound."""
    roles = sight.roles_over(caller, project_id=project_id)
    return Asker(
        user_id=caller.user_id,
        runs_project=bool(roles & (Role.OWNER | Role.ADMIN)),
        admin=bool(roles & Role.ADMIN),
    )


def _owner_of(told: str | msgspec.UnsetType | None, caller: Principal, asker: Asker) -> str | None:
    """Whose the node will be. RefusedError 403 for an operator who registers for others."""
    mine = caller.user_id if caller.scope == "user" else None
    if told is msgspec.UNSET:
        return mine
    owner_id = None if told is None else form_of_id(told, "/owner_id")
    if not asker.runs_project and owner_id != mine:
        raise RefusedError(403, "forbidden", "you may register machines of your own: leave owner_id out")
    return owner_id


def _point(public_key: str) -> bytes:
    key = bytes.fromhex(public_key)
    if not is_public_key(key):
        detail = "is no Ed25519 public key: it must be a point of the curve, of the full order"
        raise RefusedError(400, "malformed", detail, errors=[Fault(detail, "/public_key")])
    return key


def to_register(asked: WorkloadToRegister, *, at: str) -> NewWorkload:
    """RefusedError 422 for an id that is none."""
    licence_id = asked.licence_id
    if licence_id is not None:
        licence_id = form_of_id(licence_id, f"{at}/licence_id")
    return NewWorkload(kind=asked.kind, name=asked.name, licence_id=licence_id)


def form_of_id(text: str, pointer: str) -> str:
    """An id in its canonical form. RefusedError 422: what has another form is the id of nothing."""
    canonical = canonical_uuid(text)
    if canonical is None:
        raise _unknown("there is nothing with this id", pointer)
    return canonical


def _unknown(detail: str, pointer: str) -> RefusedError:
    return RefusedError(422, "unknown_reference", detail, errors=[Fault(detail, pointer)])


@contextmanager
def refusals() -> Iterator[None]:
    """What the store refuses a registration or its change for, as it is told."""
    try:
        yield
    except GoneError as error:
        raise RefusedError(409, "retired", str(error)) from error
    except KeyTakenError as error:
        raise RefusedError(
            409, "key_taken", f"{error}: each node needs a key of its own, so make a new pair on the machine"
        ) from error
    except RowFullError as error:
        raise RefusedError(
            409,
            "row_full",
            f"all {SLOTS_MAX} slots of this node were given out: register a further node key for more",
        ) from error
    except ReferenceRefusedError as error:
        raise _unknown(str(error), error.pointer) from error
    except OperatorRefusedError as error:
        detail = f"{error}: let them register the machine, make owner_id null, or ask an admin"
        raise RefusedError(403, "forbidden", detail, errors=[Fault(detail, "/owner_id")]) from error


async def change_node(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    asked, _ = await read_body(NodePatch)
    node = await sight.node(backend, caller, node_id)
    owner_id = asked.owner_id
    if owner_id is not msgspec.UNSET and caller.scope != "admin":
        raise RefusedError(403, "forbidden", "only an admin gives a machine to somebody else")
    if isinstance(owner_id, str):
        owner_id = form_of_id(owner_id, "/owner_id")
    change = NodeChange(
        name=None if asked.name is msgspec.UNSET else asked.name,
        region=None if asked.region is msgspec.UNSET else asked.region,
        owner_id=owner_id,
    )
    with refusals():
        node = await backend.stores.registration.change_node(
            node.node_id, change, act=act_of(backend, caller)
        )
    return reply(await registered(backend, node))


def must_be_a_machine(node: NodeRecord) -> None:
    """RefusedError 409 for a stand-alone check."""
    if node.kind == "check":
        detail = "this is a check: it beats by its address alone and has neither a key nor further workloads"
        raise RefusedError(409, "not_a_machine", detail)


async def rekey_node(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    asked, _ = await read_body(NewKey)
    node = await sight.node(backend, caller, node_id)
    must_be_a_machine(node)
    key = _point(asked.public_key)
    with refusals():
        node = await backend.stores.registration.rekey(node.node_id, key, act=act_of(backend, caller))
    return reply(await registered(backend, node))


async def revoke_node(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    node = await sight.node(backend, caller, node_id)
    with refusals():
        node = await backend.stores.registration.revoke(node.node_id, act=act_of(backend, caller))
    return reply(await registered(backend, node))


async def retire_node(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    node = await sight.node(backend, caller, node_id)
    with refusals():
        node = await backend.stores.registration.retire_node(node.node_id, act=act_of(backend, caller))
    return reply(await registered(backend, node))


async def registered(backend: Backend, node: NodeRecord) -> RegisteredNode:
    """The answer of every change of a node."""
    found = await backend.directory.workloads_of_project(node.project_id, node.workload_ids)
    return _answer(node, [found[each] for each in node.workload_ids if each in found])


def _answer(node: NodeRecord, workloads: list[WorkloadRecord]) -> RegisteredNode:
    return RegisteredNode(
        node_id=node.node_id,
        project_id=node.project_id,
        owner_id=node.owner_id,
        name=node.name,
        region=node.region,
        public_key=None if node.public_key is None else node.public_key.hex(),
        interval_ms=node.interval_ms,
        partner_node_id=node.partner_node_id,
        revoked=node.revoked,
        created_at=format_rfc3339(node.created_ms),
        retired_at=None if node.retired_ms is None else format_rfc3339(node.retired_ms),
        workloads=[registered_workload(each) for each in workloads],
    )


def registered_workload(workload: WorkloadRecord) -> RegisteredWorkload:
    return RegisteredWorkload(
        workload_id=workload.workload_id,
        node_id=workload.node_id,
        slot=workload.slot,
        name=workload.name,
        kind=workload.kind,
        licence_id=workload.licence_id,
        created_at=format_rfc3339(workload.created_ms),
        retired_at=None if workload.retired_ms is None else format_rfc3339(workload.retired_ms),
    )


_NOW = {200: Answer(description="The node as it is registered now", type=RegisteredNode)}

ROUTES = (
    Route(
        method="POST",
        path="/v1/nodes",
        handler=register_node,
        summary="Register a node with its public key and what runs on it",
        tag="nodes",
        creates=True,
        body=NodeToRegister,
        answers={201: Answer(description="The node", type=RegisteredNode)},
        refusals=(400, 403, 404, 409, 422),
    ),
    Route(
        method="PATCH",
        path="/v1/nodes/{node_id}",
        handler=change_node,
        summary="Rename a node, move it to another region or, as an admin, to another person",
        tag="nodes",
        body=NodePatch,
        answers=_NOW,
        refusals=(400, 403, 404, 409, 422),
    ),
    Route(
        method="POST",
        path="/v1/nodes/{node_id}/rekey",
        handler=rekey_node,
        summary="Give a node another key; its sessions end within a second",
        tag="nodes",
        body=NewKey,
        answers=_NOW,
        refusals=(400, 403, 404, 409),
    ),
    Route(
        method="POST",
        path="/v1/nodes/{node_id}/revoke",
        handler=revoke_node,
        summary="Revoke a node's key for good; its sessions end within a second",
        tag="nodes",
        answers=_NOW,
        refusals=(404, 409),
    ),
    Route(
        method="POST",
        path="/v1/nodes/{node_id}/retire",
        handler=retire_node,
        summary="Retire a node and its workloads; what they did stays",
        tag="nodes",
        answers=_NOW,
        refusals=(404, 409),
    ),
)
