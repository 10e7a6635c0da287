"""Disputes, for both sides: the list, and one with its record and what this visitor may say in it.

Whoever opened it comments; whoever runs the project answers, rejects, or points to the seal that corrects it.
"""

from __future__ import annotations

import json
from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.forms import NONE, Attempt, Given, fault, submit
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor
from web.pages.workloads import evidence_of

IN_LIST = 50
STATES = ("open", "answered", "corrected", "rejected")
SETTLED = ("corrected", "rejected")


async def list_disputes(visitor: Visitor) -> Response:
    args = request.args
    asked: dict[str, Any] = {
        "state": args.get("state") or None,
        "mine": "true" if args.get("mine") == "true" else None,
        "project": args.get("project") or None,
    }
    page = await visitor.api.get("/v1/disputes", **asked, after=args.get("after"), limit=IN_LIST)
    cursor = page["next_cursor"]
    return render(
        "disputes.html",
        visitor=visitor,
        disputes=page["items"],
        states=STATES,
        first=not args.get("after"),
        next_page=link("/disputes", **asked, after=cursor) if cursor else "",
        **asked,
    )


async def show_dispute(visitor: Visitor, *, dispute_id: str, attempt: Attempt = NONE) -> Response:
    dispute = await visitor.api.get(f"/v1/disputes/{segment(dispute_id)}")
    runs = visitor.is_admin or any(each["slug"] == dispute["project"] for each in visitor.projects)
    seal = await visitor.api.find(f"/v1/projects/{dispute['project']}/seals/{dispute['day']}")
    return render(
        "dispute.html",
        attempt.status,
        visitor=visitor,
        dispute=dispute,
        runs=runs,
        settled=dispute["state"] in SETTLED,
        # A licence's owner disputes days of machines that they cannot see.
        workload=await visitor.api.find(f"/v1/workloads/{dispute['workload_id']}"),
        newest=seal["revision"] if seal else dispute["revision"],
        **await _records(visitor, dispute, seal),
        reasons=words.REFUSED,
        me=_actor(visitor),
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


async def _records(visitor: Visitor, dispute: dict[str, Any], seal: dict[str, Any] | None) -> dict[str, Any]:
    """What the records say of the disputed day, for who may see the workload: why it was not paid, and its
    row in the disputed seal and, where there is a newer one, in the newest."""
    path, day = f"/v1/workloads/{dispute['workload_id']}", dispute["day"]
    why = await visitor.api.find(f"{path}/why", day=day)
    rows: list[dict[str, Any] | None] = [None, None]
    if why is not None and seal is not None:
        revisions = [dispute["revision"]] + [seal["revision"]] * (seal["revision"] > dispute["revision"])
        for place, revision in enumerate(revisions):
            proof = await visitor.api.find(f"{path}/proof", day=day, revision=revision)
            rows[place] = None if proof is None else json.loads(proof["row"])
    return {"why": why, "then": rows[0], "newly": rows[1]}


def _actor(visitor: Visitor) -> str:
    """How a record calls this visitor."""
    return f"user:{visitor.me['user']['user_id']}" if visitor.me and visitor.me["user"] else ""


async def comment(visitor: Visitor, *, dispute_id: str) -> Response:
    return await _say(visitor, dispute_id, "comments", lambda given: {"text": given.get("text", "")})


async def answer(visitor: Visitor, *, dispute_id: str) -> Response:
    return await _say(visitor, dispute_id, "answer", lambda given: {"text": given.get("text", "")})


async def reject(visitor: Visitor, *, dispute_id: str) -> Response:
    return await _say(visitor, dispute_id, "reject", lambda given: {"reason": given.get("text", "")})


async def correct(visitor: Visitor, *, dispute_id: str) -> Response:
    def body(given: Given) -> dict[str, Any]:
        revision = given.get("revision", "")
        if not (revision.isascii() and revision.isdigit() and len(revision) < 10):
            raise fault("say which revision of the day's seal puts it right", "revision")
        return {"revision": int(revision), "text": given.get("text", "")}

    return await _say(visitor, dispute_id, "correct", body)


async def _say(visitor: Visitor, dispute_id: str, what: str, body_of: Any) -> Response:
    path = f"/v1/disputes/{segment(dispute_id)}/{what}"

    async def send(given: Given) -> str:
        body = {**body_of(given), "evidence": evidence_of(given.get("evidence", ""))}
        await visitor.api.send("POST", path, body, key=given.get("once", ""))
        return f"/disputes/{segment(dispute_id)}?told=said#record"

    async def again(attempt: Attempt) -> Response:
        return await show_dispute(visitor, dispute_id=dispute_id, attempt=attempt)

    return await submit(what, send, again=again)


PAGES = (
    Page(path="/disputes", handler=list_disputes),
    Page(path="/disputes/{dispute_id}", handler=show_dispute),
    Page(path="/disputes/{dispute_id}/comments", handler=comment, method="POST"),
    Page(path="/disputes/{dispute_id}/answer", handler=answer, method="POST"),
    Page(path="/disputes/{dispute_id}/reject", handler=reject, method="POST"),
    Page(path="/disputes/{dispute_id}/correct", handler=correct, method="POST"),
)
