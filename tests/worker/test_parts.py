"""The whole worker over stores in memory: from an event to a webhook and a mail, and an end in order."""

import email
from email import policy

import pytest
import trio
from standardwebhooks.webhooks import Webhook

from storage.bridge import run_on_uvloop
from tests.worker.fakes import SECRET, Failing, Memory, make_channel, make_event
from tests.worker.receivers import OK, HttpReceiver, Mailbox, mail_server, serving
from worker.parts import Worker
from worker.settings import MailSettings, WorkerSettings


class World:
    """Stores, a worker over them, and what it told."""

    def __init__(self, *channels, newsroom=None, **settings) -> None:
        self.memory = Memory(*channels)
        if newsroom is not None:
            self.memory.newsroom = newsroom(self.memory.newsroom)
        self.stop, self.listens = trio.Event(), trio.Event()
        self.port = 0
        self.worker = Worker(
            settings=WorkerSettings(
                **{"webhook_allow_private": True, "poll_ms": 20, "notifier_project_delay_s": 0.0} | settings
            ),
            outbox=self.memory.outbox,
            sending=self.memory.sending,
            newsroom=self.memory.newsroom,
            live=self.memory.live,
            directory=self.memory.directory,
        )

    def listening(self, where: str) -> None:
        self.port = int(where.rpartition(":")[2])
        self.listens.set()

    async def run(self) -> None:
        await self.worker.run(listening=self.listening, stop=self.stop)

    async def get(self, path: str) -> str:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            return b"".join([chunk async for chunk in stream]).decode()

    async def settled(self, *, kind: str = "") -> None:
        """Wait until no delivery (to this kind of channel) is due any more."""
        with trio.fail_after(10):
            while True:
                states = [row.state for of, row in self.memory.by_kind().items() if kind in ("", of)]
                if states and "due" not in states:
                    return
                await trio.sleep(0.01)

    async def tell(self, **event) -> str:
        """Let an event happen; its id."""
        made = make_event(**event)
        await self.memory.happen(made)
        await self.memory.live.announce_events([made])
        return made.event_id


async def one_event_becomes_a_webhook_and_a_mail() -> None:
    mailbox = Mailbox()
    with mail_server(mailbox) as mail_port:
        async with serving(HttpReceiver(OK)) as receiver, trio.open_nursery() as nursery:
            hook = make_channel(1, target=f"http://127.0.0.1:{receiver.port}/hook")
            mail = make_channel(2, kind="mail", target="owner@example.org")
            world = World(hook, mail, mail=MailSettings(host="127.0.0.1", port=mail_port))
            nursery.start_soon(world.run)
            await world.listens.wait()
            event_id = await world.tell(workloads=("w1", "w2"))
            await world.settled()
            metrics = await world.get("/metrics")
            assert (await world.get("/readyz")).startswith("HTTP/1.1 200")
            world.stop.set()
    _, headers, body = receiver.requests[0]
    message = Webhook(SECRET).verify(body, headers)
    letter = email.message_from_bytes(mailbox.envelopes[0].content, policy=policy.default)
    assert message["data"]["event_id"] == letter["x-nodepulse-event-id"] == event_id
    assert len(receiver.requests) == len(mailbox.envelopes) == 1
    assert "nodepulse_webhook_deliveries_sent_total 1.0" in metrics
    assert "nodepulse_mail_deliveries_sent_total 1.0" in metrics
    assert "nodepulse_notifier_notices_total 2.0" in metrics
    assert "nodepulse_event_to_first_attempt_seconds_count 2.0" in metrics


async def test_one_event_becomes_a_webhook_and_a_mail():
    await one_event_becomes_a_webhook_and_a_mail()


def test_the_same_as_a_guest_of_uvloop():
    async def main() -> int:
        await one_event_becomes_a_webhook_and_a_mail()
        return 0

    assert run_on_uvloop(main) == 0


async def test_without_a_mail_server_mail_waits_and_everything_else_goes_on():
    async with serving(HttpReceiver(OK)) as receiver, trio.open_nursery() as nursery:
        hook = make_channel(1, target=f"http://127.0.0.1:{receiver.port}/")
        world = World(hook, make_channel(2, kind="mail"))
        nursery.start_soon(world.run)
        await world.listens.wait()
        await world.tell()
        await world.settled(kind="webhook")
        world.stop.set()
    kinds = {kind: (row.state, row.attempts) for kind, row in world.memory.by_kind().items()}
    assert kinds == {"webhook": ("sent", 1), "mail": ("due", 0)}


async def test_a_crashed_notifier_is_started_again_and_counted(autojump_clock, capsys):
    error = RuntimeError("bug")
    world = World(newsroom=lambda store: Failing(store, at=1, after=False, error=error, count=[0]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await trio.sleep(0.3)
        assert world.worker.ready()["notifier"] == "not running"
        await trio.sleep(1)
        assert world.worker.ready()["notifier"] == ""
        assert world.worker.statistics()["worker"]()["crashes_total"]["notifier"] == 1
        world.stop.set()
    assert "task.crashed" in capsys.readouterr().out


async def test_not_ready_while_postgres_is_away(autojump_clock):
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await trio.sleep(1)
        assert world.worker.ready()["postgres"] == ""
        world.memory.world.postgres_away = True
        await trio.sleep(5)
        assert world.worker.ready()["postgres"] == "away"
        world.memory.world.postgres_away = False
        await trio.sleep(5)
        assert world.worker.ready()["postgres"] == ""
        world.stop.set()


@pytest.mark.parametrize("hangs", [False, True])
async def test_stopped_it_lets_a_send_finish_but_does_not_wait_for_ever(hangs):
    answered = trio.Event()

    async def answer(stream):
        await stream.receive_some()
        answered.set()
        await trio.sleep(30 if hangs else 0.2)
        await stream.send_all(OK)

    receiver = HttpReceiver()
    receiver._handle = answer
    async with serving(receiver):
        world = World(make_channel(1, target=f"http://127.0.0.1:{receiver.port}/"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run)
            await world.listens.wait()
            await world.tell()
            await answered.wait()
            world.stop.set()
            started = trio.current_time()
        assert trio.current_time() - started < 5.5
    assert world.memory.states == ["due" if hangs else "sent"]


async def test_a_port_that_is_taken_ends_the_worker_with_an_error():
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    with pytest.raises(BaseExceptionGroup) as caught:
        await World(metrics_port=port).run()
    assert caught.group_contains(OSError)
    await listener[0].aclose()
