"""Datagram as a source of uptime: the reader of its statistics and the registration of nodes there.

Its documents: at most five nodes in one question, a window of at most 14 days, whole hours, 60 requests a
second. The partner's secret travels in the query, so no address of a request may ever be told: neither to a
log nor in an error. What is over does not change, so it is remembered. Only under trio.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import httpx2
import msgspec
import trio

from engine.core.uptime_source import HOUR_MS, UptimeSourceError
from storage.pace import Pace
from storage.settings import DatagramSettings

IDS_PER_CALL = 5
WINDOW_MS_MAX = 14 * 24 * HOUR_MS  # of one question
ANSWER_BYTES_MAX = 1024 * 1024
ATTEMPTS = 3  # of one question
RETRY_S = 0.5
RETRY_AFTER_S_MAX = 10.0  # told to wait longer than this, whoever asks is told instead
SETTLED_MS = 2 * HOUR_MS  # what was over this long ago does not change any more
PAGES_MAX = 10_000  # of the list of nodes

T = TypeVar("T")
_Key = tuple[str, int, int]  # partner_node_id, from_ms, to_ms


class _Uptime(msgspec.Struct, frozen=True):
    partner_node_id: str
    uptime: int | None  # ms; null like left out: not known there


class _One(msgspec.Struct, frozen=True):
    data: _Uptime


class _Many(msgspec.Struct, frozen=True):
    data: list[_Uptime]


class _Details(msgspec.Struct, frozen=True):
    data: dict[str, Any]


class _Entry(msgspec.Struct, frozen=True):
    partner_node_id: str


class _Metadata(msgspec.Struct, frozen=True):
    total_count: int
    after: str | int | None = None


class _Nodes(msgspec.Struct, frozen=True):
    metadata: _Metadata
    entries: list[_Entry]


class _Page(msgspec.Struct, frozen=True):
    data: _Nodes


class _Registered(msgspec.Struct, frozen=True):
    data: bool


class _Fault(msgspec.Struct, frozen=True):
    message: str = ""
    status: int | str = 0


class _Refusal(msgspec.Struct, frozen=True):
    error: _Fault


class _Answer(NamedTuple):
    status: int
    retry_after: str
    body: bytes


class Datagram:
    """engine.core.uptime_source.UptimeSource. Use as an async context manager."""

    def __init__(
        self, settings: DatagramSettings, *, clock: Callable[[], int], retry_s: float = RETRY_S
    ) -> None:
        """`clock`: unix ms, for what is over. `retry_s`: before the second attempt, then twice that."""
        self._retry_s = retry_s
        self._settings = settings
        self._clock = clock
        self._pace = Pace(per_s=settings.requests_per_s_max)
        self._free = trio.CapacityLimiter(settings.concurrency_max)
        self._known: OrderedDict[_Key, int] = OrderedDict()
        self._requests = self._remembered = self._registered = 0
        self._failures: dict[str, float] = {}
        self._client = httpx2.AsyncClient(
            timeout=None,  # of each request as a whole: see _send
            follow_redirects=False,
            trust_env=False,
            headers={
                "user-agent": "NodePulse/1",
                "accept-encoding": "identity",
                "authorization": _bearer(settings),
            },
        )

    async def __aenter__(self) -> Datagram:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._client.__aexit__(*exc)

    async def up_ms(self, partner_ids: Sequence[str], from_ms: int, to_ms: int) -> dict[str, int | None]:
        if from_ms % HOUR_MS or to_ms % HOUR_MS or not from_ms <= to_ms <= self._clock():
            raise ValueError(f"not whole hours that are over: [{from_ms}, {to_ms})")
        ids = list(dict.fromkeys(partner_ids))
        spans = [
            (start_ms, min(start_ms + WINDOW_MS_MAX, to_ms))
            for start_ms in range(from_ms, to_ms, WINDOW_MS_MAX)
        ]
        told: dict[_Key, int] = {}
        questions: list[tuple[list[str], int, int]] = []
        for span in spans:
            left = [each for each in ids if not self._remember((each, *span), told)]
            questions += [(chunk, *span) for chunk in _chunks(left)]
        await self._ask_all(questions, told)
        total: dict[str, int | None] = {}
        for each in ids:
            parts = [told.get((each, *span)) for span in spans]
            total[each] = None if None in parts else sum(part for part in parts if part is not None)
        return total

    def _remember(self, key: _Key, told: dict[_Key, int]) -> bool:
        if key not in self._known:
            return False
        self._known.move_to_end(key)
        told[key] = self._known[key]
        self._remembered += 1
        return True

    async def _ask_all(self, questions: Sequence[tuple[list[str], int, int]], told: dict[_Key, int]) -> None:
        """Several at a time; the first failure ends all of them."""
        failed: list[UptimeSourceError] = []

        async def ask(ids: list[str], from_ms: int, to_ms: int) -> None:
            async with self._free:
                if failed:
                    return
                try:
                    found = await self._ask(ids, from_ms, to_ms)
                except UptimeSourceError as error:
                    failed.append(error)
                    nursery.cancel_scope.cancel()
                    return
            self._keep(found, from_ms, to_ms, told)

        waiting = iter(questions)
        while some := list(islice(waiting, 8 * self._settings.concurrency_max)):
            async with trio.open_nursery() as nursery:
                for question in some:
                    nursery.start_soon(ask, *question)
            if failed:
                raise failed[0]

    def _keep(self, found: Mapping[str, int], from_ms: int, to_ms: int, told: dict[_Key, int]) -> None:
        settled = to_ms + SETTLED_MS <= self._clock()
        for each, up_ms in found.items():
            told[each, from_ms, to_ms] = up_ms
            if settled:
                self._known[each, from_ms, to_ms] = up_ms
        while len(self._known) > self._settings.cache_entries_max:
            self._known.popitem(last=False)

    async def _ask(self, ids: list[str], from_ms: int, to_ms: int) -> dict[str, int]:
        """What is told of up to five nodes; those that are not known there are left out."""
        window = {"started_at": _time(from_ms), "ended_at": _time(to_ms)}
        if len(ids) == 1:
            answer = await self._get("/uptime", {"partner_node_id": ids[0], **window})
            found = [] if answer.status == 404 else [self._read(answer, _One).data]
        else:
            answer = await self._get("/uptimes", {"partner_node_id[]": ids, **window})
            if answer.status == 404:  # one of them is not known there: the others may be
                return {
                    name: up_ms
                    for each in ids
                    for name, up_ms in (await self._ask([each], from_ms, to_ms)).items()
                }
            found = self._read(answer, _Many).data
        told = {one.partner_node_id: one.uptime for one in found}
        if len(told) != len(found) or not told.keys() <= set(ids):
            raise self._failure("contents", "it told of nodes that it was not asked about")
        known = {name: up_ms for name, up_ms in told.items() if up_ms is not None}
        if not all(0 <= up_ms <= to_ms - from_ms for up_ms in known.values()):
            raise self._failure("contents", "it told of more uptime than there was time")
        return known

    async def register(self, partner_node_id: str) -> None:
        body = {"id": partner_node_id, "secret": self._settings.secret}
        request = partial(
            self._client.build_request, "POST", f"{self._settings.license_url}/node/register", json=body
        )
        if not self._read(await self._send(request), _Registered).data:
            raise self._failure("refused", "it did not register the node")
        self._registered += 1

    async def partner_details(self) -> dict[str, Any]:
        """What Datagram tells of us. UptimeSourceError."""
        return self._read(await self._get("/partner/details", {}), _Details).data

    async def partner_nodes(self, *, limit: int) -> tuple[list[str], int]:
        """(our nodes by their names there, at most `limit`; how many there are). UptimeSourceError."""
        found: list[str] = []
        after: str | int | None = None
        for _ in range(PAGES_MAX):
            page = self._read(
                await self._get("/partner/nodes", {"after": after} if after else {}), _Page
            ).data
            found += [entry.partner_node_id for entry in page.entries]
            if not page.metadata.after or not page.entries or len(found) >= limit:
                return found[:limit], page.metadata.total_count
            after = page.metadata.after
        raise self._failure("contents", "its list of nodes does not end")

    async def _get(self, path: str, parameters: Mapping[str, Any]) -> _Answer:
        query = {**parameters, "secret": self._settings.secret} if self._settings.secret else parameters
        return await self._send(
            partial(self._client.build_request, "GET", f"{self._settings.url}{path}", params=query)
        )

    async def _send(self, build: Callable[[], httpx2.Request]) -> _Answer:
        """One question, asked again when it was one too many or nothing whole came back."""
        failure: UptimeSourceError | None = None
        for attempt in range(ATTEMPTS):
            await self._pace.wait()
            try:
                answer = await self._exchange(build())
            except UptimeSourceError as error:
                failure = error
                await trio.sleep(self._retry_s * 2**attempt if attempt + 1 < ATTEMPTS else 0)
                continue
            if answer.status == 429:
                wait_s = _seconds(answer.retry_after)
                failure = self._failure("rate", "it is asked too often", retry_after_s=wait_s)
                if wait_s > RETRY_AFTER_S_MAX:
                    break
                self._pace.hold(wait_s)
            elif answer.status >= 500:
                failure = self._failure("status", f"HTTP {answer.status}{self._said(answer.body)}")
                await trio.sleep(self._retry_s * 2**attempt if attempt + 1 < ATTEMPTS else 0)
            else:
                return answer
        assert failure is not None, "there was an attempt"
        raise failure

    async def _exchange(self, request: httpx2.Request) -> _Answer:
        self._requests += 1
        try:
            with trio.fail_after(self._settings.timeout_s):
                response = await self._client.send(request, stream=True)
                try:
                    body = await _read_body(response)
                finally:
                    await response.aclose()
        except trio.TooSlowError:
            text = f"no answer within {self._settings.timeout_s:g} s"
            raise self._failure("timeout", text) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            # Not `from error`: what it carries knows the whole address of the request.
            raise self._failure("connection", type(error).__name__) from None
        if body is None:
            raise self._failure("contents", f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        return _Answer(response.status_code, response.headers.get("retry-after", ""), body)

    def _read(self, answer: _Answer, kind: type[T]) -> T:
        if not 200 <= answer.status < 300:
            raise self._failure("status", f"HTTP {answer.status}{self._said(answer.body)}")
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._failure("contents", f"what it answered cannot be read: {error}"[:200]) from None

    def _said(self, body: bytes) -> str:
        """Its own words for an error, without our secrets, which it may repeat."""
        try:
            text = msgspec.json.decode(body, type=_Refusal).error.message
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""
        for secret in (self._settings.secret, self._settings.token):
            if secret:
                text = text.replace(secret, "...")
        text = "".join(each for each in text if each.isprintable())[:200]
        return f": {text}" if text else ""

    def _failure(self, what: str, text: str, *, retry_after_s: float | None = None) -> UptimeSourceError:
        self._failures[what] = self._failures.get(what, 0) + 1
        return UptimeSourceError(f"Datagram: {text}", retry_after_s=retry_after_s)

    def statistics(self) -> dict[str, float | Mapping[str, float]]:
        return {
            "requests_total": self._requests,
            "remembered_total": self._remembered,
            "registered_total": self._registered,
            "answers": len(self._known),
            "failures_total": self._failures,
        }


@asynccontextmanager
async def open_uptime_source(
    settings: DatagramSettings, *, clock: Callable[[], int]
) -> AsyncIterator[Datagram | None]:
    """Datagram for the time of the block; None when it is not configured (no token)."""
    if not settings.token:
        yield None
        return
    async with Datagram(settings, clock=clock) as opened:
        yield opened


async def _read_body(response: httpx2.Response) -> bytes | None:
    """The whole body; None when it is too long: then it is not read, or read and thrown away.

    Breaking off in the middle would leave httpx2's nested generators to the garbage collector.
    """
    length = response.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and int(length) <= ANSWER_BYTES_MAX):
        return None
    body, taken = bytearray(), 0
    async with aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            taken += len(chunk)
            if taken <= ANSWER_BYTES_MAX:
                body += chunk
    return bytes(body) if taken <= ANSWER_BYTES_MAX else None


def _bearer(settings: DatagramSettings) -> str:
    return settings.token if settings.token_form == "bare" else f"Bearer {settings.token}"


def _chunks(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[first : first + IDS_PER_CALL]) for first in range(0, len(ids), IDS_PER_CALL)]


def _time(unix_ms: int) -> str:
    return f"{datetime.fromtimestamp(unix_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _seconds(retry_after: str) -> float:
    """Retry-After in seconds; one second where it is a date or nothing."""
    try:
        seconds = float(retry_after)
    except ValueError:
        return 1.0
    return max(0.0, seconds) if math.isfinite(seconds) else 1.0
