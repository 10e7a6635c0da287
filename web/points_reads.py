"""What was committed, read: totals, the history of commits, the board, and what one earned oneself.

Of a day the newest commit counts. Windows are days: `day`, or from `from` to before `to`; without them all.
How commits are made is points.py's; their rows as streams points_streams.py's.
"""

from __future__ import annotations

from typing import Any

import msgspec
from quart import Response, request

from engine.core.amounts import points_of_micro
from engine.core.ledger import BeneficiaryKind, Commit, Total
from engine.core.people import Principal
from engine.core.ports import Project
from web import sight
from web.backend import Backend
from web.days import DAYS, day_text, days_of_query
from web.ids import canonical_uuid
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.points_answers import ChangeItem, CommitAnswer, answer_of, change_item, commit_answer
from web.points_cursors import amount_cursor, beneficiary_cursor, day_cursor, pair_cursor, text_of
from web.problems import not_found
from web.routing import Answer, Parameter, Route, reply


class UserPoints(msgspec.Struct, frozen=True):
    """`user`: whom the points belong to, as `kind` says: a user's id, the wallet of somebody without an
    account, a node's id for a machine without an operator; empty for what nobody held. `licence_points`: as
    much of it as was earned through licences; the rest by machines."""

    user: str
    kind: BeneficiaryKind
    wallet: str | None
    points: str
    licence_points: str


class TotalsAnswer(msgspec.Struct, frozen=True):
    """Most points first. `total_points`: of the whole window. `from`, `to`: null = without an end."""

    project: str
    day: str | None
    total_points: str
    items: list[UserPoints]
    next_cursor: str | None


class LicencePoints(msgspec.Struct, frozen=True):
    licence_id: str
    points: str


class LicencePointsAnswer(msgspec.Struct, frozen=True):
    """By id. What was earned without a licence is not in it."""

    items: list[LicencePoints]
    next_cursor: str | None


class WorkloadPoints(msgspec.Struct, frozen=True):
    workload_id: str
    points: str


class WorkloadPointsAnswer(msgspec.Struct, frozen=True):
    """By id."""

    items: list[WorkloadPoints]
    next_cursor: str | None


class CommitsAnswer(msgspec.Struct, frozen=True):
    """A page of commits; their differences without beneficiaries."""

    items: list[CommitAnswer]
    next_cursor: str | None


class ChangesAnswer(msgspec.Struct, frozen=True):
    """For whom a correction changed how much, by kind and beneficiary."""

    items: list[ChangeItem]
    next_cursor: str | None


class BoardItem(msgspec.Struct, frozen=True):
    """`name`: as that person calls themselves. `wallet`: null of somebody without one. `mine`: it is you."""

    rank: int
    name: str
    wallet: str | None
    points: str
    mine: bool


class BoardAnswer(msgspec.Struct, frozen=True):
    """Most points first; equal ones share a rank."""

    items: list[BoardItem]
    next_cursor: str | None


class MyPoints(msgspec.Struct, frozen=True):
    """What one earned on a day in a project; `revision`: of the commit that counts."""

    day: str
    project: str
    points: str
    licence_points: str
    revision: int


class MyPointsAnswer(msgspec.Struct, frozen=True):
    """Newest day first."""

    items: list[MyPoints]
    next_cursor: str | None


