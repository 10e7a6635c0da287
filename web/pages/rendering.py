"""Templates into answers: the one Jinja environment, what every page is given, and a page's headers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from quart import Response, request

from engine.core.amounts import points_of_micro
from engine.core.version import VERSION
from storage.ids import new_id
from web.pages import words

HERE = Path(__file__).parent
HEADERS = {
    # Nothing is loaded from elsewhere and nothing runs that stands in a page itself.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
}


def _fingerprint() -> str:
    """Changes with any static file, so that browsers may keep them for ever."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "static").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


FINGERPRINT = _fingerprint()


def duration(ms: float | None) -> str:
    """Milliseconds as people say them: two units at most."""
    if ms is None:
        return "–"
    seconds = round(ms / 1_000)
    if seconds < 1:
        return f"{round(ms)} ms"
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, seconds = divmod(seconds, length)
        if number or parts:
            parts.append(f"{number} {unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


def percent(ratio: float | None) -> str:
    """A share, never rounded up to all of it."""
    if ratio is None:
        return "–"
    return "100 %" if ratio >= 1 else f"{int(ratio * 100_000) / 1_000:.3f} %"


def when(text: str | None) -> str:
    """An RFC 3339 time to the second, as people read it; UTC."""
    if not text:
        return "–"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def short(text: str) -> str:
    """The end of an id: the part by which people tell them apart."""
    return text[-8:]


def number(count: int) -> str:
    """A count with a thin gap at each thousand, which no line breaks at."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def points(micro: int) -> str:
    """Micro-points as people say them."""
    return points_of_micro(micro)


def only_at(path: str) -> bool:
    """Whether the page that is made now is this very one."""
    return request.path == path


def at(path: str) -> bool:
    """Whether the page that is made now is this one, or lies below it."""
    return f"{request.path}/".startswith(f"{path}/")


ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,  # an upgrade in place must not mix new templates with old code before the restart
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {
    "duration": duration,
    "percent": percent,
    "when": when,
    "short": short,
    "number": number,
    "points": points,
    "state_words": words.state_words,
    "event_words": words.event_words,
}
# `once`: the Idempotency-Key of a form, so that it is done once however often it is sent.
ENVIRONMENT.globals |= {"fingerprint": FINGERPRINT, "version": VERSION, "once": new_id}
ENVIRONMENT.globals |= {"at": at, "only_at": only_at}


def render(template: str, status: int = 200, **values: Any) -> Response:
    """A page, or a part of one."""
    text = ENVIRONMENT.get_template(template).render(**values)
    return Response(text, status, HEADERS, content_type="text/html; charset=utf-8")
