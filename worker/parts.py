"""The worker put together: notifier, the deliveries of each kind of channel, schedule, metrics and health.

Over any stores: main.py opens the real ones. What each part does stands in its own file.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

import msgspec
import structlog
import trio

from engine.core.inventory import InventorySync
from engine.core.letters import Letter, Letters
from engine.core.newsroom import Newsroom, Policy
from engine.core.orders import Rollouts
from engine.core.outbox import Outbox
from engine.core.ports import Directory, LiveView
from engine.core.schedule import Schedule
from engine.core.sending import Sending
from storage.metrics_http import Checks, Statistics, new_registry, serve_metrics
from storage.observe import capture
from worker.dead_man import DeadMan, Watermarks
from worker.deliveries import Deliveries
from worker.letters import LetterPost, by_mail
from worker.notifier import Notifier
from worker.ownership.graphql import GraphClient
from worker.ownership.schedule import Ownership
from worker.post import Post
from worker.publisher import RootPublisher
from worker.restart import KeptTask
from worker.rollouts import RolloutFollower
from worker.schedule import Job, Scheduler
from worker.sealer import Sealer
from worker.settings import WorkerSettings

# From SIGTERM: what is being sent may finish for this long, then it is cut and falls due after its lease.
# Less than the front door grants before it kills.
STOP_GRACE_S = 4.0
_Part: TypeAlias = (
    Notifier
    | Scheduler
    | DeadMan
    | Deliveries
    | LetterPost
    | RolloutFollower
    | Ownership
    | Sealer
    | RootPublisher
)

log = structlog.get_logger()


def wall_ms() -> int:
    """The worker's clock: unix milliseconds."""
    return time.time_ns() // 1_000_000


