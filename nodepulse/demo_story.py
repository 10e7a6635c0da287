"""What there is to see in a passing installation: people, projects, history, a day that is sealed and paid.

The network is seed.py's; here it gets people who look at it, somebody who pays, and a dispute. Payments and
the dispute go through the API with keys, as programs of others would do them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import trio

from engine.core.letters import LETTER_LIFE_MS
from engine.core.notices import NotificationSetting
from engine.core.people import Act
from nodepulse.client import Client, ClientError, types
from nodepulse.config import Config
from nodepulse.links import new_link
from nodepulse.readiness import reached_at
from nodepulse.seed import seed
from nodepulse.seed_network import OPERATORS, PEOPLE, Person
from storage.ids import new_id
from storage.open import AllStores

PROJECT, OTHER = "edge-ai", "grid-storage"
ADMIN = Person("Ada Stone", "ada@installation.example")
LOOK_S = 1.0
LINKS_S = LETTER_LIFE_MS / 1_000 / 3  # after which new ones are made; the older ones go on working
PAID_UNTIL = {OTHER: 2}  # days of which project are paid here at most: the next is the visitor's
COMPLAINT = "I was reachable all day: please look at this again."


class Link(NamedTuple):
    """Who is signed in once by it, and what they see."""

    who: str
    sees: str
    url: str


class Paid(NamedTuple):
    project: str
    day: str
    points: str


class DemoStory:
    """`prepare` it; then `links`, and `run` until cancelled. What it did stands in `sealed`, `paid`."""

    def __init__(self, stores: AllStores, config: Config, *, now_ms: Any) -> None:
        self._stores, self._config, self._now_ms = stores, config, now_ms
        self.url = f"http://{reached_at(config.web.host, config.web.port)}"
        self.links: tuple[Link, ...] = ()
        self.sealed: set[tuple[str, str]] = set()
        self.paid: list[Paid] = []
        self.disputed = False
        self.trouble = ""
        self._public = False
        self._keys: dict[str, str] = {}

    async def prepare(self, *, interval_ms: int, told_at: str) -> Sequence[dict[str, Any]]:
        """Make everything; the nodes as `admin provision` prints them. `told_at`: URL that notices go to."""
        made = await seed(
            self._stores,
            self._config,
            project=PROJECT,
            act=self._act(),
            interval_ms=interval_ms,
            told_at=told_at,
        )
        self._keys = {key["for"]: key["api_key"] for key in made["keys"]}
        accounts = self._stores.accounts
        await accounts.create_account(
            name=ADMIN.name, wallet=None, email=ADMIN.email, admin=True, act=self._act()
        )
        for operator in OPERATORS:
            [account] = await accounts.accounts(after=None, limit=1, email=operator.email)
            at_once = NotificationSetting(down_delay_s=0)
            await self._stores.notices.change_setting(account.user_id, at_once, act=self._act())
        await self.own(OTHER)
        nodes: Sequence[dict[str, Any]] = made["nodes"]
        await self._renew_links()
        return nodes

    async def own(self, slug: str) -> None:
        """Have the owner of the first project run this one, too."""
        project = await self._stores.directory.project(slug)
        [owner] = await self._stores.accounts.accounts(after=None, limit=1, email=PEOPLE[0].email)
        assert project is not None  # just made
        await self._stores.projects.add_owner(self._act(), project.project_id, owner.user_id)

    def _act(self) -> Act:
        return Act(actor="cli:demo", now_ms=self._now_ms(), request_id=f"demo-{new_id()}", made_id=new_id())

    async def run(self) -> None:
        """Pay what is sealed, dispute one day, and keep links that work."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_links)
            while True:
                try:
                    await trio.to_thread.run_sync(self._settle)
                    self.trouble = ""
                except ClientError as error:  # said, and looked at again
                    self.trouble = str(error)
                await trio.sleep(LOOK_S)

    async def _keep_links(self) -> None:
        while True:
            await trio.sleep(LINKS_S)
            await self._renew_links()

    async def _renew_links(self) -> None:
        links = []
        for person, sees in (
            (OPERATORS[0], "an operator: their machines, days, points, notices"),
            (PEOPLE[0], "a project's owner: the network, the day's close"),
            (ADMIN, "who runs the installation: shards, outbox, audit log"),
        ):
            url = await new_link(self._stores.sign_in, self._config, person.email, act=self._act())
            assert url is not None  # they were made above, and nobody retires them
            links.append(Link(person.name, sees, url))
        self.links = tuple(links)

    # -- in a thread: the client waits ----------------------------------------------------------------

    def _settle(self) -> None:
        for slug in (PROJECT, OTHER):
            with Client(self.url, self._keys[f"all of {slug}"]) as owner:
                for seal in reversed(owner.list_seals(slug).items):
                    self.sealed.add((slug, seal.day))
                self._pay(owner, slug)
        if not self._public:
            with Client(self.url, self._keys[f"all of {PROJECT}"]) as owner:
                owner.change_project(PROJECT, types.ProjectChange(public_status=True))
            self._public = True
        if not self.disputed and self.paid:
            self._dispute(self.paid[0].day)

    def _pay(self, owner: Client, slug: str) -> None:
        done = {one.day for one in self.paid if one.project == slug}
        due = sorted(day for project, day in self.sealed if project == slug)
        for day in due[: PAID_UNTIL.get(slug)]:
            if day not in done:
                made = owner.commit_suggested_points(
                    slug, types.PointsHeader(day=day), idempotency_key=f"demo-{slug}-{day}"
                )
                self.paid.append(Paid(slug, day, made.total_points))

    def _dispute(self, day: str) -> None:
        """An operator holds against a day that a workload of theirs was not paid for all of it."""
        with Client(self.url, self._keys[OPERATORS[0].name]) as operator:
            for workload in operator.list_workloads(limit=100).items:
                why = operator.get_why(workload.workload_id, day=day)
                if why.unpaid_ms:
                    said = types.OpenedDispute(day=day, text=COMPLAINT)
                    operator.open_dispute(
                        workload.workload_id, said, idempotency_key=f"demo-dispute-{workload.workload_id}"
                    )
                    self.disputed = True
                    return

    def statistics(self) -> dict[str, int]:
        return {"sealed": len(self.sealed), "paid": len(self.paid), "disputes": int(self.disputed)}
