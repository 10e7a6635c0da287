"""Who is calling: principals, and the role in which one may be met.

What each may do, route by route, stands in web/policy.py; what each may see, in web/sight.py. How one proves
who one is: web/auth.py. Accounts, keys and logins as records and as a port are in engine/core/accounts.py.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import Literal

import msgspec

Scope = Literal["admin", "project", "user", "manager", "none"]
PERMISSIONS: tuple[str, ...] = ("read", "write", "points")


class Role(Flag):
    """In which role one calls. A person may have several: operator of some nodes, owner of a project."""

    PUBLIC = auto()  # nobody in particular: no credential is asked for
    MANAGER = auto()  # a machine, by its session token
    OPERATOR = auto()  # a person, for the machines and licences that are theirs
    OWNER = auto()  # of projects: by a project's key, or as a person who owns one
    ADMIN = auto()  # of the installation


class Principal(msgspec.Struct, frozen=True):
    """Who a credential speaks for.

    `key_id`: the credential itself (an API key's id, a login's id, a node's id for its session).
    `project_id`: of a project's key. `projects`: those that a person owns. `permissions`: what a key was
    restricted to. `expires_ms`: when a key ends (unix ms), and what it makes at the latest; None: never; for
    a login as well, whose person may make keys that outlive it.
    """

    key_id: str
    scope: Scope
    project_id: str | None
    user_id: str | None = None
    projects: tuple[str, ...] = ()
    node_id: str | None = None
    permissions: tuple[str, ...] = PERMISSIONS
    expires_ms: int | None = None

    @property
    def roles(self) -> Role:
        """All roles that this principal may be met in."""
        match self.scope:
            case "admin":
                return Role.ADMIN
            case "project":
                return Role.OWNER
            case "user":
                return Role.OPERATOR | (Role.OWNER if self.projects else Role.OPERATOR)
            case "manager":
                return Role.MANAGER
        return Role.PUBLIC

    @property
    def owned_projects(self) -> tuple[str, ...]:
        """The projects that it speaks for as an owner; an admin, who needs none, has none."""
        return self.projects if self.project_id is None else (self.project_id,)

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        if self.scope == "manager":
            return f"node:{self.node_id}"
        if self.user_id is not None:
            return f"user:{self.user_id}"
        return f"key:{self.key_id}" if self.key_id else "public"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What every change of the registry by people carries: who, when, in which request.

    `made_id`: the id that whatever is created gets. It is the same when a request is run again after a crash
    (Idempotency-Key), so that nothing is made twice: an insert that finds it there returns what is there.
    """

    actor: str
    now_ms: int
    request_id: str
    made_id: str
