"""Committing a day's points: against a seal, all or nothing, once; a correction is a new revision.

How a body is read is points_body.py's, the ledger itself storage's; a project's own rule stands in
points_suggested.py, what was committed is read in points_reads.py. Here a commit is put together and refused.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from datetime import date
from functools import partial

import msgspec
import trio
from quart import Response, request

from engine.core.amounts import micro_of_total, points_of_micro
from engine.core.catalog import Projects
from engine.core.inventory import Inventory
from engine.core.ledger import (
    AlreadyCommittedError,
    Commit,
    KeyReusedError,
    NewCommit,
    NothingToCorrectError,
    RowFault,
    RowsRefusedError,
    SealMovedError,
    SealRef,
    StillRunningError,
)
from engine.core.people import Principal
from engine.core.ports import Project
from engine.core.rewards import RuleOfDay
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.idempotency import HEADER, key_of_request
from web.points_answers import CommitAnswer, commit_answer
from web.points_body import Form, Given, PointsHeader, read_given
from web.problems import Fault, RefusedError
from web.routing import Answer, Parameter, Route, reply
from web.spool import spooled_body
from web.times import DAY_MS, parse_day

BODY_TYPES = ("application/x-ndjson", "text/csv")
FORMS: dict[str, Form] = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "text/csv": "csv",
}
_SAID = {
    "unknown": "no such workload in this project",
    "not_sealed": "is not in the seal of that day",
    "twice": "is in the list twice",
}


class PointsEntry(msgspec.Struct, frozen=True):
    workload_id: str
    points: str


class PointsRequest(PointsHeader, frozen=True, kw_only=True):
    """A day's points. `revision`, `root` (hex): of the seal that they were reckoned from; either will do, and
    a day that was sealed once needs neither. `total`: of all rows, checked exactly. `reason`: makes it a
    correction, which replaces the whole day."""

    rows: list[PointsEntry]


async def commit_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    key, spool = key_of_request(), spooled_body()
    form = FORMS.get(request.mimetype, "json")
    digest = digest_of(form, spool.sha256)
    if (stored := await stored_answer(backend, project, key, digest)) is not None:
        return stored
    # A million rows take seconds: in a thread, so that everybody else is still served.
    given = await trio.to_thread.run_sync(partial(read_given, spool.file, form, request.args.to_dict()))
    with ExitStack() as closing:
        closing.callback(given.packed.close)
        seal = await seal_for(backend, project, given.header)
        return await commit_given(backend, caller, project, given, seal, key=key, digest=digest)


def digest_of(form: str, body_sha256: bytes) -> bytes:
    """What tells a repetition: method, path, query, form and body."""
    return hashlib.sha256(f"{request.method} {request.full_path}\n{form}\n".encode() + body_sha256).digest()


async def stored_answer(backend: Backend, project: Project, key: str, digest: bytes) -> Response | None:
    """The answer of the commit that was made with this key. RefusedError 422."""
    try:
        commit = await backend.stores.ledger.stored(project.project_id, key, digest)
    except KeyReusedError as error:
        raise _reused() from error
    return None if commit is None else await _told(backend, project, commit, made_now=False)


async def seal_for(
    backend: Backend, project: Project, header: PointsHeader, *, may_be_left_out: bool = False
) -> SealRef:
    """The seal that is meant: the newest of its day, as the header names it. RefusedError 400, 409.

    `may_be_left_out`: also where the day was sealed more than once.
    """
    try:
        day_ms = parse_day(header.day)
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error), errors=[Fault(str(error), "/day")]) from error
    seal = await backend.stores.ledger.newest_seal(project.project_id, header.day)
    if seal is None:
        if backend.heads.recorded_now_ms() < day_ms + DAY_MS:
            raise RefusedError(409, "day_not_over", f"{header.day} is not over (UTC)")
        raise RefusedError(409, "not_sealed", f"{header.day} is not sealed yet: ask again in some minutes")
    must_name(seal, header, may_be_left_out=may_be_left_out)
    return seal


def must_name(seal: SealRef, header: PointsHeader, *, may_be_left_out: bool) -> None:
    """RefusedError 409 when the header names another seal, or none where it has to."""
    newest = f"the newest seal of {header.day} is revision {seal.revision} with root {seal.root.hex()}"
    named = header.revision is not None or header.root is not None
    if not named and not may_be_left_out and seal.revision > 1:
        raise RefusedError(409, "seal_ambiguous", f"say from which seal these were reckoned: {newest}")
    if header.revision not in (None, seal.revision) or header.root not in (None, seal.root.hex()):
        raise RefusedError(409, "seal_outdated", f"reckon anew: {newest}")


async def rule_in_force(projects: Projects, inventory: Inventory, project: Project, day: str) -> RuleOfDay:
    """The project's rule of that day, whether it pays anything or not."""
    policy = await projects.policy_at(project.project_id, date.fromisoformat(day))
    has_licences = await inventory.had_licences(project.project_id, parse_day(day) + DAY_MS)
    return RuleOfDay(policy.reward, has_licences)


