"""Pictures in the HTML of a mail: from `data:` addresses to parts of the message, which mail clients show.

A notice carries its HTML as one text, pictures and all. Many mail clients show no `data:` pictures, but all
show those that the message itself brings along (`cid:`, RFC 2392). Pure.
"""

from __future__ import annotations

import base64
import re
from email.message import EmailMessage

_PICTURE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def as_data(png: bytes) -> str:
    """The address of a picture that is in the HTML itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def add_html(message: EmailMessage, html: str, *, content_id: str) -> None:
    """Add the HTML as an alternative to the text, with its pictures as related parts.

    `content_id`: ``something@domain``, that no other message of ours has.
    """
    pictures: list[bytes] = []

    def taken(match: re.Match[str]) -> str:
        pictures.append(base64.b64decode(match[1]))
        return f'src="cid:{len(pictures)}.{content_id}"'

    message.add_alternative(_PICTURE.sub(taken, html), subtype="html")
    if not pictures:
        return
    part = message.get_payload()[-1]  # type: ignore[index] # the alternative just added
    assert isinstance(part, EmailMessage)
    for number, png in enumerate(pictures, 1):
        cid = f"<{number}.{content_id}>"
        part.add_related(png, "image", "png", cid=cid, disposition="inline", filename=f"uptime-{number}.png")
