"""Who may call what: one line per route. A route that has no line here does not start.

A line names the roles in which one may call and the permission that a key must not have been denied. Whether
the very thing in the path is the caller's is decided when it is loaded (sight.py): what is not looks as if it
did not exist (404); what one may see but not do is 403.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.core.people import Principal, Role
from web.problems import RefusedError

Permission = Literal["read", "write", "points"]
POLICY = "nodepulse.policy"  # where the route's policy is left in the ASGI scope
PUBLIC, MANAGER, OPERATOR, OWNER, ADMIN = Role.PUBLIC, Role.MANAGER, Role.OPERATOR, Role.OWNER, Role.ADMIN
PEOPLE = OPERATOR | OWNER | ADMIN
RUNNING = OWNER | ADMIN  # whoever runs a project


class Policy(msgspec.Struct, frozen=True):
    """Roles that may call, and the permission asked of the credential."""

    roles: Role
    permission: Permission = "read"


def _read(roles: Role) -> Policy:
    return Policy(roles)


def _write(roles: Role) -> Policy:
    return Policy(roles, "write")


POLICIES: dict[str, Policy] = {
    # operation
    "GET /livez": _read(PUBLIC),
    "GET /readyz": _read(PUBLIC),
    "GET /metrics": _read(PUBLIC),
    "GET /openapi.json": _read(PUBLIC),
    "GET /v1/schedule": _read(ADMIN),
    # for anybody, of projects whose owners want that
    "GET /v1/status/{slug}": _read(PUBLIC),
    "GET /badges/projects/{slug}.svg": _read(PUBLIC),
    "GET /badges/nodes/{node_id}.svg": _read(PUBLIC),
    "GET /badges/workloads/{workload_id}.svg": _read(PUBLIC),
    # for whoever runs the installation
    "GET /v1/installation": _read(ADMIN),
    "GET /v1/installation/gaps": _read(ADMIN),
    "GET /v1/installation/outbox": _read(ADMIN),
    "GET /v1/installation/dead-letters": _read(ADMIN),
    "POST /v1/installation/dead-letters/{delivery_id}/replay": _write(ADMIN),
    "GET /v1/installation/publications": _read(ADMIN),
    # machines; the first two prove themselves by a signature in the body
    "POST /v1/sessions": _write(PUBLIC),
    "POST /v1/beats/backfill": _write(PUBLIC),
    "GET /v1/manager/desired": _read(MANAGER),
    "GET /v1/manager/manifests/{workload_id}": _read(MANAGER),
    "PUT /v1/manager/workloads/{workload_id}/version": _write(MANAGER),
    "GET /v1/manager/release": _read(MANAGER),
    "GET /v1/manager/releases/{file}": _read(PUBLIC),
    # signing in, and oneself
    "POST /v1/sign-in/wallet/nonce": _write(PUBLIC),
    "POST /v1/sign-in/wallet": _write(PUBLIC),
    "POST /v1/sign-in/mail": _write(PUBLIC),
    "POST /v1/sign-in/mail/confirm": _write(PUBLIC),
    "DELETE /v1/sign-in": _write(PEOPLE),
    "GET /v1/me": _read(PEOPLE),
    "PATCH /v1/me": _write(OPERATOR | ADMIN),
    "GET /v1/me/notifications": _read(OPERATOR | ADMIN),
    "PUT /v1/me/notifications": _write(OPERATOR | ADMIN),
    "GET /v1/me/channels": _read(OPERATOR | ADMIN),
    "POST /v1/me/channels": _write(OPERATOR | ADMIN),
    "DELETE /v1/me/channels/{channel_id}": _write(OPERATOR | ADMIN),
    "GET /v1/me/channels/{channel_id}/deliveries": _read(OPERATOR | ADMIN),
    "POST /v1/me/channels/{channel_id}/test": _write(OPERATOR | ADMIN),
    "POST /v1/me/channels/{channel_id}/replay": _write(OPERATOR | ADMIN),
    "POST /v1/me/channels/{channel_id}/deliveries/{delivery_id}/replay": _write(OPERATOR | ADMIN),
    "POST /v1/me/channels/{channel_id}/enable": _write(OPERATOR | ADMIN),
    "POST /v1/me/channels/{channel_id}/disable": _write(OPERATOR | ADMIN),
    # whoever has the link in a mail
    "POST /v1/me/channels/{channel_id}/confirm-again": _write(OPERATOR | ADMIN),
    "GET /v1/confirm/{token}": _read(PUBLIC),
    "POST /v1/confirm/{token}": _write(PUBLIC),
    "GET /v1/unsubscribe/{token}": _read(PUBLIC),
    "POST /v1/unsubscribe/{token}": _write(PUBLIC),
    # users, keys, audit
    "GET /v1/users": _read(ADMIN),
    "POST /v1/users": _write(ADMIN),
    "GET /v1/users/{user_id}": _read(OPERATOR | ADMIN),
    "PATCH /v1/users/{user_id}": _write(ADMIN),
    "GET /v1/users/{user_id}/licences": _read(OPERATOR | ADMIN),
    "GET /v1/users/{user_id}/balances": _read(OPERATOR | ADMIN),
    "GET /v1/keys": _read(PEOPLE),
    "POST /v1/keys": _write(PEOPLE),
    "POST /v1/keys/{key_id}/rotate": _write(PEOPLE),
    "DELETE /v1/keys/{key_id}": _write(PEOPLE),
    "GET /v1/audit": _read(RUNNING),
    "GET /v1/audit/chain": _read(ADMIN),
    # projects
    "GET /v1/projects": _read(PEOPLE),
    "POST /v1/projects": _write(ADMIN),
    "GET /v1/projects/{slug}": _read(PEOPLE),
    "PATCH /v1/projects/{slug}": _write(RUNNING),
    "GET /v1/projects/{slug}/policies": _read(PEOPLE),
    "POST /v1/projects/{slug}/policies": _write(RUNNING),
    "GET /v1/projects/{slug}/owners": _read(RUNNING),
    "PUT /v1/projects/{slug}/owners/{user_id}": _write(ADMIN),
    "DELETE /v1/projects/{slug}/owners/{user_id}": _write(ADMIN),
    "GET /v1/projects/{slug}/summary": _read(RUNNING),
    "GET /v1/projects/{slug}/summary/stream": _read(RUNNING),
    "GET /v1/projects/{slug}/uptime": _read(RUNNING),
    "GET /v1/projects/{slug}/uptime/days": _read(RUNNING),
    "GET /v1/projects/{slug}/seals": _read(PEOPLE),
    "GET /v1/projects/{slug}/seals/{day}": _read(PEOPLE),
    "GET /v1/projects/{slug}/days": _read(RUNNING),
    "GET /v1/projects/{slug}/days/{day}": _read(RUNNING),
    "POST /v1/projects/{slug}/seals/{day}/corrections": _write(RUNNING),
    "GET /v1/projects/{slug}/seals/{day}/corrections": _read(RUNNING),
    "GET /v1/projects/{slug}/seals/{day}/corrections/{correction_id}": _read(RUNNING),
    "GET /v1/projects/{slug}/points": _read(RUNNING),
    "POST /v1/projects/{slug}/points": Policy(RUNNING, "points"),
    "GET /v1/projects/{slug}/points/licences": _read(RUNNING),
    "GET /v1/projects/{slug}/points/workloads": _read(RUNNING),
    "GET /v1/projects/{slug}/points/days": _read(RUNNING),
    "GET /v1/projects/{slug}/points/commits": _read(RUNNING),
    "GET /v1/projects/{slug}/points/commits/{commit_id}": _read(RUNNING),
    "GET /v1/projects/{slug}/points/commits/{commit_id}/changes": _read(RUNNING),
    "GET /v1/projects/{slug}/points/commits/{commit_id}/rows": _read(RUNNING),
    "GET /v1/projects/{slug}/points/suggested": _read(RUNNING),
    "POST /v1/projects/{slug}/points/suggested": Policy(RUNNING, "points"),
    "GET /v1/projects/{slug}/points/suggested/preview": _read(RUNNING),
    "GET /v1/projects/{slug}/points/export": _read(RUNNING),
    "POST /v1/projects/{slug}/points/preview": _read(RUNNING),
    "GET /v1/projects/{slug}/points/commits/{commit_id}/suggested": _read(RUNNING),
    "GET /v1/projects/{slug}/leaderboard": _read(PEOPLE),
    "GET /v1/me/points": _read(PEOPLE),
    "GET /v1/projects/{slug}/channels": _read(RUNNING),
    "POST /v1/projects/{slug}/channels": _write(RUNNING),
    "DELETE /v1/projects/{slug}/channels/{channel_id}": _write(RUNNING),
    "GET /v1/projects/{slug}/channels/{channel_id}/deliveries": _read(RUNNING),
    "POST /v1/projects/{slug}/channels/{channel_id}/test": _write(RUNNING),
    "POST /v1/projects/{slug}/channels/{channel_id}/replay": _write(RUNNING),
    "POST /v1/projects/{slug}/channels/{channel_id}/deliveries/{delivery_id}/replay": _write(RUNNING),
    "POST /v1/projects/{slug}/channels/{channel_id}/enable": _write(RUNNING),
    "POST /v1/projects/{slug}/channels/{channel_id}/disable": _write(RUNNING),
    "POST /v1/projects/{slug}/channels/{channel_id}/confirm-again": _write(RUNNING),
    "GET /v1/notifications": _read(RUNNING),
    "POST /v1/notifications": _write(RUNNING),
    "POST /v1/notifications/preview": _read(RUNNING),
    # workload kinds and versions
    "GET /v1/projects/{slug}/kinds": _read(PEOPLE),
    "POST /v1/projects/{slug}/kinds": _write(RUNNING),
    "GET /v1/projects/{slug}/kinds/{kind}": _read(PEOPLE),
    "PATCH /v1/projects/{slug}/kinds/{kind}": _write(RUNNING),
    "GET /v1/projects/{slug}/kinds/{kind}/versions": _read(PEOPLE),
    "POST /v1/projects/{slug}/kinds/{kind}/versions": _write(RUNNING),
    "GET /v1/projects/{slug}/kinds/{kind}/versions/{version}": _read(PEOPLE),
    "PATCH /v1/projects/{slug}/kinds/{kind}/versions/{version}": _write(RUNNING),
    "GET /v1/releases": _read(ADMIN),
    "POST /v1/releases": _write(ADMIN),
    "PATCH /v1/releases/{version}": _write(ADMIN),
    # nodes and workloads
    "GET /v1/nodes": _read(PEOPLE),
    "POST /v1/nodes": _write(PEOPLE),
    "GET /v1/nodes/{node_id}": _read(PEOPLE),
    "PATCH /v1/nodes/{node_id}": _write(PEOPLE),
    "POST /v1/nodes/{node_id}/revoke": _write(PEOPLE),
    "POST /v1/nodes/{node_id}/rekey": _write(OPERATOR | ADMIN),
    "POST /v1/nodes/{node_id}/retire": _write(PEOPLE),
    "POST /v1/nodes/{node_id}/workloads": _write(PEOPLE),
    "GET /v1/nodes/{node_id}/windows": _read(PEOPLE),
    "POST /v1/nodes/{node_id}/windows": _write(PEOPLE),
    "DELETE /v1/nodes/{node_id}/windows/{window_id}": _write(PEOPLE),
    "POST /v1/nodes/{node_id}/datagram": _write(RUNNING),
    "GET /v1/workloads": _read(PEOPLE),
    "GET /v1/workloads/{workload_id}": _read(PEOPLE),
    "GET /v1/workloads/{workload_id}/uptime": _read(PEOPLE),
    "GET /v1/workloads/{workload_id}/days": _read(PEOPLE),
    "GET /v1/workloads/{workload_id}/version": _read(PEOPLE),
    "GET /v1/nodes/{node_id}/days": _read(PEOPLE),
    "GET /v1/workloads/{workload_id}/proof": _read(PEOPLE),
    "GET /v1/nodes/{node_id}/receipt": _read(PEOPLE),
    "GET /v1/receipt-keys": _read(PUBLIC),
    "GET /v1/projects/{slug}/seals/{day}/publications": _read(RUNNING),
    "GET /v1/projects/{slug}/seals/{day}/transaction": _read(RUNNING),
    "GET /v1/workloads/{workload_id}/why": _read(PEOPLE),
    "PATCH /v1/workloads/{workload_id}": _write(PEOPLE),
    "POST /v1/workloads/{workload_id}/restart": _write(RUNNING),
    "POST /v1/workloads/{workload_id}/retire": _write(PEOPLE),
    "POST /v1/workloads/{workload_id}/disputes": _write(OPERATOR),
    "GET /v1/disputes": _read(PEOPLE),
    "GET /v1/disputes/{dispute_id}": _read(PEOPLE),
    "POST /v1/disputes/{dispute_id}/comments": _write(PEOPLE),
    "POST /v1/disputes/{dispute_id}/answer": _write(RUNNING),
    "POST /v1/disputes/{dispute_id}/correct": _write(RUNNING),
    "POST /v1/disputes/{dispute_id}/reject": _write(RUNNING),
    "GET /v1/events": _read(PEOPLE),
    "GET /v1/events/stream": _read(PEOPLE),
    # inventory
    "GET /v1/projects/{slug}/collections": _read(PEOPLE),
    "POST /v1/projects/{slug}/collections": _write(RUNNING),
    "PATCH /v1/projects/{slug}/collections/{collection_id}": _write(RUNNING),
    "GET /v1/licences": _read(PEOPLE),
    "GET /v1/licences/{licence_id}": _read(PEOPLE),
    "GET /v1/licences/{licence_id}/owners": _read(PEOPLE),
    "GET /v1/licences/{licence_id}/leases": _read(PEOPLE),
}


def policy_of(method: str, path: str) -> Policy:
    """The policy of a route. LookupError for a route that nobody decided about."""
    try:
        return POLICIES[f"{method} {path}"]
    except KeyError as error:
        raise LookupError(f"{method} {path} has no policy: say in web/policy.py who may call it") from error


def must_be_allowed(caller: Principal, policy: Policy) -> None:
    """RefusedError 403 for one who has none of the roles, or whose key was denied the permission."""
    if not caller.roles & policy.roles:
        raise RefusedError(403, "forbidden", "this is not for callers like you")
    if PUBLIC not in policy.roles and policy.permission not in caller.permissions:
        raise RefusedError(403, "forbidden", f"this key may not {policy.permission}: make one that may")
