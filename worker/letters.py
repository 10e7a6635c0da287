"""Letters: mail of our own (a link to sign in), claimed with a lease and sent like notices; soon, or never.

Any number of workers do this side by side. A letter is settled only after the server took it, so a crash
between the two sends it twice and never not at all. What it says is written by whoever queued it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog
import trio

from engine.core.letters import LETTER_LIFE_MS, Letter, Letters
from engine.core.ports import StoreUnavailableError
from worker.outage import OUTAGE_POLL_S, Outage
from worker.outcome import NOTE_CHARS_MAX, Outcome, Result, Step, next_step
from worker.smtp import MAIL_CONNECTIONS_MAX, MailServer, compose

# As for deliveries: for writing the result down, and for clocks of workers that disagree.
LEASE_MARGIN_MS = 40_000
ATTEMPTS_MAX = 4  # of the ladder's steps more do not fit into a letter's life

log = structlog.get_logger()


class LetterSender(Protocol):
    """Sends one letter. Operating errors become an Outcome; what escapes is a bug."""

    async def __call__(self, letter: Letter, *, now_ms: int, timeout_s: float) -> Outcome: ...


class LetterStatistics(msgspec.Struct, frozen=True):
    store_away: int
    sent_total: int
    retried_total: int
    dead_total: int
    crashed_total: int


def by_mail(server: MailServer) -> LetterSender:
    """A sender over this mail server."""

    async def send(letter: Letter, *, now_ms: int, timeout_s: float) -> Outcome:
        try:
            message = compose(
                sender=server.sender,
                to=letter.address,
                subject=letter.subject,
                text=letter.body,
                message_id=letter.letter_id,
                now_ms=now_ms,
            )
        except ValueError as error:
            return Outcome(Result.REFUSED, str(error))
        return await server.send(message, timeout_s=timeout_s)

    return send


def decide(
    outcome: Outcome, letter: Letter, *, attempts_max: int, now_ms: int, draw: float
) -> tuple[Step, int | None]:
    """As for deliveries (outcome.py); but a letter that would come too late is given up."""
    step, retry_at_ms = next_step(
        outcome, attempts=letter.attempts, attempts_max=attempts_max, now_ms=now_ms, draw=draw
    )
    if retry_at_ms is not None and retry_at_ms >= letter.created_ms + LETTER_LIFE_MS:
        return Step.DEAD, None
    return (Step.DEAD if step is Step.DISABLE else step), retry_at_ms


class LetterPost:
    """The actor that sends letters, at most MAIL_CONNECTIONS_MAX at a time."""

    def __init__(
        self,
        *,
        letters: Letters,
        send: LetterSender,
        now_ms: Callable[[], int],
        timeout_s: float,
        poll_s: float,
        crashed: Callable[[Exception, Letter], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`crashed` hears of bugs in the sender."""
        self._letters = letters
        self._send = send
        self._now_ms = now_ms
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._crashed = crashed
        self._draw = draw
        self._stopping = trio.Event()
        self._outage = Outage("letters")
        self._counts = {Step.SENT: 0, Step.RETRY: 0, Step.DEAD: 0}
        self._crashes = 0

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in hand has been settled."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`. Postgres being away is waited for."""
        while not self._stopping.is_set():
            sent = 0
            try:
                sent = await self.run_once()
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
            if sent < MAIL_CONNECTIONS_MAX:
                with trio.move_on_after(OUTAGE_POLL_S if self._outage.away else self._poll_s):
                    await self._stopping.wait()

    async def run_once(self) -> int:
        """Send a handful of what is due; how many those were. StoreUnavailableError: nothing was sent."""
        claimed = await self._letters.claim(
            limit=MAIL_CONNECTIONS_MAX,
            now_ms=self._now_ms(),
            lease_ms=int(self._timeout_s * 1000) + LEASE_MARGIN_MS,
        )
        async with trio.open_nursery() as nursery:
            for letter in claimed:
                nursery.start_soon(self._post, letter)
        return len(claimed)

    async def _post(self, letter: Letter) -> None:
        outcome = await self._attempt(letter)
        step, retry_at_ms = decide(
            outcome, letter, attempts_max=ATTEMPTS_MAX, now_ms=self._now_ms(), draw=self._draw()
        )
        await self._settle(letter, step, retry_at_ms, outcome.note[:NOTE_CHARS_MAX])

    async def _attempt(self, letter: Letter) -> Outcome:
        if letter.attempts > ATTEMPTS_MAX or self._now_ms() >= letter.created_ms + LETTER_LIFE_MS:
            return Outcome(Result.REFUSED, "given up: it would come too late")
        try:
            return await self._send(letter, now_ms=self._now_ms(), timeout_s=self._timeout_s)
        except Exception as error:  # noqa: BLE001 - one poisoned letter must not stop the others; reported
            self._crashes += 1
            self._crashed(error, letter)
            return Outcome(Result.FAILED, f"internal error: {type(error).__name__}")

    async def _settle(self, letter: Letter, step: Step, retry_at_ms: int | None, note: str) -> None:
        """Write the result, again and again while Postgres is away: it is the only trace of what was sent."""
        while True:
            try:
                await self._write(letter, step, retry_at_ms, note)
                break
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
            if step is Step.RETRY and self._now_ms() >= letter.due_ms:
                return  # due by itself since its lease ended, and maybe in another's hands
        self._outage.over()
        self._counts[step] += 1
        log.info(f"letter.{step.value}", letter_id=letter.letter_id, attempts=letter.attempts, note=note)

    def _write(self, letter: Letter, step: Step, retry_at_ms: int | None, note: str) -> Awaitable[None]:
        if retry_at_ms is not None:
            return self._letters.retry(letter.letter_id, retry_at_ms=retry_at_ms, note=note)
        return self._letters.settle(
            letter.letter_id, sent=step is Step.SENT, now_ms=self._now_ms(), note=note
        )

    def statistics(self) -> LetterStatistics:
        return LetterStatistics(
            store_away=int(self._outage.away),
            sent_total=self._counts[Step.SENT],
            retried_total=self._counts[Step.RETRY],
            dead_total=self._counts[Step.DEAD],
            crashed_total=self._crashes,
        )