async def read_points(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    days, limit = days_of_query(), limit_parameter()
    ledger = backend.stores.ledger
    found = await ledger.by_beneficiary(project.project_id, *days, after=amount_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, _amount_cursor_of)
    total = await ledger.window_total(project.project_id, *days)
    answer = TotalsAnswer(
        project=project.slug,
        day=request.args.get("day"),
        total_points=points_of_micro(total),
        items=[
            UserPoints(
                user=each.beneficiary,
                kind=each.kind,
                wallet=each.wallet,
                points=points_of_micro(each.micro_points),
                licence_points=points_of_micro(each.through_licences),
            )
            for each in page
        ],
        next_cursor=next_cursor,
    )
    return reply(answer, headers=link_headers(next_cursor))


def _amount_cursor_of(total: Total) -> str:
    return text_of(str(total.micro_points), total.kind, total.beneficiary)


async def read_points_of_licences(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    days, limit = days_of_query(), limit_parameter()
    found = await backend.stores.ledger.by_licence(
        project.project_id, *days, after=id_cursor(), limit=limit + 1
    )
    page, next_cursor = cut(found, limit, lambda each: each[0])
    items = [LicencePoints(each, points_of_micro(micro)) for each, micro in page]
    return reply(LicencePointsAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def read_points_of_workloads(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    days, limit = days_of_query(), limit_parameter()
    found = await backend.stores.ledger.by_workload(
        project.project_id, *days, after=id_cursor(), limit=limit + 1
    )
    page, next_cursor = cut(found, limit, lambda each: each[0])
    items = [WorkloadPoints(each, points_of_micro(micro)) for each, micro in page]
    return reply(WorkloadPointsAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def read_points_of_days(backend: Backend, caller: Principal, *, slug: str) -> Response:
    """The commits that count, oldest day first."""
    project = await sight.project(backend, caller, slug)
    days, limit = days_of_query(), limit_parameter()
    found = await backend.stores.ledger.by_day(project.project_id, *days, after=day_cursor(), limit=limit + 1)
    return _commits(project, *cut(found, limit, lambda each: each.day))


async def list_points_commits(backend: Backend, caller: Principal, *, slug: str) -> Response:
    """All revisions, newest day and revision first."""
    project = await sight.project(backend, caller, slug)
    days, limit = days_of_query(), limit_parameter()
    before = pair_cursor(day_text, _revision)
    found = await backend.stores.ledger.commits(
        project.project_id, from_day=days.from_day, to_day=days.to_day, before=before, limit=limit + 1
    )
    return _commits(project, *cut(found, limit, lambda each: text_of(each.day, str(each.revision))))


def _revision(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError("not a revision")
    return int(text)


def _commits(project: Project, page: Any, next_cursor: str | None) -> Response:
    items = [answer_of(project.slug, each, []) for each in page]
    return reply(CommitsAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def get_points_commit(backend: Backend, caller: Principal, *, slug: str, commit_id: str) -> Response:
    project, commit = await commit_seen(backend, caller, slug, commit_id)
    return reply(await commit_answer(backend, project.slug, commit))


async def commit_seen(
    backend: Backend, caller: Principal, slug: str, commit_id: str
) -> tuple[Project, Commit]:
    """A commit as whoever runs its project. RefusedError 404, 403."""
    project = await sight.project(backend, caller, slug)
    found = await backend.stores.ledger.commit_of(project.project_id, commit_id.lower())
    if found is None:
        raise not_found("commit")
    return project, found


async def list_points_changes(backend: Backend, caller: Principal, *, slug: str, commit_id: str) -> Response:
    _, commit = await commit_seen(backend, caller, slug, commit_id)
    limit = limit_parameter()
    found = await backend.stores.ledger.differences(commit, after=beneficiary_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda each: text_of(each.kind, each.beneficiary))
    items = [change_item(each) for each in page]
    return reply(ChangesAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def read_leaderboard(backend: Backend, caller: Principal, *, slug: str) -> Response:
    """For whoever signed in: people and wallets, no machines."""
    project = await sight.public_project(backend, caller, slug)
    days, limit = days_of_query(), limit_parameter()
    found = await backend.stores.ledger.by_beneficiary(
        project.project_id, *days, after=amount_cursor(), limit=limit + 1, people_only=True
    )
    page, next_cursor = cut(found, limit, _amount_cursor_of)
    items = [
        BoardItem(
            rank=each.rank,
            name=each.name,
            wallet=each.wallet,
            points=points_of_micro(each.micro_points),
            mine=each.user_id is not None and each.user_id == caller.user_id,
        )
        for each in page
    ]
    return reply(BoardAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def read_my_points(backend: Backend, caller: Principal) -> Response:
    days, limit = days_of_query(), limit_parameter()
    before = pair_cursor(day_text, _id)
    if caller.user_id is None:
        return reply(MyPointsAnswer([], None))
    found = await backend.stores.ledger.earned(
        user_id=caller.user_id,
        wallet=await sight.own_wallet(backend, caller),
        from_day=days.from_day,
        to_day=days.to_day,
        before=before,
        limit=limit + 1,
    )
    page, next_cursor = cut(found, limit, lambda each: text_of(each.day, each.project_id))
    items = [
        MyPoints(
            day=each.day,
            project=each.project,
            points=points_of_micro(each.micro_points),
            licence_points=points_of_micro(each.through_licences),
            revision=each.revision,
        )
        for each in page
    ]
    return reply(MyPointsAnswer(items, next_cursor), headers=link_headers(next_cursor))


def _id(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise ValueError("not an id")
    return found


_PATH = "/v1/projects/{slug}/points"


def _listing(
    path: str, handler: Any, summary: str, answer: Any, *parameters: Parameter, **more: Any
) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        tag=more.get("tag", "points"),
        parameters=(*parameters, *PARAMETERS),
        answers={200: Answer(description="A page", type=answer)},
        refusals=(400, 404),
    )


ROUTES = (
    _listing(_PATH, read_points, "Points that count, summed per user, most first", TotalsAnswer, *DAYS),
    _listing(
        f"{_PATH}/licences",
        read_points_of_licences,
        "Points that count, summed per licence",
        LicencePointsAnswer,
        *DAYS,
    ),
    _listing(
        f"{_PATH}/workloads",
        read_points_of_workloads,
        "Points that count, summed per workload",
        WorkloadPointsAnswer,
        *DAYS,
    ),
    _listing(
        f"{_PATH}/days", read_points_of_days, "The commit that counts of each day", CommitsAnswer, *DAYS
    ),
    _listing(
        f"{_PATH}/commits",
        list_points_commits,
        "All commits, corrections and what they replaced, newest first",
        CommitsAnswer,
        *DAYS,
    ),
    Route(
        method="GET",
        path=f"{_PATH}/commits/{{commit_id}}",
        handler=get_points_commit,
        summary="One commit, and what it changed",
        tag="points",
        answers={200: Answer(description="The commit", type=CommitAnswer)},
        refusals=(404,),
    ),
    _listing(
        f"{_PATH}/commits/{{commit_id}}/changes",
        list_points_changes,
        "For whom a correction changed how much",
        ChangesAnswer,
    ),
    _listing(
        "/v1/projects/{slug}/leaderboard",
        read_leaderboard,
        "Who earned most in a project",
        BoardAnswer,
        *DAYS,
    ),
    _listing(
        "/v1/me/points",
        read_my_points,
        "What I earned by day and project, through my licences and by my machines",
        MyPointsAnswer,
        *DAYS,
        tag="me",
    ),
)
