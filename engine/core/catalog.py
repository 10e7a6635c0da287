"""Projects, their policies, workload kinds, versions and manager releases: records and ports.

Which version a node should run is rollout.py; what is asked of a manager, and what it answers, orders.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal, Protocol

import msgspec

from engine.core.people import Act

UptimeSource = Literal["native", "datagram"]
# Of a kind, not withdrawn at a time: all of them are looked at whenever a manager asks what it should run.
VERSIONS_OFFERED_MAX = 1_000


class RewardRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a project's owner turns paid time into points; what it comes to is rewards.py's.

    `micro_points_per_paid_s`: for each paid second. `daily_cap_micro_points`: of one workload and UTC day,
    null = none. `floor_paid_ms`: a day with less paid time earns nothing. `kind_weights_ppm`: by the slug of
    the kind, in millionths; a kind that is not named has 1,000,000. `licensed_only`: only paid time that the
    workload ran under a licence; null: if the project has any to run under (rewards.py).
    """

    micro_points_per_paid_s: int = 0
    daily_cap_micro_points: int | None = None
    floor_paid_ms: int = 0
    kind_weights_ppm: dict[str, int] = msgspec.field(default_factory=dict)
    licensed_only: bool | None = None


class ProjectRecord(msgspec.Struct, frozen=True):
    project_id: str
    slug: str
    name: str
    created_ms: int
    retired_ms: int | None
    public_status: bool = False  # anybody may see how it is (status page, badges)


class OwnerRecord(msgspec.Struct, frozen=True):
    """A person who owns a project."""

    user_id: str
    name: str
    since_ms: int


class PolicyRecord(msgspec.Struct, frozen=True):
    """What holds for a project from a UTC day on, until another one begins. Revision 0: nobody decided."""

    effective_from: date
    revision: int
    uptime_source: UptimeSource
    pay_claims: bool
    reward: RewardRule
    created_ms: int
    actor: str


DEFAULT_POLICY = PolicyRecord(date(1970, 1, 1), 0, "native", True, RewardRule(), 0, "")


def policy_at(policies: Sequence[PolicyRecord], day: date) -> PolicyRecord:
    """The policy of a UTC day: of the latest day not after it, in its highest revision."""
    found = [one for one in policies if one.effective_from <= day]
    return max(found, key=lambda one: (one.effective_from, one.revision), default=DEFAULT_POLICY)


class KindRecord(msgspec.Struct, frozen=True):
    kind_id: str
    project_id: str
    slug: str
    name: str
    minimum_version: str | None
    created_ms: int
    retired_ms: int | None


class VersionRecord(msgspec.Struct, frozen=True):
    """`digest`: ``sha256:<hex>`` of the manifest's UTF-8 bytes; `manifest` is empty where many are listed."""

    version_id: str
    kind_id: str
    version: str
    manifest: str
    digest: str
    rollout_percent: int
    created_ms: int
    withdrawn_ms: int | None


class ReleaseRecord(msgspec.Struct, frozen=True):
    """A version of the manager itself."""

    version: str
    url: str
    sha256: str
    signature: str
    rollout_percent: int
    created_ms: int
    withdrawn_ms: int | None


class TakenError(Exception):
    """What should be made is there already, and another."""


class CatalogRefusedError(Exception):
    """The change contradicts what is there; the text says why."""


class Projects(Protocol):
    """Projects, who owns them, and what holds for them when."""

    async def project(self, project_id: str) -> ProjectRecord | None: ...
    async def projects(
        self, *, only: Sequence[str] | None, after: str | None, limit: int
    ) -> list[ProjectRecord]:
        """In order of their ids; `only`: of these ids, None = of all."""
        ...

    async def create_project(self, act: Act, *, slug: str, name: str) -> ProjectRecord:
        """TakenError for a slug that another project has."""
        ...

    async def change_project(
        self,
        act: Act,
        project_id: str,
        *,
        name: str | None = None,
        retired: bool | None = None,
        public_status: bool | None = None,
    ) -> ProjectRecord | None:
        """None: leave as it is. Keys of a retired project do not work."""
        ...

    async def owners(self, project_id: str, *, after: str | None, limit: int) -> list[OwnerRecord]: ...
    async def add_owner(self, act: Act, project_id: str, user_id: str) -> OwnerRecord | None:
        """None: there is no such (living) person."""
        ...

    async def remove_owner(self, act: Act, project_id: str, user_id: str) -> bool: ...

    async def policies(self, project_id: str) -> list[PolicyRecord]:
        """All revisions, by day and revision."""
        ...

    async def add_policy(
        self,
        act: Act,
        project_id: str,
        *,
        effective_from: date,
        today: date,
        uptime_source: UptimeSource,
        pay_claims: bool,
        reward: RewardRule,
    ) -> PolicyRecord:
        """A new revision for that day. CatalogRefusedError for a day that has begun, but for the first one.

        The same again as the day's newest revision is that revision.
        """
        ...

    async def policy_at(self, project_id: str, day: date) -> PolicyRecord:
        """What holds on a UTC day; DEFAULT_POLICY before the first."""
        ...


class Catalog(Protocol):
    """Workload kinds and their versions. What changes the desired state of nodes is told to managers."""

    async def kinds(self, project_id: str, *, after: str | None, limit: int) -> list[KindRecord]: ...
    async def kind(self, project_id: str, slug: str) -> KindRecord | None: ...
    async def create_kind(self, act: Act, project_id: str, *, slug: str, name: str) -> KindRecord:
        """TakenError for a slug that another kind of the project has."""
        ...

    async def change_kind(
        self,
        act: Act,
        kind_id: str,
        *,
        name: str | None = None,
        minimum_version: str | msgspec.UnsetType | None = msgspec.UNSET,
        retired: bool | None = None,
    ) -> KindRecord | None:
        """CatalogRefusedError for a minimum version that there is not, or that is withdrawn."""
        ...

    async def versions(self, kind_id: str, *, after: str | None, limit: int) -> list[VersionRecord]:
        """Without their manifests, in the order in which they were made."""
        ...

    async def version(self, kind_id: str, version: str) -> VersionRecord | None: ...
    async def create_version(
        self, act: Act, kind_id: str, *, version: str, manifest: str, rollout_percent: int
    ) -> VersionRecord:
        """TakenError when the kind has that version; CatalogRefusedError for a retired kind, or too many."""
        ...

    async def change_version(
        self,
        act: Act,
        version_id: str,
        *,
        rollout_percent: int | None = None,
        withdrawn: bool | None = None,
    ) -> VersionRecord | None:
        """CatalogRefusedError when the kind's minimum version would be withdrawn."""
        ...


class Releases(Protocol):
    """Versions of the manager itself."""

    async def releases(self, *, after: str | None, limit: int) -> list[ReleaseRecord]:
        """In order of their texts."""
        ...

    async def create_release(
        self, act: Act, *, version: str, url: str, sha256: str, signature: str, rollout_percent: int
    ) -> ReleaseRecord:
        """TakenError when that version is there with other contents."""
        ...

    async def change_release(
        self,
        act: Act,
        version: str,
        *,
        rollout_percent: int | None = None,
        withdrawn: bool | None = None,
    ) -> ReleaseRecord | None: ...

    async def release_for(self, node_id: str) -> ReleaseRecord | None:
        """The highest release whose rollout admits the node."""
        ...
