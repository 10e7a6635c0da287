"""The client's shell of the manager: beats, what must outlive it of them, and handing in what was missed.

When a beat goes and which way is np1's; here the manager follows the client, keeps its unacknowledged beats
and its session on disk, and hands the former in once the server hears it again.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import trio

from node.client import NodeClient, SavedSession
from node.config import write_whole
from node.manager.api import ApiError, ManagerApi
from node.manager.kept_beats import KeptBeats
from np1.session import BackfillBeat, SessionGrant

log = logging.getLogger(__name__)
BEATS_AT_ONCE = 5_000  # of one request: half of what is allowed, half a megabyte
HAND_IN_WITHIN_S = 15.0  # after an outage a whole fleet hands in: not in the same second
RETRY_S_MIN, RETRY_S_MAX = 5.0, 600.0
REFUSED_FOR_LONG = (400, 401, 403, 404, 413)  # asking again soon will not help


class HandingIn:
    """Call `heard` for each credited beat; `run` follows the client until cancelled."""

    def __init__(self, client: NodeClient, api: ManagerApi, kept: KeptBeats) -> None:
        self._client, self._api, self._kept = client, api, kept
        self._heard = trio.Event()
        self.taken = 0
        self.ignored: Counter[str] = Counter()
        self.refused = ""

    def heard(self) -> None:
        """The server hears us: what was missed can be handed in."""
        if len(self._kept):
            self._heard.set()

    async def run(self) -> None:
        """Never returns. The file is followed before anything else can happen to the client."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hand_in_when_heard)
            while True:
                if self.follow():
                    await trio.to_thread.run_sync(self._kept.sync)
                else:  # nothing has changed since, for nothing was waited for
                    await self._client.changed()

    def follow(self) -> bool:
        """Write down what the client keeps; True when that is worth a sync."""
        settled = self._client.unacknowledged()
        worth = self._kept.follow(in_flight=self._client.in_flight(), settled=settled)
        self._client.handed_in(settled)  # in the file's hands
        return worth

    async def _hand_in_when_heard(self) -> None:
        while True:
            await self._heard.wait()
            await trio.sleep(random.random() * min(HAND_IN_WITHIN_S, self._interval_s()))
            failures = 0
            while beats := self._kept.settled(BEATS_AT_ONCE):
                wait_s = await self._hand_in(beats, failures)
                failures = 0 if wait_s is None else failures + 1
                if wait_s is not None:
                    await trio.sleep(wait_s)
            self._heard = trio.Event()

    async def _hand_in(self, beats: list[BackfillBeat], failures: int) -> float | None:
        """None when it was done; else how long to wait before it is tried again."""
        sent_at_ms = self._client.server_ms() or time.time_ns() // 1_000_000
        try:
            answer = await self._api.hand_in(beats, sent_at_ms=sent_at_ms)
        except ApiError as error:
            self.refused = str(error)
            log.warning("missed beats not handed in: %s", error)
            if error.refusal.status in REFUSED_FOR_LONG and error.refusal.server_ms is None:
                return RETRY_S_MAX
            wait_s = min(RETRY_S_MIN * (1 << min(failures, 16)), RETRY_S_MAX) * (0.5 + random.random() / 2)
            return max(wait_s, (error.refusal.retry_after_ms or 0) / 1000)
        self._kept.handed_in(beats)
        self.taken += answer.taken
        self.ignored.update(answer.ignored)
        self.refused = ""
        log.info("missed beats handed in: %d, of which the server took %d", len(beats), answer.taken)
        return None

    def _interval_s(self) -> float:
        return (self._client.statistics().interval_ms or 0) / 1000


def save_session(path: Path, client: NodeClient) -> None:
    """For a manager that starts while the web API is away. It holds a key: mode 0600."""
    grant, server_ms = client.grant, client.server_ms()
    if grant is None or server_ms is None:
        return
    value = {**asdict(grant), "key": grant.key.hex(), "ahead_ms": server_ms - time.time_ns() // 1_000_000}
    try:
        write_whole(path, json.dumps(value).encode())
    except OSError as error:
        log.warning("the session cannot be kept: %s", error)


def load_session(path: Path) -> SavedSession | None:
    """What `save_session` wrote; None when there is nothing that can be used."""
    try:
        value = json.loads(path.read_bytes())
        ahead_ms = int(value.pop("ahead_ms"))
        slots = tuple((int(slot), str(name)) for slot, name in value["slots"])
        grant = SessionGrant(**{**value, "key": bytes.fromhex(value["key"]), "slots": slots})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("an earlier session cannot be used: %s", error)
        return None
    return SavedSession(grant, ahead_ms)
