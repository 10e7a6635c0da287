"""What a commit of points would come to: totals, the top receivers, what differs. Nothing is committed.

The same bodies as a commit's (points.py) or what the project's rule gives (points_suggested.py), judged and
split as a commit would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import msgspec
import trio
from quart import Response, request

from engine.core.amounts import points_of_micro
from engine.core.ledger import BeneficiaryKind, RowsRefusedError, SealRef
from engine.core.people import Principal
from engine.core.points_preview import Comparison
from engine.core.ports import Project
from engine.core.rewards import RuleOfDay
from web import sight
from web.backend import Backend
from web.counted import TooManyError
from web.days import DAY_SCHEMA, day_parameter
from web.points import (
    BODY_TYPES,
    FORMS,
    PointsRequest,
    check_total,
    new_commit,
    refusal_of,
    rule_in_force,
    seal_for,
)
from web.points_body import Given, PointsHeader, read_given
from web.points_reads import commit_seen
from web.points_suggested import packed_suggestion, rule_of
from web.problems import RefusedError, bad_parameter, unavailable
from web.routing import Answer, Parameter, Route, reply
from web.spool import spooled_body

LISTED_MAX = 20  # receivers, and workloads that differ


class ReceiverAnswer(msgspec.Struct, frozen=True):
    """Whom how much would belong to. `kind`: what `beneficiary` is: a wallet, a user's or a node's id, or
    empty for nobody. `before`: what the commit that counts gives them."""

    kind: BeneficiaryKind
    beneficiary: str
    name: str
    points: str
    licence_points: str
    before: str


class DifferingRowAnswer(msgspec.Struct, frozen=True):
    """A workload whose amount differs. null: it has no row there."""

    workload_id: str
    here: str | None
    there: str | None


class ComparisonAnswer(msgspec.Struct, frozen=True):
    """Rows beside others: how many have another amount, are only here, are only there; `total_points` of the
    others; the 20 that differ by most."""

    rows_changed: int
    rows_added: int
    rows_removed: int
    total_points: str
    most: list[DifferingRowAnswer]


class PreviewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What would be committed, `revision` and `root` of the seal it would be committed against. `receivers`:
    how many there are, `top`: the 20 with most. `counted`: against the commit that counts; `suggested`:
    against what the project's rule gives; null where there is none."""

    day: str
    revision: int
    root: str
    rows: int
    total_points: str
    receivers: int
    top: list[ReceiverAnswer]
    counted: ComparisonAnswer | None
    suggested: ComparisonAnswer | None


async def preview_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    spool, form = spooled_body(), FORMS.get(request.mimetype, "json")
    with _counted(backend), ExitStack() as stack:
        given = await trio.to_thread.run_sync(partial(read_given, spool.file, form, request.args.to_dict()))
        stack.callback(given.packed.close)
        seal = await seal_for(backend, project, given.header)
        rule = await rule_in_force(
            backend.stores.projects, backend.stores.inventory, project, given.header.day
        )
        return await _answer(backend, project, given, seal, rule, compared=True)


async def preview_suggested_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    day = day_parameter("day")
    if day is None:
        raise bad_parameter("day", "is missing")
    header = PointsHeader(day=day)
    seal = await seal_for(backend, project, header, may_be_left_out=True)
    rule = await rule_of(backend.stores.projects, backend.stores.inventory, project, day)
    with _counted(backend), closing(await packed_suggestion(backend.stores.ledger, seal, rule)) as packed:
        return await _answer(backend, project, Given(header, packed, "json"), seal, rule, compared=False)


async def compare_commit(backend: Backend, caller: Principal, *, slug: str, commit_id: str) -> Response:
    """Against what the rule of the day gives of the very seal that it was committed against."""
    project, commit = await commit_seen(backend, caller, slug, commit_id)
    rule = await rule_of(backend.stores.projects, backend.stores.inventory, project, commit.day)
    found = await backend.stores.seals.seal(project.project_id, commit.day, commit.seal_revision)
    if found is None:
        raise RefusedError(409, "not_sealed", f"{commit.day} was committed before there were seals")
    seal = SealRef(found.seal_no, found.revision, found.root, found.rows)
    with _counted(backend), closing(await packed_suggestion(backend.stores.ledger, seal, rule)) as packed:
        compared = await backend.stores.previews.compare(
            commit.commit_id, suggested=packed.file, most=LISTED_MAX
        )
    return reply(_comparison(compared))


