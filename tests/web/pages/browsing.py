"""A browser without scripts for tests: it looks at pages as somebody, fills in forms, and sends them."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlencode

from tests.web.control import Control


class Looked(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]  # names in lower case

    @property
    def words(self) -> str:
        """What is read on it, tags and blanks taken out."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.text)).split())


class Browser:
    """Somebody's, with their key in its cookie; `by` None: nobody's."""

    def __init__(self, control: Control, by: str | None = "olga") -> None:
        self._control = control
        self._cookie = {} if by is None else {"cookie": f"nodepulse_login={control.bearers[by]}"}

    async def look(self, path: str, **headers: str) -> Looked:
        response = await self._control.client.get(path, headers={**self._cookie, **headers})
        return await _looked(response)

    async def send(
        self,
        path: str,
        fields: dict[str, str] | list[tuple[str, str]] | None = None,
        *,
        site: str = "same-origin",
    ) -> Looked:
        """Send a form, as a page of this `site` would."""
        headers = {
            **self._cookie,
            "content-type": "application/x-www-form-urlencoded",
            "sec-fetch-site": site,
        }
        response = await self._control.client.post(path, headers=headers, data=urlencode(fields or {}))
        return await _looked(response)

    async def upload(
        self, path: str, fields: dict[str, str], *, file: bytes, name: str = "points.csv"
    ) -> Looked:
        """Send a form with a file, as browsers do."""
        edge = "----edge"
        parts = [
            f'--{edge}\r\ncontent-disposition: form-data; name="{each}"\r\n\r\n{value}\r\n'
            for each, value in fields.items()
        ]
        parts.append(
            f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
            "content-type: application/octet-stream\r\n\r\n"
        )
        headers = {
            **self._cookie,
            "content-type": f"multipart/form-data; boundary={edge}",
            "sec-fetch-site": "same-origin",
        }
        data = "".join(parts).encode() + file + f"\r\n--{edge}--\r\n".encode()
        return await _looked(await self._control.client.post(path, headers=headers, data=data))

    async def fill(self, page: str, action: str, **fields: str) -> Looked:
        """Fill in the form of a page that leads to `action`, and send it: what it does not name stays."""
        shown = forms_of((await self.look(page)).text)
        [found] = [form for form in shown if form.action.partition("#")[0] == action]
        return await self.send(action, {**found.fields, **fields})


class Form(NamedTuple):
    action: str
    method: str
    fields: dict[str, str]


def forms_of(text: str) -> list[Form]:
    reader = _Forms()
    reader.feed(text)
    return reader.found


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._area = self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.found.append(Form(given.get("action") or "", given.get("method") or "get", {}))
        if not self.found:
            return
        fields = self.found[-1].fields
        name = given.get("name") or ""
        if tag == "input" and name and given.get("type") not in ("checkbox", "radio"):
            fields[name] = given.get("value") or ""
        elif tag == "input" and name and "checked" in given:
            fields[name] = given.get("value") or "on"
        elif tag == "textarea":
            self._area = name
            fields[name] = ""
        elif tag == "select":
            self._select = name
            fields[name] = ""
        elif tag == "option" and "selected" in given:
            fields[self._select] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.found[-1].fields[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""


async def _looked(response) -> Looked:
    body = await response.get_data(as_text=False)
    headers = {name.lower(): value for name, value in response.headers.items()}
    assert len(headers) == len(list(response.headers.items())), "of two policies the stricter would hold"
    return Looked(response.status_code, body.decode(), headers)
