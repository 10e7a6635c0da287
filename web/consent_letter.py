"""The letter that asks whoever reads an address whether they want mail of somebody's channels.

Who is asked at all is decided where channels are kept (storage/postgres_consent.py); the link in it is
confirmations.py's.
"""

from __future__ import annotations

from engine.core.consent import LINK_LIFE_MS, Question
from engine.core.people import Principal
from storage.tokens import new_mailed_token
from web.backend import Backend
from web.sign_in import base_url

_SUBJECT = "May NodePulse write to you?"
_LETTER = """\
{who} wants notices of NodePulse sent to this address.

If you want them, open this link and confirm:

  {link}

It works for {days} days. If you do not want them, do nothing: nothing else will be sent to you.
"""


def question_of(backend: Backend, caller: Principal, project: str | None) -> Question:
    """What a recipient of this caller's is asked. `project`: the slug of the project whose channel it is."""
    token, token_sha256 = new_mailed_token()
    who = f"Whoever runs the project {project!r}" if project is not None else "Somebody with an account"
    # Without a public name the reader has to know where we are.
    link = f"{base_url(backend.settings) or ''}/v1/confirm/{token}"
    body = _LETTER.format(who=who, link=link, days=LINK_LIFE_MS // 86_400_000)
    return Question(token_sha256=token_sha256, subject=_SUBJECT, body=body, maker_id=caller.user_id)
