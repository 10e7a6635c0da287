"""Asking the API server: list by label, apply, patch, delete; what refusals mean, and which are tried again.

Each request is a connection of its own in a worker thread (node/post.py), bounded in time and size. All may
be repeated safely, which is why one whose outcome is not known is (docs/decisions/0085). When it is asked is
kubernetes.py's.
"""

from __future__ import annotations

import json
import logging
import random
from typing import Any
from urllib.parse import urlencode

import trio

from node.drivers.kubernetes_access import Access
from node.post import PostFailedError, Reply, exchange

log = logging.getLogger(__name__)
FIELD_MANAGER = "nodepulse"
REQUEST_S = 10.0
TRIES = 5  # of a change; a reading is simply made again at its next turn
TRY_AGAIN_S_MIN, TRY_AGAIN_S_MAX = 0.3, 30.0
PAGE = 16  # objects asked for at once: each may have 1.5 MB, and usually has 10 kB
PAGES_MAX = 64
ANSWER_BYTES_MAX = 8_388_608
MESSAGE_MAX = 500
GROUPS = {"deployments": "apis/apps/v1", "pods": "api/v1"}
JSON, APPLY, MERGE = (
    "application/json",
    "application/apply-patch+yaml",  # JSON is YAML
    "application/merge-patch+json",
)


