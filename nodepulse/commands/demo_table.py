"""What `demo` prints: where to look and what at, and a table of the fleet beside what NodePulse says."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from engine.core.records import NODE_STATES, Event
from nodepulse.config import Config
from nodepulse.demo_receiver import NoticeReceiver
from nodepulse.demo_story import DemoStory
from nodepulse.fleet import Fleet, Machine
from storage.open import AllStores

EVENTS_SHOWN = 8
LINES_WITH_ADVICE = 48  # of a terminal; on a smaller one the tables would be cut off
EVENTS_PAGE = 500
LOOK_FIRST = (
    "My nodes (operator): states change while you watch; choose one that fell, then 'why was I not paid'.",
    "Notifications (operator): what was told of it, and that it arrived.",
    "The project's network (owner): up and down by region and version, live.",
    "Day's close (owner): a day ends within a minute; edge-ai is paid by itself, commit grid-storage.",
    "Disputes (owner): one is open, and waits for your answer.",
    "Installation (admin): shards, outbox, schedule, audit log.",
    "/status/edge-ai (anybody): the public status page.",
)


class Watched:
    """What NodePulse says of these machines: states now, and events since this was made."""

    def __init__(self, stores: AllStores, config: Config, rows: Sequence[int], cursor: int) -> None:
        self._stores, self._config, self._rows, self._cursor = stores, config, rows, cursor
        self.began = time.monotonic()
        self.states: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.last: deque[Event] = deque(maxlen=EVENTS_SHOWN)

    @classmethod
    async def of(cls, stores: AllStores, config: Config, machines: Sequence[Machine]) -> Watched:
        found = [await stores.directory.node(machine.node_id) for machine in machines]
        cursor = 0
        while page := await stores.history.events(project_id=None, after=cursor, limit=EVENTS_PAGE):
            cursor = page[-1][0]
        return cls(stores, config, [node.row for node in found if node is not None], cursor)

    async def look(self) -> None:
        self.states = Counter([await self._state(row) for row in self._rows])
        for at, event in await self._stores.history.events(
            project_id=None, after=self._cursor, limit=EVENTS_PAGE
        ):
            self._cursor = at
            self.kinds[event.kind] += 1
            self.last.append(event)

    async def _state(self, row: int) -> str:
        found = await self._stores.live.read(row, shards=self._config.engine.shards)
        return "new" if found is None or found[1] is None else found[1].state


def words(story: DemoStory, *, advice: bool = True) -> str:
    """Where to look and by whom; with `advice`, what at first."""
    lines = [f"NodePulse is at {story.url}. Each link signs one person in, once:"]
    for link in story.links:
        lines += [f"  {link.who} ({link.sees})", f"    {link.url}"]
    if advice:
        lines += ["Look first at:", *(f"  - {line}" for line in LOOK_FIRST)]
    lines.append("Ctrl-C ends it and leaves nothing.")
    return "\n".join(lines)


def table(watched: Watched, fleet: Fleet | None, story: DemoStory | None, receiver: NoticeReceiver) -> Group:
    """The fleet beside what is said of it, and the newest events."""
    elapsed_s = time.monotonic() - watched.began
    doing = {} if fleet is None else fleet.statistics()
    beats = doing.get("beats", 0)
    left = Table("the fleet", "machines")
    for name in ("beating", "silent", "stopped"):
        left.add_row(name, str(doing.get(name, 0)))
    left.add_row("beats credited", f"{beats:,} ({beats / max(elapsed_s, 1):,.0f}/s)")
    right = Table("NodePulse says", "nodes")
    for state in NODE_STATES:
        right.add_row(state, str(watched.states[state]))
    both = Table.grid(padding=(0, 4))
    columns = [left, right]
    if story is not None:
        columns.append(_money(story, receiver))
    both.add_row(*columns)
    head = [Text(f"NodePulse demo, {elapsed_s:,.0f} s. Ctrl-C ends it.", style="bold")]
    if story is not None:
        advice = shutil.get_terminal_size().lines >= LINES_WITH_ADVICE
        head.append(Text(words(story, advice=advice), no_wrap=True, overflow="ignore"))
    return Group(*head, both, _events(watched))


def _money(story: DemoStory, receiver: NoticeReceiver) -> Table:
    shown = Table("days and notices", "")
    for paid in story.paid:
        shown.add_row(f"{paid.project} {paid.day}", f"sealed, paid {paid.points}")
    for slug, day in sorted(story.sealed - {(paid.project, paid.day) for paid in story.paid}):
        shown.add_row(f"{slug} {day}", "sealed, yours to commit")
    shown.add_row("notices delivered", str(receiver.kinds.total()))
    if story.trouble:
        shown.add_row("trouble", story.trouble)
    return shown


def _events(watched: Watched) -> Table:
    events = Table("at", "event", "node", "workloads", title="newest events", title_justify="left")
    for event in reversed(watched.last):
        at = time.strftime("%H:%M:%S", time.gmtime(event.at_ms / 1000))
        events.add_row(at, event.kind, event.node_id or "", str(len(event.workloads) or ""))
    return events
