"""`/v1/sign-in`: signing in with a wallet (EIP-4361) or with a link that is mailed, and out again.

Whatever is wrong with an answer to a challenge is one and the same 401, and asking for a letter is always the
same 202, so that nobody learns who has an account. Names we go by come from the configuration: what a request
calls us by is a stranger's word, which would let another site collect signatures and letters for us.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import msgspec
from quart import Response, request

from engine.core.accounts import Login
from engine.core.letters import LETTER_LIFE_MS
from engine.core.mail_address import account_address
from engine.core.people import Principal
from storage.tokens import new_login_token, new_mailed_token, new_nonce, sha256_of
from web.acts import act_of
from web.backend import Backend
from web.problems import Fault, RefusedError
from web.routing import Answer, Route, client_address, read_body, reply, tell_rate
from web.settings import WebSettings
from web.times import format_rfc3339
from web.users import MailText, UserAnswer, user_answer
from web.wallet import WalletMessage, parse_message, signer_of

NONCE_LIFE_MS = 10 * 60_000
SKEW_MS = 5 * 60_000  # how far a wallet's clock may be from ours
MESSAGE_CHARS_MAX = 4_096
_LOOPBACK = re.compile(r"(?i:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.ASCII)
_SUBJECT = "Sign in to NodePulse"
_LETTER = """\
Somebody, we hope you, asked to sign in to NodePulse with this address.

{ways}
It works once, within {minutes} minutes. If it was not you, do nothing: without this letter nobody can sign in
as you.
"""
_LINK = "Open this link:\n\n  {link}\n\nOr enter this token where you were asked for it:\n\n  {token}\n"
_TOKEN = "Enter this token where you were asked for it:\n\n  {token}\n"


class NonceAnswer(msgspec.Struct, frozen=True):
    """What the wallet's message must carry as its nonce. It works once."""

    nonce: str
    expires_at: str


class WalletSignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`message`: the text of EIP-4361, as it was signed. `signature`: 65 bytes as 0x and hex (EIP-191)."""

    message: Annotated[str, msgspec.Meta(max_length=MESSAGE_CHARS_MAX)]
    signature: Annotated[str, msgspec.Meta(pattern="^0x[0-9A-Fa-f]{130}$")]
    EXAMPLES: ClassVar[dict[str, object]] = {
        "message": (
            "pulse.example.org wants you to sign in with your Ethereum account:\n"
            "0x52908400098527886E0F7030069857D2E4169EE7\n\n\nURI: https://pulse.example.org/\nVersion: 1\n"
            "Chain ID: 1\nNonce: 32891756d0c1b2a3\nIssued At: 2026-01-31T12:00:00.000Z"
        ),
        "signature": "0x" + "ab" * 64 + "1b",
    }


class MailSignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the letter is to go."""

    email: MailText


class LetterAnswer(msgspec.Struct, frozen=True):
    """The same for every address: a letter is on its way if its owner may sign in. `expires_in_s`: how long
    what it carries works."""

    expires_in_s: int


class MailConfirmation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The token that came by mail."""

    token: Annotated[str, msgspec.Meta(max_length=200)]
    EXAMPLES: ClassVar[dict[str, object]] = {"token": "npm_" + "A" * 43}


class SignedIn(msgspec.Struct, frozen=True):
    """`token`: the credential from now on (Authorization: Bearer), told here only."""

    token: str
    expires_at: str
    user: UserAnswer


def _refused() -> RefusedError:
    return RefusedError(
        401,
        "sign_in_refused",
        "that does not sign anybody in: begin again, with a new nonce or letter, the right wallet and chain, "
        "and a clock that is right",
        headers={"www-authenticate": "Bearer"},
    )


def _count_attempt(backend: Backend) -> None:
    """RefusedError 429."""
    tell_rate(backend.sign_in_rate.take(client_address()))


async def ask_nonce(backend: Backend, _caller: Principal) -> Response:
    _count_attempt(backend)
    nonce, nonce_sha256 = new_nonce()
    now_ms = backend.clock()
    await backend.stores.sign_in.open_wallet_challenge(nonce_sha256, now_ms=now_ms, life_ms=NONCE_LIFE_MS)
    return reply(NonceAnswer(nonce=nonce, expires_at=format_rfc3339(now_ms + NONCE_LIFE_MS)))


async def sign_in_by_wallet(backend: Backend, caller: Principal) -> Response:
    _count_attempt(backend)
    asked, _ = await read_body(WalletSignIn)
    try:
        message = parse_message(asked.message)
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error), errors=[Fault(str(error), "/message")]) from error
    act = act_of(backend, caller)
    if not holds(message, origins=_origins(backend), chain_id=_chain_id(backend), now_ms=act.now_ms):
        raise _refused()
    if signer_of(asked.message, bytes.fromhex(asked.signature[2:])) != message.address:
        raise _refused()
    token, token_sha256 = new_login_token()
    login = await backend.stores.sign_in.sign_in_by_wallet(
        message.address,
        nonce_sha256=sha256_of(message.nonce),
        token_sha256=token_sha256,
        sign_up=_open_to_all(backend),
        life_ms=_life_ms(backend),
        act=act,
    )
    return _signed_in(token, login)


def holds(message: WalletMessage, *, origins: frozenset[str], chain_id: int, now_ms: int) -> bool:
    """Whether what the wallet signed is for us (`https://host` forms; chain_id 0 = any) and for now."""
    domain, uri = message.domain.lower(), urlsplit(message.uri)
    of_domain = {origin for origin in origins if origin.partition("://")[2] == domain}
    if message.scheme is not None:
        of_domain &= {f"{message.scheme.lower()}://{domain}"}
    return (
        f"{uri.scheme.lower()}://{uri.netloc.lower()}" in of_domain
        and chain_id in (0, message.chain_id)
        and now_ms - NONCE_LIFE_MS - SKEW_MS <= message.issued_ms <= now_ms + SKEW_MS
        and (message.expires_ms is None or now_ms < message.expires_ms)
        and (message.not_before_ms is None or message.not_before_ms <= now_ms + SKEW_MS)
    )


def _origins(backend: Backend) -> frozenset[str]:
    """What we go by, as origins. RefusedError 409 when nobody configured it and this is not localhost."""
    settings = backend.settings
    found = {origin.lower() for origin in settings.cors_origins.split()}
    if (base := base_url(settings)) is not None:
        parts = urlsplit(base)
        found.add(f"{parts.scheme}://{parts.netloc}".lower())
    if not found:
        raise RefusedError(409, "not_configured", "signing in by wallet asks for web.public_url to be set")
    return frozenset(found)


def base_url(settings: WebSettings) -> str | None:
    """Where people reach us; None when nobody configured it and this is not localhost."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = request.headers.get("host", "")
    return f"http://{host}" if is_loopback(host) else None


