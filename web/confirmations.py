"""`/v1/confirm/{token}`: the link in a letter that asks for consent; and having that letter sent again.

A GET only shows a button: scanners of mail follow links. The POST confirms, once.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from quart import Response

from engine.core.consent import Asked, NothingToConfirmError, TooManyLettersError
from engine.core.notices import ChannelRecord
from engine.core.people import Principal
from storage.tokens import sha256_of
from web.acts import act_of
from web.backend import Backend
from web.channels import ChannelAnswer, channel_answer
from web.consent_letter import question_of
from web.deliveries import my_channel, projects_channel
from web.problems import RefusedError, not_found
from web.routing import Answer, Route, reply
from web.unsubscribe import masked, page

_TOKEN = re.compile(r"npm_[A-Za-z0-9_-]{43}", re.ASCII)
_BUTTON = """<p>{who} wants {what} of NodePulse sent to {where}.</p>
<form method="post"><button>I want them</button></form>"""


async def show_confirmation(backend: Backend, caller: Principal, *, token: str) -> Response:
    asked = None
    if _TOKEN.fullmatch(token):
        asked = await backend.stores.consent.asked(sha256_of(token), now_ms=backend.clock())
    return page("Confirm", _BUTTON.format(**_words(_there(asked))))


async def confirm(backend: Backend, caller: Principal, *, token: str) -> Response:
    asked = None
    if _TOKEN.fullmatch(token):
        asked = await backend.stores.consent.confirm(sha256_of(token), act=act_of(backend, caller))
    words = _words(_there(asked))
    return page("Confirmed", "<p>From now on {what} are sent to {where}.</p>".format(**words))


def _there(asked: Asked | None) -> Asked:
    if asked is None:
        raise not_found("link: it works once and for a week")
    return asked


def _words(asked: Asked) -> dict[str, str]:
    return {
        "who": "Somebody" if asked.project is None else f"The project {escape(asked.project)}",
        "what": "announcements" if asked.announcements_only else "notices",
        "where": escape(masked(asked.address)),
    }


async def confirm_again(backend: Backend, caller: Principal, **of: str) -> Response:
    return await _ask(backend, caller, await projects_channel(backend, caller, **of), of["slug"])


async def confirm_mine_again(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    return await _ask(backend, caller, await my_channel(backend, caller, channel_id), None)


async def _ask(backend: Backend, caller: Principal, channel: ChannelRecord, slug: str | None) -> Response:
    question = question_of(backend, caller, slug)
    try:
        asked = await backend.stores.consent.ask_again(channel, question, act=act_of(backend, caller))
    except NothingToConfirmError as error:
        raise RefusedError(409, "nothing_to_confirm", str(error)) from error
    except TooManyLettersError as error:
        raise RefusedError(429, "too_many_letters", str(error)) from error
    return reply(channel_answer(asked), 202)


def _again(path: str, handler: Any, *, tag: str, missing: int) -> Route:
    return Route(
        method="POST",
        path=f"{path}/{{channel_id}}/confirm-again",
        handler=handler,
        summary="Have the letter sent again that asks the recipient of a mail channel; once a day",
        tag=tag,
        answers={202: Answer(description="The letter is on its way", type=ChannelAnswer)},
        refusals=tuple({404, 409, 429, missing}),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/confirm/{token}",
        handler=show_confirmation,
        summary="The page behind the link in a letter that asks whether mail is wanted; it changes nothing",
        tag="unsubscribe",
        answers={200: Answer(description="A page with a button", content_type="text/html")},
        refusals=(404,),
    ),
    Route(
        method="POST",
        path="/v1/confirm/{token}",
        handler=confirm,
        summary="Want mail at the address that got this link; the body does not matter",
        tag="unsubscribe",
        answers={200: Answer(description="Done", content_type="text/html")},
        refusals=(404,),
    ),
    _again("/v1/projects/{slug}/channels", confirm_again, tag="channels", missing=404),
    _again("/v1/me/channels", confirm_mine_again, tag="me", missing=409),
)
