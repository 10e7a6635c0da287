"""A notice as HTML for mail: small, plain, nothing loaded from anywhere. Pure.

Everything that came from outside is escaped; a report's own HTML (Notice.html) is ours and goes in as it is.
The words are those of wording.py.
"""

from __future__ import annotations

from html import escape

from engine.core.news import Notice
from worker.wording import advice, rfc3339, subject, which

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body style="font:15px/1.5 sans-serif;color:#222;max-width:40em;margin:1em auto;padding:0 1em">
<h1 style="font-size:1.15em">{title}</h1>
{body}
<hr style="border:0;border-top:1px solid #ddd">
<p style="color:#777;font-size:.85em">{foot}</p>
</body></html>
"""
_CELL = 'style="padding:.15em 1em .15em 0;text-align:left;vertical-align:top"'


def html(notice: Notice, *, unsubscribe_url: str = "") -> str:
    """The whole document."""
    title = subject(notice).removeprefix("[NodePulse] ")
    foot = [f"Notice {escape(notice.notice_id)}"]
    if unsubscribe_url:
        what = "announcements" if notice.form == "announcement" else "mails of this kind"
        foot.append(f'<a href="{escape(unsubscribe_url)}">No more {what}</a>')
    body = notice.html or "\n".join((*_paragraphs(notice.text), *_events(notice), *_advice(notice)))
    return _PAGE.format(title=escape(title), body=body, foot=" &middot; ".join(foot))


def _paragraphs(text: str) -> list[str]:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    return [f"<p>{escape(part).replace(chr(10), '<br>')}</p>" for part in parts]


def _events(notice: Notice) -> list[str]:
    if not notice.events:
        return []
    lines = [_row("th", "Since", "What", "Which", "Detail")]
    lines += [
        _row("td", rfc3339(each.since_ms), each.kind, which(each), each.detail or _workloads(each.workloads))
        for each in notice.events
    ]
    left = notice.count - len(notice.events)
    more = [f"<p>and {left} more</p>"] if left > 0 else []
    return [f'<table style="border-collapse:collapse">{"".join(lines)}</table>', *more]


def _row(tag: str, *cells: str) -> str:
    return "<tr>" + "".join(f"<{tag} {_CELL}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _workloads(ids: tuple[str, ...]) -> str:
    return f"{len(ids)} workloads" if ids else ""


def _advice(notice: Notice) -> list[str]:
    return _paragraphs(advice(notice))
