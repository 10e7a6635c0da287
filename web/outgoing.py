"""`/v1/installation`: what is still to be sent, what was given up, and the roots on their way out.

Sending is the worker's. Of one's own channels deliveries.py tells; here are those of everybody, for whoever
runs the installation and has to see that messages go out.
"""

from __future__ import annotations

import re

import msgspec
from quart import Response, request

from engine.core.apprise_url import shown
from engine.core.installation import ATTEMPTS_LOOKED_AT, COUNTED_MAX, DeadLetter, PublishedRoot
from engine.core.people import Principal
from engine.core.publication import TARGETS
from engine.core.told import ChannelOffError
from web.acts import act_of
from web.backend import Backend
from web.deliveries import ReplayAnswer
from web.ids import canonical_uuid
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import RefusedError, bad_parameter, not_found
from web.routing import Answer, Parameter, Route, boolean_parameter, reply, reply_polled
from web.times import format_rfc3339

LAG_BOUNDS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600)
_ROOT_CURSOR = re.compile(rf"(\d{{1,18}})\.({'|'.join(TARGETS)})", re.ASCII)


class OutgoingItem(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one kind of channel (`letter`: those of signing in; `other`: of before there were kinds).
    `due` now, `later` (being sent, or to be tried again), given up (`dead`): each counted up to
    `counted_max`."""

    kind: str
    due: int
    later: int
    dead: int
    oldest_due_at: str | None
    oldest_due_ms: int | None


class LagBucket(msgspec.Struct, frozen=True):
    """Notices that were first tried so long after their event; null: later than all."""

    to_s: float | None
    notices: int


class OutboxAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`oldest_due_ms`: how long the oldest message that is due waits. `lag`: of the newest `lag_of_newest`
    messages those that tell of events, from the event to the first attempt; delays that recipients chose are
    in it. `lag_p50_s`, `lag_p99_s` null: there were none."""

    as_of: str
    items: list[OutgoingItem]
    counted_max: int
    lag: list[LagBucket]
    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_of_newest: int


class DeadLetterItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was given up. `owner`: of the channel, a project's slug or a person. `replayable`: its
    channel is on."""

    delivery_id: str
    channel_id: str
    owner: str
    channel_kind: str
    channel_name: str
    target: str
    replayable: bool
    kind: str
    attempts: int
    replays: int
    note: str
    created_at: str
    settled_at: str | None


class DeadLettersAnswer(msgspec.Struct, frozen=True):
    """A page, the newest first."""

    items: list[DeadLetterItem]
    next_cursor: str | None


class RootItem(msgspec.Struct, frozen=True, kw_only=True):
    """The root of a sealed day on its way to a target. `state`: due | done. `note`: of the last attempt."""

    project: str
    day: str
    revision: int
    target: str
    state: str
    attempts: int
    note: str
    changed_at: str
    next_attempt_at: str | None


class RootsAnswer(msgspec.Struct, frozen=True):
    """A page, the newest seals first."""

    items: list[RootItem]
    next_cursor: str | None


async def get_outbox(backend: Backend, _caller: Principal) -> Response:
    now_ms = backend.clock()
    lines = await backend.stores.installation.outgoing(now_ms=now_ms)
    lags_s = sorted(ms / 1_000 for ms in await backend.stores.installation.lags_ms())
    items = [
        OutgoingItem(
            kind=line.kind,
            due=line.due,
            later=line.later,
            dead=line.dead,
            oldest_due_at=None if line.oldest_due_ms is None else format_rfc3339(line.oldest_due_ms),
            oldest_due_ms=None if line.oldest_due_ms is None else max(0, now_ms - line.oldest_due_ms),
        )
        for line in lines
    ]
    return reply_polled(
        OutboxAnswer(
            as_of=format_rfc3339(now_ms),
            items=items,
            counted_max=COUNTED_MAX,
            lag=_buckets(lags_s),
            lag_p50_s=_percentile(lags_s, 0.5),
            lag_p99_s=_percentile(lags_s, 0.99),
            lag_of_newest=ATTEMPTS_LOOKED_AT,
        )
    )


def _buckets(lags_s: list[float]) -> list[LagBucket]:
    found, below = [], 0
    for bound in LAG_BOUNDS_S:
        upto = sum(lag <= bound for lag in lags_s)
        found.append(LagBucket(bound, upto - below))
        below = upto
    return [*found, LagBucket(None, len(lags_s) - below)]


def _percentile(ordered: list[float], share: float) -> float | None:
    """The nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


async def list_dead_letters(backend: Backend, _caller: Principal) -> Response:
    limit = limit_parameter()
    found = await backend.stores.installation.dead_letters(before=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda letter: letter.delivery_id)
    answer = DeadLettersAnswer([_letter(letter) for letter in page], next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


def _letter(letter: DeadLetter) -> DeadLetterItem:
    return DeadLetterItem(
        delivery_id=letter.delivery_id,
        channel_id=letter.channel_id,
        owner=letter.owner,
        channel_kind=letter.channel_kind,
        channel_name=letter.channel_name,
        target=shown(letter.target) if letter.channel_kind == "apprise" else letter.target,
        replayable=not letter.off,
        kind=letter.notice_kind,
        attempts=letter.attempts,
        replays=letter.replays,
        note=letter.note,
        created_at=format_rfc3339(letter.created_ms),
        settled_at=None if letter.settled_ms is None else format_rfc3339(letter.settled_ms),
    )


async def replay_dead_letter(backend: Backend, caller: Principal, *, delivery_id: str) -> Response:
    """One, or with ?channel=true all of its channel."""
    whole = boolean_parameter("channel")
    key = canonical_uuid(delivery_id)
    letter = None if key is None else await backend.stores.installation.dead_letter(key)
    channel = None
    if letter is not None:
        channel = await backend.stores.told.channel(
            letter.channel_id, project_id=letter.project_id, user_id=letter.user_id
        )
    if letter is None:
        raise not_found("dead letter")
    if channel is None:
        raise RefusedError(409, "channel_disabled", "the channel was removed: nothing is sent there any more")
    try:
        count = await backend.stores.told.replay(
            channel, None if whole else letter.delivery_id, act=act_of(backend, caller)
        )
    except ChannelOffError as error:
        raise RefusedError(409, "channel_disabled", str(error)) from error
    return reply(ReplayAnswer(count))


async def list_roots(backend: Backend, _caller: Principal) -> Response:
    limit = limit_parameter()
    found = await backend.stores.installation.roots(
        due_only=boolean_parameter("due"), before=_root_cursor(), limit=limit + 1
    )
    page, next_cursor = cut(found, limit, lambda root: f"{root.seal_no}.{root.target}")
    answer = RootsAnswer([_root(root) for root in page], next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


def _root_cursor() -> tuple[int, str] | None:
    text = request.args.get("after")
    if text is None:
        return None
    match = _ROOT_CURSOR.fullmatch(text)
    if match is None:
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    return int(match[1]), match[2]


def _root(root: PublishedRoot) -> RootItem:
    return RootItem(
        project=root.project,
        day=root.day,
        revision=root.revision,
        target=root.target,
        state=root.state,
        attempts=root.attempts,
        note=root.note,
        changed_at=format_rfc3339(root.changed_ms),
        next_attempt_at=format_rfc3339(root.due_ms) if root.state == "due" else None,
    )


def _flag(name: str, description: str) -> Parameter:
    return Parameter(name=name, description=description, schema={"type": "boolean"})


ROUTES = (
    Route(
        method="GET",
        path="/v1/installation/outbox",
        handler=get_outbox,
        summary="What is still to be sent, and how long after an event it was first tried",
        tag="operation",
        answers={
            200: Answer(description="As of now", type=OutboxAnswer),
            304: Answer(description="It is as you have it"),
        },
    ),
    Route(
        method="GET",
        path="/v1/installation/dead-letters",
        handler=list_dead_letters,
        summary="Messages of all channels that were given up, the newest first",
        tag="operation",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of dead letters", type=DeadLettersAnswer)},
        refusals=(400,),
    ),
    Route(
        method="POST",
        path="/v1/installation/dead-letters/{delivery_id}/replay",
        handler=replay_dead_letter,
        summary="Send a dead letter again, or all of its channel",
        tag="operation",
        parameters=(_flag("channel", "All dead letters of its channel"),),
        answers={200: Answer(description="They are due again", type=ReplayAnswer)},
        refusals=(400, 404, 409),
    ),
    Route(
        method="GET",
        path="/v1/installation/publications",
        handler=list_roots,
        summary="Roots of sealed days on their way to where they are published, the newest seals first",
        tag="operation",
        parameters=(_flag("due", "Only those that are not there yet"), *PARAMETERS),
        answers={200: Answer(description="A page of publications", type=RootsAnswer)},
        refusals=(400,),
    ),
)
