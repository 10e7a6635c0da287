"""Letters over PostgreSQL and a real mail server: sent once, soon or never, and emptied afterwards."""

from __future__ import annotations

import email
from email import policy

import asyncpg
import pytest
import trio

from engine.core.letters import LETTER_LIFE_MS, Letter
from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host
from storage.open import AllStores
from tests.worker.receivers import Mailbox, mail_server
from worker.letters import ATTEMPTS_MAX, LetterPost, by_mail, decide
from worker.outcome import Outcome, Result, Step
from worker.parts import Worker
from worker.settings import MailSettings, WorkerSettings
from worker.smtp import MAIL_CONNECTIONS_MAX, MailServer

NOW = 1_790_000_000_000
FAILED, REFUSED = Outcome(Result.FAILED, "later"), Outcome(Result.REFUSED, "never")
ACCEPTED = Outcome(Result.ACCEPTED, "taken")


async def queue(stores: AllStores, address: str = "olga@example.org", *, now_ms: int = NOW) -> None:
    """A letter as somebody who wants to sign in has it written."""
    assert await stores.sign_in.open_mail_challenge(
        address,
        secret_sha256=f"{address} {now_ms}".encode(),
        subject="Sign in",
        body="the secret\n",
        sign_up=True,
        now_ms=now_ms,
        life_ms=LETTER_LIFE_MS,
    )


async def rows(url: str) -> list[dict]:
    async def run() -> list[dict]:
        connection = await asyncpg.connect(url)
        try:
            return [dict(row) for row in await connection.fetch("select * from letter order by letter_id")]
        finally:
            await connection.close()

    return await await_host(run)


