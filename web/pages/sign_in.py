"""Signing in and out in a browser: by a mailed link, a wallet, or an API key that one has.

The API signs in (web/sign_in.py); here its answer becomes a cookie. The mailed link carries its token behind
`#`, which only the browser sees: a script puts it into the form, and without scripts it is pasted.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from quart import Response, request

from web.backend import Backend
from web.pages.asking import ApiError, Asking
from web.pages.pages import Page, form_field, see_other
from web.pages.rendering import render
from web.pages.visitor import Visitor, forget, keep

_OURS = re.compile(r"/(?![/\\])[^\r\n\\]{0,2000}", re.ASCII)  # a path of this site, and of no other


def next_of(text: str) -> str:
    """Where to go afterwards: a path of ours, whatever was asked for."""
    return text if _OURS.fullmatch(text) else "/"


class SignIn:
    """The pages need to know how long a login lasts and for which chain wallets sign."""

    def __init__(self, backend: Backend) -> None:
        self._settings = backend.settings

    async def show(self, visitor: Visitor) -> Response:
        args = request.args
        return self._page(visitor, told=_TOLD.get(args.get("told", ""), ""), next_=args.get("next", "/"))

    def _page(
        self, visitor: Visitor, *, told: str = "", wrong: str = "", next_: str = "/", status: int = 200
    ) -> Response:
        return render(
            "sign_in.html",
            status,
            visitor=visitor,
            told=told,
            wrong=wrong,
            next=next_of(next_),
            chain_id=self._settings.wallet_chain_id,
        )

    async def by_key(self, visitor: Visitor) -> Response:
        """A key is as good as a login, for as long as it lasts."""
        key, next_ = await form_field("key"), next_of(await form_field("next", "/"))
        api = Asking(visitor.api.app, key)
        if not (await api.ask("GET", "/v1/me")).ok:
            wrong = "That key is not known, was revoked, or has expired."
            return self._page(visitor, wrong=wrong, next_=next_, status=401)
        return keep(see_other(next_), key, life_s=self._settings.login_life_s)

    async def ask_letter(self, visitor: Visitor) -> Response:
        next_ = next_of(await form_field("next", "/"))
        try:
            await visitor.api.send("POST", "/v1/sign-in/mail", {"email": await form_field("email")})
        except ApiError as error:
            return self._page(visitor, wrong=error.detail, next_=next_, status=error.status)
        return see_other(f"/sign-in?told=letter&next={quote(next_)}")

    async def by_token(self, visitor: Visitor) -> Response:
        return await self._signed_in(
            visitor, "/v1/sign-in/mail/confirm", {"token": await form_field("token")}
        )

    async def by_wallet(self, visitor: Visitor) -> Response:
        form = await request.form
        body = {"message": str(form.get("message", "")), "signature": str(form.get("signature", ""))}
        return await self._signed_in(visitor, "/v1/sign-in/wallet", body)

    async def _signed_in(self, visitor: Visitor, path: str, body: dict[str, str]) -> Response:
        next_ = next_of(await form_field("next", "/"))
        try:
            answer = await visitor.api.send("POST", path, body)
        except ApiError as error:
            return self._page(visitor, wrong=error.detail, next_=next_, status=error.status)
        return keep(see_other(next_), answer["token"], life_s=self._settings.login_life_s)

    async def out(self, visitor: Visitor) -> Response:
        """The login ends everywhere; a key is only forgotten by this browser."""
        answered = await visitor.api.ask("DELETE", "/v1/sign-in")
        told = "out" if answered.ok else "forgotten"
        return forget(see_other(f"/sign-in?told={told}"))


_TOLD = {
    "letter": "If that address may sign in, a letter with a link is on its way; it works once.",
    "out": "You are signed out.",
    "forgotten": "This browser has forgotten your key; the key itself still works.",
}


def pages(backend: Backend) -> tuple[Page, ...]:
    sign_in = SignIn(backend)
    return (
        Page(path="/sign-in", handler=sign_in.show, public=True),
        Page(path="/sign-in/key", handler=sign_in.by_key, method="POST", public=True),
        Page(path="/sign-in/mail", handler=sign_in.ask_letter, method="POST", public=True),
        Page(path="/sign-in/token", handler=sign_in.by_token, method="POST", public=True),
        Page(path="/sign-in/wallet", handler=sign_in.by_wallet, method="POST", public=True),
        Page(path="/sign-out", handler=sign_in.out, method="POST"),
    )
