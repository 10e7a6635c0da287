"""What the worker's tests share: events and channels to hand around, and stores that can fail on command.

The stores are the ports' memory twins; `Failing` wraps one so that its n-th call fails, before or after it
took effect.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from engine.core.ports import Channel, Delivery, StoreUnavailableError
from engine.core.records import Event, event_id

PROJECT = "01900000-0000-7000-8000-00000000aaaa"
NODE = "01900000-0000-7000-8000-0000000000aa"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
T0 = 1_790_000_000_000


def make_event(
    number: int = 0, *, kind: str = "node.down", project_id: str | None = PROJECT, node_id: str = NODE, **more
) -> Event:
    since_ms = T0 + number
    return Event(
        event_id=event_id(kind, node_id, since_ms),
        kind=kind,
        shard=0,
        project_id=project_id,
        node_id=node_id,
        workload_id=more.pop("workload_id", None),
        since_ms=since_ms,
        at_ms=since_ms + 90_000,
        **more,
    )


def make_channel(number: int = 0, *, kind: str = "webhook", target: str = "", project_id: str = PROJECT):
    return Channel(
        channel_id=f"01900000-0000-7000-8000-{number:012x}",
        project_id=project_id,
        kind=kind,
        target=target or ("http://127.0.0.1:1/" if kind == "webhook" else "owner@example.org"),
        secret=SECRET if kind == "webhook" else "",
    )


def make_delivery(
    event: Event | None = None, channel: Channel | None = None, *, attempts: int = 1
) -> Delivery:
    return Delivery(
        delivery_id="01900000-0000-7000-8000-0000000000dd",
        channel=channel or make_channel(),
        event=event or make_event(),
        attempts=attempts,
        due_ms=T0,
    )


def wall_ms() -> int:
    """Unix milliseconds that follow trio's mock clock, which starts at 0."""
    return T0 + 200_000 + int(trio.current_time() * 1000)


class Row:
    """A delivery as the fake outbox keeps it."""

    def __init__(self, delivery_id: str, event: Event, channel: Channel, now_ms: int) -> None:
        self.delivery_id, self.event, self.channel = delivery_id, event, channel
        self.due_ms = now_ms
        self.attempts = 0
        self.state = "due"
        self.note = ""


class FakeOutbox:
    """The Outbox port in memory, shared by all workers of a test; see `Seat` for one worker's view."""

    def __init__(self, channels: Sequence[Channel] = ()) -> None:
        self.all_channels = list(channels)
        self.disabled: set[str] = set()
        self.cursor = 0
        self.rows: dict[tuple[str, str], Row] = {}
        self.holder: object | None = None
        self.away = False

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailableError("postgres is away")

    async def add_channel(self, project_id, *, kind, target, secret, now_ms):
        raise NotImplementedError

    async def channels(self, project_id):
        await self._reach()
        return [
            channel
            for channel in self.all_channels
            if channel.project_id == project_id and channel.channel_id not in self.disabled
        ]

    async def take_notifier_lock(self) -> bool:
        await self._reach()
        return True

    async def notifier_cursor(self):
        await self._reach()
        return self.cursor

    async def decide(self, *, cursor, notices, now_ms):
        await self._reach()
        for event, channel in notices:
            key = (event.event_id, channel.channel_id)
            if key not in self.rows:
                self.rows[key] = Row(f"delivery-{len(self.rows)}", event, channel, now_ms)
        self.cursor = max(cursor, self.cursor)

    async def claim(self, *, kind, limit, now_ms, lease_ms):
        await self._reach()
        due = [
            row
            for row in self.rows.values()
            if row.state == "due" and row.due_ms <= now_ms and row.channel.kind == kind
        ]
        taken = sorted(due, key=lambda row: row.due_ms)[:limit]
        for row in taken:
            row.due_ms = now_ms + lease_ms
            row.attempts += 1
        return [Delivery(r.delivery_id, r.channel, r.event, r.attempts, r.due_ms) for r in taken]

    def _row(self, delivery_id: str) -> Row:
        return next(row for row in self.rows.values() if row.delivery_id == delivery_id)

    async def sent(self, delivery_id, *, now_ms, note):
        await self._reach()
        row = self._row(delivery_id)
        row.state, row.note = "sent", note

    async def failed(self, delivery_id, *, now_ms, note, retry_at_ms):
        await self._reach()
        row = self._row(delivery_id)
        row.note = note
        if retry_at_ms is None:
            row.state = "dead"
        else:
            row.due_ms = retry_at_ms

    async def disable_channel(self, channel_id, *, now_ms, note):
        await self._reach()
        self.disabled.add(channel_id)
        died = [r for r in self.rows.values() if r.channel.channel_id == channel_id and r.state == "due"]
        for row in died:
            row.state, row.note = "dead", note
        return len(died)


class FakeHistory:
    def __init__(self) -> None:
        self.rows: list[Event] = []
        self.away = False

    async def events(self, *, project_id, after, limit):
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailableError("postgres is away")
        return [(number, event) for number, event in enumerate(self.rows, 1) if number > after][:limit]


class FakeLive:
    def __init__(self) -> None:
        self.away = False
        self._announced = trio.Event()

    def announce(self) -> None:
        self._announced.set()
        self._announced = trio.Event()

    async def wait_events(self, timeout_s):
        if self.away:
            await trio.lowlevel.checkpoint()
            raise StoreUnavailableError("redis is away")
        with trio.move_on_after(timeout_s):
            await self._announced.wait()


class FakeDirectory:
    def __init__(self) -> None:
        self.expired = 0

    async def prune(self, *, now_ms, limit):
        await trio.lowlevel.checkpoint()
        gone = min(self.expired, limit)
        self.expired -= gone
        return gone


class Killed(BaseException):
    """The process ends here, as by kill -9: nobody may catch it."""


class Failing:
    """Wraps a store so that call number `at` (1 = the first) raises `error`, before or after its effect.

    Several stores may share one `count` (a list of one number).
    """

    def __init__(self, store, *, at: int, after: bool, error: BaseException, count: list[int]) -> None:
        self._store, self._at, self._after = store, at, after
        self._error, self._count = error, count

    def __getattr__(self, name: str):
        method = getattr(self._store, name)

        async def call(*args, **kwargs):
            self._count[0] += 1
            mine = self._count[0] == self._at
            if mine and not self._after:
                raise self._error
            result = await method(*args, **kwargs)
            if mine:
                raise self._error
            return result

        return call
