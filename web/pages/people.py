"""People and what they may do, for whoever runs the installation: admins, operators, owners of projects."""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.forms import NONE, Attempt, Given, submit
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor, must_be_admin

PEOPLE_IN_PAGE = 50
OWNERS_SHOWN = 1_000
HERE = "/installation/people"


async def list_people(visitor: Visitor, *, attempt: Attempt = NONE) -> Response:
    args = request.args
    who = args.get("who", "").strip()
    asked: dict[str, Any] = {}
    if who:
        asked["wallet" if who.lower().startswith("0x") else "email"] = who
    page = await visitor.api.get("/v1/users", **asked, after=args.get("after"), limit=PEOPLE_IN_PAGE)
    cursor = page["next_cursor"]
    return render(
        "installation/people.html",
        attempt.status,
        visitor=visitor,
        people=page["items"],
        who=who,
        first=not args.get("after"),
        next_page=link(HERE, who=who, after=cursor) if cursor else "",
        attempt=attempt,
    )


async def add_person(visitor: Visitor) -> Response:
    async def send(given: Given) -> str:
        body = {
            "name": given.get("name", ""),
            "wallet": given.get("wallet") or None,
            "email": given.get("email") or None,
            "admin": "admin" in given,
        }
        made = await visitor.api.send("POST", "/v1/users", body, key=given.get("once", ""))
        return f"{HERE}/{made['user_id']}?told=person-added"

    async def again(attempt: Attempt) -> Response:
        return await list_people(visitor, attempt=attempt)

    return await submit("person", send, again=again)


async def show_person(visitor: Visitor, *, user_id: str, attempt: Attempt = NONE) -> Response:
    path = f"/v1/users/{segment(user_id)}"
    must_be_admin(visitor)
    person = await visitor.api.get(path)
    return render(
        "installation/person.html",
        attempt.status,
        visitor=visitor,
        person=person,
        oneself=_is_oneself(visitor, person),
        licences=(await visitor.api.get(f"{path}/licences", limit=10))["items"],
        done=(await visitor.api.get("/v1/audit", actor=f"user:{person['user_id']}", limit=10))["items"],
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


def _is_oneself(visitor: Visitor, person: dict[str, Any]) -> bool:
    user = None if visitor.me is None else visitor.me["user"]
    return user is not None and bool(user["user_id"] == person["user_id"])


async def change_person(visitor: Visitor, *, user_id: str) -> Response:
    async def send(given: Given) -> str:
        body: dict[str, Any] = {
            "name": given.get("name", ""),
            "wallet": given.get("wallet") or None,
            "email": given.get("email") or None,
            "admin": "admin" in given,
        }
        await visitor.api.send("PATCH", f"/v1/users/{segment(user_id)}", body)
        return f"{HERE}/{segment(user_id)}?told=person-kept"

    return await submit("change", send, again=_again(visitor, user_id))


async def retire_person(visitor: Visitor, *, user_id: str) -> Response:
    async def send(given: Given) -> str:
        await visitor.api.send("PATCH", f"/v1/users/{segment(user_id)}", {"retired": True})
        return f"{HERE}/{segment(user_id)}?told=person-retired"

    return await submit("retire", send, again=_again(visitor, user_id))


async def own_project(visitor: Visitor, *, user_id: str) -> Response:
    """Make them an owner of a project, or let them be it no longer, by which button was pressed."""

    async def send(given: Given) -> str:
        path = f"/v1/projects/{segment(given.get('project', ''))}/owners/{segment(user_id)}"
        method = "DELETE" if given.get("which") == "remove" else "PUT"
        await visitor.api.send(method, path)
        told = "owner-removed" if method == "DELETE" else "owner-added"
        return f"{HERE}/{segment(user_id)}?told={told}#projects"

    return await submit("owner", send, again=_again(visitor, user_id))


def _again(visitor: Visitor, user_id: str) -> Any:
    async def again(attempt: Attempt) -> Response:
        return await show_person(visitor, user_id=user_id, attempt=attempt)

    return again


PAGES = (
    Page(path=HERE, handler=list_people),
    Page(path="/installation/people/add", handler=add_person, method="POST"),
    Page(path="/installation/people/{user_id}", handler=show_person),
    Page(path="/installation/people/{user_id}", handler=change_person, method="POST"),
    Page(path="/installation/people/{user_id}/retire", handler=retire_person, method="POST"),
    Page(path="/installation/people/{user_id}/owner", handler=own_project, method="POST"),
)
