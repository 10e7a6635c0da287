"""What a manager asks of the web API beside its session: desired state, manifests, reports, missed beats.

Blocking calls in worker threads, bounded in time and size; answers are read strictly. When they are made is
reconcile.py's and handing_in.py's.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import trio

from node.identity import NodeIdentity
from node.manager.plan import Desired
from node.post import PostFailedError, Reply, exchange
from np1.session import (
    FIELD,
    BackfillAnswer,
    BackfillBeat,
    MalformedAnswerError,
    Refusal,
    parse_backfill_answer,
    parse_refusal,
)
from np1.shape import Shape, parse_object

ANSWER_BYTES_MAX = 524_288  # a manifest is 256 KiB at most, and JSON that holds it no more
COUNT_MAX = (1 << 31) - 1
_NAME = re.compile(r"[^\0]{0,1024}", re.DOTALL)


class ApiError(Exception):
    """It was not answered as asked for; `refusal.status` is 0 when nobody answered."""

    def __init__(self, refusal: Refusal, what: str) -> None:
        super().__init__(what)
        self.refusal = refusal


class ManagerApi:
    """Calls to one web API in the name of one node. `token` gives the bearer of the present session."""

    def __init__(
        self,
        base_url: str,
        identity: NodeIdentity,
        *,
        token: Callable[[], str | None],
        timeout_s: float = 15.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._identity = identity
        self._token = token
        self._timeout_s = timeout_s
        self._tls = tls

    async def desired(self) -> tuple[Desired, ...]:
        """What this node should run. ApiError."""
        return read_desired((await self._ask("GET", "/v1/manager/desired")).body)

    async def manifest(self, workload_id: str, digest: str) -> str:
        """The manifest of this digest (``sha256:<hex>``). ApiError, also when it is another one by now."""
        reply = await self._ask("GET", f"/v1/manager/manifests/{workload_id}")
        if f"sha256:{hashlib.sha256(reply.body).hexdigest()}" != digest:
            raise ApiError(Refusal(reply.status), "the manifest is not the one that was desired")
        try:
            return reply.body.decode()
        except UnicodeDecodeError as error:
            raise ApiError(Refusal(reply.status), f"the manifest: {error}") from error

    async def report(self, workload_id: str, *, version: str, restarts: int) -> None:
        """Tell what runs, and how many of the ordered restarts are done. ApiError."""
        body = {"version": version, "restarts": restarts}
        await self._ask("PUT", f"/v1/manager/workloads/{workload_id}/version", json.dumps(body).encode())

    async def release(self) -> dict[str, str] | None:
        """The release that this manager should be: version, url, sha256, signature; None: none is published.

        ApiError.
        """
        try:
            reply = await self._ask("GET", "/v1/manager/release")
        except ApiError as error:
            if error.refusal.status == 404:
                return None
            raise
        try:
            answer = parse_object(reply.body, bytes_max=ANSWER_BYTES_MAX)
            return {name: answer.text(name, _NAME) for name in ("version", "url", "sha256", "signature")}
        except MalformedAnswerError as error:
            raise ApiError(Refusal(reply.status), f"release: {error}") from error

    async def hand_in(self, beats: Sequence[BackfillBeat], *, sent_at_ms: int) -> BackfillAnswer:
        """Hand in missed beats, oldest first. ApiError."""
        body = self._identity.backfill_body(beats, sent_at_ms=sent_at_ms)
        reply = await self._exchange("POST", "/v1/beats/backfill", body, {})
        if reply.status != 200:
            raise _refused("backfill", reply)
        try:
            return parse_backfill_answer(reply.body)
        except MalformedAnswerError as error:
            raise ApiError(Refusal(reply.status), f"backfill: {error}") from error

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        token = self._token()
        if token is None:
            raise ApiError(Refusal(0), "no session is open")
        reply = await self._exchange(method, path, body, {"Authorization": f"Bearer {token}"})
        if reply.status != 200:
            raise _refused(f"{method} {path}", reply)
        return reply

    async def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        def call() -> Reply:
            return exchange(
                method,
                self._base_url + path,
                body,
                headers={"Content-Type": "application/json", **headers},
                timeout_s=self._timeout_s,
                tls=self._tls,
                reply_bytes_max=ANSWER_BYTES_MAX,
            )

        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
        except PostFailedError as error:
            raise ApiError(Refusal(0), f"{method} {path}: {error}") from error


def _refused(what: str, reply: Reply) -> ApiError:
    refusal = parse_refusal(reply.status, reply.body, reply.retry_after)
    return ApiError(refusal, f"{what}: {reply.status} {refusal.code}".strip())


def read_desired(body: bytes) -> tuple[Desired, ...]:
    """Read the answer of ``GET /v1/manager/desired``. ApiError."""
    try:
        answer = parse_object(body, bytes_max=ANSWER_BYTES_MAX)
        return tuple(_workload(item) for item in answer.items("workloads", 64))
    except MalformedAnswerError as error:
        raise ApiError(Refusal(200), f"desired: {error}") from error


def _workload(item: Shape) -> Desired:
    return Desired(
        workload_id=item.text("workload_id", FIELD),
        slot=item.integer("slot", 0, 63),
        name=item.text("name", _NAME),
        kind=_maybe(item, "kind"),
        version=_maybe(item, "version"),
        digest=_maybe(item, "digest"),
        running_version=_maybe(item, "running_version"),
        restarts=item.integer("restarts", 0, COUNT_MAX),
    )


def _maybe(item: Shape, name: str) -> Any:
    return None if item.is_null(name) else item.text(name, FIELD)
