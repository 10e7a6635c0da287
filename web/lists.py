"""What lists of nodes and of workloads have in common: the project asked about, and those in one state only.

A state is nowhere in PostgreSQL, so places are read in order and looked up in the live view, as arrays, until
a page is full or enough were looked at: a page may then be short, or empty, and still have a next one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

import numpy as np
from quart import request

from engine.core.fleet import Place
from engine.core.people import Principal
from storage.view_arrays import Seen
from web import sight
from web.backend import Backend
from web.ids import SLUG, canonical_uuid
from web.paging import id_cursor, limit_parameter
from web.problems import bad_parameter, unavailable
from web.routing import Parameter, in_haste
from web.summaries import HASTE_LATE_S, HASTE_S, Counts, StillCountingError
from web.view_arrays import look

LOOKED_AT_ONCE = 5_000
LOOKED_AT_MAX = 100_000  # places for one page
TEXT_MAX = 128  # characters of a filter
ID_CHARS = 36
_HEX = re.compile(r"[0-9a-f]{1,32}")
RARE_MAX = 20_000  # rows that are looked for by their numbers
HASTE_TURNS = 4  # of LOOKED_AT_ONCE, for who would rather look further himself than wait
Rows = tuple[int, ...]
Places = Callable[[str | None, int, Rows | None], Awaitable[list[Place]]]


class InState(NamedTuple):
    """Whom a list asked for by state wants. `wanted`: which of those looked up are in it; `rows`: the rows
    of a project in which somebody was in it when they were counted last."""

    wanted: Callable[[Seen], np.ndarray]
    rows: Callable[[Counts], np.ndarray]


PROJECT = Parameter(
    name="project",
    description="Slug of the project; without it everything that you may see",
    schema={"type": "string", "pattern": f"^{SLUG.pattern}$"},
)
ID_BEGINS = Parameter(
    name="id",
    description="What their id begins with",
    schema={"type": "string", "pattern": "^[0-9A-Fa-f-]+$", "maxLength": ID_CHARS},
)
RETIRED = Parameter(name="retired", description="Retired ones, too", schema={"type": "boolean"})


class Found(NamedTuple):
    places: list[Place]
    next_cursor: str | None


def person_parameter(caller: Principal, name: str) -> str | None:
    """Whose: an id, or `me`. RefusedError 400."""
    if request.args.get(name) != "me":
        return id_parameter(name)
    if caller.user_id is None:
        raise bad_parameter(name, "me is for people: this key is of no person")
    return caller.user_id


def person(name: str, description: str) -> Parameter:
    """The parameter that `person_parameter` reads."""
    return Parameter(
        name=name,
        description=f"{description}: their id, or me",
        schema={"anyOf": [{"const": "me"}, {"type": "string", "format": "uuid"}]},
    )


async def page_of(
    backend: Backend, places: Places, state: InState | None, *, project_id: str | None = None
) -> Found:
    """The page that the query asks for. `project_id`: whose living nodes alone are in the list, if so.

    RefusedError 400; 503 when a state cannot be told now.
    """
    after, limit = id_cursor(), limit_parameter()
    if state is None:
        found = await places(after, limit + 1, None)
        return Found(found[:limit], found[limit - 1].id if len(found) > limit else None)
    page: list[Place] = []
    rows: Rows | None = None
    for turn in range(HASTE_TURNS if in_haste() else LOOKED_AT_MAX // LOOKED_AT_ONCE):
        if turn == 1 and project_id is not None:
            # Few are in this state: they are found by their rows, not by going through a million.
            rows = await _rows(backend, project_id, state)
        some = await places(after, LOOKED_AT_ONCE, rows)
        row, slot = (np.array([each[field] for each in some], np.int64) for field in (1, 2))
        seen, _undecided = await look(backend, row, slot)
        if not seen.known.all():
            raise unavailable("the live view is away: nothing can be told by state")
        page += [some[at] for at in np.flatnonzero(state.wanted(seen)).tolist()]
        if len(page) > limit:
            return Found(page[:limit], page[limit - 1].id)
        if len(some) < LOOKED_AT_ONCE:
            return Found(page, None)
        after = some[-1].id
    return Found(page, after)


async def _rows(backend: Backend, project_id: str, state: InState) -> Rows | None:
    """Where those in this state stood when they were counted last; None: not known, or they are many."""
    enough_s = HASTE_LATE_S if in_haste() else None
    try:
        counts = await backend.summaries.of(backend, project_id, patience_s=HASTE_S, enough_s=enough_s)
    except StillCountingError:
        return None
    rows = np.unique(state.rows(counts))
    return tuple(rows.tolist()) if len(rows) <= RARE_MAX else None


async def project_parameter(backend: Backend, caller: Principal) -> str | None:
    """The id of the project asked about. RefusedError 404."""
    slug = request.args.get("project")
    return None if slug is None else (await sight.public_project(backend, caller, slug)).project_id


def id_parameter(name: str) -> str | None:
    """An id from the query. RefusedError 400."""
    text = request.args.get(name)
    found = None if text is None else canonical_uuid(text)
    if text is not None and found is None:
        raise bad_parameter(name, "is not an id")
    return found


def ids_parameter(name: str) -> tuple[str, str] | None:
    """The least and the greatest id that begin like the one in the query. RefusedError 400."""
    text = request.args.get(name)
    if text is None:
        return None
    digits = text.lower().replace("-", "")
    if not _HEX.fullmatch(digits) or len(text) > ID_CHARS:
        raise bad_parameter(
            name, "is not the beginning of an id: hexadecimal digits, and hyphens between them"
        )
    return str(UUID(digits.ljust(32, "0"))), str(UUID(digits.ljust(32, "f")))


def text_parameter(name: str) -> str | None:
    """A text from the query. RefusedError 400 for one that cannot be anywhere."""
    text = request.args.get(name)
    if text is not None and (len(text) > TEXT_MAX or "\0" in text):
        raise bad_parameter(name, f"may have {TEXT_MAX} characters, none of them NUL")
    return text


def slug_parameter(name: str) -> str | None:
    """A slug from the query. RefusedError 400."""
    text = request.args.get(name)
    if text is not None and not SLUG.fullmatch(text):
        raise bad_parameter(name, "is not a slug: small letters, digits and hyphens")
    return text


def choice_parameter(name: str, choices: tuple[str, ...]) -> str | None:
    """One of some words from the query. RefusedError 400."""
    text = request.args.get(name)
    if text is not None and text not in choices:
        raise bad_parameter(name, f"must be one of {', '.join(choices)}")
    return text


def text_filter(name: str, description: str) -> Parameter:
    return Parameter(
        name=name,
        description=description,
        schema={"type": "string", "maxLength": TEXT_MAX, "pattern": "^[^\\u0000]*$"},
    )