def new_commit(
    project: Project, given: Given, seal: SealRef, rule: RuleOfDay, *, key: str, digest: bytes
) -> NewCommit:
    """What is to be committed of rows that were read."""
    return NewCommit(
        project_id=project.project_id,
        day=given.header.day,
        seal=seal,
        reason=given.header.reason,
        rows=given.packed.rows,
        total_micro_points=given.packed.total_micro_points,
        idempotency_key=key,
        body_sha256=digest,
        licensed_only=rule.licensed_only,
    )


async def commit_given(
    backend: Backend,
    caller: Principal,
    project: Project,
    given: Given,
    seal: SealRef,
    *,
    key: str,
    digest: bytes,
) -> Response:
    """Commit rows that were read, or refuse them. RefusedError 409, 422."""
    packed, header = given.packed, given.header
    rule = await rule_in_force(backend.stores.projects, backend.stores.inventory, project, header.day)
    new = new_commit(project, given, seal, rule, key=key, digest=digest)
    ledger = backend.stores.ledger
    try:
        if packed.fault_count:
            await ledger.check(new, packed.file)
            raise refusal_of(given, (), 0)
        check_total(header, packed.total_micro_points)
        commit, made_now = await ledger.commit(act_of(backend, caller), new, packed.file)
    except RowsRefusedError as error:
        raise refusal_of(given, error.faults, error.count) from error
    except KeyReusedError as error:
        raise _reused() from error
    except StillRunningError as error:
        raise RefusedError(409, "still_running", str(error), headers={"retry-after": "1"}) from error
    except AlreadyCommittedError as error:
        raise RefusedError(409, "already_committed", str(error)) from error
    except NothingToCorrectError as error:
        raise RefusedError(409, "nothing_to_correct", str(error)) from error
    except SealMovedError as error:
        raise RefusedError(409, "seal_outdated", str(error)) from error
    return await _told(backend, project, commit, made_now=made_now)


def check_total(header: PointsHeader, found: int) -> None:
    """RefusedError 400, 422 when the rows do not sum to what was told."""
    if header.total is None:
        return
    try:
        told = micro_of_total(header.total)
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error), errors=[Fault(str(error), "/total")]) from error
    if told != found:
        detail = f"the rows sum to {points_of_micro(found)}, not to {header.total}"
        raise RefusedError(422, "total_mismatch", detail, errors=[Fault(detail, "/total")])


def refusal_of(given: Given, more: tuple[RowFault, ...], count: int) -> RefusedError:
    """422 with everything that is wrong, as far as it is told."""
    faults = [*given.packed.faults]
    faults += [Fault(_SAID[each.kind], given.pointer(each.place, "workload_id")) for each in more]
    count += given.packed.fault_count
    detail = "nothing was committed"
    if count > len(faults):
        detail += f" (the first {len(faults)} of {count} errors)"
    return RefusedError(422, "rows_refused", detail, errors=faults)


def _reused() -> RefusedError:
    return RefusedError(422, "idempotency_key_reused", "this key was used with another request")


async def _told(backend: Backend, project: Project, commit: Commit, *, made_now: bool) -> Response:
    answer = await commit_answer(backend, project.slug, commit)
    return reply(answer, 201, {} if made_now else {"idempotent-replayed": "true"})


KEY_PARAMETER = Parameter(
    name=HEADER,
    description="The same key and body again get the stored answer; another body 422",
    where="header",
    required=True,
    schema={"type": "string", "pattern": "^[!-~]{1,255}$", "example": "points-2026-01-31"},
)
ROUTES = (
    Route(
        method="POST",
        path="/v1/projects/{slug}/points",
        handler=commit_points,
        summary="Commit the points of a sealed day, all or nothing; with a reason, correct them",
        tag="points",
        body=PointsRequest,
        body_content_types=BODY_TYPES,
        spooled=True,
        parameters=(
            KEY_PARAMETER,
            *(
                Parameter(name=name, description=f"For CSV only: the header's {name}")
                for name in PointsHeader.__struct_fields__
            ),
        ),
        answers={201: Answer(description="The commit", type=CommitAnswer)},
        refusals=(400, 401, 404, 409, 413, 422, 503),
    ),
)
