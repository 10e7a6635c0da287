"""`/v1/unsubscribe/{token}`: the link in each mail by which whoever gets it ends it (RFC 8058).

A GET only shows a button: scanners of mail follow links. The POST acts; mail programs send it by themselves
when their user clicks. The token is the channel's own, and whoever has it may end that channel and no more.
"""

from __future__ import annotations

import re
from html import escape

from quart import Response

from engine.core.notices import ChannelRecord
from engine.core.people import Principal
from web.acts import act_of
from web.backend import Backend
from web.lists import choice_parameter
from web.problems import not_found
from web.routing import Answer, Parameter, Route

_TOKEN = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HTML = "text/html; charset=utf-8"
HEADERS = {
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",  # the address is the secret
    "x-robots-tag": "noindex",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""
_BUTTON = """<p>{what} are sent to {where}.</p>
<form method="post"><button name="List-Unsubscribe" value="One-Click">Send no more of them</button></form>"""
_ONLY = Parameter(
    name="only",
    description="announcements: those alone are ended",
    schema={"type": "string", "enum": ["announcements"]},
)


async def show_unsubscribe(backend: Backend, caller: Principal, *, token: str) -> Response:
    channel = await _channel(backend, token)
    what = "Announcements" if _announcements_only() else "Notices of NodePulse"
    return page("Unsubscribe", _BUTTON.format(what=what, where=escape(masked(channel.target))))


async def unsubscribe(backend: Backend, caller: Principal, *, token: str) -> Response:
    channel = await _channel(backend, token)
    only = _announcements_only()
    await backend.stores.told.unsubscribe(token, announcements_only=only, act=act_of(backend, caller))
    what = "announcements" if only else "notices"
    return page("Unsubscribed", f"<p>No more {what} are sent to {escape(masked(channel.target))}.</p>")


def _announcements_only() -> bool:
    return choice_parameter("only", ("announcements",)) is not None


async def _channel(backend: Backend, token: str) -> ChannelRecord:
    found = await backend.stores.told.channel_of_link(token) if _TOKEN.fullmatch(token) else None
    if found is None or found.kind != "mail":
        raise not_found("link: it may have been of a channel that is removed")
    return found


def masked(address: str) -> str:
    """Enough for its owner: links are forwarded, too."""
    name, at, domain = address.rpartition("@")
    return f"{name[:1]}***{at}{domain}"


def page(title: str, body: str) -> Response:
    """A page for whoever followed a link out of a mail. `body` is HTML."""
    text = _PAGE.format(title=title, body=body)
    return Response(text, 200, HEADERS, content_type=_HTML)


ROUTES = (
    Route(
        method="GET",
        path="/v1/unsubscribe/{token}",
        handler=show_unsubscribe,
        summary="The page behind the link in a mail; it changes nothing",
        tag="unsubscribe",
        parameters=(_ONLY,),
        answers={200: Answer(description="A page with a button", content_type="text/html")},
        refusals=(400, 404),
    ),
    Route(
        method="POST",
        path="/v1/unsubscribe/{token}",
        handler=unsubscribe,
        summary="Have no more mail sent to whoever got this link (RFC 8058); the body does not matter",
        tag="unsubscribe",
        parameters=(_ONLY,),
        answers={200: Answer(description="Done", content_type="text/html")},
        refusals=(400, 404),
    ),
)