def is_loopback(host: str) -> bool:
    """Whether a Host header (``name`` or ``name:port``) names this very machine."""
    return _LOOPBACK.fullmatch(host) is not None


def _chain_id(backend: Backend) -> int:
    return backend.settings.wallet_chain_id


def _open_to_all(backend: Backend) -> bool:
    return backend.settings.sign_up == "open"


def _life_ms(backend: Backend) -> int:
    return int(backend.settings.login_life_s * 1000)


def _signed_in(token: str, login: Login | None) -> Response:
    if login is None:
        raise _refused()
    answer = SignedIn(
        token=token, expires_at=format_rfc3339(login.expires_ms), user=user_answer(login.account)
    )
    return reply(answer)


async def ask_letter(backend: Backend, _caller: Principal) -> Response:
    _count_attempt(backend)
    asked, _ = await read_body(MailSignIn)
    try:
        email = account_address(asked.email)
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error), errors=[Fault(str(error), "/email")]) from error
    token, token_sha256 = new_mailed_token()
    await backend.stores.sign_in.open_mail_challenge(
        email,
        secret_sha256=token_sha256,
        subject=_SUBJECT,
        body=_letter(token, base=base_url(backend.settings)),
        sign_up=_open_to_all(backend),
        now_ms=backend.clock(),
        life_ms=LETTER_LIFE_MS,
    )
    return reply(LetterAnswer(expires_in_s=LETTER_LIFE_MS // 1000), 202)


def _letter(token: str, *, base: str | None) -> str:
    """The token stands behind `#`, which no server and no log sees, and no mail filter uses up."""
    ways = _TOKEN if base is None else _LINK
    return _LETTER.format(
        ways=ways.format(token=token, link=f"{base}/sign-in#token={token}"), minutes=LETTER_LIFE_MS // 60_000
    )


async def sign_in_by_mail(backend: Backend, caller: Principal) -> Response:
    _count_attempt(backend)
    asked, _ = await read_body(MailConfirmation)
    token, token_sha256 = new_login_token()
    login = await backend.stores.sign_in.sign_in_by_mail(
        sha256_of(asked.token),
        token_sha256=token_sha256,
        sign_up=_open_to_all(backend),
        life_ms=_life_ms(backend),
        act=act_of(backend, caller),
    )
    return _signed_in(token, login)


async def sign_out(backend: Backend, caller: Principal) -> Response:
    if not await backend.stores.sign_in.sign_out(caller.key_id, act=act_of(backend, caller)):
        detail = f"this is an API key, nobody signed in with it: DELETE /v1/keys/{caller.key_id} revokes it"
        raise RefusedError(409, "not_signed_in", detail)
    return Response(b"", 204)


ROUTES = (
    Route(
        method="POST",
        path="/v1/sign-in/wallet/nonce",
        handler=ask_nonce,
        summary="A nonce for a wallet to sign (EIP-4361)",
        tag="sign-in",
        answers={200: Answer(description="The nonce", type=NonceAnswer)},
    ),
    Route(
        method="POST",
        path="/v1/sign-in/wallet",
        handler=sign_in_by_wallet,
        summary="Sign in with a wallet; the first time makes an account, where that is allowed",
        tag="sign-in",
        body=WalletSignIn,
        answers={200: Answer(description="Signed in", type=SignedIn)},
        refusals=(400, 401, 409),
    ),
    Route(
        method="POST",
        path="/v1/sign-in/mail",
        handler=ask_letter,
        summary="Have a letter with a link sent; the answer is the same for every address",
        tag="sign-in",
        body=MailSignIn,
        answers={202: Answer(description="A letter is on its way, if it may be", type=LetterAnswer)},
        refusals=(400,),
    ),
    Route(
        method="POST",
        path="/v1/sign-in/mail/confirm",
        handler=sign_in_by_mail,
        summary="Sign in with the token of a letter; the first time makes an account, where that is allowed",
        tag="sign-in",
        body=MailConfirmation,
        answers={200: Answer(description="Signed in", type=SignedIn)},
        refusals=(400, 401),
    ),
    Route(
        method="DELETE",
        path="/v1/sign-in",
        handler=sign_out,
        summary="Sign out: the token is refused everywhere within a second",
        tag="sign-in",
        answers={204: Answer(description="Signed out")},
        refusals=(409,),
    ),
)
