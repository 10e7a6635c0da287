"""Links that sign a person in once without a letter: for who may reach the stores, and hands them over.

What becomes of the token behind `#` is the sign-in page's (web/pages/sign_in.py); that it works once and not
for long is the store's.
"""

from __future__ import annotations

from engine.core.accounts import SignIn
from engine.core.letters import LETTER_LIFE_MS
from engine.core.people import Act
from nodepulse.config import Config
from nodepulse.readiness import reached_at
from storage.tokens import new_mailed_token


async def new_link(sign_in: SignIn, config: Config, email: str, *, act: Act) -> str | None:
    """A link for whoever has this address, for LETTER_LIFE_MS; None when nobody has it who may sign in."""
    token, token_sha256 = new_mailed_token()
    if not await sign_in.open_link(email, secret_sha256=token_sha256, life_ms=LETTER_LIFE_MS, act=act):
        return None
    web = config.web
    base = web.public_url.rstrip("/") or f"http://{reached_at(web.host, web.port)}"
    return f"{base}/sign-in#token={token}"
