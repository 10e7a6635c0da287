"""The memory twin of postgres_sending.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from engine.core.outbox import Channel, Delivery
from engine.core.sending import HOUR_MS, Settled
from storage.memory_world import MemoryDelivery, MemoryWorld


class MemorySending:
    """engine.core.sending.Sending in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    async def claim(
        self,
        *,
        kind: str,
        limit: int,
        now_ms: int,
        lease_ms: int,
        in_flight: Mapping[str, int] | None = None,
        in_flight_max: int = 0,
        without: Sequence[str] = (),
    ) -> list[Delivery]:
        await self._world.enter()
        counts = Counter(in_flight or {})
        claimed: list[MemoryDelivery] = []
        for one in self._due(kind, now_ms):
            endpoint, circuit = _where(self._world.channels[one.channel_id])
            full = bool(endpoint and in_flight_max and counts[endpoint] >= in_flight_max)
            if circuit not in without and not full and len(claimed) < limit:
                counts[endpoint] += 1
                claimed.append(one)
        return [self._claimed(one, now_ms, lease_ms) for one in claimed]

    async def probe(
        self, *, kind: str, circuits: Sequence[str], now_ms: int, lease_ms: int
    ) -> list[Delivery]:
        await self._world.enter()
        oldest: dict[str, MemoryDelivery] = {}
        for one in self._due(kind, now_ms):
            oldest.setdefault(_where(self._world.channels[one.channel_id])[1], one)
        return [self._claimed(oldest[name], now_ms, lease_ms) for name in circuits if name in oldest]

    async def settle(self, settled: Sequence[Settled], *, now_ms: int) -> None:
        await self._world.enter()
        for told in settled:
            delivery = self._world.deliveries.get(told.delivery_id)
            if delivery is not None and delivery.state == "due":
                delivery.state, delivery.note = told.state, told.note
                delivery.attempts -= not told.attempted
                if told.state == "due":
                    delivery.due_ms = told.retry_at_ms

    async def hold(self, circuit: str, *, now_ms: int, until_ms: int) -> int:
        await self._world.enter()
        channels = self._world.channels
        due = [one for kind in ("webhook", "apprise") for one in self._due(kind, now_ms)]
        held = [one for one in due if _where(channels[one.channel_id])[1] == circuit]
        for one in held:
            one.due_ms = until_ms
        return len(held)

    async def take_budget(
        self, address: str, *, owner: str, per_hour_max: int, now_ms: int
    ) -> tuple[bool, int]:
        await self._world.enter()
        sent = self._world.mail_budget.setdefault((address.lower(), owner), [])
        if len(sent) >= per_hour_max and sent[-per_hour_max] > now_ms - HOUR_MS:
            return False, sent[-per_hour_max] + HOUR_MS
        sent.append(max(now_ms, sent[-1] + 1) if sent else now_ms)
        return True, sent[-1]

    async def give_back_budget(self, address: str, *, owner: str, taken_ms: int) -> None:
        await self._world.enter()
        self._world.mail_budget[address.lower(), owner].remove(taken_ms)

    async def disable_channel(self, channel_id: str, *, now_ms: int, note: str) -> int:
        await self._world.enter()
        self._world.disabled_channels.add(channel_id)
        of_channel = [one for one in self._world.deliveries.values() if one.channel_id == channel_id]
        due = [one for one in of_channel if one.state == "due"]
        for one in due:
            one.state, one.note = "dead", note
        return len(due)

    async def prune(self, *, now_ms: int, limit: int) -> int:
        await self._world.enter()
        budget = self._world.mail_budget
        gone = [one for one, sent in budget.items() if not sent or sent[-1] <= now_ms - HOUR_MS][:limit]
        for one in gone:
            del budget[one]
        return len(gone)

    def _due(self, kind: str, now_ms: int) -> list[MemoryDelivery]:
        """Oldest due first."""
        due = [one for one in self._world.deliveries.values() if one.state == "due" and one.due_ms <= now_ms]
        of_kind = [one for one in due if self._world.channels[one.channel_id].kind == kind]
        return sorted(of_kind, key=lambda one: (one.due_ms, one.delivery_id))

    def _claimed(self, one: MemoryDelivery, now_ms: int, lease_ms: int) -> Delivery:
        wanted_ms, one.due_ms = one.due_ms, now_ms + lease_ms
        one.attempts += 1
        channel = self._world.channels[one.channel_id]
        endpoint, circuit = _where(channel)
        return Delivery(
            one.delivery_id,
            channel,
            one.notice,
            one.attempts,
            one.due_ms,
            wanted_ms=wanted_ms,
            endpoint=endpoint,
            circuit=circuit,
            unsubscribe_token=f"token-of-{channel.channel_id}",
            owner=channel.project_id or "",
        )


def _where(channel: Channel) -> tuple[str, str]:
    """(endpoint, circuit), as migration 0011 has them."""
    if channel.kind == "webhook":
        parts = urlsplit(channel.target)
        origin = f"{parts.scheme}://{parts.netloc}".lower()
        return origin, f"{channel.project_id} {origin}"
    return (f"apprise:{channel.channel_id}",) * 2 if channel.kind == "apprise" else ("", "")