class Sends:
    """A sender that answers with the next of its outcomes, the last for ever, and keeps what it was given."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self.outcomes = list(outcomes)
        self.letters: list[Letter] = []

    async def __call__(self, letter: Letter, *, now_ms: int, timeout_s: float) -> Outcome:
        self.letters.append(letter)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> int:
        return self.now_ms


def post_of(stores: AllStores, send, clock: Clock, crashed=lambda error, letter: None) -> LetterPost:
    return LetterPost(
        letters=stores.letters,
        send=send,
        now_ms=clock,
        timeout_s=5.0,
        poll_s=0.01,
        crashed=crashed,
        draw=lambda: 0.0,
    )


async def test_a_letter_arrives_and_its_text_is_gone_afterwards(stores: AllStores, postgres_url: str):
    await queue(stores)
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        server = MailServer(MailSettings(host="127.0.0.1", port=port, sender="pulse@nodes.example"))
        post = post_of(stores, by_mail(server), Clock())
        assert [await post.run_once() for _ in range(2)] == [1, 0]
    (envelope,) = mailbox.envelopes
    message = email.message_from_bytes(envelope.content, policy=policy.default)
    (row,) = await rows(postgres_url)
    assert envelope.rcpt_tos == [message["to"]] == ["olga@example.org"]
    assert (message["subject"], message["auto-submitted"]) == ("Sign in", "auto-generated")
    assert message["message-id"] == f"<{row['letter_id']}@nodes.example>"
    assert message.get_content() == "the secret\r\n"
    assert (row["state"], row["body"], row["attempts"], row["settled_ms"]) == ("sent", "", 1, NOW)
    assert post.statistics().sent_total == 1


async def test_a_letter_refused_after_its_last_dot_was_not_sent_and_is_tried_again(
    stores: AllStores, postgres_url: str
):
    await queue(stores)
    with mail_server(Mailbox(after_data="451 try later")) as port:
        server = MailServer(MailSettings(host="127.0.0.1", port=port))
        await post_of(stores, by_mail(server), Clock()).run_once()
    (row,) = await rows(postgres_url)
    assert (row["state"], row["due_ms"], row["note"]) == ("due", NOW + 5_000, "SMTP 451 try later")


async def test_a_mailbox_that_is_not_there_is_given_up_at_once(stores: AllStores, postgres_url: str):
    await queue(stores)
    with mail_server(Mailbox(refuse="550 no such user")) as port:
        server = MailServer(MailSettings(host="127.0.0.1", port=port))
        await post_of(stores, by_mail(server), Clock()).run_once()
    (row,) = await rows(postgres_url)
    assert (row["state"], row["body"]) == ("dead", "")


async def test_a_server_that_fails_is_tried_on_the_ladder_until_the_letter_would_come_too_late(
    stores: AllStores, postgres_url: str
):
    await queue(stores)
    clock, sends = Clock(), Sends(FAILED)
    post = post_of(stores, sends, clock)
    tried_at_s = []
    for _ in range(10):
        if await post.run_once():
            tried_at_s.append((clock.now_ms - NOW) // 1000)
        (row,) = await rows(postgres_url)
        clock.now_ms = max(clock.now_ms, row["due_ms"])
    assert tried_at_s == [0, 5, 305]
    assert (row["state"], row["body"], row["note"]) == ("dead", "", "later")
    assert [letter.attempts for letter in sends.letters] == [1, 2, 3]


async def test_no_two_workers_send_the_same_letter(stores: AllStores):
    for number in range(6):
        await queue(stores, f"olga{number}@example.org")
    sends, clock = Sends(ACCEPTED), Clock()
    posts = [post_of(stores, sends, clock) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for post in posts:
            nursery.start_soon(post.run_once)
    assert sorted(letter.address for letter in sends.letters) == [
        f"olga{number}@example.org" for number in range(6)
    ]


async def test_what_a_killed_worker_had_in_hand_is_sent_after_its_lease(stores: AllStores):
    await queue(stores)
    (claimed,) = await stores.letters.claim(limit=9, now_ms=NOW, lease_ms=1_000)
    assert (claimed.attempts, claimed.due_ms) == (1, NOW + 1_000)
    assert await stores.letters.claim(limit=9, now_ms=NOW + 999, lease_ms=1_000) == []
    (again,) = await stores.letters.claim(limit=9, now_ms=NOW + 1_000, lease_ms=1_000)
    assert (again.letter_id, again.attempts) == (claimed.letter_id, 2)


async def test_one_that_kills_its_worker_each_time_is_given_up(stores: AllStores, postgres_url: str):
    await queue(stores)
    for number in range(ATTEMPTS_MAX):
        assert await stores.letters.claim(limit=1, now_ms=NOW + number, lease_ms=1)
    sends, clock = Sends(ACCEPTED), Clock()
    clock.now_ms += ATTEMPTS_MAX
    await post_of(stores, sends, clock).run_once()
    (row,) = await rows(postgres_url)
    assert (row["state"], sends.letters) == ("dead", [])


async def test_a_bug_in_the_sender_is_reported_and_the_other_letters_go_on(
    stores: AllStores, postgres_url: str
):
    for number in range(MAIL_CONNECTIONS_MAX):
        await queue(stores, f"olga{number}@example.org")
    crashes: list[tuple[str, str]] = []
    sends = Sends(RuntimeError("bug"), ACCEPTED)
    post = post_of(stores, sends, Clock(), lambda error, letter: crashes.append((str(error), letter.address)))
    assert await post.run_once() == MAIL_CONNECTIONS_MAX
    assert crashes == [("bug", sends.letters[0].address)]
    states = [row["state"] for row in await rows(postgres_url)]
    assert sorted(states) == ["due", *["sent"] * (MAIL_CONNECTIONS_MAX - 1)]
    assert post.statistics().crashed_total == 1


class AwayOnce:
    """Letters whose `settle` fails the first time."""

    def __init__(self, letters) -> None:
        self._letters, self.failed = letters, False

    def __getattr__(self, name: str):
        return getattr(self._letters, name)

    async def settle(self, *given, **named) -> None:
        if not self.failed:
            self.failed = True
            raise StoreUnavailableError("away")
        await self._letters.settle(*given, **named)


async def test_what_was_sent_is_written_down_as_soon_as_postgres_is_back(
    stores: AllStores, postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.letters.OUTAGE_POLL_S", 0.01)
    await queue(stores)
    sends = Sends(ACCEPTED)
    post = post_of(stores, sends, Clock())
    post._letters = AwayOnce(stores.letters)
    await post.run_once()
    assert [row["state"] for row in await rows(postgres_url)] == ["sent"]
    assert (len(sends.letters), post.statistics().store_away) == (1, 0)


@pytest.mark.parametrize(
    ("outcome", "attempts", "late_ms", "expected"),
    [
        (ACCEPTED, 1, 0, (Step.SENT, None)),
        (REFUSED, 1, 0, (Step.DEAD, None)),
        (Outcome(Result.GONE, ""), 1, 0, (Step.DEAD, None)),
        (FAILED, 1, 0, (Step.RETRY, NOW + 5_000)),
        (FAILED, 2, 0, (Step.RETRY, NOW + 300_000)),
        (FAILED, 3, 0, (Step.DEAD, None)),  # half an hour from now
        (FAILED, 1, LETTER_LIFE_MS - 5_001, (Step.RETRY, NOW + 5_000)),
        (FAILED, 1, LETTER_LIFE_MS - 5_000, (Step.DEAD, None)),
    ],
)
def test_what_follows_from_an_outcome(outcome: Outcome, attempts: int, late_ms: int, expected):
    letter = Letter("id", "a@b", "", "", attempts, NOW, NOW - late_ms)
    assert decide(outcome, letter, attempts_max=ATTEMPTS_MAX, now_ms=NOW, draw=0.0) == expected


async def test_letters_that_nobody_sent_in_time_are_emptied_and_old_ones_deleted(
    stores: AllStores, postgres_url: str
):
    await queue(stores)
    await queue(stores, "sam@example.org", now_ms=NOW + 1)
    prune = stores.letters.prune
    assert await prune(now_ms=NOW + LETTER_LIFE_MS, limit=10) == 0
    assert await prune(now_ms=NOW + LETTER_LIFE_MS + 1, limit=10) == 1
    first, second = await rows(postgres_url)
    assert (first["state"], first["body"], second["state"]) == ("dead", "", "due")
    month_ms = 31 * 86_400_000
    assert await prune(now_ms=NOW + month_ms, limit=10) == 2  # the second is given up, the first goes
    assert [row["letter_id"] for row in await rows(postgres_url)] == [second["letter_id"]]


async def test_the_whole_worker_sends_letters(stores: AllStores, postgres_url: str):
    mailbox, stop, listens = Mailbox(), trio.Event(), trio.Event()
    with mail_server(mailbox) as port:
        worker = Worker(
            settings=WorkerSettings(poll_ms=10, mail=MailSettings(host="127.0.0.1", port=port)),
            outbox=stores.outbox,
            sending=stores.sending,
            newsroom=stores.newsroom,
            live=stores.live,
            directory=stores.directory,
            letters=stores.letters,
            now_ms=Clock(),
        )
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await worker.run(listening=lambda _where: listens.set(), stop=stop)

            nursery.start_soon(run)
            await listens.wait()
            await queue(stores)
            with trio.fail_after(10):
                while not mailbox.envelopes or (await rows(postgres_url))[0]["state"] == "due":  # noqa: ASYNC110 - it must be asked
                    await trio.sleep(0.02)
            assert worker.ready()["letters"] == ""
            assert worker.statistics()["letters"]()["sent_total"] == 1
            stop.set()
    assert len(mailbox.envelopes) == 1