class Worker:
    """All parts of one worker process over its stores. `run` once."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        outbox: Outbox,
        sending: Sending,
        newsroom: Newsroom,
        live: LiveView,
        directory: Directory,
        letters: Letters | None = None,
        rollouts: Rollouts | None = None,
        inventory_sync: InventorySync | None = None,
        schedule: Schedule | None = None,
        jobs: Sequence[Job] = (),
        watermarks: Watermarks | None = None,
        shards: int = 1,
        sealer: Sealer | None = None,
        publisher: RootPublisher | None = None,
        now_ms: Callable[[], int] = wall_ms,
        public_url: str = "",
    ) -> None:
        """`public_url`: where people reach the web API, for links in mails.

        `letters` to `publisher`: of the control plane, where there is one."""
        self._settings = settings
        self._now_ms = now_ms
        self._post = Post(settings=settings, sending=sending, now_ms=now_ms, public_url=public_url)
        self._notifier = Notifier(
            outbox=outbox,
            newsroom=newsroom,
            live=live,
            policy=_policy(settings),
            now_ms=now_ms,
            batch_max=settings.notifier_batch_max,
            poll_s=settings.poll_ms / 1000,
            decided=self._post.wake,
        )
        self._letters = letters
        self._letter_post: LetterPost | None = None
        self._rollouts: RolloutFollower | None = None
        if rollouts is not None:
            self._rollouts = RolloutFollower(rollouts=rollouts, now_ms=now_ms, poll_s=settings.poll_ms / 1000)
        self._scheduler = None if schedule is None else _scheduler(schedule, jobs, now_ms)
        self._sealer = sealer
        self._publisher = publisher
        self._dead_man: DeadMan | None = None
        if watermarks is not None and settings.dead_man_url:
            self._dead_man = DeadMan(
                url=settings.dead_man_url,
                every_s=settings.dead_man_s,
                watermarks=watermarks,
                shards=shards,
                checks=self.ready,
                now_ms=now_ms,
            )
        self._inventory_sync = inventory_sync
        self._ownership: Ownership | None = None
        self._kept: list[KeptTask] = []

    async def run(self, *, listening: Callable[[str], None], stop: trio.Event) -> None:
        """Until `stop`, and then until what is being sent is done, at most STOP_GRACE_S."""
        async with AsyncExitStack() as stack:
            self._post.open()
            self._open_letters()
            await self._open_ownership(stack)
            async with trio.open_nursery() as nursery:
                host, port = await nursery.start(self._serve_metrics)
                self._keep("notifier", self._notifier.run, nursery)
                if self._scheduler is not None:
                    self._keep("schedule", self._scheduler.run, nursery)
                if self._rollouts is not None:
                    self._keep("rollouts", self._rollouts.run, nursery)
                if self._ownership is not None:
                    self._keep("ownership", self._ownership.run, nursery)
                if self._sealer is not None:
                    self._keep("sealer", self._sealer.run, nursery)
                if self._publisher is not None:
                    self._keep("publisher", self._publisher.run, nursery)
                sending = await nursery.start(self._run_deliveries)
                if self._dead_man is not None:
                    self._keep("dead man", self._dead_man.run, nursery)
                listening(f"{host}:{port}")
                await stop.wait()
                self._post.stop()
                if self._letter_post is not None:
                    self._letter_post.stop()
                with trio.move_on_after(STOP_GRACE_S):
                    await sending.wait()
                nursery.cancel_scope.cancel()

    def statistics(self) -> dict[str, Callable[[], Statistics]]:
        """Per part what `/metrics` shows."""

        def of(part: _Part) -> Callable[[], Statistics]:
            return lambda: msgspec.structs.asdict(part.statistics())

        parts = {"notifier": of(self._notifier)}
        parts |= {f"{kind}_deliveries": of(deliveries) for kind, deliveries in self._post.kinds.items()}
        if self._letter_post is not None:
            parts["letters"] = of(self._letter_post)
        if self._rollouts is not None:
            parts["rollouts"] = of(self._rollouts)
        if self._scheduler is not None:
            parts["schedule"] = of(self._scheduler)
        if self._dead_man is not None:
            parts["dead_man"] = of(self._dead_man)
        if self._ownership is not None:
            parts["ownership"] = of(self._ownership)
        if self._sealer is not None:
            parts["sealer"] = of(self._sealer)
        if self._publisher is not None:
            parts["publisher"] = of(self._publisher)
        return parts | {"worker": lambda: {"crashes_total": {task.name: task.crashes for task in self._kept}}}

    def live(self) -> Checks:
        """Alive as long as it answers: what crashes is started again by itself."""
        return {"worker": ""}

    def ready(self) -> Checks:
        """Postgres within reach, every task running. Redis is only a hint here."""
        away = self._notifier.statistics().store_away or any(
            deliveries.statistics().store_away for deliveries in self._post.kinds.values()
        )
        checks = {"postgres": "away" if away else ""}
        return checks | {task.name: "" if task.running else "not running" for task in self._kept}

    async def _open_ownership(self, stack: AsyncExitStack) -> None:
        if self._inventory_sync is None:
            return
        settings = self._settings.ownership
        client = GraphClient(keys=settings.keys_by_origin, timeout_s=settings.timeout_s, now_ms=self._now_ms)
        self._ownership = Ownership(
            sync=self._inventory_sync,
            client=await stack.enter_async_context(client),
            settings=settings,
            now_ms=self._now_ms,
            reported=lambda error, key: capture(error, task="ownership", collection_id=key),
        )

    def _open_letters(self) -> None:
        if self._letters is not None and self._post.mail_server is not None:
            self._letter_post = LetterPost(
                letters=self._letters,
                send=by_mail(self._post.mail_server),
                now_ms=self._now_ms,
                timeout_s=self._settings.delivery_timeout_s,
                poll_s=self._settings.poll_ms / 1000,
                crashed=_report_letter,
            )

    def _keep(self, name: str, run: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
        task = KeptTask(name, run, report=_report_task)
        self._kept.append(task)
        nursery.start_soon(task.run)

    async def _run_deliveries(self, task_status: trio.TaskStatus[trio.Event]) -> None:
        """Starts with the event that is set when all deliveries have stopped."""
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            for kind, deliveries in self._post.kinds.items():
                self._keep(f"{kind} deliveries", deliveries.run, nursery)
            if self._letter_post is not None:
                self._keep("letters", self._letter_post.run, nursery)
            task_status.started(done)
        done.set()

    async def _serve_metrics(self, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        registry = new_registry(self.statistics())
        for histogram in self._post.histograms:
            registry.register(histogram)
        await serve_metrics(
            host=self._settings.metrics_host,
            port=self._settings.metrics_port,
            registry=registry,
            live=self.live,
            ready=self.ready,
            task_status=task_status,
        )


def _policy(settings: WorkerSettings) -> Policy:
    return Policy(
        project_delay_ms=int(settings.notifier_project_delay_s * 1000),
        gather_ms_max=int(settings.notifier_gather_s * 1000),
        area_nodes_min=settings.notifier_area_nodes_min,
        area_percent_min=settings.notifier_area_percent_min,
    )


def _report_task(error: Exception, name: str) -> None:
    capture(error, task=name)


def _scheduler(schedule: Schedule, jobs: Sequence[Job], now_ms: Callable[[], int]) -> Scheduler:
    return Scheduler(
        schedule=schedule,
        jobs=jobs,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        now_ms=now_ms,
        crashed=_report_job,
    )


def _report_job(error: Exception, job: str) -> None:
    log.error("job.crashed", exc_info=error, job=job)
    capture(error, task="schedule", job=job)


def _report_letter(error: Exception, letter: Letter) -> None:
    log.error("sender.crashed", exc_info=error, channel_kind="letter", letter_id=letter.letter_id)
    capture(error, task="letters", letter_id=letter.letter_id)