class KubeError(Exception):
    """The API server did not do it. status: 0 when nobody answered; the text is for people."""

    def __init__(self, status: int, what: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.status, self.retry_after_s = status, retry_after_s

    @property
    def passes(self) -> bool:
        """Whether the same may succeed a moment later: away, overloaded, or somebody else was quicker."""
        return self.status in (0, 409, 429) or self.status >= 500


class KubeApi:
    """Calls to one API server, in one namespace."""

    def __init__(self, access: Access, *, timeout_s: float = REQUEST_S) -> None:
        self._access, self._timeout_s = access, timeout_s
        self._page = PAGE
        self._counts = {"requests": 0, "failures": 0, "repeats": 0}

    def statistics(self) -> dict[str, int]:
        """Counts since the start: requests, those that failed, and how many were repeats."""
        return dict(self._counts)

    # -- what is asked ------------------------------------------------------------------------------

    async def find(self, resource: str, selector: str) -> list[dict[str, Any]]:
        """All objects with these labels, page by page. KubeError."""
        for _ in range(TRIES):
            try:
                return await self._find(resource, selector)
            except KubeError as error:
                if error.status == 410:  # the page token is too old: what was read so far is, too
                    self._counts["repeats"] += 1
                elif error.status == 413 and self._page > 1:
                    self._page //= 2
                else:
                    raise
        raise KubeError(410, f"list {resource}: its pages expire faster than they are read")

    async def apply(self, name: str, whole: dict[str, Any]) -> dict[str, Any]:
        """Make the Deployment or make it like this, by server-side apply; as it is then. KubeError."""
        asked = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._insist("patch", name, "PATCH", json.dumps(whole), APPLY, asked)

    async def merge(self, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        """Change some fields of a Deployment that is there; as it is then. KubeError, 404 when it is not."""
        asked = {"fieldManager": FIELD_MANAGER}
        return await self._insist("patch", name, "PATCH", json.dumps(patch), MERGE, asked)

    async def delete(self, name: str) -> None:
        """Delete a Deployment with all that it has made; no error when there is none. KubeError."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        try:
            await self._insist("delete", name, "DELETE", json.dumps(options), JSON, {})
        except KubeError as error:
            if error.status != 404:
                raise

    # -- how it is asked ----------------------------------------------------------------------------

    async def _find(self, resource: str, selector: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked = {"labelSelector": selector, "limit": str(self._page)}
        for _ in range(PAGES_MAX):
            answer = await self._ask("list", resource, "GET", self._path(resource), query=asked)
            items = answer.get("items")
            if not isinstance(items, list) or not all(_is_object(item) for item in items):
                raise KubeError(502, f"list {resource}: the answer is no list")
            found += items
            following = (answer.get("metadata") or {}).get("continue")
            if not following:
                return found
            asked = {**asked, "continue": str(following)}
        raise KubeError(413, f"list {resource}: more than {PAGES_MAX} pages")

    async def _insist(
        self, verb: str, name: str, method: str, body: str, content_type: str, query: dict[str, str]
    ) -> dict[str, Any]:
        """Ask until it is done or refused for good; at most TRIES times."""
        path = f"{self._path('deployments')}/{name}"
        for tried in range(1, TRIES + 1):
            try:
                return await self._ask(
                    verb, "deployments", method, path, query=query, body=body, content_type=content_type
                )
            except KubeError as error:
                if tried == TRIES or not error.passes:
                    raise
                self._counts["repeats"] += 1
                log.info("tried again: %s", error)
                await trio.sleep(again_s(tried, error.retry_after_s))
        raise AssertionError

    async def _ask(
        self,
        verb: str,
        resource: str,
        method: str,
        path: str,
        *,
        query: dict[str, str],
        body: str | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        def call() -> Reply:
            url = f"{self._access.server}{path}?{urlencode(query)}"
            data = None if body is None else body.encode()
            reply = self._exchange(method, url, data, content_type, bearer := self._access.bearer())
            if reply.status == 401 and (newer := self._access.bearer()) != bearer:
                # The token was replaced between our reading it and the server's looking at it.
                reply = self._exchange(method, url, data, content_type, newer)
            return reply

        self._counts["requests"] += 1
        what = f"{verb} {resource}"
        try:
            with trio.fail_after(2 * self._timeout_s):
                reply = await trio.to_thread.run_sync(call, abandon_on_cancel=True)
            return self._read(verb, resource, reply)
        except KubeError:
            self._counts["failures"] += 1
            raise
        except (PostFailedError, OSError, trio.TooSlowError) as error:
            self._counts["failures"] += 1
            # Too long is no outage; everything else is: nobody answered, or it cannot be trusted.
            status = 413 if "longer than" in str(error) else 0
            raise KubeError(status, f"{what}: {_told(error)}") from error

    def _exchange(self, method: str, url: str, body: bytes | None, kind: str, bearer: str | None) -> Reply:
        headers = {"Accept": JSON, "Content-Type": kind, "User-Agent": "nodepulse-manager"}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        return exchange(
            method,
            url,
            body,
            headers=headers,
            timeout_s=self._timeout_s,
            tls=self._access.tls(),
            reply_bytes_max=ANSWER_BYTES_MAX,
        )

    def _path(self, resource: str) -> str:
        return f"/{GROUPS[resource]}/namespaces/{self._access.namespace}/{resource}"

    def _read(self, verb: str, resource: str, reply: Reply) -> dict[str, Any]:
        try:
            answer = json.loads(reply.body)
        except (ValueError, RecursionError):
            answer = None
        if 200 <= reply.status < 300 and _is_object(answer):
            return dict(answer)
        message = str((answer or {}).get("message", "")) if isinstance(answer, dict) else ""
        status = 502 if 200 <= reply.status < 300 else reply.status
        what = _refusal(status, verb, resource, self._access.namespace, message[:MESSAGE_MAX])
        raise KubeError(status, what, retry_after_s=_seconds(reply.retry_after))


def again_s(tried: int, retry_after_s: float | None = None) -> float:
    """How long to wait after so many tries: as the server asks, or doubling; bounded, with jitter."""
    usual_s = TRY_AGAIN_S_MIN * (1 << min(tried, 16))
    return min(max(usual_s, retry_after_s or 0), TRY_AGAIN_S_MAX) * (1 + 0.25 * random.random())


def _refusal(status: int, verb: str, resource: str, namespace: str, message: str) -> str:
    what = f"{verb} {resource}"
    if status == 401:
        return (
            f"{what}: the API server does not take our credential (401): token expired or of another cluster"
        )
    if status == 403 and " cannot " in message:
        return (
            f"{what}: the role lacks the verb {_verb_in(message)} on {resource} "
            f"in namespace {namespace} (403): {message}"
        )
    return f"{what}: {status} {message}".strip()


def _verb_in(message: str) -> str:
    """An apply that would make a Deployment is refused for `create`, which is not what was asked."""
    return message.partition(" cannot ")[2].split(" ", 1)[0]


def _told(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return "the API server did not answer in time"
    return f"the API server does not answer: {error}"


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metadata", {}), dict)