@contextmanager
def _counted(backend: Backend) -> Iterator[None]:
    """A million rows are as much work as a bulk stream, and counted with them. RefusedError 503."""
    try:
        backend.bulk_streams.enter()
    except TooManyError as error:
        raise unavailable("too many bulk streams are open", retry_after_s=5) from error
    try:
        yield
    finally:
        backend.bulk_streams.leave()


async def _answer(
    backend: Backend, project: Project, given: Given, seal: SealRef, rule: RuleOfDay, *, compared: bool
) -> Response:
    """`compared`: with what the rule gives, if it gives anything. RefusedError 422."""
    packed = given.packed
    new = new_commit(project, given, seal, rule, key="", digest=b"")
    with ExitStack() as stack:
        suggestion = None
        if compared and rule.rule.micro_points_per_paid_s:
            suggestion = await packed_suggestion(backend.stores.ledger, seal, rule)
            stack.callback(suggestion.close)
        try:
            if packed.fault_count:
                await backend.stores.ledger.check(new, packed.file)
                raise refusal_of(given, (), 0)
            check_total(given.header, packed.total_micro_points)
            made = await backend.stores.previews.preview(
                new,
                packed.file,
                suggested=None if suggestion is None else suggestion.file,
                most=LISTED_MAX,
            )
        except RowsRefusedError as error:
            raise refusal_of(given, error.faults, error.count) from error
    return reply(
        PreviewAnswer(
            day=given.header.day,
            revision=seal.revision,
            root=seal.root.hex(),
            rows=packed.rows,
            total_points=points_of_micro(packed.total_micro_points),
            receivers=made.receivers,
            top=[
                ReceiverAnswer(
                    kind=each.kind,
                    beneficiary=each.beneficiary,
                    name=each.name,
                    points=points_of_micro(each.micro_points),
                    licence_points=points_of_micro(each.through_licences),
                    before=points_of_micro(each.before),
                )
                for each in made.top
            ],
            counted=None if made.counted is None else _comparison(made.counted),
            suggested=None if made.suggested is None else _comparison(made.suggested),
        )
    )


def _comparison(found: Comparison) -> ComparisonAnswer:
    return ComparisonAnswer(
        rows_changed=found.rows_changed,
        rows_added=found.rows_added,
        rows_removed=found.rows_removed,
        total_points=points_of_micro(found.total),
        most=[
            DifferingRowAnswer(each.workload_id, _points(each.here), _points(each.there))
            for each in found.most
        ],
    )


def _points(micro: int | None) -> str | None:
    return None if micro is None else points_of_micro(micro)


_PATH = "/v1/projects/{slug}/points"
ROUTES = (
    Route(
        method="POST",
        path=f"{_PATH}/preview",
        handler=preview_points,
        summary="What such a commit of points would come to; nothing is committed",
        tag="points",
        body=PointsRequest,
        body_content_types=BODY_TYPES,
        spooled=True,
        parameters=tuple(
            Parameter(name=name, description=f"For CSV only: the header's {name}")
            for name in PointsHeader.__struct_fields__
        ),
        answers={200: Answer(description="The preview", type=PreviewAnswer)},
        refusals=(400, 401, 404, 409, 413, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/suggested/preview",
        handler=preview_suggested_points,
        summary="What committing the project's rule of a sealed day would come to",
        tag="points",
        parameters=(Parameter(name="day", description="A sealed UTC day", required=True, schema=DAY_SCHEMA),),
        answers={200: Answer(description="The preview", type=PreviewAnswer)},
        refusals=(400, 404, 409, 503),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/commits/{{commit_id}}/suggested",
        handler=compare_commit,
        summary="How a commit differs from what the project's rule gives for its seal",
        tag="points",
        answers={200: Answer(description="The difference", type=ComparisonAnswer)},
        refusals=(404, 409, 503),
    ),
)
