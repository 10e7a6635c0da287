"""Loading a thing *as seen by a principal*: the one place that decides whether it is theirs.

What the caller may not see is 404, the same as what does not exist. What the caller may see, but in none of
the roles that the route asks for (policy.py), is 403. Handlers load projects, nodes and workloads only here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quart import request

from engine.core.accounts import Account, KeyRecord
from engine.core.disputes import Dispute
from engine.core.fleet import Sight
from engine.core.inventory import Licence
from engine.core.people import Principal, Role
from engine.core.ports import NodeRecord, Project, WorkloadRecord
from engine.core.sealed import Seal
from web.backend import Backend
from web.ids import SLUG, canonical_uuid
from web.policy import POLICY, Policy
from web.problems import RefusedError, not_found

T = TypeVar("T")


def roles_over(
    caller: Principal, *, project_id: str | None, owner_id: str | None = None, node_id: str | None = None
) -> Role:
    """The roles that a caller has towards a thing of this project, this person and this node; may be none."""
    roles = Role(0)
    if caller.scope == "admin":
        roles |= Role.ADMIN
    if project_id is not None and project_id in caller.owned_projects:
        roles |= Role.OWNER
    if owner_id is not None and owner_id == caller.user_id:
        roles |= Role.OPERATOR
    if node_id is not None and node_id == caller.node_id:
        roles |= Role.MANAGER
    return roles


def must_have(roles: Role, what: str) -> None:
    """404 without any role; 403 when none of them is among those that the route asks for."""
    if not roles:
        raise not_found(what)
    policy: Policy = request.scope[POLICY]  # type: ignore[literal-required]
    if not roles & policy.roles:
        raise RefusedError(403, "forbidden", f"you may see this {what}, but not do that to it")


def sight_of(caller: Principal) -> Sight:
    """Whose things a list may tell this caller: the union of all its roles. Nobody's, for who has none."""
    match caller.scope:
        case "admin":
            return Sight(everything=True)
        case "project" | "user":
            return Sight(projects=caller.owned_projects, operator_id=caller.user_id)
    return Sight()


async def project(backend: Backend, caller: Principal, slug: str) -> Project:
    """A project as one who runs it. RefusedError 404, 403."""
    found = await backend.directory.project(slug) if SLUG.fullmatch(slug) else None
    return _seen(found, "project", lambda it: roles_over(caller, project_id=it.project_id))


async def public_project(backend: Backend, caller: Principal, slug: str) -> Project:
    """A project as anybody who signed in may see it: an operator must choose where to register.

    A project's key sees its own project only.
    """
    found = await backend.directory.project(slug) if SLUG.fullmatch(slug) else None
    if found is None or (caller.scope == "project" and caller.project_id != found.project_id):
        raise not_found("project")
    return found


async def node(backend: Backend, caller: Principal, node_id: str) -> NodeRecord:
    """RefusedError 404, 403."""
    key = canonical_uuid(node_id)
    found = await backend.directory.node(key) if key else None
    return _seen(found, "node", lambda it: _roles_over_machine(caller, it))


async def workload(backend: Backend, caller: Principal, workload_id: str) -> WorkloadRecord:
    """RefusedError 404, 403."""
    key = canonical_uuid(workload_id)
    found = await backend.directory.workload(key) if key else None
    return _seen(found, "workload", lambda it: _roles_over_machine(caller, it))


async def user(backend: Backend, caller: Principal, user_id: str) -> Account:
    """A person as an admin, or as that person. RefusedError 404, 403."""
    key = canonical_uuid(user_id)
    found = await backend.stores.accounts.account(key) if key else None
    return _seen(found, "user", lambda it: roles_over(caller, project_id=None, owner_id=it.user_id))


async def api_key(backend: Backend, caller: Principal, key_id: str) -> KeyRecord:
    """A key as whoever may revoke it: an admin, its person, who runs its project. RefusedError 404, 403."""
    key = canonical_uuid(key_id)
    found = await backend.stores.accounts.key(key) if key else None
    return _seen(found, "key", lambda it: roles_over(caller, project_id=it.project_id, owner_id=it.user_id))


def _roles_over_machine(caller: Principal, found: NodeRecord | WorkloadRecord) -> Role:
    return roles_over(caller, project_id=found.project_id, owner_id=found.owner_id, node_id=found.node_id)


def _seen(found: T | None, what: str, roles_of: Callable[[T], Role]) -> T:
    """What was found, if the caller has a role over it that the route asks for."""
    must_have(Role(0) if found is None else roles_of(found), what)
    assert found is not None, "over nothing nobody has a role"
    return found


async def own_wallet(backend: Backend, caller: Principal) -> str | None:
    """The wallet of the person who calls; None for a key of a project, and for a person without one."""
    account = None if caller.user_id is None else await backend.stores.accounts.account(caller.user_id)
    return None if account is None else account.wallet


async def licence(backend: Backend, caller: Principal, licence_id: str) -> Licence:
    """A licence as whoever runs its project, or as whose wallet owns it now. RefusedError 404, 403."""
    key = canonical_uuid(licence_id)
    found = await backend.stores.inventory.licence(key) if key else None
    roles = Role(0)
    if found is not None:
        roles = roles_over(caller, project_id=found.project_id)
        if found.owner is not None and found.owner == await own_wallet(backend, caller):
            roles |= Role.OPERATOR
    must_have(roles, "licence")
    assert found is not None
    return found


async def sealed_workload(
    backend: Backend, caller: Principal, workload_id: str, day: str
) -> tuple[WorkloadRecord, Seal | None, bool]:
    """A workload as whose it is, or was that day: its operator, or whose wallet owned its licence then; with
    the day's newest seal, and whether that says anything of it. RefusedError 404, 403."""
    key = canonical_uuid(workload_id)
    found = await backend.directory.workload(key) if key else None
    if found is None:
        raise not_found("workload")
    roles = _roles_over_machine(caller, found)
    seal = await backend.stores.seals.seal(found.project_id, day)
    row = None if seal is None else await backend.stores.seals.row(seal, found.workload_id)
    if row is not None and caller.user_id is not None:
        _, sealed = row
        owners = {held.owner for held in sealed.held}
        if sealed.operator_id == caller.user_id or (owners and await own_wallet(backend, caller) in owners):
            roles |= Role.OPERATOR
    must_have(roles, "workload")
    return found, seal, row is not None


async def dispute(backend: Backend, caller: Principal, dispute_id: str) -> Dispute:
    """A dispute as who opened it, or as who runs the project. RefusedError 404, 403."""
    key = canonical_uuid(dispute_id)
    found = await backend.stores.disputes.dispute(key) if key else None
    return _seen(
        found, "dispute", lambda it: roles_over(caller, project_id=it.project_id, owner_id=it.opener_id)
    )
