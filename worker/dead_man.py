"""A dead man's beat of our own: a GET to a URL of the installation's owner, for as long as all is well.

An outside monitor (Healthchecks and its kind, or another NodePulse) expects it and tells when it stays away:
the only one that can tell when everything here is dead. So it is sent only while engines write, PostgreSQL
answers, and notifier and deliveries run. That it could not be sent is told in the log and the metrics, and
stops nothing. Each worker sends its own: the monitor hears as long as one of them is well.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping

import httpx2
import msgspec
import structlog
import trio

from engine.core.ports import StoreUnavailableError
from worker.addresses import AddressRefusedError
from worker.guarded import BadUrlError, GuardedClient

TIMEOUT_S = 10.0
WATERMARK_AGE_MS_MAX = 60_000  # a shard writes once a second; older means that it hangs or cannot write

Watermarks = Callable[[], Awaitable[Mapping[int, int]]]

log = structlog.get_logger()


class DeadManStatistics(msgspec.Struct, frozen=True):
    """`withheld_total`: not sent, because something was not well. `failed_total`: sent, but not taken."""

    sent_total: int
    withheld_total: int
    failed_total: int
    last_sent_seconds: float  # unix time; 0: never


class DeadMan:
    """The task."""

    def __init__(
        self,
        *,
        url: str,
        every_s: float,
        watermarks: Watermarks,
        shards: int,
        checks: Callable[[], Mapping[str, str]],
        now_ms: Callable[[], int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`watermarks`: of history, by shard. `checks`: of this worker, "" for what is well."""
        self._url = url
        self._every_s = every_s
        self._watermarks = watermarks
        self._shards = shards
        self._checks = checks
        self._now_ms = now_ms
        self._tls = tls
        self._sent = self._withheld = self._failed = 0
        self._last_sent_ms = 0
        self._told = ""  # the trouble that was logged last

    async def run(self) -> None:
        """Until cancelled."""
        async with GuardedClient(user_agent="NodePulse-DeadMan/1", tls=self._tls) as client:
            while True:
                await self.run_once(client)
                await trio.sleep(self._every_s)

    async def run_once(self, client: GuardedClient) -> None:
        """Look, and beat if all is well."""
        trouble = await self._trouble()
        if trouble:
            self._withheld += 1
        else:
            trouble = await self._beat(client)
            self._failed += bool(trouble)
        if not trouble:
            self._sent += 1
            self._last_sent_ms = self._now_ms()
        if trouble != self._told:
            self._told = trouble
            if trouble:
                log.warning("dead_man.silent", reason=trouble)
            else:
                log.info("dead_man.beats")

    def statistics(self) -> DeadManStatistics:
        return DeadManStatistics(
            sent_total=self._sent,
            withheld_total=self._withheld,
            failed_total=self._failed,
            last_sent_seconds=self._last_sent_ms / 1000,
        )

    async def _trouble(self) -> str:
        """What is not well; empty: nothing."""
        wrong = [f"{name}: {what}" for name, what in self._checks().items() if what]
        if wrong:
            return "; ".join(wrong)
        try:
            with trio.move_on_after(TIMEOUT_S) as waiting:
                watermarks = await self._watermarks()
        except StoreUnavailableError:
            return "postgres: away"
        if waiting.cancelled_caught:
            return "postgres: no answer in time"
        return late_shards(watermarks, shards=self._shards, now_ms=self._now_ms())

    async def _beat(self, client: GuardedClient) -> str:
        """Why it was not taken; empty: it was. The URL is a secret and is not told."""
        try:
            with trio.fail_after(TIMEOUT_S):
                # The owner of the installation names it: it may lie in their own network.
                async with client.request(
                    "GET", self._url, content=b"", headers={}, allow_private=True
                ) as answer:
                    well = 200 <= answer.status_code < 300
                    return "" if well else f"the monitor answered {answer.status_code}"
        except trio.TooSlowError:
            return "the monitor did not answer in time"
        except (httpx2.HTTPError, AddressRefusedError, BadUrlError) as error:
            return f"the monitor cannot be reached: {type(error).__name__}"


def late_shards(watermarks: Mapping[int, int], *, shards: int, now_ms: int) -> str:
    """Which shards have not written for too long, in words; empty: none."""
    late = [shard for shard in range(shards) if now_ms - watermarks.get(shard, 0) > WATERMARK_AGE_MS_MAX]
    return ", ".join(f"shard {shard}: no watermark for {WATERMARK_AGE_MS_MAX // 1000} s" for shard in late)
