"""Which seal a request is about: `day` and `revision` in the query, and what is said of a day without one."""

from __future__ import annotations

from quart import request

from engine.core.sealed import DAY_MS, Seal
from engine.core.sealing import kept_back_by
from web.backend import Backend
from web.problems import RefusedError, bad_parameter
from web.routing import Parameter, integer_parameter
from web.times import parse_day

REVISION_MAX = 2**31 - 1
DAY = Parameter(
    name="day", description="The UTC day", required=True, schema={"type": "string", "format": "date"}
)
REVISION = Parameter(
    name="revision", description="Without it the newest", schema={"type": "integer", "minimum": 1}
)


async def asked_seal(backend: Backend, project_id: str) -> Seal:
    """The seal that the query asks for. RefusedError 400, 404 `not_sealed`."""
    day = request.args.get("day")
    if day is None:
        raise bad_parameter("day", "is missing")
    return await seal_of_day(backend, project_id, day, revision_parameter())


def revision_parameter() -> int | None:
    """None: the newest. RefusedError 400."""
    return integer_parameter("revision", default=0, least=1, most=REVISION_MAX) or None


async def seal_of_day(backend: Backend, project_id: str, day: str, revision: int | None = None) -> Seal:
    """RefusedError 400 for what is no day, 404 `not_sealed` with what the day waits for."""
    try:
        day_ms = parse_day(day)
    except ValueError as error:
        raise bad_parameter("day", str(error)) from error
    seal = await backend.stores.seals.seal(project_id, day, revision)
    if seal is None:
        raise RefusedError(404, "not_sealed", await _why_not(backend, project_id, day, day_ms, revision))
    return seal


async def _why_not(backend: Backend, project_id: str, day: str, day_ms: int, revision: int | None) -> str:
    if revision is not None and (newest := await backend.stores.seals.seal(project_id, day)) is not None:
        return f"the newest revision of {day} is {newest.revision}"
    end_ms = day_ms + DAY_MS
    if backend.clock() < end_ms:
        return f"{day} is not over"
    told = {shard: backend.heads.head(shard) for shard in range(backend.shards)}
    heads = {shard: head for shard, head in told.items() if head is not None}
    waits_for = kept_back_by(
        end_ms=end_ms,
        after_ms=0,
        shards=backend.shards,
        watermarks={shard: head.watermark_ms for shard, head in heads.items()},
        leases_ms=end_ms,
        heads=heads,
    )
    return f"{day} is not sealed yet: {waits_for or 'days are sealed some minutes after midnight, in order'}"
