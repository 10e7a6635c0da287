"""`/v1/releases`: versions of the manager itself, as admins publish them.

Which one a manager gets is told in manager.py.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from quart import Response, request

from engine.core.catalog import ReleaseRecord, TakenError
from engine.core.people import Principal
from engine.core.versions import is_version
from web.acts import act_of
from web.backend import Backend
from web.kinds import VersionText
from web.paging import PARAMETERS, cut, limit_parameter, link_headers
from web.problems import Fault, RefusedError, bad_parameter, not_found
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339
from web.versions import Percent, checked_version

Url = Annotated[str, msgspec.Meta(pattern="^https?://[!-~]+$", max_length=2_000)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
Signature = Annotated[str, msgspec.Meta(pattern="^[!-~]+$", min_length=1, max_length=1_024)]


class ReleaseAnswer(msgspec.Struct, frozen=True):
    """A release. `sha256`: of what lies at the URL; `signature`: the publisher's, told on as it was sent."""

    version: str
    url: str
    sha256: str
    signature: str
    rollout_percent: int
    created_at: str
    withdrawn_at: str | None


class ReleasesAnswer(msgspec.Struct, frozen=True):
    """A page of releases, in the order of their texts."""

    items: list[ReleaseAnswer]
    next_cursor: str | None


class NewRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release to be published: SemVer 2.0.0. `rollout_percent`: of all nodes, chosen by hash."""

    version: VersionText
    url: Url
    sha256: Sha256
    signature: Signature
    rollout_percent: Percent = 0


class ReleaseChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays. The rollout may grow and shrink."""

    rollout_percent: Percent | None = None
    withdrawn: bool | None = None


def _answer(release: ReleaseRecord) -> ReleaseAnswer:
    return ReleaseAnswer(
        version=release.version,
        url=release.url,
        sha256=release.sha256,
        signature=release.signature,
        rollout_percent=release.rollout_percent,
        created_at=format_rfc3339(release.created_ms),
        withdrawn_at=None if release.withdrawn_ms is None else format_rfc3339(release.withdrawn_ms),
    )


async def list_releases(backend: Backend, _caller: Principal) -> Response:
    limit, after = limit_parameter(), request.args.get("after")
    if after is not None and not is_version(after):
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    found = await backend.stores.releases.releases(after=after, limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda release: release.version)
    answer = ReleasesAnswer(items=[_answer(release) for release in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


async def create_release(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NewRelease)
    checked_version(asked.version)
    for field in ("url", "sha256", "signature"):
        if getattr(asked, field).endswith("\n"):  # which a pattern in a schema lets pass
            raise RefusedError(400, "malformed", "", errors=(Fault("ends with a line break", f"/{field}"),))
    try:
        made = await backend.stores.releases.create_release(
            act_of(backend, caller), **msgspec.structs.asdict(asked)
        )
    except TakenError as error:
        raise RefusedError(409, "taken", str(error), errors=(Fault(str(error), "/version"),)) from error
    return reply(_answer(made), 201, {"location": f"/v1/releases/{quote(made.version)}"})


async def change_release(backend: Backend, caller: Principal, *, version: str) -> Response:
    asked, _ = await read_body(ReleaseChange)
    changed = None
    if is_version(version):
        changed = await backend.stores.releases.change_release(
            act_of(backend, caller),
            version,
            rollout_percent=asked.rollout_percent,
            withdrawn=asked.withdrawn,
        )
    if changed is None:
        raise not_found("release")
    return reply(_answer(changed))


ROUTES = (
    Route(
        method="GET",
        path="/v1/releases",
        handler=list_releases,
        summary="Releases of the manager, by cursor",
        tag="releases",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of releases", type=ReleasesAnswer)},
    ),
    Route(
        method="POST",
        path="/v1/releases",
        handler=create_release,
        summary="Publish a release of the manager",
        tag="releases",
        creates=True,
        body=NewRelease,
        answers={201: Answer(description="The release", type=ReleaseAnswer)},
        refusals=(409,),
    ),
    Route(
        method="PATCH",
        path="/v1/releases/{version}",
        handler=change_release,
        summary="Roll a release out further, or back, or withdraw it",
        tag="releases",
        body=ReleaseChange,
        answers={200: Answer(description="The release", type=ReleaseAnswer)},
        refusals=(404,),
    ),
)
