"""The GraphQL client: one query to one endpoint, guarded, bounded, and tried again where that may help.

What a stranger's server may do (hang, redirect, answer endlessly, with HTML, with errors in a 200) becomes
one of two errors with a text for people. The key goes to the origin that the configuration names for it, and
nowhere else; neither keys nor URLs are in any text.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import msgspec
import trio

from worker.addresses import AddressRefusedError
from worker.guarded import BadUrlError, GuardedClient, origin_of

ANSWER_BYTES_MAX = 16 * 1024 * 1024  # a page has at most 1,000 items
WAITS_S = (1.0, 3.0, 9.0)  # between the tries of one query
RETRY_AFTER_S_MAX = 30.0  # a server that wants to be left alone for longer is, for this look
RETRY_AFTER_S_LONGEST = 86_400.0  # what is believed at most
_JITTER = 0.2
_TEXT_CHARS_MAX = 300


class GraphError(Exception):
    """What the subgraph answers cannot be used; the text says why."""


class GraphSaysError(GraphError):
    """The subgraph answered with an error of its own."""


class GraphAwayError(GraphError):
    """The subgraph gave no answer; it may give one later. `retry_after_s`: what it asked for, if it did."""

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Endpoint(msgspec.Struct, frozen=True):
    """Where to ask. `allow_private`: it may lie in our own network."""

    url: str
    allow_private: bool


class GraphClient:
    """Use as an async context manager. `keys`: bearer keys by origin (``https://host``)."""

    def __init__(
        self,
        *,
        keys: Mapping[str, str],
        timeout_s: float,
        now_ms: Callable[[], int],
        tls: ssl.SSLContext | None = None,
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        self.queries = 0
        self._keys = dict(keys)
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._waits_s = waits_s
        self._client = GuardedClient(user_agent="NodePulse-Ownership/1", tls=tls)

    async def __aenter__(self) -> GraphClient:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._client.__aexit__(*exc)

    async def query(self, endpoint: Endpoint, text: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """`data` of the answer. GraphError; GraphAwayError after the last try."""
        body = msgspec.json.encode({"query": text, "variables": variables})
        for wait_s in (*self._waits_s, None):
            try:
                return await self._once(endpoint, body)
            except GraphAwayError as error:
                asked_s = error.retry_after_s or 0.0
                if wait_s is None or asked_s > RETRY_AFTER_S_MAX:
                    raise
                await trio.sleep(max(asked_s, wait_s * (1 + _JITTER * random.random())))
        raise AssertionError("the last try returns or raises")

    async def _once(self, endpoint: Endpoint, body: bytes) -> dict[str, Any]:
        self.queries += 1
        try:
            with trio.fail_after(self._timeout_s):
                raw = await self._post(endpoint, body)
        except trio.TooSlowError as error:
            raise GraphAwayError(f"no answer within {self._timeout_s:g} s") from error
        except AddressRefusedError as error:
            raise GraphAwayError(str(error)) from error
        except BadUrlError as error:
            raise GraphError(f"the subgraph's URL: {error}") from error
        except httpx2.HTTPError as error:
            raise GraphAwayError(f"{type(error).__name__}: {error}"[:_TEXT_CHARS_MAX]) from error
        return _data(raw)

    async def _post(self, endpoint: Endpoint, body: bytes) -> bytes:
        headers = {"content-type": "application/json", "accept": "application/json"}
        key = self._keys.get(origin_of(endpoint.url))
        if key:
            headers["authorization"] = f"Bearer {key}"
        async with self._client.post(
            endpoint.url, content=body, headers=headers, allow_private=endpoint.allow_private
        ) as response:
            self._check_status(response)
            length = response.headers.get("content-length", "")
            if length.isascii() and length.isdigit() and int(length) > ANSWER_BYTES_MAX:
                raise GraphError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
            read = bytearray()
            async with aclosing(response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    read += chunk
                    if len(read) > ANSWER_BYTES_MAX:
                        raise GraphError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
            return bytes(read)

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status == 429 or status >= 500:
            raise GraphAwayError(
                f"HTTP {status}",
                retry_after_s=retry_after_s(response.headers.get("retry-after", ""), self._now_ms()),
            )
        if 300 <= status < 400:
            raise GraphError(f"HTTP {status}: redirects are not followed")
        raise GraphError(f"HTTP {status}{': is its key right?' if status in (401, 403) else ''}")


def retry_after_s(text: str, now_ms: int) -> float | None:
    """Seconds to wait as a Retry-After header says (seconds or a date); None for none or nonsense."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_S_LONGEST)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    wait = (until - datetime.fromtimestamp(now_ms / 1000, tz=UTC)).total_seconds()
    return min(max(0.0, wait), RETRY_AFTER_S_LONGEST)


def _data(raw: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # Cut in the middle, or another's page altogether: a later one may be whole.
        raise GraphAwayError("the answer is not whole JSON") from error
    if not isinstance(answer, dict):
        raise GraphError("the answer is no JSON object")
    if errors := answer.get("errors"):
        raise GraphSaysError(f"the subgraph says: {_told(errors)}")
    data = answer.get("data")
    if not isinstance(data, dict):
        raise GraphError("the answer has no data")
    return data


def _told(errors: Any) -> str:
    """The first message, without anything that a terminal or a page could take for its own."""
    first = errors[0] if isinstance(errors, list) else errors
    message = first.get("message") if isinstance(first, dict) else first
    text = message if isinstance(message, str) else "an error without a message"
    return "".join(each if each.isprintable() else " " for each in text)[:_TEXT_CHARS_MAX]
